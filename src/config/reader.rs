//! Takes values out of fields and collects everything that is wrong with them. Pure.
//!
//! A value that is wrong reads as one that is left out: the check goes on and finds the rest.

use std::{collections::BTreeMap, fmt::Debug, ops::Range};

use netft::route::{Delay, ParamError, Threshold};
use toml::Spanned;

use super::{problem::Problem, raw::Field, value::Value};

/// Where something stands, in bytes.
pub(super) type Span = Range<usize>;

#[derive(Default)]
pub(super) struct Reader {
    pub(super) problems: Vec<Problem>,
}

/// A whole number's limits and unit.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    pub(super) min: u64,
    pub(super) max: u64,
    pub(super) unit: &'static str,
}

impl Limits {
    pub(super) const fn new(min: u64, max: u64, unit: &'static str) -> Self {
        Self { min, max, unit }
    }

    /// The limits of a parameter type, from the error it gives for 0.
    fn of<T: Debug>(new: fn(u64) -> Result<T, ParamError>) -> Self {
        let error = new(0).expect_err("no parameter of a route may be 0");
        Self { min: error.min, max: error.max, unit: error.unit }
    }

    fn text(&self) -> String {
        let Self { min, max, unit } = self;
        let space = if unit.is_empty() { "" } else { " " };
        format!("a whole number from {min} to {max}{space}{unit}")
    }
}

impl Reader {
    pub(super) fn report(&mut self, problem: Problem) {
        self.problems.push(problem);
    }

    /// Reports a value that is not what it should be.
    fn unfit(&mut self, name: &str, value: &Spanned<Value>, wanted: &str, label: &str) {
        let message = format!("`{name}` is {wanted}, not {}", value.get_ref());
        self.report(Problem::at(value.span(), message, label));
    }

    pub(super) fn number(&mut self, field: &Field, name: &str, limits: Limits) -> Option<u64> {
        let value = field.as_ref()?;
        if let Value::Integer(number) = value.get_ref()
            && let Ok(number) = u64::try_from(*number)
            && (limits.min..=limits.max).contains(&number)
        {
            return Some(number);
        }
        let label = match value.get_ref() {
            Value::Integer(_) => "out of range",
            _ => "not a whole number",
        };
        self.unfit(name, value, &limits.text(), label);
        None
    }

    pub(super) fn delay(&mut self, field: &Field) -> Option<Delay> {
        let ms = self.number(field, "delay", Limits::of(Delay::from_millis))?;
        Delay::from_millis(ms).ok()
    }

    pub(super) fn threshold(&mut self, field: &Field) -> Option<Threshold> {
        let count = self.number(field, "threshold", Limits::of(Threshold::new))?;
        Threshold::new(count).ok()
    }

    /// A text that `parse` understands; it says why not otherwise.
    pub(super) fn parse<T>(
        &mut self,
        field: &Field,
        name: &str,
        wanted: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<(T, Span)> {
        self.parse_value(field.as_ref()?, name, wanted, &parse)
    }

    fn parse_value<T>(
        &mut self,
        value: &Spanned<Value>,
        name: &str,
        wanted: &str,
        parse: &impl Fn(&str) -> Result<T, String>,
    ) -> Option<(T, Span)> {
        let Value::Text(text) = value.get_ref() else {
            self.unfit(name, value, wanted, "not a text in quotes");
            return None;
        };
        match parse(text) {
            Ok(parsed) => Some((parsed, value.span())),
            Err(why) => {
                let message = format!("`{name}` is {wanted}, not {}", value.get_ref());
                self.report(Problem::at(value.span(), message, why));
                None
            }
        }
    }

    /// A list of texts, or, where `single` allows it, one text.
    pub(super) fn flag(&mut self, field: &Field, name: &str) -> Option<bool> {
        let value = field.as_ref()?;
        if let Value::Bool(flag) = value.get_ref() {
            return Some(*flag);
        }
        self.unfit(name, value, "`true` or `false`", "not one of them");
        None
    }

    pub(super) fn list<T>(
        &mut self,
        field: &Field,
        name: &str,
        wanted: &str,
        single: bool,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Vec<(T, Span)> {
        match field.as_ref().map(|value| (value, value.get_ref())) {
            None => Vec::new(),
            Some((_, Value::List(items))) => items
                .iter()
                .filter_map(|item| self.parse_value(item, name, wanted, &parse))
                .collect(),
            Some((value, Value::Text(_))) if single => {
                self.parse_value(value, name, wanted, &parse).into_iter().collect()
            }
            Some((value, _)) => {
                self.unfit(name, value, &format!("a list, each {wanted}"), "not a list");
                Vec::new()
            }
        }
    }

    /// Reports a key that must be there.
    pub(super) fn missing(&mut self, field: &Field, name: &str, table: Span, help: &str) {
        if field.is_none() {
            let message = format!("`{name}` is missing");
            let label = format!("this needs `{name}`");
            self.report(Problem::at(table, message, label).help(help));
        }
    }
}

/// Finds what stands in the file twice, and names both places.
pub(super) struct Unique<K> {
    seen: BTreeMap<K, (Span, String)>,
}

impl<K: Ord> Unique<K> {
    pub(super) const fn new() -> Self {
        Self { seen: BTreeMap::new() }
    }

    /// Takes `key`, which belongs to `owner`, as seen at `span`.
    pub(super) fn take(
        &mut self,
        reader: &mut Reader,
        key: K,
        what: &str,
        owner: &str,
        span: &Span,
    ) {
        if let Some((first, first_owner)) = self.seen.get(&key) {
            let message = format!("{what} is used twice: by {first_owner} and by {owner}");
            reader.report(
                Problem::at(span.clone(), message, "used again here")
                    .and(first.clone(), "used first here"),
            );
        } else {
            self.seen.insert(key, (span.clone(), owner.to_owned()));
        }
    }
}
