//! A deserializer that lets nothing be claimed which the input is too short for.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, EnumAccess, Error, MapAccess, SeqAccess, VariantAccess, Visitor};

/// Elements that a sequence may have beyond the bytes of the input: some take none.
const FREE_ELEMENTS: usize = 1024;
/// How deep values may be nested: deeper ones would exhaust the stack.
const DEPTH: usize = 128;

/// What is left of the bounds of one input.
pub(super) struct Guard {
    elements: Cell<usize>,
    depth: Cell<usize>,
}

impl Guard {
    /// The bounds of an input of `length` bytes.
    pub(super) fn new(length: usize) -> Self {
        Self { elements: Cell::new(length.saturating_add(FREE_ELEMENTS)), depth: Cell::new(DEPTH) }
    }

    /// Takes the elements of a sequence that claims to have so many.
    fn claim<E: Error>(&self, elements: usize) -> Result<(), E> {
        let Some(left) = self.elements.get().checked_sub(elements) else {
            return Err(E::custom(format_args!("a sequence that claims {elements} elements, more than can be there")));
        };
        self.elements.set(left);
        Ok(())
    }

    fn deeper<T, E: Error>(&self, within: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        let Some(left) = self.depth.get().checked_sub(1) else {
            return Err(E::custom(format_args!("nested more than {DEPTH} deep")));
        };
        self.depth.set(left);
        let value = within();
        self.depth.set(left + 1);
        value
    }
}

/// A deserializer, or part of one, with its bounds.
pub(super) struct Guarded<'g, D> {
    inner: D,
    guard: &'g Guard,
    /// Whether the input says how many elements there are, and not the type.
    is_claimed: bool,
}

impl<'g, D> Guarded<'g, D> {
    pub(super) fn new(inner: D, guard: &'g Guard) -> Self {
        Self { inner, guard, is_claimed: false }
    }

    fn around<T>(&self, inner: T) -> Guarded<'g, T> {
        Guarded::new(inner, self.guard)
    }
}

