//! The end of a channel: what says why is still written, if the peer takes it.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::access::Accesses;
use super::channel::Channel;

/// How long the peer has for that.
const PATIENCE: Duration = Duration::from_millis(100);

/// Ends the stream of a channel that was taken out of its queue. May wait.
pub(super) fn end(mut channel: Box<Channel>, accesses: &Accesses) {
    let deadline = Instant::now() + PATIENCE;
    while channel.has_last_words() && channel.write(accesses).is_ok() && channel.has_last_words() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        let left = Timespec { tv_sec: 0, tv_nsec: i64::from(left.subsec_nanos()) };
        let _ = poll(&mut [PollFd::new(&channel.socket, PollFlags::OUT)], Some(&left));
    }
    channel.socket.has_last_words.store(false, Ordering::Release);
    channel.socket.shut();
}
