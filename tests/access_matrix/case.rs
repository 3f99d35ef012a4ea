//! The dimensions of the access matrix, and what must come of each case.

use zcmi::{Access, ErrorKind};

use crate::holder::Holder;
use crate::owner::GRANTED;

/// Bytes of a read or write of the matrix.
pub(crate) const LENGTH: u64 = 24;

/// All that can be granted.
pub(crate) fn rights() -> [Access; 7] {
    let (read, write, atomic) = (Access::READ, Access::WRITE, Access::ATOMIC);
    [read, write, atomic, read | write, read | atomic, write | atomic, Access::ALL]
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    CompareSwap,
    FetchAdd,
    Read,
    Write,
}

impl Op {
    pub(crate) const ALL: [Self; 4] = [Self::CompareSwap, Self::FetchAdd, Self::Read, Self::Write];

    pub(crate) fn is_atomic(self) -> bool {
        matches!(self, Self::CompareSwap | Self::FetchAdd)
    }

    fn needs(self) -> Access {
        match self {
            Self::CompareSwap | Self::FetchAdd => Access::ATOMIC,
            Self::Read => Access::READ,
            Self::Write => Access::WRITE,
        }
    }

    /// What the library calls it in an error: the operation, or the step before it that finds the place.
    pub(crate) fn names(self) -> [&'static str; 2] {
        match self {
            Self::CompareSwap => ["compare and swap", "at"],
            Self::FetchAdd => ["fetch and add", "at"],
            Self::Read => ["read", "slice"],
            Self::Write => ["write", "slice"],
        }
    }
}

/// One operation, as the owner tells the holder to do it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request {
    pub(crate) op: Op,
    /// From the first granted byte on; before it if negative.
    pub(crate) offset: i64,
    pub(crate) length: u64,
    /// Seed of what is written, what is added, or what is swapped in.
    pub(crate) value: u64,
    pub(crate) compare: u64,
}

impl Request {
    pub(crate) fn to_line(self) -> String {
        format!("{:?} {} {} {} {}", self.op, self.offset, self.length, self.value, self.compare)
    }

    pub(crate) fn parse(words: &[&str]) -> Self {
        let op = Op::ALL.into_iter().find(|op| format!("{op:?}") == words[0]).expect("an operation");
        let number = |index: usize| words[index].parse().expect("a number");
        let offset = words[1].parse().expect("an offset");
        Self { op, offset, length: number(2), value: number(3), compare: number(4) }
    }
}

/// Where an operation goes, seen from the granted bytes. Their first is a word's first; behind their last word there are
/// four more, so that a word can straddle the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// All behind the last byte, beginning with the next.
    Behind,
    /// All before the first byte, ending with the last before.
    Before,
    /// Inside, at no word's first byte.
    BetweenWords,
    First,
    Last,
    Middle,
    /// In the next page of the same exposed memory.
    NextPage,
    PreviousPage,
    StraddlesEnd,
    StraddlesStart,
    /// The exposed memory from its first to its last byte.
    WholeMemory,
}

impl Place {
    pub(crate) fn offset(self, op: Op) -> i64 {
        let (length, granted) = (Self::length_of(op) as i64, GRANTED.len() as i64);
        let up = |offset: i64| if op.is_atomic() { (offset + 7) / 8 * 8 } else { offset };
        let down = |offset: i64| if op.is_atomic() { offset / 8 * 8 } else { offset };
        match self {
            Self::Behind => up(granted),
            Self::Before => -length,
            Self::BetweenWords => 21,
            Self::First => 0,
            Self::Last => down(granted - length),
            Self::Middle => 16,
            Self::NextPage => 4096,
            Self::PreviousPage => -4096,
            Self::StraddlesEnd => up(granted - length / 2 - 1),
            Self::StraddlesStart => -(length / 2),
            Self::WholeMemory => -(GRANTED.start as i64),
        }
    }

    pub(crate) fn length(self, op: Op) -> u64 {
        match self {
            Self::WholeMemory => crate::owner::LENGTH as u64,
            _ => Self::length_of(op),
        }
    }

    fn length_of(op: Op) -> u64 {
        if op.is_atomic() { 8 } else { LENGTH }
    }
}

/// Who uses the handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Via {
    /// The connection it was granted for, or, where it is the domain's, the one it was sent on.
    Grantee,
    /// A connection of the grantee's process to another process, which has granted other memory.
    OtherOwner,
    /// A connection of another process.
    OtherProcess,
    /// Another connection of the grantee's process.
    SameProcess,
}

impl Via {
    pub(crate) const ALL: [Self; 4] = [Self::Grantee, Self::OtherOwner, Self::OtherProcess, Self::SameProcess];

    pub(crate) fn name(self) -> String {
        format!("{self:?}")
    }

    /// The process of it.
    pub(crate) fn of<'a>(self, near: &'a mut Holder, far: &'a mut Holder) -> &'a mut Holder {
        if self == Self::OtherProcess { far } else { near }
    }
}

/// Whom a grant is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    Connection,
    Domain,
}

/// What has happened to the grant before its handle is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Its lease is over.
    Expired,
    Live,
    /// Revoked, and its slot or its window has another grant, of the same bytes and rights.
    Reused,
    Revoked,
}

impl State {
    /// Those that a grant can be in: the domain's have no lease.
    pub(crate) fn all(scope: Scope) -> &'static [Self] {
        match scope {
            Scope::Connection => &[Self::Live, Self::Revoked, Self::Expired, Self::Reused],
            Scope::Domain => &[Self::Live, Self::Revoked, Self::Reused],
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    pub(crate) scope: Scope,
    pub(crate) right: Access,
    pub(crate) state: State,
    pub(crate) via: Via,
    pub(crate) op: Op,
    pub(crate) place: Place,
}

impl Case {
    /// All that is wrong with it; if that is nothing, it must work. Which of several the library names is left to it.
    pub(crate) fn reasons(&self) -> Vec<ErrorKind> {
        let (start, length) = (self.place.offset(self.op), self.place.length(self.op) as i64);
        let is_foreign = match self.scope {
            Scope::Connection => self.via != Via::Grantee,
            Scope::Domain => self.via == Via::OtherOwner,
        };
        let wrong = [
            (is_foreign, ErrorKind::Foreign),
            (!self.right.contains(self.op.needs()), ErrorKind::AccessDenied),
            (start < 0 || start + length > GRANTED.len() as i64, ErrorKind::OutOfBounds),
            (self.op.is_atomic() && start % 8 != 0, ErrorKind::Misaligned),
            (self.state != State::Live, ErrorKind::Revoked),
        ];
        wrong.into_iter().filter(|(is_so, _)| *is_so).map(|(_, kind)| kind).collect()
    }
}
