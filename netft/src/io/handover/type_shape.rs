//! Shape of a type as its deserialisation asks for it: every field with its name and its type,
//! every variant. Two programs with the same shape understand each other's state.

use std::{collections::BTreeMap, fmt::Write as _};

use serde::{
    Deserialize,
    de::{
        DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess, SeqAccess,
        VariantAccess, Visitor, value::Error,
    },
};

/// The shape of `T`, as text.
pub(super) fn type_shape<'de, T: Deserialize<'de>>() -> String {
    let mut tracer = ShapeTracer::default();
    // A run visits one variant of each enum.
    loop {
        drop(T::deserialize(&mut tracer).expect("a type with a derived deserialisation"));
        tracer.text.push('\n');
        if !tracer.has_unseen_variants() {
            return tracer.text;
        }
    }
}

#[derive(Default)]
struct ShapeTracer {
    text: String,
    /// By enum: number of the variants, and how many were visited, in turn.
    variants: BTreeMap<&'static str, (usize, usize)>,
}

impl ShapeTracer {
    fn has_unseen_variants(&self) -> bool {
        self.variants.values().any(|(count, visited)| visited < count)
    }
}

macro_rules! trace_scalars {
    ($($method:ident $visit:ident $value:expr, $name:literal;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            self.text.push_str(concat!($name, " "));
            visitor.$visit($value)
        }
    )*};
}

impl<'de> Deserializer<'de> for &mut ShapeTracer {
    type Error = Error;

    // Addresses are enums then, in place of texts that have to be right.
    fn is_human_readable(&self) -> bool {
        false
    }

    trace_scalars! {
        deserialize_bool visit_bool true, "bool";
        deserialize_i8 visit_i8 1, "i8";
        deserialize_i16 visit_i16 1, "i16";
        deserialize_i32 visit_i32 1, "i32";
        deserialize_i64 visit_i64 1, "i64";
        deserialize_u8 visit_u8 1, "u8";
        deserialize_u16 visit_u16 1, "u16";
        deserialize_u32 visit_u32 1, "u32";
        deserialize_u64 visit_u64 1, "u64";
        deserialize_u128 visit_u128 1, "u128";
        deserialize_f32 visit_f32 1.0, "f32";
        deserialize_f64 visit_f64 1.0, "f64";
        deserialize_char visit_char 'x', "char";
        deserialize_str visit_str "x", "str";
        deserialize_string visit_str "x", "string";
        deserialize_bytes visit_bytes b"x", "bytes";
        deserialize_byte_buf visit_bytes b"x", "bytes";
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
        Err(serde::de::Error::custom("a type that does not say what it is"))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.text.push_str("option ");
        visitor.visit_some(self)
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.text.push_str("unit ");
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        let _ = write!(self.text, "{name} ");
        visitor.visit_unit()
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        let _ = write!(self.text, "{name} ");
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.text.push_str("seq ");
        visitor.visit_seq(ShapeParts { tracer: self, names: &[], left: 1 })
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Error> {
        let _ = write!(self.text, "tuple {len} ");
        visitor.visit_seq(ShapeParts { tracer: self, names: &[], left: len })
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, Error> {
        let _ = write!(self.text, "{name} ");
        self.deserialize_tuple(len, visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.text.push_str("map ");
        visitor.visit_map(ShapeParts { tracer: self, names: &[], left: 1 })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let _ = write!(self.text, "{name} {{ ");
        let parts = ShapeParts { tracer: &mut *self, names: fields, left: fields.len() };
        let value = visitor.visit_seq(parts)?;
        self.text.push_str("} ");
        Ok(value)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let (count, visited) = self.variants.entry(name).or_insert((variants.len(), 0));
        let place = *visited % *count;
        *visited += 1;
        let _ = write!(self.text, "{name} {} of {} ", variants[place], variants.join(","));
        visitor.visit_enum(ShapeVariant { tracer: self, place })
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_any(visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }
}

/// The parts of a type: named fields, or elements.
struct ShapeParts<'t> {
    tracer: &'t mut ShapeTracer,
    names: &'static [&'static str],
    left: usize,
}

impl<'de> SeqAccess<'de> for ShapeParts<'_> {
    type Error = Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Error> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        if let Some((name, rest)) = self.names.split_first() {
            let _ = write!(self.tracer.text, "{name}: ");
            self.names = rest;
        }
        seed.deserialize(&mut *self.tracer).map(Some)
    }
}

impl<'de> MapAccess<'de> for ShapeParts<'_> {
    type Error = Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Error> {
        self.next_element_seed(seed)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Error> {
        seed.deserialize(&mut *self.tracer)
    }
}

/// One variant of an enum.
struct ShapeVariant<'t> {
    tracer: &'t mut ShapeTracer,
    place: usize,
}

impl<'de, 't> EnumAccess<'de> for ShapeVariant<'t> {
    type Error = Error;
    type Variant = &'t mut ShapeTracer;

    fn variant_seed<S: DeserializeSeed<'de>>(
        self,
        seed: S,
    ) -> Result<(S::Value, Self::Variant), Error> {
        let place = u32::try_from(self.place).unwrap_or_default();
        let variant = seed.deserialize(IntoDeserializer::<Error>::into_deserializer(place))?;
        Ok((variant, self.tracer))
    }
}

impl<'de> VariantAccess<'de> for &mut ShapeTracer {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        Ok(())
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Error> {
        seed.deserialize(self)
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_tuple(len, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_struct("", fields, visitor)
    }
}
