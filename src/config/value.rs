//! One TOML value with the place of everything inside it. Pure.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use toml::Spanned;

/// A value as it stands in the file. Integers are wider than TOML's, so that one out of range is
/// told apart from one that is no number.
#[derive(Debug)]
pub(super) enum TomlValue {
    Integer(i128),
    Float(f64),
    Bool(bool),
    Text(String),
    List(Vec<Spanned<Self>>),
    /// A table, or a date or time (which the parser hands over as one).
    Other,
}

impl fmt::Display for TomlValue {
    /// Writes the value that was found, for "…, not …": control characters escaped.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Integer(value) => value.fmt(f),
            Self::Float(value) => write!(f, "the number {value:?}"),
            Self::Bool(value) => value.fmt(f),
            Self::Text(value) if value.len() <= 80 => write!(f, "the text {value:?}"),
            Self::Text(value) => write!(f, "a text of {} bytes", value.len()),
            Self::List(_) => f.write_str("a list"),
            Self::Other => f.write_str("a table or a date"),
        }
    }
}

impl<'de> Deserialize<'de> for TomlValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = TomlValue;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<TomlValue, E> {
        Ok(TomlValue::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<TomlValue, E> {
        Ok(TomlValue::Integer(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<TomlValue, E> {
        Ok(TomlValue::Integer(value.into()))
    }

    fn visit_i128<E>(self, value: i128) -> Result<TomlValue, E> {
        Ok(TomlValue::Integer(value))
    }

    fn visit_u128<E>(self, value: u128) -> Result<TomlValue, E> {
        Ok(TomlValue::Integer(i128::try_from(value).unwrap_or(i128::MAX)))
    }

    fn visit_f64<E>(self, value: f64) -> Result<TomlValue, E> {
        Ok(TomlValue::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<TomlValue, E> {
        Ok(TomlValue::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<TomlValue, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(TomlValue::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<TomlValue, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(TomlValue::Other)
    }
}
