//! Reads of long messages that are on their way.

use std::time::Instant;

use super::later_span::LaterSpan;
use crate::protocol::GrantId;

/// Tokens of fetches have these upper bits.
const FETCH: u64 = 0x4000_0001 << 32;

/// The fetches of one connection, and how many reads and atomics may be outstanding on it.
#[derive(Debug, Default)]
pub(super) struct Fetches {
    table: Vec<Option<(Fetch, LaterSpan)>>,
    /// Reads and atomics that are posted, fetches and those of the application.
    pub(super) outstanding: usize,
    pub(super) limit: usize,
    /// Bytes of all that is posted: fetches, and operations of the application.
    pub(super) bytes: u64,
}

/// What a fetch is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fetch {
    /// Index of the channel.
    pub(super) channel: usize,
    /// Serial of the message there.
    pub(super) serial: u64,
    pub(super) grant: GrantId,
    pub(super) bytes: u64,
    /// When it was begun, as the connections were last looked at.
    pub(super) at: Instant,
}

impl Fetches {
    /// Whether another read may be posted: one more than the device carries would hold up everything behind it.
    pub(super) fn has_room(&self) -> bool {
        self.outstanding < self.limit
    }

    /// Those on their way.
    pub(super) fn all(&self) -> impl Iterator<Item = &Fetch> {
        self.table.iter().flatten().map(|(fetch, _)| fetch)
    }

    /// Places for fetches that there are, for tests.
    #[cfg(all(any(test, feature = "internals"), not(loom)))]
    pub(super) fn places(&self) -> usize {
        self.table.len()
    }

    /// Notes a fetch; answers the token of its request.
    pub(super) fn begin(&mut self, fetch: Fetch) -> u64 {
        self.outstanding += 1;
        self.bytes += fetch.bytes;
        let index = self.table.iter().position(Option::is_none).unwrap_or_else(|| {
            self.table.push(None);
            self.table.len() - 1
        });
        self.table[index] = Some((fetch, LaterSpan::default()));
        FETCH | index as u64
    }

    /// The fetch of `token` is posted, and `span` tells of it.
    pub(super) fn posted(&mut self, token: u64, span: LaterSpan) {
        if let Some(Some(entry)) = self.table.get_mut(token as u32 as usize) {
            entry.1 = span;
        }
    }

    /// The fetch of `token` has ended, or was not posted.
    pub(super) fn end(&mut self, token: u64) -> Option<(Fetch, LaterSpan)> {
        let (fetch, span) = self.table.get_mut(token as u32 as usize)?.take()?;
        self.outstanding -= 1;
        self.bytes -= fetch.bytes;
        Some((fetch, span))
    }
}

/// Whether a token is of a fetch.
pub(super) fn is_fetch(token: u64) -> bool {
    token >> 32 == FETCH >> 32
}

#[cfg(test)]
mod tests {
    use super::super::link_grants::{GrantToken, parse_request, request_token};
    use super::*;
    use crate::protocol::Scope;

    #[test]
    fn fetches_end_once_and_their_tokens_are_told_apart() {
        let (mut fetches, at) = (Fetches { limit: 2, ..Default::default() }, Instant::now());
        let grant = GrantId { scope: Scope::Connection, slot: 1, generation: 2 };
        let first = fetches.begin(Fetch { channel: 0, serial: 7, grant, bytes: 1, at });
        assert!(fetches.has_room());
        let second = fetches.begin(Fetch { channel: 3, serial: 8, grant, bytes: 2, at });
        assert!(!fetches.has_room());
        assert!(is_fetch(first) && is_fetch(second) && first != second);
        assert!(GrantToken::parse(first).is_none() && parse_request(first).is_none());
        assert!(!is_fetch(request_token(1)) && !is_fetch(u64::MAX) && !is_fetch(5 << 32));
        assert_eq!(fetches.end(first).map(|(fetch, _)| fetch.serial), Some(7));
        assert!(fetches.end(first).is_none());
        assert_eq!(fetches.bytes, 2);
        assert!(fetches.has_room());
    }
}
