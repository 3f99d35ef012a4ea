//! The sizes that blocks come in.

/// Blocks are a multiple of a cache line up to 512 bytes, then four sizes per doubling, and whole pages from 4 KiB
/// on. So a length wastes less than a fifth of its block, apart from the rounding to a cache line and, so that buffers
/// of a page and more start on one, to a page. Powers of two would waste up to half, of memory that is pinned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Class(u8);

impl Class {
    /// How many there are.
    pub(super) const COUNT: usize = 71;
    /// The largest size; longer buffers get a slab of their own.
    pub(super) const LARGEST: usize = 64 << 20;

    /// The class of the smallest blocks that hold `length` bytes.
    #[inline]
    pub(super) fn of(length: usize) -> Option<Self> {
        if length > Self::LARGEST {
            return None;
        }
        let class = Self(index(length) as u8);
        #[cfg(test)]
        if super::planted::is(super::planted::Bug::ClassTooSmall) {
            return Some(Self(class.0.saturating_sub(1)));
        }
        Some(class)
    }

    /// The class of the smallest blocks that hold `length` bytes and whose size is a multiple of `alignment`, a power
    /// of two.
    pub(super) fn aligned(length: usize, alignment: usize) -> Option<Self> {
        let first = Self::of(length.max(alignment))?;
        // The powers of two are among the sizes.
        (first.0..Self::COUNT as u8).map(Self).find(|class| class.size().is_multiple_of(alignment))
    }

    pub(super) fn all() -> impl DoubleEndedIterator<Item = Self> {
        (0..Self::COUNT as u8).map(Self)
    }

    #[inline]
    pub(super) fn index(self) -> usize {
        self.0.into()
    }

    #[inline]
    pub(super) fn size(self) -> usize {
        SIZES[self.index()]
    }
}

const SIZES: [usize; Class::COUNT] = {
    let mut sizes = [0; Class::COUNT];
    let (mut index, mut size) = (0, 64usize);
    while index < sizes.len() {
        sizes[index] = size;
        index += 1;
        let step = if size < 512 { 64 } else { 1 << (size.ilog2() - 2) };
        size += if size >= 4096 && step < 4096 { 4096 } else { step };
    }
    assert!(sizes[Class::COUNT - 1] == Class::LARGEST);
    sizes
};

/// The inverse of `SIZES`, rounding up.
#[inline]
fn index(length: usize) -> usize {
    if length <= 512 {
        return length.saturating_sub(1) / 64;
    }
    let last = length - 1;
    let doubling = last.ilog2() as usize;
    let quarter = || (last >> (doubling - 2)) - 4;
    match doubling {
        // (512, 4096]
        ..12 => 8 + (doubling - 9) * 4 + quarter(),
        // (4 KiB, 16 KiB] by pages
        12 | 13 => 19 + last / 4096,
        _ => 23 + (doubling - 14) * 4 + quarter(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_class_of_a_length_is_the_smallest_that_holds_it() {
        let mut least = 0;
        for class in Class::all() {
            for length in [least, least + 1, class.size() - 1, class.size()] {
                if length > least {
                    assert_eq!(Class::of(length), Some(class), "{length}");
                }
            }
            least = class.size();
        }
        assert_eq!(Class::of(0).map(Class::size), Some(64));
        assert_eq!(Class::of(Class::LARGEST + 1), None);
    }

    proptest! {
        #[test]
        fn little_is_wasted_and_alignment_is_kept(length in 1usize..=Class::LARGEST, bits in 0u32..=21) {
            let size = Class::of(length).expect("not too long").size();
            prop_assert!(size >= length && size.is_multiple_of(64));
            let granule = if length >= 4096 { 4096 } else { 64 };
            prop_assert!(size.is_multiple_of(granule));
            prop_assert!(size - length < granule || (size - length) * 5 < size, "{} in {}", length, size);
            let aligned = Class::aligned(length, 1 << bits).expect("not too long").size();
            prop_assert!(aligned >= length && aligned.is_multiple_of(1 << bits));
        }
    }
}
