//! One operation at a time, as `ib_send_lat`, `ib_write_lat` and `ib_read_lat` do it.

use serde_json::{Value, json};

use crate::clock::{Unit, stamp};
use crate::link::{Server, serve};
use crate::tier::{INLINE, Place, Sizes, Tier, Work};

/// Of so many sends one has a completion, which frees the others' places too.
const SIGNAL: u32 = 32;
const SENDS: u32 = 128;
const RECEIVES: u32 = 128;

/// What the loops need.
struct Run<T> {
    end: T,
    payload: Vec<u8>,
    is_inline: bool,
    sent: u32,
}

impl<T: Tier> Run<T> {
    fn new(place: &Place, size: usize) -> Self {
        let end = T::create(place, Sizes { size, sends: SENDS, receives: RECEIVES });
        Self { end, payload: vec![0; size], is_inline: size <= INLINE as usize, sent: 0 }
    }

    #[inline]
    fn send(&mut self) {
        self.sent += 1;
        let completes = if self.sent.is_multiple_of(SIGNAL) { SIGNAL } else { 0 };
        match self.is_inline {
            true => self.end.post_inline(Work::Send, &self.payload, completes),
            false => self.end.post(Work::Send, completes),
        }
    }

    #[inline]
    fn receive(&mut self) {
        while self.end.poll().receives == 0 {}
        self.end.post_receive();
    }

    /// Writes `number` into the peer's mailbox, and waits until that is done.
    #[inline]
    fn write(&mut self, number: u8) {
        *self.payload.last_mut().expect("a byte") = number;
        self.end.post_inline(Work::Write, &self.payload, 1);
        while self.end.poll().sends == 0 {}
    }

    #[inline]
    fn wait_for(&mut self, number: u8) {
        while self.end.mailbox() != number {}
    }
}

/// The client's part; answers the figures, in nanoseconds.
pub(crate) fn client<T: Tier>(place: &Place, work: Work, size: usize, iterations: u32) -> Value {
    let mut run = Run::<T>::new(place, size);
    for _ in 0..RECEIVES {
        run.end.post_receive();
    }
    let unit = Unit::measure();
    let server = Server::start(&mut run.end);
    let mut stamps = Vec::with_capacity(iterations as usize + 1);
    for iteration in 0..iterations {
        stamps.push(stamp());
        match work {
            Work::Send => {
                run.send();
                run.receive();
            }
            Work::Write => {
                let number = iteration.wrapping_add(1) as u8;
                run.write(number);
                run.wait_for(number);
            }
            Work::Read => {
                run.end.post(Work::Read, 1);
                while run.end.poll().sends == 0 {}
            }
        }
    }
    stamps.push(stamp());
    server.end();
    // A read has no way back.
    let ways = if work == Work::Read { 1.0 } else { 2.0 };
    let mut times: Vec<f64> = stamps.windows(2).map(|pair| unit.nanoseconds(pair[1] - pair[0]) / ways).collect();
    times.sort_by(f64::total_cmp);
    let percentile = |share: f64| times[((times.len() - 1) as f64 * share) as usize].round();
    let [min, p50, p99, max] = [0.0, 0.5, 0.99, 1.0].map(percentile);
    json!({ "iterations": iterations, "half_round_trip_ns": { "min": min, "p50": p50, "p99": p99, "max": max } })
}

/// The server's part, until its client is content.
pub(crate) fn server<T: Tier>(place: &Place, work: Work, size: usize, iterations: u32) -> ! {
    let mut run = Run::<T>::new(place, size);
    for _ in 0..RECEIVES {
        run.end.post_receive();
    }
    serve(&mut run.end, |_| ());
    for iteration in 0..iterations {
        match work {
            Work::Send => {
                run.receive();
                run.send();
            }
            Work::Write => {
                let number = iteration.wrapping_add(1) as u8;
                run.wait_for(number);
                run.write(number);
            }
            Work::Read => break,
        }
    } // The queue pair stays: its last answer is on the way, or its memory is being read.
    loop {
        std::thread::park();
    }
}
