//! Many operations at a time, as `ib_send_bw`, `ib_write_bw` and `ib_read_bw` do it.

use serde_json::{Value, json};

use crate::clock::{Unit, stamp};
use crate::link::{Server, serve};
use crate::tier::{Place, Sizes, Tier, Work};

/// Requests that are outstanding at most, and receives that are posted: perftest's depths.
const DEPTH: u32 = 128;
const RECEIVES: u32 = 512;
/// Smaller messages have a completion only every so often.
const LARGE: usize = 8192;
const SIGNAL: u32 = 64;

fn sizes(size: usize, work: Work) -> Sizes {
    Sizes { size, sends: DEPTH, receives: if work == Work::Send { RECEIVES } else { 1 } }
}

/// The client's part; answers the figures.
pub(crate) fn client<T: Tier>(place: &Place, work: Work, size: usize, list: u32, iterations: u32) -> Value {
    let mut end = T::create(place, sizes(size, work));
    let unit = Unit::measure();
    let server = Server::start(&mut end);
    // Whole lists, or whole spans between two completions.
    let span = match list {
        1 if size > LARGE => 1,
        1 => SIGNAL,
        list => list,
    };
    let iterations = iterations.next_multiple_of(span);
    let (mut posted, mut done) = (0, 0);
    let begun = stamp();
    while done < iterations {
        while posted < iterations && posted + list - done <= DEPTH {
            if list == 1 {
                end.post(work, if (posted + 1).is_multiple_of(span) { span } else { 0 });
            } else {
                end.post_list(work, list);
            }
            posted += list;
        }
        done += end.poll().sends;
    }
    let seconds = unit.nanoseconds(stamp() - begun) / 1e9;
    server.end();
    let rate = f64::from(iterations) / seconds;
    json!({
        "iterations": iterations, "depth": DEPTH, "list": list,
        "bytes_per_second": (rate * size as f64).round(), "messages_per_second": rate.round(),
    })
}

/// The server's part, until its client is content.
pub(crate) fn server<T: Tier>(place: &Place, work: Work, size: usize) -> ! {
    let mut end = T::create(place, sizes(size, work));
    serve(&mut end, |end| {
        if work == Work::Send {
            (0..RECEIVES).for_each(|_| end.post_receive());
        }
    });
    // Until the input ends.
    loop {
        if work != Work::Send {
            std::thread::park();
            continue;
        }
        for _ in 0..end.poll().receives {
            end.post_receive();
        }
    }
}