macro_rules! pass_on {
    ($($method:ident as $inner:ident ($($argument:ident: $type:ty),*), $is_claimed:literal;)*) => {
        $(fn $method<V: Visitor<'de>>(self, $($argument: $type,)* visitor: V) -> Result<V::Value, D::Error> {
            self.inner.$inner($($argument,)* Guarded { inner: visitor, guard: self.guard, is_claimed: $is_claimed })
        })*
    };
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Guarded<'_, D> {
    type Error = D::Error;

    pass_on! {
        deserialize_any as deserialize_any(), true;
        deserialize_bool as deserialize_bool(), false;
        deserialize_i8 as deserialize_i8(), false;
        deserialize_i16 as deserialize_i16(), false;
        deserialize_i32 as deserialize_i32(), false;
        deserialize_i64 as deserialize_i64(), false;
        deserialize_i128 as deserialize_i128(), false;
        deserialize_u8 as deserialize_u8(), false;
        deserialize_u16 as deserialize_u16(), false;
        deserialize_u32 as deserialize_u32(), false;
        deserialize_u64 as deserialize_u64(), false;
        deserialize_u128 as deserialize_u128(), false;
        deserialize_f32 as deserialize_f32(), false;
        deserialize_f64 as deserialize_f64(), false;
        deserialize_char as deserialize_char(), false;
        deserialize_str as deserialize_str(), false;
        // Borrowed, so that only what is there is allocated.
        deserialize_string as deserialize_str(), false;
        deserialize_bytes as deserialize_bytes(), false;
        deserialize_byte_buf as deserialize_bytes(), false;
        deserialize_option as deserialize_option(), false;
        deserialize_unit as deserialize_unit(), false;
        deserialize_unit_struct as deserialize_unit_struct(name: &'static str), false;
        deserialize_newtype_struct as deserialize_newtype_struct(name: &'static str), false;
        deserialize_seq as deserialize_seq(), true;
        deserialize_tuple as deserialize_tuple(length: usize), false;
        deserialize_tuple_struct as deserialize_tuple_struct(name: &'static str, length: usize), false;
        deserialize_map as deserialize_map(), true;
        deserialize_struct as deserialize_struct(name: &'static str, fields: &'static [&'static str]), false;
        deserialize_enum as deserialize_enum(name: &'static str, variants: &'static [&'static str]), false;
        deserialize_identifier as deserialize_identifier(), false;
        deserialize_ignored_any as deserialize_ignored_any(), true;
    }

    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

macro_rules! visit {
    ($($method:ident: $type:ty;)*) => {
        $(fn $method<E: Error>(self, value: $type) -> Result<V::Value, E> {
            self.inner.$method(value)
        })*
    };
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Guarded<'_, V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.expecting(f)
    }

    visit! {
        visit_bool: bool;
        visit_i8: i8;
        visit_i16: i16;
        visit_i32: i32;
        visit_i64: i64;
        visit_i128: i128;
        visit_u8: u8;
        visit_u16: u16;
        visit_u32: u32;
        visit_u64: u64;
        visit_u128: u128;
        visit_f32: f32;
        visit_f64: f64;
        visit_char: char;
        visit_str: &str;
        visit_borrowed_str: &'de str;
        visit_string: String;
        visit_bytes: &[u8];
        visit_borrowed_bytes: &'de [u8];
        visit_byte_buf: Vec<u8>;
    }

    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        self.inner.visit_none()
    }

    fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
        self.inner.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, within: D) -> Result<V::Value, D::Error> {
        let within = self.around(within);
        self.guard.deeper(|| self.inner.visit_some(within))
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, within: D) -> Result<V::Value, D::Error> {
        let within = self.around(within);
        self.guard.deeper(|| self.inner.visit_newtype_struct(within))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, within: A) -> Result<V::Value, A::Error> {
        if self.is_claimed {
            self.guard.claim(within.size_hint().unwrap_or(0))?;
        }
        let within = self.around(within);
        self.guard.deeper(|| self.inner.visit_seq(within))
    }

    fn visit_map<A: MapAccess<'de>>(self, within: A) -> Result<V::Value, A::Error> {
        if self.is_claimed {
            self.guard.claim(within.size_hint().unwrap_or(0))?;
        }
        let within = self.around(within);
        self.guard.deeper(|| self.inner.visit_map(within))
    }

    fn visit_enum<A: EnumAccess<'de>>(self, within: A) -> Result<V::Value, A::Error> {
        let within = self.around(within);
        self.guard.deeper(|| self.inner.visit_enum(within))
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Guarded<'_, S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<S::Value, D::Error> {
        let deserializer = self.around(deserializer);
        self.inner.deserialize(deserializer)
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Guarded<'_, A> {
    type Error = A::Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        let seed = self.around(seed);
        self.inner.next_element_seed(seed)
    }

    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Guarded<'_, A> {
    type Error = A::Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        let seed = self.around(seed);
        self.inner.next_key_seed(seed)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        let seed = self.around(seed);
        self.inner.next_value_seed(seed)
    }

    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

impl<'de, 'g, A: EnumAccess<'de>> EnumAccess<'de> for Guarded<'g, A> {
    type Error = A::Error;
    type Variant = Guarded<'g, A::Variant>;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self::Variant), A::Error> {
        let seed = self.around(seed);
        let (value, variant) = self.inner.variant_seed(seed)?;
        Ok((value, Guarded::new(variant, self.guard)))
    }
}

impl<'de, A: VariantAccess<'de>> VariantAccess<'de> for Guarded<'_, A> {
    type Error = A::Error;

    fn unit_variant(self) -> Result<(), A::Error> {
        self.inner.unit_variant()
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, A::Error> {
        let seed = self.around(seed);
        self.inner.newtype_variant_seed(seed)
    }

    fn tuple_variant<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, A::Error> {
        let visitor = self.around(visitor);
        self.inner.tuple_variant(length, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        let visitor = self.around(visitor);
        self.inner.struct_variant(fields, visitor)
    }
}
