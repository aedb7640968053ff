//! The config file: TOML in, [`netft::config::Config`] out, or everything that is wrong with it
//! by line and column.
//!
//! Called by `netftd` at start and by `netftd --check`. Bounds: 1 MiB, opened once, nested at
//! most 80 deep, 256 peers.

mod check;
mod dns;
mod edit;
mod etcd;
mod file;
mod loaded;
mod metrics;
mod names;
mod peers;
mod policies;
mod problem;
mod raw;
mod reader;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod schema;
mod structure;
mod value;
mod vips;
mod virtuals;

use std::path::Path;

pub use edit::{PeerEdit, RouteEdit, edit_config_text};
pub use file::FileError;
pub use loaded::LoadedConfig;
use netft::config::Config;
pub use netft::config::{adapter_name, node_name};
pub use problem::{ConfigFileError, ConfigProblem, InvalidContent, SourceMark};

/// Reads and checks the config file at `path`; `runtime_dir` goes into it as given.
///
/// # Errors
/// The file cannot be used, or what it says is wrong; rendered for a terminal.
pub fn load_config(path: &Path, runtime_dir: &Path) -> Result<Config, ConfigFileError> {
    load_config_file(path, runtime_dir).map(|loaded| loaded.config)
}

/// The same, with the places that a roster may contradict.
///
/// # Errors
/// As [`load_config`].
pub fn load_config_file(path: &Path, runtime_dir: &Path) -> Result<LoadedConfig, ConfigFileError> {
    let bytes = file::read_config_file(path).map_err(|error| ConfigFileError::File {
        path: path.to_owned(),
        help: error.help_text(path),
        reason: error.to_string(),
        is_denied: error.is_denied(),
    })?;
    let fail = |text, problems| content_error(path, text, problems);
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
    check_config_text(path, text, runtime_dir)
}

fn content_error(path: &Path, text: String, problems: Vec<ConfigProblem>) -> ConfigFileError {
    ConfigFileError::Content(InvalidContent { path: path.to_owned(), text, problems })
}

/// Checks a text as the content of the file at `path`.
///
/// # Errors
/// What it says is wrong.
pub fn check_config_text(
    path: &Path,
    text: String,
    runtime_dir: &Path,
) -> Result<LoadedConfig, ConfigFileError> {
    let folder = path.parent().unwrap_or(Path::new(""));
    let fail = |text, problems| content_error(path, text, problems);
    if let Some(at) = text.find('\0') {
        let problem =
            ConfigProblem::at_span(at..at + 1, "this is no text: it holds a NUL byte", "this byte")
                .with_help("give the path of a netft config file");
        return Err(fail(text, vec![problem]));
    }
    let (file, mut problems) = structure::read_structure(&text);
    let checked = file.map(|file| {
        let places = loaded::ConfigPlaces::find_in(&file);
        check::check_file(&file, folder, runtime_dir).map(|config| (config, places))
    });
    match checked {
        Some(Ok((config, places))) if problems.is_empty() => {
            return Ok(LoadedConfig { config, path: path.to_owned(), text, places });
        }
        Some(Err(found)) => problems.extend(found),
        Some(Ok(_)) | None => {}
    }
    problems.sort_by_key(ConfigProblem::start);
    Err(fail(text, problems))
}
