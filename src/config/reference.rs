//! docs/config.md, generated from the table of keys, and the tests that hold the table against the
//! parser, the defaults and the reload.

#![allow(clippy::unwrap_used)]

use std::{collections::BTreeSet, env, fmt::Write, fs, path::Path};

use netft::{
    api::host::identity,
    config::{
        ChangeEffect, Config, ConfigKey, ConfigTable, KeyDefault, KeySyntax, NumberLimits,
        diff_configs,
        keys::{ADAPTER_PREFIX, CONFIG_KEYS, CONFIG_TABLES},
    },
};

use super::{check, raw};

/// Columns of the generated text.
const LINE_WIDTH: usize = 100;

const REFERENCE_INTRO: &str = "\
# Configuration

Every key of `netft.toml`. Generated from `netft/proto/src/config/keys.rs`; a test fails when this \
file differs, and `NETFT_WRITE_DOCS=1 cargo test -p netftd --lib config` rewrites it.

* An unknown key, a key that stands twice, a wrong type and a value out of range are refused with \
file, line, column and a caret; every problem is reported at once. `netftd --check FILE` only \
checks.
* `netft reload`, `systemctl reload netftd` and SIGHUP apply the file whole or not at all. Keys \
marked *reload* change while traffic flows; a file that changes one marked *restart* is refused.
* Units are fixed: numbers stand alone (`delay = 50`), texts stand in quotes.
* The file is at most 1 MiB, is owned by root or the user that runs netftd, and is not writable by \
others.
";

/// The text of docs/config.md.
fn render_reference() -> String {
    let mut text = String::new();
    for line in REFERENCE_INTRO.lines() {
        wrap_line(&mut text, line);
    }
    for table in CONFIG_TABLES {
        render_table(&mut text, table);
    }
    text
}

fn render_table(text: &mut String, table: &ConfigTable) {
    let (open, close) = if table.repeated { ("[[", "]]") } else { ("[", "]") };
    let _ = writeln!(text, "\n## `{open}{}{close}`\n", table.path);
    wrap_line(text, table.doc);
    text.push_str("\n| key | value | default | change |\n|---|---|---|---|\n");
    for key in keys_of(table) {
        let effect = match key.effect {
            ChangeEffect::Live => "reload",
            ChangeEffect::Restart => "restart",
        };
        let (name, value) = (key.name(), short_value(&key.syntax));
        let _ = writeln!(text, "| `{name}` | {value} | {} | {effect} |", default_text(key));
    }
    text.push('\n');
    for key in keys_of(table) {
        let name = key.name();
        let value = match key.syntax {
            KeySyntax::Number(_) | KeySyntax::Choice(_) | KeySyntax::Flag => String::new(),
            KeySyntax::Text(text)
            | KeySyntax::SecretFile(text)
            | KeySyntax::PublicFile(text)
            | KeySyntax::NumberOrText(_, text) => format!(" Value: {text}."),
            KeySyntax::TextList(text) | KeySyntax::Command(text) => {
                format!(" Value: a list, each {text}.")
            }
            KeySyntax::TextOrList(text) => format!(" Value: {text}, or a list of two."),
        };
        let example = format!(" Example: `{name} = {}`.", key.example);
        wrap_line(text, &format!("* `{name}`: {}{value}{example}", key.doc));
    }
}

fn keys_of(table: &ConfigTable) -> impl Iterator<Item = &'static ConfigKey> {
    CONFIG_KEYS.iter().copied().filter(|key| key.table() == table.path)
}

fn short_value(syntax: &KeySyntax) -> String {
    match syntax {
        KeySyntax::Number(NumberLimits { min, max, unit }) => {
            format!("{min}–{max} {unit}").trim_end().to_owned()
        }
        KeySyntax::NumberOrText(..) => "number or text".to_owned(),
        KeySyntax::Choice(_) | KeySyntax::Flag => syntax.to_string(),
        KeySyntax::Text(_) | KeySyntax::SecretFile(_) | KeySyntax::PublicFile(_) => {
            "text".to_owned()
        }
        KeySyntax::TextList(_) | KeySyntax::Command(_) => "list of texts".to_owned(),
        KeySyntax::TextOrList(_) => "text or list of texts".to_owned(),
    }
}

fn default_text(key: &ConfigKey) -> String {
    match key.default {
        KeyDefault::Required => "required".to_owned(),
        KeyDefault::Number(number) => number.to_string(),
        KeyDefault::Text(text) => format!("`{text}`"),
        KeyDefault::Flag(flag) => format!("`{flag}`"),
        KeyDefault::Described(text) => text.to_owned(),
    }
}

/// Stands for a space inside code, where no line breaks.
const CODE_SPACE: char = '\u{a0}';

/// `line` with the spaces between backticks replaced.
fn join_code(line: &str) -> String {
    let mut in_code = false;
    let join = |c: char| {
        in_code ^= c == '`';
        if in_code && c == ' ' { CODE_SPACE } else { c }
    };
    line.chars().map(join).collect()
}

