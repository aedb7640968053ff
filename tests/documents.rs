//! The book against the programs: every command, option and drop reason is in it.

#![allow(clippy::unwrap_used)]

use std::{fs, os::unix::fs::PermissionsExt, process::Command};

fn read_document(name: &str) -> String {
    fs::read_to_string(format!("{}/docs/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

#[test]
fn every_drop_reason_is_explained() {
    let text = read_document("operations.md");
    let names = netft::wire::DropReason::ALL.map(netft::wire::DropReason::as_str);
    let missing = names.iter().filter(|name| !text.contains(&format!("`{name}`")));
    let problems: Vec<_> =
        missing.map(|name| format!("docs/operations.md does not explain {name}")).collect();
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}

fn help_text(program: &str, command: &[&str]) -> String {
    let out = Command::new(program).args(command).arg("--help").output().unwrap();
    String::from_utf8(out.stdout).unwrap()
}

/// The subcommands a help text lists.
fn subcommands(help: &str) -> Vec<&str> {
    let listed = help.split("Commands:\n").nth(1).unwrap_or("").split("\n\n").next().unwrap();
    let names = listed.lines().filter_map(|line| line.split_whitespace().next());
    names.filter(|name| *name != "help").collect()
}

#[test]
fn every_command_and_option_is_documented() {
    let text = read_document("cli.md");
    let mut problems = Vec::new();
    let (netft, netftd) = (env!("CARGO_BIN_EXE_netft"), env!("CARGO_BIN_EXE_netftd"));
    let top = help_text(netft, &[]);
    let mut helps = vec![(String::from("netftd"), help_text(netftd, &[]))];
    for command in subcommands(&top) {
        let help = help_text(netft, &[command]);
        for below in subcommands(&help) {
            helps.push((format!("netft {command} {below}"), help_text(netft, &[command, below])));
        }
        helps.push((format!("netft {command}"), help));
    }
    for (command, help) in &helps {
        if !text.contains(command.as_str()) {
            problems.push(format!("docs/cli.md does not name `{command}`"));
        }
        let words = help.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
        for option in words.filter(|word| word.len() > 3 && word.starts_with("--")) {
            let common = ["--help", "--version"].contains(&option);
            if !common && !text.contains(option) {
                problems.push(format!("docs/cli.md does not name {option} of `{command}`"));
            }
        }
    }
    assert!(helps.len() > 15, "the commands were not found");
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}

/// The file that the examples of docs/config.md make, without those of `left_out`.
fn file_of_examples(left_out: &[&str]) -> String {
    let page = read_document("config.md");
    let mut file = String::new();
    for section in page.split("\n## `").skip(1) {
        let (table, body) = section.split_once('`').unwrap();
        file += &format!("{table}\n");
        for item in body.replace("\n  ", " ").split("\n* `").skip(1) {
            let (name, text) = item.split_once('`').unwrap();
            let path = format!("{}.{name}", table.trim_matches(['[', ']']));
            let (_, example) = text.split_once(" Example: `").expect("every key has an example");
            if !left_out.contains(&path.as_str()) {
                file += &format!("{}\n", example.trim_end().trim_end_matches("`."));
            }
        }
    }
    file
}

/// Every key that is there, each by its example, is a configuration: nobody has to guess.
#[test]
fn the_examples_of_the_reference_make_a_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("netft.toml");
    // The files that are read for the check.
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "ed25519", "-nodes", "-subj", "/CN=a"]);
    openssl.args(["-keyout", "metrics.key", "-out", "metrics.crt"]).current_dir(folder.path());
    let Ok(made) = openssl.output() else {
        assert!(std::env::var_os("NETFT_REQUIRE_SERVERS").is_none(), "there is no openssl");
        eprintln!("skipped: there is no openssl");
        return;
    };
    assert!(made.status.success(), "{made:?}");
    let mut keygen = Command::new(env!("CARGO_BIN_EXE_netft"));
    let made = keygen.arg("keygen").arg(folder.path().join("key")).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    fs::write(folder.path().join("metrics-token"), "0123456789abcdef\n").unwrap();
    for secret in ["metrics-token", "metrics.key"] {
        let mode = fs::Permissions::from_mode(0o600);
        fs::set_permissions(folder.path().join(secret), mode).unwrap();
    }
    let here = format!("{}/", folder.path().display());
    // Two keys for one thing, and the three checks, stand in place of each other.
    for left_out in [
        ["vip.interface", "vip.check.tcp", "vip.check.exec"].as_slice(),
        &["vip.network", "vip.check.http", "vip.check.status", "vip.check.exec"],
        &["vip.network", "vip.check.http", "vip.check.status", "vip.check.tcp"],
    ] {
        let file = file_of_examples(left_out).replace("/etc/netft/", &here);
        assert!(file.lines().count() > 100, "{file}");
        // The other floating address that examples name.
        let other = "[[vip]]\nname = \"db\"\naddress = \"10.1.0.83\"\n";
        fs::write(&path, file + other).unwrap();
        let checked = Command::new(env!("CARGO_BIN_EXE_netftd")).arg("--check").arg(&path).output();
        let checked = checked.unwrap();
        assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    }
}

