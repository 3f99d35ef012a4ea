//! What an axis shows: its range, and ticks at round values.

use super::Unit;

/// One of the two axes.
#[derive(Clone, Debug)]
pub(crate) struct Axis {
    pub(crate) label: String,
    pub(crate) unit: Unit,
    pub(crate) scale: Scale,
}

/// How values are spread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scale {
    /// From zero, or from the least value if that is negative.
    Linear,
    Logarithmic,
}

/// An axis for certain values. Places are logarithms on a logarithmic axis, values otherwise.
#[derive(Debug)]
pub(super) struct Ruler {
    /// Places of its ends.
    pub(super) from: f64,
    pub(super) to: f64,
    /// Places with a number.
    pub(super) ticks: Vec<f64>,
    /// Places with a line only.
    pub(super) lines: Vec<f64>,
}

/// More would not have room for their numbers.
const MOST_TICKS: i32 = 9;

impl Axis {
    pub(super) fn can_show(&self, value: f64) -> bool {
        value.is_finite() && (self.scale == Scale::Linear || value > 0.0)
    }

    /// Where `value` is.
    pub(super) fn place(&self, value: f64) -> f64 {
        match self.scale {
            Scale::Linear => value,
            Scale::Logarithmic => value.log10(),
        }
    }

    /// What is at `place`, in words.
    pub(super) fn text(&self, place: f64) -> String {
        self.unit.text(match self.scale {
            Scale::Linear => place,
            Scale::Logarithmic => 10.0_f64.powf(place),
        })
    }

    /// The ruler for `values`, of which there is at least one, and all can be shown.
    pub(super) fn ruler(&self, values: impl Iterator<Item = f64>) -> Ruler {
        let (least, greatest) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(least, greatest), value| {
            (least.min(value), greatest.max(value))
        });
        match (self.scale, self.unit) {
            (Scale::Linear, _) => linear(least.min(0.0), greatest.max(0.0)),
            (Scale::Logarithmic, Unit::Bytes) => binary(least, greatest),
            (Scale::Logarithmic, _) => decimal(least, greatest),
        }
    }
}

fn linear(least: f64, greatest: f64) -> Ruler {
    let span = if greatest > least { greatest - least } else { 1.0 };
    let raw = span / 6.0;
    let unit = 10.0_f64.powf(raw.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].iter().map(|by| by * unit).find(|step| *step >= raw).unwrap_or(10.0 * unit);
    let (first, last) = ((least / step).floor() as i64, ((least + span) / step).ceil() as i64);
    let ticks: Vec<_> = (first..=last).map(|number| number as f64 * step).collect();
    Ruler { from: first as f64 * step, to: last as f64 * step, ticks, lines: Vec::new() }
}

/// Powers of two.
fn binary(least: f64, greatest: f64) -> Ruler {
    let (mut first, mut last) = (least.log2().floor() as i32, greatest.log2().ceil() as i32);
    if first == last {
        (first, last) = (first - 1, last + 1);
    }
    let step = (last - first + MOST_TICKS) / MOST_TICKS;
    let place = |power: i32| f64::from(power) * 2.0_f64.log10();
    // Counted from the first, so that the least value has its number.
    let ticks = (first..=last).step_by(step as usize).map(place).collect();
    Ruler { from: place(first), to: place(last), ticks, lines: (first..=last).map(place).collect() }
}

/// Powers of ten, and 2 and 5 times them where they have room.
fn decimal(least: f64, greatest: f64) -> Ruler {
    let decades = least.log10().floor() as i32 - 1..=greatest.log10().ceil() as i32 + 1;
    let all = |digits: &'static [f64]| {
        decades.clone().flat_map(move |decade| digits.iter().map(move |digit| digit.log10() + f64::from(decade)))
    };
    // What is as good as at a tick needs none beyond.
    let near = 1e-6;
    let round: Vec<_> = all(&[1.0, 2.0, 5.0]).collect();
    let mut from =
        round.iter().copied().filter(|&place| place <= least.log10() + near).fold(f64::NEG_INFINITY, f64::max);
    let mut to = round.iter().copied().filter(|&place| place >= greatest.log10() - near).fold(f64::INFINITY, f64::min);
    if to - from < near {
        (from, to) = (from - 2.0_f64.log10(), to + 2.0_f64.log10());
    }
    let within = |place: &f64| (from - near..=to + near).contains(place);
    let ticks = if to - from <= 3.0 {
        round.into_iter().filter(within).collect()
    } else {
        let step = ((to - from) as i32 / MOST_TICKS + 1) as usize;
        all(&[1.0]).filter(within).step_by(step).collect()
    };
    let lines = all(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0]).filter(within).collect();
    Ruler { from, to, ticks, lines }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(unit: Unit, scale: Scale, values: &[f64]) -> Vec<String> {
        let axis = Axis { label: String::new(), unit, scale };
        let ruler = axis.ruler(values.iter().copied());
        for &value in values {
            let place = axis.place(value);
            assert!(ruler.from - 1e-6 <= place && place <= ruler.to + 1e-6, "{value} is not on {ruler:?}");
        }
        assert!(ruler.from < ruler.to && ruler.ticks.len() <= 13, "{ruler:?}");
        ruler.ticks.iter().map(|&tick| axis.text(tick)).collect()
    }

    #[test]
    fn ticks_are_round() {
        use Scale::{Linear, Logarithmic};
        for (unit, scale, values, expected) in [
            (Unit::Bytes, Logarithmic, &[8.0, 64.0][..], "8 B, 16 B, 32 B, 64 B"),
            (Unit::Bytes, Logarithmic, &[8.0, 1_048_576.0], "8 B, 32 B, 128 B, 512 B, 2 KiB, 8 KiB"),
            (Unit::Bytes, Logarithmic, &[4096.0], "2 KiB, 4 KiB, 8 KiB"),
            (Unit::Nanoseconds, Logarithmic, &[230.0, 1700.0], "200 ns, 500 ns, 1 µs, 2 µs"),
            (Unit::Nanoseconds, Logarithmic, &[1000.0], "500 ns, 1 µs, 2 µs"),
            (Unit::Nanoseconds, Logarithmic, &[120.0, 3e6], "100 ns, 1 µs, 10 µs, 100 µs, 1 ms"),
            (Unit::Count, Linear, &[1.0, 9.0], "0, 2, 4, 6, 8, 10"),
            (Unit::PerSecond, Linear, &[0.0], "0/s, 0.2/s, 0.4/s, 0.6/s, 0.8/s, 1/s"),
        ] {
            let found = texts(unit, scale, values).join(", ");
            assert!(found.starts_with(expected), "{found}, not {expected}");
        }
    }

    #[test]
    fn extremes_have_an_axis_too() {
        for values in [[1e-9, 1e18], [f64::MIN_POSITIVE, 1.0], [1.0, f64::MAX / 10.0]] {
            texts(Unit::Count, Scale::Logarithmic, &values);
        }
        texts(Unit::Count, Scale::Linear, &[-5.0, 1e12]);
    }
}