/// Appends `line`, broken between words; a list item continues under its first word.
fn wrap_line(text: &mut String, line: &str) {
    let indent = if line.starts_with("* ") { "  " } else { "" };
    let mut width = 0;
    for word in join_code(line).split(' ') {
        let length = word.chars().count();
        if width == 0 {
            width = length;
        } else if width + 1 + length > LINE_WIDTH {
            text.push('\n');
            text.push_str(indent);
            width = indent.len() + length;
        } else {
            text.push(' ');
            width += 1 + length;
        }
        text.push_str(&word.replace(CODE_SPACE, " "));
    }
    text.push('\n');
}

/// An address that others name.
const OTHER_VIP: &str = "[[vip]]\nname = \"db\"\naddress = \"10.1.0.83\"\n";

/// A config with every table, and values that tests replace.
#[derive(Clone)]
struct SampleFile(Vec<(&'static str, String)>);

impl SampleFile {
    /// Every required key, and what the others need beside them.
    fn new() -> Self {
        let entries = [
            ("node.name", "\"a\""),
            ("node.key", "\"key\""),
            ("network.prefix", "\"10.1.0.0/24\""),
            ("peer.name", "\"b\""),
            ("peer.key", "\"AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=\""),
            ("peer.class.policy", "\"failover\""),
            ("peer.class.dscp", "8"),
            ("peer.route.remote", "\"10.1.0.2\""),
            ("vip.name", "\"web\""),
            ("vip.address", "\"10.1.0.81\""),
            ("vip.check.tcp", "\"127.0.0.1:80\""),
            ("dns.server", "\"10.1.0.53\""),
            ("dns.zone", "\"example\""),
            ("dns.key_file", "\"dns.key\""),
            ("dns.name.name", "\"web\""),
            ("dns.name.members", "[\"db\"]"),
        ];
        Self(entries.map(|(path, value)| (path, value.to_owned())).to_vec())
    }

    fn with(mut self, path: &'static str, value: impl Into<String>) -> Self {
        self.0.retain(|(other, _)| *other != path);
        self.0.push((path, value.into()));
        self
    }

    fn without(mut self, path: &str) -> Self {
        self.0.retain(|(other, _)| *other != path);
        self
    }

    fn to_toml(&self) -> String {
        let mut text = String::new();
        for table in CONFIG_TABLES {
            let (open, close) = if table.repeated { ("[[", "]]") } else { ("[", "]") };
            let _ = writeln!(text, "{open}{}{close}", table.path);
            for (path, value) in &self.0 {
                if let Some((owner, name)) = path.rsplit_once('.')
                    && owner == table.path
                {
                    let _ = writeln!(text, "{name} = {value}");
                }
            }
        }
        text + OTHER_VIP
    }

    fn load(&self, folder: &Path) -> Config {
        let text = self.to_toml();
        let file = toml::from_str::<raw::ConfigFile>(&text).unwrap();
        check::check_file(&file, folder, Path::new("/run/netft"))
            .unwrap_or_else(|problems| panic!("{problems:?}\n{text}"))
    }
}

fn key_folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in ["key", "other"] {
        let key = identity::generate_key().unwrap();
        identity::write_key_file(&folder.path().join(name), &key).unwrap();
    }
    folder
}

#[test]
fn the_reference_is_the_table_of_keys() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/config.md");
    let text = render_reference();
    if env::var_os("NETFT_WRITE_DOCS").is_some() {
        fs::write(&path, &text).unwrap();
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == text,
        "docs/config.md differs from the table of keys; rewrite it: \
         NETFT_WRITE_DOCS=1 cargo test -p netftd --lib config"
    );
    assert!(text.lines().all(|line| line.chars().count() <= 160));
}

/// The keys and tables that serde lists in its error about an unknown key.
fn accepted_names(table: &str) -> Vec<String> {
    let header = |path: &str| {
        let repeated = CONFIG_TABLES.iter().any(|table| table.path == path && table.repeated);
        if repeated { format!("[[{path}]]\n") } else { format!("[{path}]\n") }
    };
    let mut text = String::new();
    for (at, _) in table.match_indices('.') {
        text += &header(&table[..at]);
    }
    if !table.is_empty() {
        text += &header(table);
    }
    let error = toml::from_str::<raw::ConfigFile>(&(text + "no_such_key = 1\n")).unwrap_err();
    let message = error.message();
    assert!(message.contains("unknown field `no_such_key`"), "{message}");
    message.split('`').skip(3).step_by(2).map(str::to_owned).collect()
}

fn collect_accepted(table: &str, found: &mut BTreeSet<String>) {
    for name in accepted_names(table) {
        let path = if table.is_empty() { name } else { format!("{table}.{name}") };
        if CONFIG_TABLES.iter().any(|table| table.path == path) {
            collect_accepted(&path, found);
        } else {
            found.insert(path);
        }
    }
}

