//! The book against the programs: every command, option and drop reason is in it.

#![allow(clippy::unwrap_used)]

use std::{fs, process::Command};

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
