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

/// The pure rooms, and what none of them may name.
#[test]
fn pure_rooms_touch_nothing() {
    const PURE: [&str; 10] = [
        "netft/src/wire/",
        "netft/src/packet/",
        "netft/src/route/",
        "netft/src/topology/",
        "netft/src/sim/",
        "netft/src/addr.rs",
        "netft/src/config.rs",
        "netft/src/config/",
        "netft/src/id.rs",
        "netft/src/time.rs",
    ];
    const FORBIDDEN: [&str; 14] = [
        "crate::io",
        "crate::adapter",
        "std::fs",
        "std::io",
        "std::thread",
        "std::env",
        "std::process",
        "Instant",
        "SystemTime",
        "SystemRandom",
        "UdpSocket",
        "tokio::",
        "libc::",
        "rustix::",
    ];
    let mut problems = Vec::new();
    for (name, text) in sources() {
        if !PURE.iter().any(|room| name.starts_with(room)) {
            continue;
        }
        // Tests may use threads to show that shared state is safe to share.
        let code = text.split("#[cfg(test)]").next().unwrap();
        if name.ends_with("tests.rs") {
            continue;
        }
        for (number, line) in code.lines().enumerate() {
            // A list of slices is no I/O by itself.
            let line = line.split("//").next().unwrap().replace("std::io::IoSlice", "");
            for word in FORBIDDEN {
                // `IoSlice` is a borrowed slice in the kernel's layout: a value, no I/O.
                if line.contains(word) && line.trim() != "use std::io::IoSlice;" {
                    problems.push(format!("{name}:{}: a pure room names {word}", number + 1));
                }
            }
        }
    }
    complain(&problems);
}

/// wire ← route ← topology ← io ← adapter: no arrow the other way.
#[test]
fn dependencies_point_one_way() {
    const ARROWS: [(&str, &[&str]); 4] = [
        ("netft/src/wire/", &["crate::route", "crate::topology", "crate::packet", "crate::sim"]),
        ("netft/src/packet/", &["crate::route", "crate::topology", "crate::sim"]),
        ("netft/src/route/", &["crate::topology", "crate::sim", "crate::packet"]),
        ("netft/src/topology/", &["crate::sim", "crate::packet"]),
    ];
    let mut problems = Vec::new();
    for (name, text) in sources() {
        for (room, forbidden) in ARROWS {
            if !name.starts_with(room) {
                continue;
            }
            for word in forbidden {
                if text.contains(word) {
                    problems.push(format!("{name}: names {word}"));
                }
            }
        }
        if name.starts_with("netft/") && (text.contains("use clap") || text.contains("use toml")) {
            problems.push(format!("{name}: the library knows no clap and no toml"));
        }
    }
    complain(&problems);
}

#[test]
fn unsafe_stays_in_the_leaves() {
    const LEAVES: [&str; 3] = ["netft/src/io/sys/", "src/lab/sys.rs", "netft/tests/common/"];
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
