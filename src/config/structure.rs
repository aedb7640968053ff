//! The file's text → its tables and keys, with every mistake in their structure. Pure.

use serde::Deserialize;
use toml::{
    Spanned,
    de::{DeTable, DeValue, Deserializer},
};

use super::{problem::ConfigProblem, raw, reader::ByteSpan};

/// Keys that people write for another one, which the spelling does not lead to.
const KEY_SYNONYMS: [(&str, &str); 1] = [("carrier", "transport")];
/// Most mistakes that are looked for.
const MAX_STRUCTURE_PROBLEMS: usize = 64;

/// Reads the tables. An entry that is refused, such as an unknown key, is left out, so that it
/// hides no other mistake; `None` where the text is no TOML.
pub(super) fn read_structure(text: &str) -> (Option<raw::ConfigFile>, Vec<ConfigProblem>) {
    let (mut root, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        let problems = errors.iter().take(MAX_STRUCTURE_PROBLEMS).map(syntax_problem);
        return (None, problems.collect());
    }
    let mut problems = Vec::new();
    loop {
        let error = match raw::ConfigFile::deserialize(Deserializer::from(root.clone())) {
            Ok(file) => return (Some(file), problems),
            Err(error) => error,
        };
        problems.push(syntax_problem(&error));
        let is_left_out = error.span().is_some_and(|span| remove_at(root.as_mut(), &span));
        if !is_left_out || problems.len() == MAX_STRUCTURE_PROBLEMS {
            return (None, problems);
        }
    }
}

/// Removes the entry whose key or value stands at `span`. Returns whether there was one.
fn remove_at(table: &mut DeTable<'_>, span: &ByteSpan) -> bool {
    let mut entries = table.iter();
    let refused = entries.find(|(key, value)| key.span() == *span || value.span() == *span);
    match refused.map(|(key, _)| key.clone()) {
        Some(key) => table.remove(&key).is_some(),
        None => table.iter_mut().any(|(_, value)| remove_inside(value, span)),
    }
}

fn remove_inside(value: &mut Spanned<DeValue<'_>>, span: &ByteSpan) -> bool {
    match value.as_mut() {
        DeValue::Table(table) => remove_at(table, span),
        DeValue::Array(items) => items.iter_mut().any(|item| remove_inside(item, span)),
        _ => false,
    }
}

/// A syntax or type error of the TOML parser, with the remedy for the common ones.
fn syntax_problem(error: &toml::de::Error) -> ConfigProblem {
    let message = error.message();
    let problem = ConfigProblem::at_span(error.span().unwrap_or(0..0), message, "here");
    if let Some(help) = unknown_key_help(message) {
        return problem.with_help(help);
    }
    let help = if message.contains("expected a sequence") {
        "`network`, `peer` and `vip` are lists of tables: write `[[network]]`, `[[peer]]`, \
         `[[peer.route]]`, `[[peer.class]]`, `[[vip]]`, `[[dns.name]]`"
    } else if message.contains("expected struct") {
        "this is a table: write `[name]` on a line of its own, or `name = { key = value }`"
    } else if message.contains("must be quoted") {
        "a number stands alone (`5`), its unit is fixed; a text stands in quotes (`\"5\"`)"
    } else if message.contains("recurs") {
        "nothing in this file is nested deeper than three tables"
    } else {
        return problem;
    };
    problem.with_help(help)
}

/// The key that was meant by an unknown one, from serde's list of the keys of its table.
fn unknown_key_help(message: &str) -> Option<String> {
    let mut names = message.strip_prefix("unknown field `")?.split('`').step_by(2);
    let unknown = names.next()?;
    let known: Vec<_> = names.collect();
    let synonym = KEY_SYNONYMS.iter().find(|(word, key)| *word == unknown && known.contains(key));
    if let Some((word, key)) = synonym {
        return Some(format!("`{word}` is the kernel's L1 carrier; this key is `{key}`"));
    }
    let nearest = known.into_iter().min_by_key(|key| edit_distance(unknown, key))?;
    let is_near = edit_distance(unknown, nearest) <= nearest.len().div_ceil(3);
    is_near.then(|| format!("did you mean `{nearest}`?"))
}

/// Levenshtein distance, in bytes: keys are ASCII.
fn edit_distance(left: &str, right: &str) -> usize {
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (index, byte) in left.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], index + 1);
        for (place, other) in right.bytes().enumerate() {
            let replaced = diagonal + usize::from(byte != other);
            diagonal = row[place + 1];
            row[place + 1] = replaced.min(diagonal + 1).min(row[place] + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mistake_of_the_structure_is_found_and_the_rest_is_read() {
        let (file, problems) = read_structure("[nod]\nx = 1\n[node]\nnmae = 1\nname = \"a\"\n");
        let starts: Vec<_> = problems.iter().map(ConfigProblem::start).collect();
        assert_eq!(starts.len(), 2, "{problems:?}");
        assert!(
            file.is_some_and(|file| file.node.is_some_and(|node| node.get_ref().name.is_some()))
        );
        let (file, problems) = read_structure("[node\nname = \"a\"\n[adapter]\nmtu = = 3\n");
        assert!(file.is_none() && problems.len() > 1, "{problems:?}");
    }
}
