//! The header of each message of calls.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of a header.
pub(super) const HEADER: usize = size_of::<Header>();

/// Version 1, little endian. What the argument is depends on the kind.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Header {
    kind: u8,
    flags: u8,
    reserved: U16,
    argument: U32,
    call: U64,
}

/// What a message is. A payload follows where one is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Client: the value follows. Milliseconds that the client waits for the answer; 0 for ever.
    Request { remaining: u32 },
    /// Client: nobody waits for the answer any more.
    Cancel,
    /// Server: the value follows.
    Response,
    /// Server: the handler's error. Its text follows.
    Failed { code: u32 },
    /// Server: there will be no response. A text may follow.
    Refused(Refusal),
    /// Server: calls that it takes before it has answered one.
    Window { calls: u32 },
    /// Server: it has stopped. A text may follow.
    Gone,
}

/// Why a call has no response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The client has given the call up.
    Cancelled,
    /// The time that the client waits is over.
    OutOfTime,
    Panicked,
    /// The request is not the value that the handler takes.
    Undecodable,
    /// The handler's response cannot be encoded.
    Unencodable,
}

/// Who sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Client,
    Server,
}

/// A header, and which call it is about: 0 for none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) kind: Kind,
    pub(super) call: u64,
}

impl Frame {
    pub(super) fn to_bytes(self) -> [u8; HEADER] {
        let (kind, argument) = match self.kind {
            Kind::Request { remaining } => (1, remaining),
            Kind::Cancel => (2, 0),
            Kind::Response => (3, 0),
            Kind::Failed { code } => (4, code),
            Kind::Refused(refusal) => (5, refusal.to_number()),
            Kind::Window { calls } => (6, calls),
            Kind::Gone => (7, 0),
        };
        let (argument, call) = (argument.into(), self.call.into());
        zerocopy::transmute!(Header { kind, flags: 0, reserved: 0.into(), argument, call })
    }

    /// Reads the header of a message that the other side has sent; answers it and the payload. An error says what is
    /// wrong with it.
    pub(super) fn parse(message: &[u8], sender: Side) -> Result<(Self, &[u8]), &'static str> {
        let (header, payload) = Header::ref_from_prefix(message).map_err(|_| "a message too short for a call")?;
        if header.flags != 0 || header.reserved.get() != 0 {
            return Err("a message of a call with unknown flags");
        }
        let argument = header.argument.get();
        let (of, kind) = match header.kind {
            1 => (Side::Client, Kind::Request { remaining: argument }),
            2 => (Side::Client, Kind::Cancel),
            3 => (Side::Server, Kind::Response),
            4 => (Side::Server, Kind::Failed { code: argument }),
            5 => (Side::Server, Kind::Refused(Refusal::of_number(argument).ok_or("a refusal of unknown reason")?)),
            6 => (Side::Server, Kind::Window { calls: argument }),
            7 => (Side::Server, Kind::Gone),
            _ => return Err("a message of a call of unknown kind"),
        };
        if of != sender {
            return Err("a message of a call from the wrong side");
        }
        if matches!(kind, Kind::Cancel | Kind::Response | Kind::Gone) && argument != 0 {
            return Err("a message of a call with an argument that it does not have");
        }
        let call = header.call.get();
        if (call == 0) != matches!(kind, Kind::Window { .. } | Kind::Gone) {
            return Err("a message of a call about no call, or one about a call that is about none");
        }
        if matches!(kind, Kind::Cancel | Kind::Window { .. }) && !payload.is_empty() {
            return Err("a message of a call with a payload that it does not have");
        }
        Ok((Self { kind, call }, payload))
    }
}

impl Refusal {
    fn to_number(self) -> u32 {
        match self {
            Self::Undecodable => 1,
            Self::Panicked => 2,
            Self::OutOfTime => 3,
            Self::Unencodable => 4,
            Self::Cancelled => 5,
        }
    }

    fn of_number(number: u32) -> Option<Self> {
        let all = [Self::Undecodable, Self::Panicked, Self::OutOfTime, Self::Unencodable, Self::Cancelled];
        all.into_iter().find(|refusal| refusal.to_number() == number)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::protocol::vectors::vector;

    #[test]
    fn calls_are_as_documented() {
        let request = Frame { kind: Kind::Request { remaining: 1500 }, call: 1 };
        let value = vector("call request id=1 remaining=1500 value=05");
        assert_eq!([&request.to_bytes()[..], &[5]].concat(), value);
        let refused = Frame { kind: Kind::Refused(Refusal::OutOfTime), call: 1 };
        assert_eq!(refused.to_bytes()[..], vector("call refused id=1 reason=3"));
    }

    #[test]
    fn what_is_written_is_read() {
        for (kind, call, sender) in [
            (Kind::Request { remaining: 77 }, 1, Side::Client),
            (Kind::Cancel, u64::MAX, Side::Client),
            (Kind::Response, 3, Side::Server),
            (Kind::Failed { code: u32::MAX }, 4, Side::Server),
            (Kind::Refused(Refusal::Panicked), 5, Side::Server),
            (Kind::Refused(Refusal::Cancelled), 6, Side::Server),
            (Kind::Window { calls: 32 }, 0, Side::Server),
            (Kind::Gone, 0, Side::Server),
        ] {
            let frame = Frame { kind, call };
            assert_eq!(Frame::parse(&frame.to_bytes(), sender), Ok((frame, &b""[..])));
        }
        let request = Frame { kind: Kind::Request { remaining: 0x0102_0304 }, call: 5 };
        let message = [&request.to_bytes()[..], b"value"].concat();
        assert_eq!(message[..HEADER], [1, 0, 0, 0, 4, 3, 2, 1, 5, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(Frame::parse(&message, Side::Client), Ok((request, &b"value"[..])));
    }

    #[test]
    fn what_is_malformed_is_refused() {
        let valid = Frame { kind: Kind::Cancel, call: 1 }.to_bytes();
        for (at, byte) in [(0, 0), (0, 8), (0, 3), (1, 1), (2, 1), (4, 1), (8, 0)] {
            let mut hostile = valid;
            hostile[at] = byte;
            assert!(Frame::parse(&hostile, Side::Client).is_err(), "{at}: {byte}");
        }
        let refused = Frame { kind: Kind::Refused(Refusal::Panicked), call: 1 }.to_bytes();
        for number in [0, 6, 200] {
            let mut hostile = refused;
            hostile[4] = number;
            assert!(Frame::parse(&hostile, Side::Server).is_err(), "{number}");
        }
        assert!(Frame::parse(&[&valid[..], b"x"].concat(), Side::Client).is_err());
        assert!(Frame::parse(&valid[..15], Side::Client).is_err());
        assert!(Frame::parse(&Frame { kind: Kind::Gone, call: 1 }.to_bytes(), Side::Server).is_err());
    }

    proptest::proptest! {
        #[test]
        fn noise_never_panics(bytes: Vec<u8>) {
            let _ = Frame::parse(&bytes, Side::Client);
            let _ = Frame::parse(&bytes, Side::Server);
        }
    }
}