/// Holds a generated page against its file; `NETFT_WRITE_DOCS=1` writes it anew.
fn assert_generated(name: &str, text: &str) {
    let path = format!("{}/docs/{name}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("NETFT_WRITE_DOCS").is_some() {
        fs::write(&path, text).unwrap();
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == text,
        "docs/{name} is not what the code says; rewrite it: \
         NETFT_WRITE_DOCS=1 cargo test --test documents"
    );
}

/// Appends `line`, broken between words at 100 columns; a list item continues under its first word.
fn push_wrapped(page: &mut String, line: &str) {
    let indent = if line.starts_with("* ") { "  " } else { "" };
    let mut width = 0;
    for word in line.split(' ') {
        let length = word.chars().count();
        if width > 0 && width + 1 + length > 100 {
            page.push('\n');
            page.push_str(indent);
            width = indent.len();
        } else if width > 0 {
            page.push(' ');
            width += 1;
        }
        page.push_str(word);
        width += length;
    }
    page.push('\n');
}

/// Text of an argument's help, one line.
fn one_line(text: Option<&clap::builder::StyledStr>) -> String {
    let text = text.map(ToString::to_string).unwrap_or_default();
    text.split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .replace(" [default: ", "; default: ")
        .trim_end_matches(']')
        .to_owned()
}

fn push_command(page: &mut String, command: &clap::Command, above: &str) {
    let name = format!("{above}{}", command.get_name());
    page.push_str(&format!("\n## {name}\n\n"));
    push_wrapped(page, &format!("{}.", one_line(command.get_about()).trim_end_matches('.')));
    let mut before = "\n";
    for argument in command.get_arguments().filter(|it| !it.is_global_set() && !it.is_hide_set()) {
        if ["help", "version"].contains(&argument.get_id().as_str()) {
            continue;
        }
        let values = argument.get_value_names().unwrap_or_default();
        let takes_value = argument.get_action().takes_values();
        let value = values.first().filter(|_| takes_value).map(|value| format!(" {value}"));
        let value = value.unwrap_or_default();
        let shown = match (argument.get_short(), argument.get_long()) {
            (Some(short), Some(long)) => format!("-{short}, --{long}{value}"),
            (None, Some(long)) => format!("--{long}{value}"),
            _ => value.trim().to_owned(),
        };
        let defaults = argument.get_default_values().iter().map(|it| it.to_string_lossy());
        let defaults: Vec<_> = defaults.filter(|_| takes_value).collect();
        let default = match defaults.is_empty() {
            true => String::new(),
            false => format!(" Default: `{}`.", defaults.join(", ")),
        };
        let help = one_line(argument.get_help());
        let end = if help.ends_with('.') { "" } else { "." };
        page.push_str(std::mem::take(&mut before));
        push_wrapped(page, &format!("* `{shown}`: {help}{end}{default}"));
    }
    for below in command.get_subcommands().filter(|it| it.get_name() != "help") {
        push_command(page, below, &format!("{name} "));
    }
}

