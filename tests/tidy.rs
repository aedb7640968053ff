//! The rules of the house, checked: who may touch what, file sizes, words.

#![allow(clippy::unwrap_used)]

use std::{
    fs,
    path::{Path, PathBuf},
};

const MAX_LINES: usize = 600;
const MAX_COLUMNS: usize = 100;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(dir: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            if name != "target" && !name.starts_with('.') {
                rust_files(&path, found);
            }
        } else if name.ends_with(".rs") {
            found.push(path);
        }
    }
}

fn sources() -> Vec<(String, String)> {
    let root = root();
    let mut files = Vec::new();
    rust_files(&root, &mut files);
    assert!(files.len() > 30, "the sources were not found");
    files.sort();
    files
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(&path).unwrap();
            let name = path.strip_prefix(&root).unwrap().to_string_lossy().into_owned();
            (name, text)
        })
        .collect()
}

fn complain(problems: &[String]) {
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}

#[test]
fn files_and_lines_stay_short() {
    let mut problems = Vec::new();
    for (name, text) in sources() {
        let lines = text.lines().count();
        if lines > MAX_LINES {
            problems.push(format!("{name}: {lines} lines, at most {MAX_LINES}"));
        }
        for (number, line) in text.lines().enumerate() {
            // A table in a comment cannot be broken.
            let table = line.starts_with("//! |");
            if line.chars().count() > MAX_COLUMNS && !table {
                problems.push(format!("{name}:{}: over {MAX_COLUMNS} columns", number + 1));
            }
        }
    }
    complain(&problems);
}

/// The pure crate depends on nothing that could do I/O, so the compiler is the guard; what the
/// standard library offers is looked for here, in grouped imports too.
#[test]
fn the_pure_crate_touches_nothing() {
    const FORBIDDEN: [&str; 10] = [
        "std::fs",
        "std::io::",
        "std::thread",
        "std::env",
        "std::process",
        "std::net::UdpSocket",
        "std::net::TcpStream",
        "std::time::Instant",
        "std::time::SystemTime",
        "ring::rand",
    ];
    const DEPENDENCIES: [&str; 6] = ["arc-swap", "base64", "ipnet", "ring", "thiserror", "zeroize"];
    let mut problems = Vec::new();
    let manifest = fs::read_to_string(root().join("netft/proto/Cargo.toml")).unwrap();
    let section = manifest.split("[dependencies]\n").nth(1).unwrap().split("\n[").next().unwrap();
    for line in section.lines().filter(|line| !line.is_empty()) {
        let name = line.split(['.', ' ', '=']).next().unwrap();
        if !DEPENDENCIES.contains(&name) {
            problems.push(format!("netft/proto/Cargo.toml: the pure crate depends on {name}"));
        }
    }
    for (name, text) in sources() {
        let tests = name.contains("/tests") || name.ends_with("/test_packets.rs");
        if !name.starts_with("netft/proto/src/") || tests {
            continue;
        }
        // Tests may use threads to show that shared state is safe to share.
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        for path in paths(code) {
            // `IoSlice` is a borrowed slice in the kernel's layout: a value, no I/O.
            let bad = FORBIDDEN.iter().any(|word| path.starts_with(word.trim_end_matches(':')));
            if bad && path != "std::io::IoSlice" {
                problems.push(format!("{name}: a pure file names {path}"));
            }
        }
    }
    complain(&problems);
}

/// Every path a file names, with grouped imports taken apart: `a::{b, c::d}` is `a::b`, `a::c::d`.
fn paths(code: &str) -> Vec<String> {
    let code: String = code.lines().map(|line| line.split("//").next().unwrap()).collect();
    let mut found = Vec::new();
    let (mut prefixes, mut word) = (Vec::new(), String::new());
    for char in code.chars() {
        match char {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '_' | ':' => word.push(char),
            '{' if word.ends_with("::") => {
                let prefix = prefixes.last().cloned().unwrap_or_default();
                prefixes.push(format!("{prefix}{word}"));
                word.clear();
            }
            _ => {
                if !word.is_empty() {
                    let prefix = prefixes.last().cloned().unwrap_or_default();
                    found.push(format!("{prefix}{word}"));
                    word.clear();
                }
                match char {
                    '{' => prefixes.push(String::new()),
                    '}' => drop(prefixes.pop()),
                    _ => {}
                }
            }
        }
    }
    found
}

