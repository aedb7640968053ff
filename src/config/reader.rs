//! Reads values out of fields and collects every problem with them. Pure.
//!
//! A refused value reads as one that is left out: the check goes on and finds the rest.

use std::{
    collections::BTreeMap,
    fmt,
    ops::Range,
    path::{Path, PathBuf},
    time::Duration,
};

use netft::{
    config::{ConfigKey, KeySyntax},
    route::{Delay, Threshold},
};
use toml::Spanned;

use super::{problem::ConfigProblem, raw::OptionalField, value::TomlValue};

/// Place in the file, bytes.
pub(super) type ByteSpan = Range<usize>;

#[derive(Default)]
pub(super) struct FieldReader {
    pub(super) problems: Vec<ConfigProblem>,
}

impl FieldReader {
    pub(super) fn report_problem(&mut self, problem: ConfigProblem) {
        self.problems.push(problem);
    }

    /// Reports a value that the key does not take.
    fn report_wrong_value(
        &mut self,
        key: &ConfigKey,
        value: &Spanned<TomlValue>,
        expected: &impl fmt::Display,
        label: impl Into<String>,
    ) {
        let message = format!("`{}` is {expected}, not {}", key.name(), value.get_ref());
        self.report_problem(ConfigProblem::at_span(value.span(), message, label));
    }

    /// A whole number in the key's range.
    pub(super) fn read_number(&mut self, field: &OptionalField, key: &ConfigKey) -> Option<u64> {
        let value = field.as_ref()?;
        let limits = key.limits()?;
        if let TomlValue::Integer(number) = value.get_ref()
            && let Ok(number) = u64::try_from(*number)
            && limits.contains(number)
        {
            return Some(number);
        }
        let label = match value.get_ref() {
            TomlValue::Integer(_) => "out of range",
            _ => "not a whole number",
        };
        self.report_wrong_value(key, value, &limits, label);
        None
    }

    /// Stores a whole number in the key's range, if one is given.
    pub(super) fn store_number<T: TryFrom<u64>>(
        &mut self,
        target: &mut T,
        field: &OptionalField,
        key: &ConfigKey,
    ) {
        if let Some(number) = self.read_number(field, key)
            && let Ok(number) = T::try_from(number)
        {
            *target = number;
        }
    }

    /// Stores a time, counted in the unit of `from_units`, if one is given.
    pub(super) fn store_duration(
        &mut self,
        target: &mut Duration,
        field: &OptionalField,
        key: &ConfigKey,
        from_units: fn(u64) -> Duration,
    ) {
        if let Some(number) = self.read_number(field, key) {
            *target = from_units(number);
        }
    }

    pub(super) fn read_delay(&mut self, field: &OptionalField, key: &ConfigKey) -> Option<Delay> {
        Delay::from_millis(self.read_number(field, key)?).ok()
    }

    pub(super) fn read_threshold(
        &mut self,
        field: &OptionalField,
        key: &ConfigKey,
    ) -> Option<Threshold> {
        Threshold::new(self.read_number(field, key)?).ok()
    }

    /// A text that `parse` takes; it says why it refuses one.
    pub(super) fn parse_text<T>(
        &mut self,
        field: &OptionalField,
        key: &ConfigKey,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<(T, ByteSpan)> {
        self.parse_value(field.as_ref()?, key, &parse)
    }

    /// One of a few words.
    pub(super) fn read_choice<T>(
        &mut self,
        field: &OptionalField,
        key: &ConfigKey,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        let parse = |text: &str| parse(text).ok_or_else(|| "not one of them".to_owned());
        Some(self.parse_text(field, key, parse)?.0)
    }

    fn parse_value<T>(
        &mut self,
        value: &Spanned<TomlValue>,
        key: &ConfigKey,
        parse: &impl Fn(&str) -> Result<T, String>,
    ) -> Option<(T, ByteSpan)> {
        let TomlValue::Text(text) = value.get_ref() else {
            self.report_wrong_value(key, value, &key.syntax, "not a text in quotes");
            return None;
        };
        match parse(text) {
            Ok(parsed) => Some((parsed, value.span())),
            Err(why) => {
                self.report_wrong_value(key, value, &key.syntax, why);
                None
            }
        }
    }

    /// Stores a flag, if one is given.
    pub(super) fn store_flag(&mut self, target: &mut bool, field: &OptionalField, key: &ConfigKey) {
        let Some(value) = field else { return };
        match value.get_ref() {
            TomlValue::Bool(flag) => *target = *flag,
            _ => self.report_wrong_value(key, value, &key.syntax, "not one of them"),
        }
    }

    /// A list of texts, or one text where the key takes that.
    pub(super) fn read_list<T>(
        &mut self,
        field: &OptionalField,
        key: &ConfigKey,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Vec<(T, ByteSpan)> {
        let single = matches!(key.syntax, KeySyntax::TextOrList(_));
        match field.as_ref().map(|value| (value, value.get_ref())) {
            None => Vec::new(),
            Some((_, TomlValue::List(items))) => {
                items.iter().filter_map(|item| self.parse_value(item, key, &parse)).collect()
            }
            Some((value, TomlValue::Text(_))) if single => {
                self.parse_value(value, key, &parse).into_iter().collect()
            }
            Some((value, _)) => {
                let expected = format!("a list, each {}", key.syntax);
                self.report_wrong_value(key, value, &expected, "not a list");
                Vec::new()
            }
        }
    }

    /// Reports a key that must be there.
    pub(super) fn require_field(
        &mut self,
        field: &OptionalField,
        key: &ConfigKey,
        table: ByteSpan,
        help: &str,
    ) {
        if field.is_none() {
            let name = key.name();
            let message = format!("`{name}` is missing");
            let label = format!("this needs `{name}`");
            self.report_problem(ConfigProblem::at_span(table, message, label).with_help(help));
        }
    }
}

/// Finds what stands in the file twice, and names both places.
pub(super) struct UniqueKeys<K> {
    seen: BTreeMap<K, (ByteSpan, String)>,
}

impl<K: Ord> UniqueKeys<K> {
    pub(super) const fn new() -> Self {
        Self { seen: BTreeMap::new() }
    }

    /// Takes `key`, which belongs to `owner`, as seen at `span`.
    pub(super) fn claim_key(
        &mut self,
        reader: &mut FieldReader,
        key: K,
        what: &str,
        owner: &str,
        span: &ByteSpan,
    ) {
        if let Some((first, first_owner)) = self.seen.get(&key) {
            let message = format!("{what} is used twice: by {first_owner} and by {owner}");
            reader.report_problem(
                ConfigProblem::at_span(span.clone(), message, "used again here")
                    .with_mark(first.clone(), "used first here"),
            );
        } else {
            self.seen.insert(key, (span.clone(), owner.to_owned()));
        }
    }
}

/// The path in a text.
pub(super) fn absolute_path(text: &str) -> Result<PathBuf, String> {
    match Path::new(text) {
        path if path.is_absolute() => Ok(path.to_owned()),
        _ => Err("it does not begin with `/`".to_owned()),
    }
}
