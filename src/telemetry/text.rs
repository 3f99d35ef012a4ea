//! A snapshot as a page for a person.

use std::fmt;
use std::time::Duration;

use super::operations::OperationKind;
use super::snapshot::{ChannelSnapshot, ConnectionSnapshot, ConnectionState};

impl fmt::Display for ConnectionState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Broken => "broken",
            Self::Closed => "closed",
            Self::Finishing => "finishing",
            Self::Finished => "finished",
            Self::Inherited => "inherited: it is of the parent process",
            Self::Open => "open",
        })
    }
}

impl fmt::Display for ConnectionSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { connection, state, transport, device, peer, .. } = self;
        write!(f, "connection {connection} to {} by {transport}", Line(peer))?;
        // Where there is none, it is the transport's name.
        if device != transport {
            write!(f, " ({device})")?;
        }
        writeln!(f, ": {state}")?;
        if let Some(ending) = &self.ending {
            writeln!(f, "  ended: {}", Line(&ending.error))?;
        }
        writeln!(f, "  set up {} ago, nothing heard for {}", Time(self.age), Time(self.silence))?;
        let credits = self.credits;
        write!(f, "  credits: {} to send; the peer has {}, ", credits.available, credits.granted)?;
        writeln!(f, "of which {} are to be given back", credits.owed)?;
        write!(f, "  sending: {} bytes unsent, {} frames in flight, ", self.unsent_bytes, self.frames_in_flight)?;
        writeln!(f, "{} messages unacknowledged, {} tasks waiting", self.unacknowledged, self.waiting_to_send)?;
        write!(f, "  reads and atomics: {} of {}; ", self.reads.used, self.reads.limit)?;
        writeln!(f, "notifications not looked at: {}", self.notifications)?;
        self.write_channels(f)?;
        self.write_operations(f)?;
        self.write_grants(f)
    }
}

impl ConnectionSnapshot {
    fn write_channels(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for channel in &self.channels {
            let (send, receive) = (channel.send, channel.receive);
            write!(f, "  channel {}: sent {} of {}, ", channel.channel, send.used, send.limit)?;
            write!(f, "to receive {} of {} in {} messages, ", receive.used, receive.limit, channel.messages)?;
            write!(f, "{} tasks waiting", channel.waiting_to_receive)?;
            f.write_str(if channel.is_finished { ", finished here" } else { "" })?;
            f.write_str(if channel.is_peer_finished { ", finished there" } else { "" })?;
            writeln!(f)?;
        }
        more(f, "channels", self.channels.len(), self.channels_total)
    }

    fn write_operations(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for operation in &self.operations {
            write!(f, "  {} of {} bytes for {}", operation.kind, operation.length, Time(operation.age))?;
            if let Some(grant) = operation.grant {
                let whose = if operation.kind == OperationKind::Offer { "our" } else { "the peer's" };
                write!(f, ", {whose} grant {grant}")?;
            }
            if let Some(channel) = operation.channel {
                write!(f, ", channel {channel}")?;
            }
            writeln!(f, "{}", if operation.is_detached { ", nobody waits" } else { "" })?;
        }
        more(f, "operations", self.operations.len(), self.operations_total)
    }

    fn write_grants(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for given in &self.grants_given {
            writeln!(
                f,
                "  gave grant {} of {} bytes {} ago: {}",
                given.grant,
                given.length,
                Time(given.age),
                given.phase
            )?;
        }
        more(f, "grants given", self.grants_given.len(), self.grants_given_total)?;
        for held in &self.grants_held {
            let scope = if held.is_of_domain { "domain " } else { "" };
            let wanted = if held.is_wanted_back { ", and the peer wants it back" } else { "" };
            writeln!(
                f,
                "  uses the peer's grant in slot {scope}{} for {} operations{wanted}",
                held.slot, held.operations
            )?;
        }
        more(f, "grants held", self.grants_held.len(), self.grants_held_total)
    }
}

impl ChannelSnapshot {
    /// Whether nothing is used and nobody waits.
    pub(crate) fn is_idle(&self) -> bool {
        self.send.used == 0 && self.receive.used == 0 && self.messages == 0 && self.waiting_to_receive == 0
    }
}

fn more(f: &mut fmt::Formatter<'_>, what: &str, listed: usize, total: usize) -> fmt::Result {
    match total.saturating_sub(listed) {
        0 => Ok(()),
        more => writeln!(f, "  and {more} other {what}"),
    }
}

/// Text that may be a peer's: on one line.
struct Line<'a>(&'a str);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|character| match character.is_control() {
            true => write!(f, "{}", character.escape_default()),
            false => write!(f, "{character}"),
        })
    }
}

struct Time(Duration);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3} s", self.0.as_secs_f64())
    }
}
