//! Sets of flags that the device answers: unknown bits are kept.

/// Defines a set of flags as a type of its own, with named constants and a `Debug` that names them.
macro_rules! flags {
    (
        $(#[$attribute:meta])*
        pub struct $name:ident($raw:ty) {
            $($(#[$flag_attribute:meta])* $flag:ident = $value:expr,)*
        }
    ) => {
        $(#[$attribute])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
        pub struct $name($raw);

        impl $name {
            $($(#[$flag_attribute])* pub const $flag: Self = Self($value as $raw);)*

            /// A set of these bits, known or not.
            pub const fn from_bits(bits: $raw) -> Self {
                Self(bits)
            }

            /// All bits, also those that this version does not name.
            pub const fn bits(self) -> $raw {
                self.0
            }

            /// Whether all of `other` is set.
            pub const fn contains(self, other: Self) -> bool {
                self.0 & other.0 == other.0
            }

            /// Whether nothing is set.
            pub const fn is_empty(self) -> bool {
                self.0 == 0
            }
        }

        impl std::ops::BitOr for $name {
            type Output = Self;
            fn bitor(self, other: Self) -> Self {
                Self(self.0 | other.0)
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                let known = [$((stringify!($flag), Self::$flag)),*];
                $crate::verbs::flags::write(f, stringify!($name), self.0.into(), &known.map(|(name, flag)| (name, flag.0.into())))
            }
        }
    };
}

pub(super) use flags;

/// Writes `NAME(FLAG | FLAG | 0x…)`: what has no name as a number.
pub(super) fn write(f: &mut std::fmt::Formatter<'_>, name: &str, bits: u64, known: &[(&str, u64)]) -> std::fmt::Result {
    let mut rest = bits;
    let mut separator = "";
    write!(f, "{name}(")?;
    for (flag, value) in known.iter().filter(|(_, value)| *value != 0 && bits & value == *value) {
        write!(f, "{separator}{flag}")?;
        separator = " | ";
        rest &= !value;
    }
    if rest != 0 || bits == 0 {
        write!(f, "{separator}{rest:#x}")?;
    }
    f.write_str(")")
}

#[cfg(test)]
#[allow(unreachable_pub, reason = "the macro makes public types")]
mod tests {
    flags! {
        /// Flags of the test.
        pub struct Sample(u8) {
            /// The first.
            ONE = 1,
            /// The third.
            FOUR = 4,
        }
    }

    #[test]
    fn flags_are_named_and_unknown_bits_kept() {
        let set = Sample::from_bits(0x85);
        assert!(set.contains(Sample::ONE | Sample::FOUR));
        assert!(!set.contains(Sample::from_bits(2)));
        assert_eq!(set.bits(), 0x85);
        assert_eq!(format!("{set:?}"), "Sample(ONE | FOUR | 0x80)");
        assert_eq!(format!("{:?}", Sample::default()), "Sample(0x0)");
        assert!(Sample::default().is_empty());
    }
}
