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
/// standard library offers is checked here, in grouped imports too.
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
    const DEPENDENCIES: [&str; 9] =
        ["aegis", "arc-swap", "base64", "ipnet", "ring", "serde", "thiserror", "toml", "zeroize"];
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
        // The roster is the library's own document; a config is the programs'.
        let reads_toml = name.starts_with("netft/proto/src/roster/");
        let outside =
            |path: &String| path.starts_with("clap::") || path.starts_with("toml::") && !reads_toml;
        if name.starts_with("netft/") && named.iter().any(outside) {
            problems.push(format!("{name}: the library knows no clap, and toml for rosters alone"));
        }
    }
    complain(&problems);
}

/// Modules of the programs: each names only those listed, so no two name each other.
#[test]
fn modules_of_the_programs_point_one_way() {
    const ALLOWED: [(&str, &[&str]); 15] = [
        ("clock", &[]),
        ("exit", &["text"]),
        ("text", &[]),
        ("cluster", &["config", "control", "exit"]),
        ("config", &["exit"]),
        ("control", &["clock", "exit", "text", "vip"]),
        ("hosts", &["control"]),
        ("ownership", &[]),
        ("vip", &["ownership"]),
        ("render", &["clock", "control", "text"]),
        ("validate", &["control"]),
        ("support", &["validate"]),
        ("demo", &["control", "render"]),
        (
            "daemon",
            &[
                "clock",
                "cluster",
                "config",
                "control",
                "exit",
                "hosts",
                "ownership",
                "render",
                "support",
                "text",
                "validate",
                "vip",
            ],
        ),
        (
            "cli",
            &[
                "clock", "cluster", "config", "control", "daemon", "demo", "exit", "hosts",
                "render", "support", "text", "validate", "vip",
            ],
        ),
    ];
    let mut problems = Vec::new();
    for (name, text) in sources().into_iter().filter(|(name, _)| name.starts_with("src/")) {
        let room = name["src/".len()..].split(['/', '.']).next().unwrap();
        if ["lib", "bin"].contains(&room) {
            continue;
        }
        let Some((_, allowed)) = ALLOWED.iter().find(|(known, _)| *known == room) else {
            problems.push(format!("{name}: a module without a place in the order"));
            continue;
        };
        let code = text.split("#[cfg(test)]\n").next().unwrap();
        for path in paths(code) {
            let Some(named) = path.strip_prefix("crate::") else { continue };
            let named = named.split("::").next().unwrap();
            if named != room && !allowed.contains(&named) {
                problems.push(format!("{name}: names {path}"));
            }
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

/// A file for a site's other services is of use only where a package brings it.
#[test]
fn every_file_for_other_services_is_packed() {
    let list = fs::read_to_string(root().join("packaging/nfpm.yaml")).unwrap();
    let sources = list.lines().filter_map(|line| line.split_once("src: "));
    let sources: Vec<_> = sources.map(|(_, rest)| rest.split(',').next().unwrap()).collect();
    let mut problems = Vec::new();
    for source in &sources {
        let whole = source.split('*').next().unwrap().trim_end_matches("LICENSE-");
        if !source.starts_with("target/") && !root().join(whole).exists() {
            problems.push(format!("packaging/nfpm.yaml: there is no {source}"));
        }
    }
    for folder in ["packaging", "packaging/prometheus", "scripts/ocf"] {
        for entry in fs::read_dir(root().join(folder)).unwrap() {
            let entry = entry.unwrap();
            let name = format!("{folder}/{}", entry.file_name().to_string_lossy());
            let is_packed = sources.iter().any(|source| {
                let pattern = source.split_once('*');
                pattern.map_or(*source == name, |(start, _)| name.starts_with(start))
            });
            if entry.path().is_file() && name != "packaging/nfpm.yaml" && !is_packed {
                problems.push(format!("packaging/nfpm.yaml does not pack {name}"));
            }
        }
    }
    assert!(sources.len() > 20, "the files were not found");
    complain(&problems);
}

/// Every document of the repository: its path and its text.
fn documents() -> Vec<(String, String)> {
    const TOP: [&str; 5] =
        ["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"];
    let mut names: Vec<String> = TOP.iter().map(|&name| name.to_owned()).collect();
    for folder in ["docs", "docs/design", "docs/guides"] {
        for entry in fs::read_dir(root().join(folder)).unwrap() {
            let name = entry.unwrap().file_name().to_string_lossy().into_owned();
            if name.ends_with(".md") {
                names.push(format!("{folder}/{name}"));
            }
        }
    }
    names.sort();
    let read = |name: String| (fs::read_to_string(root().join(&name)).unwrap(), name);
    names.into_iter().map(read).map(|(text, name)| (name, text)).collect()
}

#[test]
fn documents_stay_readable() {
    const MAX_LINE: usize = 160;
    const MAX_CELL: usize = 200;
    const MAX_BYTES: [(&str, usize); 2] = [("README.md", 4096), ("ARCHITECTURE.md", 6144)];
    let mut problems = Vec::new();
    for (name, text) in documents() {
        for (number, line) in text.lines().enumerate() {
            let at = format!("{name}:{}", number + 1);
            let row = line.starts_with('|');
            if line.chars().count() > MAX_LINE {
                problems.push(format!("{at}: over {MAX_LINE} characters"));
            }
            if row && line.split('|').any(|cell| cell.trim().chars().count() > MAX_CELL) {
                problems.push(format!("{at}: a cell over {MAX_CELL} characters"));
            }
        }
        for (_, most) in MAX_BYTES.iter().filter(|(limited, _)| *limited == name) {
            if text.len() > *most {
                problems.push(format!("{name}: {} bytes, at most {most}", text.len()));
            }
        }
    }
    complain(&problems);
}

/// The paths a document names: in code spans from the root or from a crate's sources, in links from
/// its own folder.
fn named_paths(name: &str, text: &str) -> Vec<String> {
    const ROOMS: [&str; 8] =
        ["netft", "src", "tests", "docs", "scripts", "examples", "fuzz", ".ci"];
    const CRATES: [&str; 2] = ["netft/proto/src", "netft/src"];
    let is_room = |sources: &&&str, room: &str| root().join(sources).join(room).is_dir();
    // `netft/1` is a protocol name.
    let is_path = |word: &str| {
        word.contains('/')
            && !word.ends_with(|c: char| c.is_ascii_digit())
            && word.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c))
    };
    let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
    let prose: Vec<&str> =
        text.split("```").enumerate().filter(|(at, _)| at % 2 == 0).map(|(_, part)| part).collect();
    let mut found = Vec::new();
    for part in prose {
        for span in part.split('`').skip(1).step_by(2) {
            let room = span.split('/').next().unwrap();
            if !is_path(span) || room.is_empty() {
                continue;
            }
            if ROOMS.contains(&room) {
                found.push(span.to_owned());
            } else if let Some(sources) = CRATES.iter().find(|sources| is_room(sources, room)) {
                found.push(format!("{sources}/{span}"));
            }
        }
        for link in part.split("](").skip(1) {
            let target = link.split([')', '#']).next().unwrap();
            if !target.is_empty() && !target.contains(':') {
                found.push(format!("{folder}/{target}").trim_start_matches('/').to_owned());
            }
        }
    }
    found
}

#[test]
fn every_path_a_document_names_exists() {
    let mut problems = Vec::new();
    for (name, text) in documents() {
        for path in named_paths(&name, &text) {
            if !root().join(&path).exists() {
                problems.push(format!("{name}: names {path}, which does not exist"));
            }
        }
    }
    complain(&problems);
}

/// The catalogue ids `text` cites, as docs/faults.md spells them: `F-02`, `U28`.
fn fault_ids(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let words =
        text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-' && c != '_' && c != '→');
    for word in words {
        let mut chars = word.chars();
        let Some(family) = chars.next() else { continue };
        let rest = chars.as_str();
        let number = rest.strip_prefix('-').unwrap_or(rest);
        let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        let dashed = number != rest && number.len() <= 3 && "FWCSRLTZ".contains(family);
        let plain = number == rest && number.len() <= 2 && "BCDU".contains(family);
        if is_number && (dashed || plain) {
            found.push(word.to_owned());
        }
    }
    found
}

/// The id a test's name begins with: `f_02_…` is `F-02`, `u_28_…` and `u28_…` are `U28`.
fn test_name_id(name: &str) -> Option<String> {
    let family = name.chars().next()?.to_ascii_uppercase();
    let rest = name.get(1..)?;
    let number = rest.trim_start_matches('_').split('_').next()?;
    if !(1..=3).contains(&number.len()) || number.parse::<u8>().is_err() {
        return None;
    }
    match family {
        'B' | 'U' => Some(format!("{family}{number}")),
        'C' if !rest.starts_with('_') => Some(format!("{family}{number}")),
        'F' | 'W' | 'C' | 'S' | 'R' | 'L' | 'T' if rest.starts_with('_') => {
            Some(format!("{family}-{number}"))
        }
        _ => None,
    }
}

#[test]
fn every_fault_that_is_cited_is_listed() {
    let listed = fs::read_to_string(root().join("docs/faults.md")).unwrap();
    let listed: Vec<&str> = listed
        .lines()
        .filter_map(|line| line.strip_prefix("| "))
        .map(|row| row.split(" |").next().unwrap().trim())
        .collect();
    let mut problems = Vec::new();
    let mut check = |name: &str, id: &str| {
        if !listed.contains(&id) {
            problems.push(format!("{name}: cites {id}, which docs/faults.md does not list"));
        }
    };
    for (name, text) in sources() {
        for line in text.lines() {
            let comment = line.split_once("//").map_or("", |(_, comment)| comment);
            for id in fault_ids(comment).iter().filter(|_| name != "tests/tidy.rs") {
                check(&name, id);
            }
            let test = line.trim_start().strip_prefix("fn ").and_then(test_name_id);
            test.iter().for_each(|id| check(&name, id));
        }
    }
    for (name, text) in documents() {
        fault_ids(&text).iter().for_each(|id| check(&name, id));
    }
    complain(&problems);
}

#[test]
fn fault_ids_are_recognised() {
    let text =
        "(F-20, R-14; W-1, F-115). 2008 R2, IpAddr::V4, A1→A2, B15 and U28: C8, D3, not C123";
    assert_eq!(fault_ids(text), ["F-20", "R-14", "W-1", "F-115", "B15", "U28", "C8", "D3"]);
    for (name, id) in [
        ("f_02_a_black_hole()", Some("F-02")),
        ("f_115_an_upgrade()", Some("F-115")),
        ("u28_networks()", Some("U28")),
        ("b_15_three()", Some("B15")),
        ("c_08_stuck()", Some("C-08")),
        ("c9_fields()", Some("C9")),
        ("v4_addr()", None),
        ("failover()", None),
    ] {
        assert_eq!(test_name_id(name).as_deref(), id, "{name}");
    }
}

/// The reading order of `docs/design/failover.md` stays short, and its line counts stay true.
#[test]
fn failover_is_explained_in_1200_lines() {
    const MAX_READ: usize = 1200;
    let document = fs::read_to_string(root().join("docs/design/failover.md")).unwrap();
    let mut problems = Vec::new();
    let mut sum = 0;
    for row in document.lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let Ok(stated) = cells[3].parse::<usize>() else { continue };
        sum += stated;
        // Rows that name functions state what these take.
        let whole = cells[2].strip_prefix('`').and_then(|cell| cell.strip_suffix('`'));
        let Some(file) = whole.filter(|file| !file.contains('`')) else { continue };
        let text = fs::read_to_string(root().join("netft/proto/src").join(file)).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap();
        if code.lines().count() != stated {
            problems.push(format!("{file}: {stated} lines stated, {}", code.lines().count()));
        }
    }
    assert!((1..=MAX_READ).contains(&sum), "{sum} lines to read");
    complain(&problems);
}
