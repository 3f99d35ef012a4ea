//! What the fuzzers of the transports in software begin with.

/// Steps of `crate::transport::framed::fuzzed`, in its terms.
mod step {
    /// Of 100 bytes.
    pub(super) const RECEIVE: &[u8] = &[13, 5];
    pub(super) const BLOCK: &[u8] = &[10, 0, 0];
    pub(super) const SOME_ROOM: &[u8] = &[11, 1];
    pub(super) const UNBLOCK: &[u8] = &[12];
    /// 100 bytes; 20,000; a read, an atomic operation; a probe.
    pub(super) const POST_SEND: &[u8] = &[15, 0, 0, 5, 0];
    pub(super) const POST_LONG: &[u8] = &[15, 0, 1, 12, 0];
    pub(super) const POST_READ: &[u8] = &[15, 0, 3, 5, 0];
    pub(super) const POST_LONG_READ: &[u8] = &[15, 0, 3, 12, 0];
    pub(super) const POST_ATOMIC: &[u8] = &[15, 0, 4, 0];
    pub(super) const POST_PROBE: &[u8] = &[15, 0, 6, 0];
    pub(super) const OPEN: &[u8] = &[18];
    pub(super) const CLOSE: &[u8] = &[19, 0];
    pub(super) const LATER: &[u8] = &[20];
    pub(super) const FAIL: &[u8] = &[22, 0xff];
    pub(super) const SLEEP: &[u8] = &[23];
    /// Of the peer: a message, one that is too long, all that is done, more than that, an answer, the first half of one, a word.
    pub(super) const MESSAGE: &[u8] = &[0, 2, 3, 0, 0];
    pub(super) const TOO_LONG: &[u8] = &[0, 2, 7, 0, 0];
    pub(super) const DONE: &[u8] = &[0, 0, 0xc0];
    pub(super) const MORE_THAN_ALL: &[u8] = &[0, 0, 0xd0];
    pub(super) const ANSWER: &[u8] = &[0, 11, 0, 0x80, 0];
    pub(super) const HALF: &[u8] = &[0, 11, 0xff, 0x80, 0];
    pub(super) const WORD: &[u8] = &[0, 14, 1, 2, 3, 4, 5, 6, 7, 8, 0x80];
    pub(super) const WRITE: &[u8] = &[0, 4, 0, 1, 5, 0, 0];
    pub(super) const HALF_A_WRITE: &[u8] = &[0, 4, 0, 0, 13, 0, 0xff];
    pub(super) const WRITE_BEHIND: &[u8] = &[0, 4, 0, 1, 13, 0, 0];
    pub(super) const NOTIFY: &[u8] = &[0, 6, 0, 1, 5, 9, 0, 0];
    pub(super) const READ: &[u8] = &[0, 7, 2, 1, 12, 0];
    pub(super) const ADD: &[u8] = &[0, 9, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0];
    pub(super) const SWAP: &[u8] = &[0, 10, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0];
    pub(super) const PROBE: &[u8] = &[0, 1, 0];
    pub(super) const REFUSE: &[u8] = &[0, 15, 0, 0];
    pub(super) const GO: &[u8] = &[21, 0xff];
}

/// A connection that is read whole, or by few bytes at once, and what happens on it.
fn stream(reads: u8, steps: &[&[u8]]) -> Vec<u8> {
    [&[reads, 0][..], &steps.concat()].concat()
}

/// All of them: target, name, bytes.
pub(super) fn seeds() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    use step::*;
    // A good peer that shows 50 bytes, of which we receive 30, and then what has come; at no other moment it does anything.
    let quiet = 11;
    let shows = [7, 0, 0, 100, 0, 50, 0];
    let receives = |count: u8| [0, count, 0, quiet, quiet];
    let puts = |count: u8| [quiet, 2, count, 0];
    vec![
        ("stream", "messages", stream(0, &[RECEIVE, MESSAGE, MESSAGE, RECEIVE, POST_SEND, DONE, PROBE, TOO_LONG])),
        ("stream", "answers", stream(5, &[POST_READ, ANSWER, POST_ATOMIC, WORD, POST_READ, POST_PROBE, HALF, ANSWER])),
        (
            "stream",
            "long",
            stream(1, &[POST_LONG, POST_LONG_READ, HALF, ANSWER, DONE, HALF_A_WRITE, CLOSE, OPEN, PROBE]),
        ),
        ("stream", "accesses", stream(3, &[WRITE, READ, ADD, SWAP, RECEIVE, NOTIFY, CLOSE, WRITE, READ])),
        ("stream", "outside", stream(0, &[READ, WRITE_BEHIND])),
        ("stream", "more-than-all", stream(0, &[POST_PROBE, DONE, MORE_THAN_ALL])),
        ("stream", "blocked", stream(0, &[BLOCK, POST_LONG, READ, SOME_ROOM, ADD, CLOSE, UNBLOCK, DONE, SLEEP])),
        ("stream", "stalled", stream(2, &[MESSAGE, PROBE, RECEIVE, MESSAGE, WRITE, LATER])),
        ("stream", "refused", stream(0, &[POST_SEND, POST_READ, REFUSE, POST_SEND])),
        ("stream", "gone", stream(0, &[POST_READ, RECEIVE, MESSAGE, GO, POST_SEND])),
        ("stream", "failed", stream(0, &[BLOCK, POST_SEND, READ, FAIL, POST_SEND])),
        ("ring", "bytes", [&shows[..], &receives(30), &[quiet], &receives(100), &puts(60), &[quiet, 4, 0, 0]].concat()),
        ("ring", "nonsense", [&[1, 0, 0, 0, 0, 0, 0, 0, 1][..], &receives(30), &puts(200), &puts(200)].concat()),
        (
            "ring",
            "dozes",
            [quiet, 6, 3, 0, quiet, quiet, quiet, 7, 1, 16, quiet, 7, 2, 16, 4, 7, 0, 0, 0, 0, 0, 0, 0].into(),
        ),
        ("set_up", "request", vec![4, 0, 63, 2, 0]),
        ("set_up", "parts", vec![30, 0, 5, 0, 20, 2, 1, 63, 0]),
        ("set_up", "not-for-writing", vec![4, 0, 63, 2, 4]),
        ("set_up", "not-against-less", vec![4, 0, 63, 2, 5]),
        ("set_up", "not-against-more", vec![4, 0, 63, 2, 6]),
        ("set_up", "not-for-ever", vec![4, 0, 63, 2, 7]),
        ("set_up", "many", vec![4, 0, 3, 7, 0, 1, 2, 3, 4, 5, 63, 0]),
        ("set_up", "other", vec![4, 0xff, 1, 0x20, 63, 2, 0]),
    ]
}
