//! Kinds of settings: what is allowed, and how it is written.

use std::time::Duration;

use super::{Polling, TransportChoice};
use crate::{CacheLimits, Error, ErrorKind, Result};

/// What a setting may be.
pub(super) trait Kind<T> {
    /// Reads a value that may be out of bounds; `None` if it is none at all.
    fn read(&self, text: &str) -> Option<T>;
    /// Whether it is within bounds.
    fn allows(&self, value: &T) -> bool;
    /// How it is written in documents and errors.
    fn show(&self, value: &T) -> String;
    /// What is allowed; follows "must be".
    fn allowed(&self) -> String;
}

/// Checks the value of a field.
pub(super) fn check<T>(kind: &impl Kind<T>, value: &T, field: &str) -> Result<()> {
    if kind.allows(value) {
        return Ok(());
    }
    let detail = format!("{field} is {}, must be {}", kind.show(value), kind.allowed());
    Err(Error::new(ErrorKind::Unsupported, "configure").with_detail(detail))
}

/// Reads a value and checks it; the error says what is allowed.
pub(super) fn parse<T>(kind: &impl Kind<T>, text: &str) -> std::result::Result<T, String> {
    kind.read(text.trim()).filter(|value| kind.allows(value)).ok_or_else(|| kind.allowed())
}

/// A number from `least` to `most`.
pub(super) fn number(least: u64, most: u64) -> Number {
    Number { least, most }
}

/// A number of bytes from `least` to `most`.
pub(super) fn size(least: u64, most: u64) -> Size {
    Size { least, most }
}

/// A time from `least` to `most`.
pub(super) fn time(least: Duration, most: Duration) -> Time {
    Time { least, most }
}

/// On or off.
pub(super) fn switch() -> Switch {
    Switch
}

/// A way to poll.
pub(super) fn polling() -> PollingKind {
    PollingKind
}

/// A transport, or the best of them.
pub(super) fn transport() -> TransportKind {
    TransportKind
}

/// Bounds of the registration cache.
pub(super) fn cache_limits() -> CacheKind {
    CacheKind
}

pub(super) struct Switch;

impl Kind<bool> for Switch {
    fn read(&self, text: &str) -> Option<bool> {
        match text {
            "on" => Some(true),
            "off" => Some(false),
            _ => None,
        }
    }

    fn allows(&self, _: &bool) -> bool {
        true
    }

    fn show(&self, value: &bool) -> String {
        if *value { "on" } else { "off" }.to_owned()
    }

    fn allowed(&self) -> String {
        "on or off".to_owned()
    }
}

pub(super) struct Number {
    least: u64,
    most: u64,
}

impl<T: Copy + TryFrom<u64> + TryInto<u64>> Kind<T> for Number {
    fn read(&self, text: &str) -> Option<T> {
        text.parse::<u64>().ok()?.try_into().ok()
    }

    fn allows(&self, value: &T) -> bool {
        as_u64(value).is_some_and(|value| (self.least..=self.most).contains(&value))
    }

    fn show(&self, value: &T) -> String {
        as_u64(value).unwrap_or_default().to_string()
    }

    fn allowed(&self) -> String {
        format!("{} to {}", self.least, self.most)
    }
}

pub(super) struct Size {
    least: u64,
    most: u64,
}

impl<T: Copy + TryFrom<u64> + TryInto<u64>> Kind<T> for Size {
    fn read(&self, text: &str) -> Option<T> {
        read_size(text)?.try_into().ok()
    }

    fn allows(&self, value: &T) -> bool {
        as_u64(value).is_some_and(|value| (self.least..=self.most).contains(&value))
    }

    fn show(&self, value: &T) -> String {
        show_size(as_u64(value).unwrap_or_default())
    }

    fn allowed(&self) -> String {
        format!("{} to {}", show_size(self.least), show_size(self.most))
    }
}

fn as_u64<T: Copy + TryInto<u64>>(value: &T) -> Option<u64> {
    (*value).try_into().ok()
}

const SIZES: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

