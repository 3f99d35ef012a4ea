//! What both ends call a connection.

use std::fmt;

use serde::{Serialize, Serializer};

/// Names a connection, the same at both ends: 64 bits made of what both have sent when they introduced themselves, so that no two
/// connections of a fleet are likely to share one. It is written as 16 hexadecimal digits. It opens nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(u64);

impl ConnectionId {
    pub(crate) fn new(session: u64) -> Self {
        Self(session)
    }

    /// As a number.
    pub fn to_u64(self) -> u64 {
        self.0
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// As text: in JSON many a reader would round the number.
impl Serialize for ConnectionId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_written_in_full() {
        let id = ConnectionId::new(0xab);
        assert_eq!(id.to_string(), "00000000000000ab");
        assert_eq!(serde_json::to_string(&id).expect("text"), "\"00000000000000ab\"");
    }
}
