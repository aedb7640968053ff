//! Takes values out of fields and collects everything that is wrong with them. Pure.
//!
//! A value that is wrong reads as one that is left out: the check goes on and finds the rest.

use std::{collections::BTreeMap, fmt::Debug, ops::Range};

use netft::route::{Delay, ParamError, Threshold};
use toml::Spanned;

use super::{problem::ConfigProblem, raw::OptionalField, value::TomlValue};

/// Where something stands, in bytes.
pub(super) type ByteSpan = Range<usize>;

#[derive(Default)]
pub(super) struct FieldReader {
    pub(super) problems: Vec<ConfigProblem>,
}

/// A whole number's limits and unit.
#[derive(Clone, Copy)]
pub(super) struct NumberLimits {
    pub(super) min: u64,
    pub(super) max: u64,
    pub(super) unit: &'static str,
}

impl NumberLimits {
    pub(super) const fn new(min: u64, max: u64, unit: &'static str) -> Self {
        Self { min, max, unit }
    }

    /// The limits of a parameter type, from the error it gives for 0.
    fn of_parameter<T: Debug>(new: fn(u64) -> Result<T, ParamError>) -> Self {
        let error = new(0).expect_err("no parameter of a route may be 0");
        Self { min: error.min, max: error.max, unit: error.unit }
    }

    fn expected_text(&self) -> String {
        let Self { min, max, unit } = self;
        let space = if unit.is_empty() { "" } else { " " };
        format!("a whole number from {min} to {max}{space}{unit}")
    }
}

impl FieldReader {
    pub(super) fn report_problem(&mut self, problem: ConfigProblem) {
        self.problems.push(problem);
    }

    /// Reports a value that is not what it should be.
    fn report_wrong_value(
        &mut self,
        name: &str,
        value: &Spanned<TomlValue>,
        wanted: &str,
        label: &str,
    ) {
        let message = format!("`{name}` is {wanted}, not {}", value.get_ref());
        self.report_problem(ConfigProblem::at_span(value.span(), message, label));
    }

    pub(super) fn read_number(
        &mut self,
        field: &OptionalField,
        name: &str,
        limits: NumberLimits,
    ) -> Option<u64> {
        let value = field.as_ref()?;
        if let TomlValue::Integer(number) = value.get_ref()
            && let Ok(number) = u64::try_from(*number)
            && (limits.min..=limits.max).contains(&number)
        {
            return Some(number);
        }
        let label = match value.get_ref() {
            TomlValue::Integer(_) => "out of range",
            _ => "not a whole number",
        };
        self.report_wrong_value(name, value, &limits.expected_text(), label);
        None
    }

    pub(super) fn read_delay(&mut self, field: &OptionalField) -> Option<Delay> {
        let ms =
            self.read_number(field, "delay", NumberLimits::of_parameter(Delay::from_millis))?;
        Delay::from_millis(ms).ok()
    }

    pub(super) fn read_threshold(&mut self, field: &OptionalField) -> Option<Threshold> {
        let count =
            self.read_number(field, "threshold", NumberLimits::of_parameter(Threshold::new))?;
        Threshold::new(count).ok()
    }

    /// A text that `parse` understands; it says why not otherwise.
    pub(super) fn parse_text<T>(
        &mut self,
        field: &OptionalField,
        name: &str,
        wanted: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<(T, ByteSpan)> {
        self.parse_value(field.as_ref()?, name, wanted, &parse)
    }

    fn parse_value<T>(
        &mut self,
        value: &Spanned<TomlValue>,
        name: &str,
        wanted: &str,
        parse: &impl Fn(&str) -> Result<T, String>,
    ) -> Option<(T, ByteSpan)> {
        let TomlValue::Text(text) = value.get_ref() else {
            self.report_wrong_value(name, value, wanted, "not a text in quotes");
            return None;
        };
        match parse(text) {
            Ok(parsed) => Some((parsed, value.span())),
            Err(why) => {
                let message = format!("`{name}` is {wanted}, not {}", value.get_ref());
                self.report_problem(ConfigProblem::at_span(value.span(), message, why));
                None
            }
        }
    }

    /// A list of texts, or, where `single` allows it, one text.
    pub(super) fn read_flag(&mut self, field: &OptionalField, name: &str) -> Option<bool> {
        let value = field.as_ref()?;
        if let TomlValue::Bool(flag) = value.get_ref() {
            return Some(*flag);
        }
        self.report_wrong_value(name, value, "`true` or `false`", "not one of them");
        None
    }

    pub(super) fn read_list<T>(
        &mut self,
        field: &OptionalField,
        name: &str,
        wanted: &str,
        single: bool,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Vec<(T, ByteSpan)> {
        match field.as_ref().map(|value| (value, value.get_ref())) {
            None => Vec::new(),
            Some((_, TomlValue::List(items))) => items
                .iter()
                .filter_map(|item| self.parse_value(item, name, wanted, &parse))
                .collect(),
            Some((value, TomlValue::Text(_))) if single => {
                self.parse_value(value, name, wanted, &parse).into_iter().collect()
            }
            Some((value, _)) => {
                self.report_wrong_value(
                    name,
                    value,
                    &format!("a list, each {wanted}"),
                    "not a list",
                );
                Vec::new()
            }
        }
    }

    /// Reports a key that must be there.
    pub(super) fn require_field(
        &mut self,
        field: &OptionalField,
        name: &str,
        table: ByteSpan,
        help: &str,
    ) {
        if field.is_none() {
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