#[test]
fn the_table_has_every_key_the_parser_accepts() {
    let mut accepted = BTreeSet::new();
    collect_accepted("", &mut accepted);
    let listed: BTreeSet<_> = CONFIG_KEYS.iter().map(|key| key.path.to_owned()).collect();
    assert_eq!(accepted, listed);
    assert_eq!(CONFIG_KEYS.len(), listed.len(), "a key stands twice");
    let tables: BTreeSet<_> = CONFIG_KEYS.iter().map(|key| key.table()).collect();
    assert_eq!(tables, CONFIG_TABLES.iter().map(|table| table.path).collect());
}

#[test]
fn the_defaults_of_the_table_are_those_of_the_config() {
    let folder = key_folder();
    let base = SampleFile::new().load(folder.path());
    for key in CONFIG_KEYS {
        let value = match key.default {
            KeyDefault::Number(number) => number.to_string(),
            KeyDefault::Text(text) => format!("{text:?}"),
            KeyDefault::Flag(flag) => flag.to_string(),
            KeyDefault::Required | KeyDefault::Described(_) => continue,
        };
        let config = SampleFile::new().with(key.path, value).load(folder.path());
        assert_eq!(diff_configs(&base, &config), Ok(Vec::new()), "{}", key.path);
    }
}

#[test]
fn a_key_changes_with_a_reload_or_a_restart_as_the_table_says() {
    let folder = key_folder();
    for key in CONFIG_KEYS {
        let base = match key.path {
            "relay.limit" => SampleFile::new().with("relay.offer", "true"),
            "vip.check.status" => {
                let without_tcp = SampleFile::new().without("vip.check.tcp");
                without_tcp.with("vip.check.http", "\"http://127.0.0.1:8008/\"")
            }
            "vip.hook_timeout" => SampleFile::new().with("vip.hook", "[\"/bin/true\"]"),
            // The examples are those of one file, in which this one is node a.
            "node.name" => SampleFile::new().with(key.path, "\"other\""),
            "peer.name" => SampleFile::new().with(key.path, "\"other\""),
            "vip.name" => SampleFile::new().with(key.path, "\"other\""),
            "adapter.address" | "adapter.address6" | "peer.address" | "peer.address6" => {
                let in_prefix = SampleFile::new().with("adapter.prefix", ADAPTER_PREFIX.example);
                in_prefix
                    .with("adapter.address", "\"10.99.0.9\"")
                    .with("adapter.address6", "\"fd99::9\"")
            }
            "ownership.etcd.endpoints"
            | "ownership.etcd.ca_file"
            | "ownership.etcd.certificate_file"
            | "ownership.etcd.key_file" => SampleFile::new()
                .with("ownership.etcd.endpoints", "[\"https://10.1.0.6:2379\"]")
                .with("ownership.etcd.ca_file", "\"/other\"")
                .with("ownership.etcd.certificate_file", "\"/other\"")
                .with("ownership.etcd.key_file", "\"/other\""),
            // One is refused without the other.
            "ownership.etcd.user" | "ownership.etcd.password_file" => SampleFile::new()
                .with("ownership.etcd.user", "\"other\"")
                .with("ownership.etcd.password_file", "\"/tmp/other\""),
            _ => SampleFile::new(),
        };
        let changed = match key.path {
            // One probe in place of another.
            "vip.check.exec" | "vip.check.http" => {
                base.clone().without("vip.check.tcp").with(key.path, key.example)
            }
            // A certificate and its key go together.
            "metrics.certificate_file" => {
                let changed = base.clone().with("metrics.key_file", "\"k\"");
                changed.with(key.path, key.example)
            }
            "metrics.key_file" => {
                let changed = base.clone().with("metrics.certificate_file", "\"c\"");
                changed.with(key.path, key.example)
            }
            // The example is a path of its own.
            "node.key" => base.clone().with(key.path, "\"other\""),
            // A prefix is nothing without addresses in it.
            "adapter.prefix" => base
                .clone()
                .with(key.path, key.example)
                .with("adapter.address", "\"10.99.0.1\"")
                .with("adapter.address6", "\"fd99::1\""),
            _ => base.clone().with(key.path, key.example),
        };
        let setting = if key.path == "adapter.prefix" { "adapter.address" } else { key.path };
        match (key.effect, diff_configs(&base.load(folder.path()), &changed.load(folder.path()))) {
            (ChangeEffect::Live, Ok(changes)) => assert!(!changes.is_empty(), "{setting}"),
            (ChangeEffect::Restart, Err(settings)) => {
                assert!(settings.iter().any(|one| one.setting == setting), "{settings:?}");
            }
            (effect, found) => panic!("{} is {effect:?}: {found:?}", key.path),
        }
    }
}
