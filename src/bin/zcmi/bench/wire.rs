//! What `zcmi bench` and the other end say to each other on the channel that carries the data too: commands and replies are JSON, which begins with a
//! brace; data never does. Each command has one reply.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// What the measuring end says when it connects, before the secret of the peer process, if it was given one. The number is of this exchange.
pub(crate) const HELLO: &[u8] = b"zcmi bench 1";

/// Bytes of memory that are granted at most, and of a message.
pub(crate) const MOST_MEMORY: usize = 256 << 20;

/// How long the other end may take for a whole bench, and how long it may say nothing.
pub(crate) const BENCH_BOUND: std::time::Duration = std::time::Duration::from_secs(2 * 3600);
pub(crate) const SILENCE_BOUND: std::time::Duration = std::time::Duration::from_secs(900);

/// What the other end is to do.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Command {
    /// Wait for the next command as the settings say, so that what this process has to serve meanwhile is served.
    Attend,
    /// Compare the granted memory with the pattern of `seed`.
    Check { seed: u64 },
    /// Tell the first word of the granted memory.
    Count,
    /// Send each message back until the next command; handing the buffers over, or sending.
    Echo { hand_over: bool },
    /// Ends an echo or a sink.
    End,
    /// Put the pattern of `seed` into the granted memory.
    Fill { seed: u64 },
    /// Grant memory, instead of what was granted before.
    Grant { bytes: usize },
    /// Say who you are.
    Hello,
    /// Receive messages until the next command, and answer each `group` of them with an empty one. The first and the last have the pattern of `seed`.
    Sink { group: u32, size: usize, seed: u64 },
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Reply {
    /// Of a command that has nothing to tell.
    Done,
    Granted {
        handle: Vec<u8>,
    },
    Hello {
        zcmi: String,
        polling: String,
    },
    /// It cannot be done.
    Refused {
        why: String,
    },
    /// What a sink has received, and whether it was right.
    Sunk {
        messages: u64,
        is_right: bool,
    },
    /// Whether the memory has the pattern.
    Right {
        is_right: bool,
    },
    Word {
        word: u64,
    },
}

pub(crate) fn encode(value: &impl Serialize) -> Vec<u8> {
    // Of these types it does not fail.
    serde_json::to_vec(value).unwrap_or_default()
}

/// A command or reply, if `message` is one.
pub(crate) fn decode<T: DeserializeOwned>(message: &[u8]) -> Option<T> {
    serde_json::from_slice(message).ok()
}

/// Whether a message is a command, not data.
pub(crate) fn is_command(message: &[u8]) -> bool {
    message.first() == Some(&b'{')
}

/// Fills `bytes` with what no memory happens to have, other bytes for each seed. The first is never a brace.
pub(crate) fn fill(bytes: &mut [u8], seed: u64) {
    for (offset, chunk) in bytes.chunks_mut(8).enumerate() {
        chunk.copy_from_slice(&word(offset, seed)[..chunk.len()]);
    }
    if let Some(first) = bytes.first_mut() {
        *first &= 0x3f;
    }
}

/// Whether `bytes` are what [`fill`] makes.
pub(crate) fn is_filled(bytes: &[u8], seed: u64) -> bool {
    let first = |expected: [u8; 8]| expected[0] & 0x3f;
    bytes.chunks(8).enumerate().all(|(offset, chunk)| {
        let mut expected = word(offset, seed);
        if offset == 0 {
            expected[0] = first(expected);
        }
        *chunk == expected[..chunk.len()]
    })
}

fn word(offset: usize, seed: u64) -> [u8; 8] {
    (offset as u64 + 1)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .rotate_left(29)
        .wrapping_add(seed.wrapping_mul(0xd1b5_4a32_d192_ed03))
        .to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_no_command_and_a_wrong_byte_is_seen() {
        for seed in 0..300 {
            for size in [0, 1, 7, 8, 9, 64, 1000] {
                let mut bytes = vec![0; size];
                fill(&mut bytes, seed);
                assert!(!is_command(&bytes) && is_filled(&bytes, seed));
                assert!(size < 8 || !is_filled(&bytes, seed + 1), "{size} {seed}");
                for at in [0, size / 2, size.saturating_sub(1)].into_iter().filter(|&at| at < size) {
                    bytes[at] ^= 1;
                    assert!(!is_filled(&bytes, seed), "{at} of {size}");
                    bytes[at] ^= 1;
                }
            }
        }
    }

    #[test]
    fn commands_are_told_from_data_and_strange_ones_are_none() {
        let bytes = encode(&Command::Sink { group: 1, size: 2, seed: 3 });
        assert!(is_command(&bytes));
        assert!(matches!(decode(&bytes), Some(Command::Sink { group: 1, size: 2, seed: 3 })));
        for strange in [
            &b"{"[..],
            b"{}",
            b"{\"do\":\"rm\"}",
            b"{\"do\":\"grant\",\"bytes\":-1}",
            b"{\"do\":\"hello\",\"x\":1}\xff",
        ] {
            assert!(decode::<Command>(strange).is_none());
        }
    }
}
