//! Sizes as a user writes them: `64`, `4KiB`, `1MiB`, lists with commas, and ranges by powers of two: `8..1MiB`.

use super::wire::MOST_MEMORY;

/// Sizes in increasing order, without those that are there twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sizes(pub(crate) Vec<usize>);

impl std::str::FromStr for Sizes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut sizes = Vec::new();
        for part in text.split(',').map(str::trim) {
            match part.split_once("..") {
                None => sizes.push(size(part)?),
                Some((from, to)) => {
                    let (from, to) = (size(from)?, size(to.trim_start_matches('='))?);
                    if from > to {
                        return Err(format!("{part}: it ends before it begins"));
                    }
                    sizes.extend(
                        std::iter::successors(Some(from), |size| size.checked_mul(2)).take_while(|size| *size < to),
                    );
                    sizes.push(to);
                }
            }
        }
        sizes.sort_unstable();
        sizes.dedup();
        Ok(Self(sizes))
    }
}

fn size(text: &str) -> Result<usize, String> {
    let text = text.trim();
    let end = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let shift = match unit.trim() {
        "" | "B" => 0,
        "K" | "KiB" => 10,
        "M" | "MiB" => 20,
        _ => return Err(format!("{text:?}: write a size such as 64, 4KiB or 1MiB, a list 64,4KiB or a range 8..1MiB")),
    };
    let number: usize = number.parse().map_err(|_| format!("{text:?} is no size"))?;
    let size = number.checked_mul(1 << shift).filter(|size| (1..=MOST_MEMORY).contains(size));
    size.ok_or_else(|| format!("{text:?}: sizes are 1 B to {} MiB", MOST_MEMORY >> 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_ranges_are_sizes() {
        for (text, expected) in [
            ("64", &[64][..]),
            ("4KiB, 64 B,64", &[64, 4096]),
            ("8..64", &[8, 16, 32, 64]),
            ("3..10", &[3, 6, 10]),
            ("1KiB..=4KiB,1MiB", &[1024, 2048, 4096, 1 << 20]),
        ] {
            assert_eq!(text.parse::<Sizes>(), Ok(Sizes(expected.to_vec())), "{text}");
        }
        for wrong in ["", "x", "0", "-1", "1GB", "64..8", "..8", "8..", "257MiB", "99999999999999999999", "64,,8"] {
            assert!(wrong.parse::<Sizes>().is_err(), "{wrong}");
        }
    }
}
