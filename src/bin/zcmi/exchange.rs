//! What `zcmi serve` and `zcmi doctor HOST` say to each other. The server sends a handle, then echoes messages.

use std::time::Duration;

/// Where `serve` listens, and the port that `doctor` asks at.
pub(crate) const DEFAULT_ADDRESS: &str = "auto://0.0.0.0:7471";
pub(crate) const DEFAULT_PORT: u16 = 7471;

/// What the client says when it connects; the number is of this exchange.
pub(crate) const HELLO: &[u8] = b"zcmi doctor 1";

/// Bytes of memory that the server grants: first those that are written and read, then a counter. More than any packet, so that
/// those of all sizes are tried.
pub(crate) const DATA: usize = 64 * 1024;
pub(crate) const MEMORY: usize = DATA + size_of::<u64>();

/// Longest message that is echoed.
pub(crate) const MOST_ECHO: usize = 4096;

/// How long a client may take, of which one step is a part.
pub(crate) const CLIENT_BOUND: Duration = Duration::from_secs(60);
pub(crate) const STEP_BOUND: Duration = Duration::from_secs(8);

/// Bytes that no memory happens to have.
pub(crate) fn pattern(length: usize) -> Vec<u8> {
    let byte = |offset: usize| ((offset as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8;
    (0..length).map(byte).collect()
}
