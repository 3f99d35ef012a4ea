//! One operation after the other, both ends in one thread, for a program that counts instructions. What is counted is in
//! functions that are not inlined, so that they can be told apart by name.

use std::hint::black_box;
use std::time::Duration;

use serde_json::{Value, json};

use crate::tier::{INLINE, Place, Polled, Sizes, Tier, Work};

/// Bytes of a message; inline unless it says otherwise.
const SIZE: usize = 64;
/// Requests of a list.
const LIST: u32 = 16;

/// Functions that are counted. Each has a number, or the compiler would make one of those that do the same.
macro_rules! measured {
    ($($number:literal $name:ident($end:ident $(, $argument:ident: $kind:ty)?) $(-> $answer:ty)? $body:block)*) => {$(
        #[inline(never)]
        fn $name<T: Tier>($end: &mut T $(, $argument: $kind)?) $(-> $answer)? {
            black_box($number);
            $body
        }
    )*};
}

measured! {
    1 measured_post_inline(end, bytes: &[u8]) { end.post_inline(Work::Send, bytes, 1) }
    2 measured_post(end) { end.post(Work::Write, 1) }
    3 measured_post_list(end) { end.post_list(Work::Write, LIST) }
    4 measured_post_receive(end) { end.post_receive() }
    // On a queue that is known to be empty.
    5 measured_poll_empty(end) -> Polled { end.poll() }
    // Until a send request is done.
    6 measured_poll_send(end) -> Polled { end.poll() }
    // Until a list of requests is done.
    7 measured_poll_list(end) -> Polled { end.poll() }
    // Until a message is there.
    8 measured_poll_receive(end) -> Polled { end.poll() }
}

/// Makes `iterations` of each operation. Answers how often each way of polling was called for how many that found
/// something; what an empty look costs is then known from `poll_empty`.
pub(crate) fn run<T: Tier>(place: &Place, iterations: u32) -> Value {
    let sizes = Sizes { size: SIZE.max(INLINE as usize), sends: 64, receives: 64 };
    let (mut here, mut there) = (T::create(place, sizes), T::create(place, sizes));
    let (ours, theirs) = ((here.endpoint(), here.exposed()), (there.endpoint(), there.exposed()));
    here.connect(&theirs.0, theirs.1);
    there.connect(&ours.0, ours.1);
    for _ in 0..iterations {
        black_box(measured_poll_empty(&mut here));
    }
    let bytes = black_box([7; SIZE]);
    let (mut sends, mut receives, mut lists) = (0, 0, 0);
    for _ in 0..iterations {
        measured_post_receive(&mut there);
        measured_post_inline(&mut here, &bytes);
        receives += until(|| measured_poll_receive(&mut there).receives == 1);
        sends += until(|| measured_poll_send(&mut here).sends == 1);
    }
    for _ in 0..iterations {
        measured_post(&mut here);
        until(|| here.poll().sends == 1);
    }
    for _ in 0..iterations {
        measured_post_list(&mut here);
        lists += until(|| measured_poll_list(&mut here).sends == LIST);
    }
    json!({
        "iterations": iterations,
        "polls": { "poll_receive": receives, "poll_send": sends, "poll_list": lists },
    })
}

/// Looks until there is something, at first when it should be there; answers how often.
fn until(mut is_there: impl FnMut() -> bool) -> u64 {
    let mut looks = 1;
    std::thread::sleep(Duration::from_millis(10));
    while !is_there() {
        looks += 1;
        // A counted look is slow, and the device is software that wants the processor.
        std::thread::sleep(Duration::from_micros(100));
    }
    looks
}
