//! The secrets that a configuration leads to, by the syntax of its keys.
//!
//! The file need not be valid: a wrong one is reported, too, and its secrets are no less secret.

use std::{
    fs::File,
    io,
    io::{ErrorKind, Read},
    path::Path,
};

use netft::config::{ConfigKey, KeySyntax, keys::CONFIG_KEYS};
use toml::de::{DeTable, DeValue};

use super::scrub::SecretScrubber;

/// Most of a file that is read, bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// The secrets in the files that the configuration at `path` names, and in its commands. One that
/// this user cannot read is in no part of a report either.
pub fn collect_secrets(path: &Path) -> SecretScrubber {
    let folder = path.parent().unwrap_or(Path::new(""));
    let bytes = read_bounded(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let (root, _) = DeTable::parse_recoverable(&text);
    let mut scrubber = SecretScrubber::default();
    for key in CONFIG_KEYS {
        let mut values = Vec::new();
        find_texts(root.get_ref(), key.path, &mut values);
        add_values(&mut scrubber, folder, key, &values);
    }
    scrubber
}

/// The texts at a dotted path, those of lists and of repeated tables among them.
fn find_texts<'t>(table: &'t DeTable<'_>, path: &str, found: &mut Vec<&'t str>) {
    let (name, rest) = path.split_once('.').unwrap_or((path, ""));
    for (_, value) in table.iter().filter(|(key, _)| key.get_ref() == name) {
        add_texts(value.get_ref(), rest, found);
    }
}

fn add_texts<'t>(value: &'t DeValue<'_>, rest: &str, found: &mut Vec<&'t str>) {
    match value {
        DeValue::Array(items) => items.iter().for_each(|it| add_texts(it.get_ref(), rest, found)),
        DeValue::Table(below) if !rest.is_empty() => find_texts(below, rest, found),
        DeValue::String(text) if rest.is_empty() => found.push(text),
        _ => {}
    }
}

fn add_values(scrubber: &mut SecretScrubber, folder: &Path, key: &ConfigKey, values: &[&str]) {
    match key.syntax {
        KeySyntax::SecretFile(_) => {
            values.iter().for_each(|name| add_secret_file(scrubber, folder, name));
        }
        // Programs and files are named by paths. Everything else may be a password.
        KeySyntax::Command(_) => values
            .iter()
            .filter(|word| !Path::new(word).is_absolute() || !Path::new(word).exists())
            .for_each(|word| scrubber.add_word(word)),
        KeySyntax::Number(_)
        | KeySyntax::NumberOrText(..)
        | KeySyntax::Choice(_)
        | KeySyntax::Text(_)
        | KeySyntax::PublicFile(_)
        | KeySyntax::TextList(_)
        | KeySyntax::TextOrList(_)
        | KeySyntax::Flag => values.iter().for_each(|value| scrubber.add_urls(value)),
    }
}

fn add_secret_file(scrubber: &mut SecretScrubber, folder: &Path, name: &str) {
    match read_bounded(&folder.join(name)) {
        Ok(content) => scrubber.add_secret_file(&String::from_utf8_lossy(&content)),
        // The secret itself stands there, or the name of a file that is missing.
        Err(error) if error.kind() == ErrorKind::NotFound && !is_path(name) => {
            scrubber.add_word(name);
        }
        Err(_) => {}
    }
}

/// The text is a path for sure: it is absolute, and its folder is there. A secret may hold slashes.
fn is_path(name: &str) -> bool {
    let parent = Path::new(name).parent();
    parent.is_some_and(|it| it.is_absolute() && it != Path::new("/") && it.is_dir())
}

fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_FILE_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}