fn read_size(text: &str) -> Option<u64> {
    let (digits, unit) = split_unit(text);
    let factor = match unit {
        "" => 1,
        unit => SIZES.iter().find(|(name, _)| *name == unit)?.1,
    };
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

fn show_size(bytes: u64) -> String {
    let (unit, factor) =
        SIZES.into_iter().find(|(_, factor)| bytes >= *factor && bytes.is_multiple_of(*factor)).unwrap_or(("B", 1));
    format!("{} {unit}", bytes / factor)
}

pub(super) struct Time {
    least: Duration,
    most: Duration,
}

impl Kind<Duration> for Time {
    fn read(&self, text: &str) -> Option<Duration> {
        read_time(text)
    }

    fn allows(&self, value: &Duration) -> bool {
        (self.least..=self.most).contains(value)
    }

    fn show(&self, value: &Duration) -> String {
        show_time(*value)
    }

    fn allowed(&self) -> String {
        format!("{} to {}", show_time(self.least), show_time(self.most))
    }
}

const TIMES: [(&str, u64); 7] = [
    ("h", 3_600_000_000_000),
    ("min", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1000),
    ("µs", 1000),
    ("ns", 1),
];

/// A number and a unit; zero needs none.
fn read_time(text: &str) -> Option<Duration> {
    let (digits, unit) = split_unit(text);
    let number: u64 = digits.parse().ok()?;
    let factor = match unit {
        "" if number == 0 => 1,
        unit => TIMES.iter().find(|(name, _)| *name == unit)?.1,
    };
    number.checked_mul(factor).map(Duration::from_nanos)
}

fn show_time(time: Duration) -> String {
    if time.is_zero() {
        return "0 s".to_owned();
    }
    let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    let (unit, factor) = TIMES.into_iter().find(|(_, factor)| nanoseconds.is_multiple_of(*factor)).unwrap_or(("ns", 1));
    format!("{} {unit}", nanoseconds / factor)
}

/// The digits at the beginning, and what follows.
fn split_unit(text: &str) -> (&str, &str) {
    let end = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    (digits, unit.trim_start())
}

/// Longest time to poll before sleeping: more is busy polling.
const LONGEST_SPIN: Duration = Duration::from_secs(1);
/// What `adaptive` is without a time.
const SPIN: Duration = Duration::from_micros(20);

pub(super) struct TransportKind;

impl TransportKind {
    const ALL: [(&'static str, TransportChoice); 4] = [
        ("auto", TransportChoice::Auto),
        ("shm", TransportChoice::Shm),
        ("verbs", TransportChoice::Verbs),
        ("tcp", TransportChoice::Tcp),
    ];
}

impl Kind<TransportChoice> for TransportKind {
    fn read(&self, text: &str) -> Option<TransportChoice> {
        Self::ALL.iter().find(|(name, _)| *name == text).map(|(_, choice)| *choice)
    }

    fn allows(&self, _value: &TransportChoice) -> bool {
        true
    }

    fn show(&self, value: &TransportChoice) -> String {
        let named = Self::ALL.iter().find(|(_, choice)| choice == value);
        named.map_or_else(String::new, |(name, _)| (*name).to_owned())
    }

    fn allowed(&self) -> String {
        "auto, shm, verbs, or tcp".to_owned()
    }
}

pub(super) struct PollingKind;

impl Kind<Polling> for PollingKind {
    fn read(&self, text: &str) -> Option<Polling> {
        match text.split_once(':').unwrap_or((text, "")) {
            ("adaptive", "") => Some(Polling::Adaptive { spin: SPIN }),
            ("adaptive", spin) => Some(Polling::Adaptive { spin: read_time(spin)? }),
            ("busy", "") => Some(Polling::Busy),
            ("event", "") => Some(Polling::Event),
            _ => None,
        }
    }

    fn allows(&self, value: &Polling) -> bool {
        !matches!(value, Polling::Adaptive { spin } if *spin > LONGEST_SPIN)
    }

    fn show(&self, value: &Polling) -> String {
        match value {
            Polling::Adaptive { spin } => format!("adaptive:{}", show_time(*spin).replace(' ', "")),
            Polling::Busy => "busy".to_owned(),
            Polling::Event => "event".to_owned(),
        }
    }

    fn allowed(&self) -> String {
        format!("busy, event, or adaptive[:0s to {}]", show_time(LONGEST_SPIN).replace(' ', ""))
    }
}

pub(super) struct CacheKind;

impl Kind<CacheLimits> for CacheKind {
    fn read(&self, text: &str) -> Option<CacheLimits> {
        if text == "none" {
            return Some(CacheLimits::NONE);
        }
        let (bytes, entries) = match text.split_once(',') {
            Some((bytes, entries)) => (bytes.trim_end(), entries.trim().parse().ok()?),
            None => (text, CacheLimits::default().entries),
        };
        Some(CacheLimits { bytes: read_size(bytes)?.try_into().ok()?, entries })
    }

    fn allows(&self, _: &CacheLimits) -> bool {
        true
    }

    /// That it is the default, since what it is depends on the machine.
    fn show(&self, value: &CacheLimits) -> String {
        match value {
            &CacheLimits::NONE => "none".to_owned(),
            value if *value == CacheLimits::default() => "1 GiB or less, 16384".to_owned(),
            value => format!("{}, {}", show_size(value.bytes as u64), value.entries),
        }
    }

    fn allowed(&self) -> String {
        "none, or bytes[, entries]".to_owned()
    }
}