#[test]
fn grouped_imports_are_taken_apart() {
    let code = "use std::{fs::File, net::{IpAddr, UdpSocket}, time::Instant}; \
                fn f() { std::env::args(); }";
    let found = paths(code);
    for path in ["std::fs::File", "std::net::UdpSocket", "std::time::Instant", "std::env::args"] {
        assert!(found.iter().any(|one| one == path), "{path} in {found:?}");
    }
}

/// wire ← packet, session ← route … ← topology; nothing in `io` names the front door above it.
#[test]
fn dependencies_point_one_way() {
    const ARROWS: [(&str, &[&str]); 4] = [
        (
            "netft/proto/src/wire/",
            &["crate::route", "crate::topology", "crate::packet", "crate::sim", "crate::engine"],
        ),
        (
            "netft/proto/src/packet/",
            &["crate::route", "crate::topology", "crate::sim", "crate::engine"],
        ),
        ("netft/proto/src/route/", &["crate::topology", "crate::sim", "crate::packet"]),
        ("netft/src/io/", &["crate::adapter"]),
    ];
    let mut problems = Vec::new();
    for (name, text) in sources() {
        let named = paths(&text);
        for (room, forbidden) in ARROWS {
            for word in forbidden.iter().filter(|_| name.starts_with(room)) {
                if named.iter().any(|path| path == word || path.starts_with(&format!("{word}::"))) {
                    problems.push(format!("{name}: names {word}"));
                }
            }
        }
        let outside = |path: &String| path.starts_with("clap::") || path.starts_with("toml::");
        if name.starts_with("netft/") && named.iter().any(outside) {
            problems.push(format!("{name}: the library knows no clap and no toml"));
        }
    }
    complain(&problems);
}

#[test]
fn unsafe_stays_in_the_leaves() {
    const LEAVES: [&str; 3] = ["netft/src/io/sys/", "netft/lab/src/sys.rs", "netft/tests/common/"];
    let mut problems = Vec::new();
    for (name, text) in sources() {
        let unsafe_code = text.lines().any(|line| {
            let line = line.split("//").next().unwrap().trim_start();
            line.contains("unsafe {") || line.starts_with("unsafe ")
        });
        let leaf = LEAVES.iter().any(|leaf| name.starts_with(leaf)) || name.starts_with("fuzz/");
        if unsafe_code && !leaf && name != "tests/tidy.rs" {
            problems.push(format!("{name}: unsafe code outside the leaves"));
        }
        if unsafe_code && leaf && !text.contains("SAFETY:") {
            problems.push(format!("{name}: unsafe code without its SAFETY reason"));
        }
    }
    complain(&problems);
}

#[test]
fn nothing_is_left_open() {
    let marks = ["TO".to_owned() + "DO", "FIX".to_owned() + "ME", "to".to_owned() + "do!("];
    let mut problems = Vec::new();
    for (name, text) in sources() {
        for mark in &marks {
            if text.contains(mark.as_str()) {
                problems.push(format!("{name}: contains {mark}"));
            }
        }
    }
    complain(&problems);
}

#[test]
fn the_readme_names_every_example() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    for entry in fs::read_dir(root().join("examples")).unwrap() {
        let name = entry.unwrap().file_name().to_string_lossy().into_owned();
        assert!(readme.contains(&name), "README.md does not name examples/{name}");
    }
}

#[test]
fn architecture_stays_short() {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    assert!(text.lines().count() <= 200, "ARCHITECTURE.md is over 200 lines");
}
