//! What a peer says and does to a transport in software.

/// Lets a peer say any bytes on an established connection while the program does anything.
pub fn stream(bytes: &[u8]) {
    crate::transport::framed::fuzzed::stream(bytes);
}

/// Lets a peer scribble over all of the shared memory that it may write, at any moment.
pub fn ring(bytes: &[u8]) {
    crate::transport::shm::fuzzed::ring(bytes);
}

/// Lets a peer say anything, and give any descriptors, to who listens.
pub fn set_up(bytes: &[u8]) {
    crate::transport::shm::fuzzed_set_up::set_up(bytes);
}
