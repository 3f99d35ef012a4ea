//! What a reader of figures wants to know of the host.

use std::time::{SystemTime, UNIX_EPOCH};

use super::report;
use crate::host::Host;

pub(crate) fn of(host: &Host) -> report::Host {
    let system = rustix::system::uname();
    let information = std::fs::read_to_string(host.path("/proc/cpuinfo")).unwrap_or_default();
    let processor = information.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    report::Host {
        name: system.nodename().to_string_lossy().into_owned(),
        kernel: Some(system.release().to_string_lossy().into_owned()),
        processor: processor.map(|(_, name)| name.trim().to_owned()),
        processors: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
    }
}

/// Now, in UTC: `2026-11-26T09:00:00Z`.
pub(crate) fn now() -> String {
    date(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs()))
}

/// By the days of years that begin in March, so that the leap day is the last.
fn date(seconds: u64) -> String {
    let (days, second) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (day, month) = (day - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    let year = era * 400 + year + u64::from(month <= 2);
    format!("{year}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", second / 3600, second / 60 % 60, second % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_164_800, "2024-02-29T00:00:00Z"),
            (1_795_683_661, "2026-11-26T09:01:01Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(date(seconds), text);
        }
    }
}
