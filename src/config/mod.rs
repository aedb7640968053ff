//! The config file: TOML in, [`netft::config::Config`] out, or everything that is wrong with it
//! by line and column.
//!
//! Called by `netftd` at start and by `netftd --check`. Bounds: 1 MiB, opened once, nested at
//! most 80 deep, 256 peers.

mod check;
mod file;
mod names;
mod peers;
mod policies;
mod problem;
mod raw;
mod reader;
#[cfg(test)]
mod reference;
mod value;
mod virtuals;

use std::path::Path;

pub use file::FileError;
use netft::config::Config;
pub use netft::config::{adapter_name, node_name};
pub use problem::{ConfigFileError, ConfigProblem, InvalidContent, SourceMark};

/// Reads and checks the config file at `path`; `runtime_dir` goes into it as given.
///
/// # Errors
/// The file cannot be used, or what it says is wrong; rendered for a terminal.
pub fn load_config(path: &Path, runtime_dir: &Path) -> Result<Config, ConfigFileError> {
    let bytes = file::read_config_file(path).map_err(|error| ConfigFileError::File {
        path: path.to_owned(),
        help: error.help_text(path),
        reason: error.to_string(),
        is_denied: error.is_denied(),
    })?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let fail = |text: String, problems| {
        ConfigFileError::Content(InvalidContent { path: path.to_owned(), text, problems })
    };
    let text = match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let at = error.utf8_error().valid_up_to();
            let lossy = String::from_utf8_lossy(error.as_bytes()).into_owned();
            let problem = ConfigProblem::at_span(at..at + 1, "this is not UTF-8", "this byte")
                .with_help("save the file as UTF-8 text");
            return Err(fail(lossy, vec![problem]));
        }
    };
    if let Some(at) = text.find('\0') {
        let problem =
            ConfigProblem::at_span(at..at + 1, "this is no text: it holds a NUL byte", "this byte")
                .with_help("give the path of a netft config file");
        return Err(fail(text, vec![problem]));
    }
    let file = match toml::from_str::<raw::ConfigFile>(&text) {
        Ok(file) => file,
        Err(error) => {
            let problem = syntax_problem(&error);
            return Err(fail(text, vec![problem]));
        }
    };
    check::check_file(&file, folder, runtime_dir).map_err(|problems| fail(text, problems))
}

/// A syntax or type error of the TOML parser, with the remedy for the common ones.
fn syntax_problem(error: &toml::de::Error) -> ConfigProblem {
    let message = error.message();
    let problem = ConfigProblem::at_span(error.span().unwrap_or(0..0), message, "here");
    if let Some(help) = unknown_key_help(message) {
        return problem.with_help(help);
    }
    let help = if message.contains("expected a sequence") {
        "`network` and `peer` are lists of tables: write `[[network]]`, `[[peer]]`, \
         `[[peer.route]]`, `[[peer.class]]`"
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

/// Keys that people write for another one, which the spelling does not lead to.
const KEY_SYNONYMS: [(&str, &str); 1] = [("carrier", "transport")];

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
