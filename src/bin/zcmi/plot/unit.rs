//! How values are written: three digits at most, with the prefix that fits.

/// What a number is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// By powers of 1024.
    Bytes,
    /// By powers of 1000, as links are sold.
    BytesPerSecond,
    Count,
    Nanoseconds,
    PerSecond,
}

impl Unit {
    /// `value` for people: `64 B`, `4 KiB`, `1.5 µs`, `12.3 GB/s`.
    pub(crate) fn text(self, value: f64) -> String {
        let (base, units): (f64, &[&str]) = match self {
            Self::Bytes => (1024.0, &[" B", " KiB", " MiB", " GiB", " TiB"]),
            Self::BytesPerSecond => (1000.0, &[" B/s", " kB/s", " MB/s", " GB/s", " TB/s"]),
            Self::Count => (1000.0, &["", " k", " M", " G"]),
            Self::Nanoseconds => (1000.0, &[" ns", " µs", " ms", " s"]),
            Self::PerSecond => (1000.0, &["/s", " k/s", " M/s", " G/s"]),
        };
        let mut value = value;
        let mut rank = 0;
        // What would be rounded up to the next prefix has it.
        while value.abs() >= base - 0.5 && rank + 1 < units.len() {
            value /= base;
            rank += 1;
        }
        format!("{}{}", digits(value), units[rank])
    }
}

/// Three digits at most, without zeros at the end; all of those before the point.
fn digits(value: f64) -> String {
    let decimals = match value.abs() {
        v if v >= 99.95 => 0,
        v if v >= 9.995 => 1,
        _ => 2,
    };
    let text = format!("{value:.decimals$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_the_prefix_that_fits() {
        for (unit, value, text) in [
            (Unit::Bytes, 64.0, "64 B"),
            (Unit::Bytes, 4096.0, "4 KiB"),
            (Unit::Bytes, 1_048_576.0, "1 MiB"),
            (Unit::Bytes, 1536.0, "1.5 KiB"),
            (Unit::BytesPerSecond, 12_345_678_901.0, "12.3 GB/s"),
            (Unit::Count, 0.0, "0"),
            (Unit::Count, 100.0, "100"),
            (Unit::Nanoseconds, 999.7, "1 µs"),
            (Unit::Nanoseconds, 10_000.0, "10 µs"),
            (Unit::Nanoseconds, 1_234_567.0, "1.23 ms"),
            (Unit::PerSecond, 2_000_000.0, "2 M/s"),
            (Unit::PerSecond, 5e12, "5000 G/s"),
        ] {
            assert_eq!(unit.text(value), text);
        }
    }
}