#[test]
fn the_reference_of_commands_is_that_of_the_programs() {
    let mut page = String::from(
        "# Reference of commands\n\nGenerated from the programs' arguments; [Commands](cli.md) \
         explains them. `NETFT_WRITE_DOCS=1 cargo test\n--test documents` rewrites this page.\n\n\
         Options of every `netft` command:\n\n",
    );
    let netft = netftd::cli::netft_command();
    for argument in netft.get_arguments().filter(|argument| argument.is_global_set()) {
        let long = argument.get_long().unwrap();
        push_wrapped(&mut page, &format!("* `--{long}`: {}.", one_line(argument.get_help())));
    }
    push_command(&mut page, &netft, "");
    push_command(&mut page, &netftd::daemon::netftd_command(), "");
    assert_generated("commands.md", &page);
    assert!(page.matches("\n## ").count() > 20, "the commands were not found");
}

/// The variants of `EventDetail` with their documentation and fields, from the source.
fn event_variants() -> Vec<(String, String, Vec<String>)> {
    let path = format!("{}/src/control/schema/events.rs", env!("CARGO_MANIFEST_DIR"));
    let source = fs::read_to_string(path).unwrap();
    let body = source.split("pub enum EventDetail {\n").nth(1).unwrap();
    let body = body.split("\n}\n").next().unwrap();
    let mut found: Vec<(String, String, Vec<String>)> = Vec::new();
    let (mut doc, mut is_flat) = (Vec::new(), false);
    for line in body.lines() {
        let text = line.trim();
        let depth = line.len() - line.trim_start().len();
        match (depth, text.strip_prefix("/// ")) {
            (4, Some(part)) => doc.push(part.to_owned()),
            (8, None) if text.contains("flatten") => is_flat = true,
            (4, None) if text.starts_with(char::is_uppercase) => {
                let name = text.trim_end_matches([' ', '{', ',']);
                let mut id = String::new();
                for c in name.chars() {
                    if c.is_uppercase() && !id.is_empty() {
                        id.push('-');
                    }
                    id.push(c.to_ascii_lowercase());
                }
                found.push((id, doc.join(" "), Vec::new()));
                doc.clear();
            }
            (8, None) if text.contains(": ") && !text.starts_with('#') => {
                let field = text.split(':').next().unwrap();
                let shown =
                    if is_flat { format!("those of its {field}") } else { format!("`{field}`") };
                found.last_mut().unwrap().2.push(shown);
                is_flat = false;
            }
            _ => {}
        }
    }
    found
}

#[test]
fn the_reference_of_events_names_every_event() {
    let mut page = String::from(
        "# Reference of events\n\nEvery event: its identifier (`event` in JSON, `netft events \
         --id`), when it happens, and its fields\nin JSON. Generated from the schema; \
         `NETFT_WRITE_DOCS=1 cargo test --test documents` rewrites\nthis page.\n\n",
    );
    let variants = event_variants();
    for (id, doc, fields) in &variants {
        let shown = if fields.is_empty() {
            String::new()
        } else {
            format!(" Fields: {}.", fields.join(", "))
        };
        push_wrapped(&mut page, &format!("* `{id}`: {doc}{shown}"));
    }
    assert_generated("events.md", &page);
    // Serde lists the identifiers it knows when it is given another.
    let probe = serde_json::json!({ "event": "none" });
    let error = serde_json::from_value::<netftd::control::schema::EventDetail>(probe);
    let error = error.unwrap_err().to_string();
    let known: Vec<_> = error.split('`').skip(3).step_by(2).collect();
    let listed: Vec<_> = variants.iter().map(|(id, ..)| id.as_str()).collect();
    assert_eq!(listed, known);
}
