//! `netft report`: what is in the archive, and that no secret is.

use std::{collections::BTreeMap, fs};

use netft::config::{
    KeySyntax,
    keys::{CONFIG_KEYS, CONFIG_TABLES},
};
use netftd::control::schema::EventDetail;

use super::{screens::busy, *};

/// Contents of an archive by name, read by `tar`.
fn unpack(archive: &Path, into: &Path) -> BTreeMap<String, String> {
    fs::create_dir_all(into).unwrap();
    let done = Command::new("tar").arg("-xf").arg(archive).arg("-C").arg(into).output().unwrap();
    assert!(done.status.success() && done.stderr.is_empty(), "{done:?}");
    let root = fs::read_dir(into).unwrap().next().unwrap().unwrap().path();
    let mut found = BTreeMap::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(&root).unwrap().to_string_lossy().into_owned();
                let bytes = fs::read(&path).unwrap();
                found.insert(name, String::from_utf8_lossy(&bytes).into_owned());
            }
        }
    }
    found
}

#[test]
fn a_report_has_everything_but_the_secrets() {
    let daemon = Daemon::new(busy());
    let folder = daemon.dir.path();
    let made = Command::new(env!("CARGO_BIN_EXE_netft"))
        .arg("keygen")
        .arg(folder.join("key"))
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let key = fs::read_to_string(folder.join("key")).unwrap();
    let key = key.trim().strip_prefix("netft-key:").unwrap().to_owned();
    fs::write(folder.join("token"), "0123456789abcdef-token\n").unwrap();
    // The key also stands where it must not: in a comment, and in what the daemon remembers.
    let config = format!(
        "# key {key}\n[node]\nname = \"a\"\nkey = \"key\"\n[metrics]\n\
         listen = \"127.0.0.1:9343\"\ntoken_file = \"token\"\n# password = \"hunter2-hunter2\"\n"
    );
    fs::write(folder.join("n.toml"), config).unwrap();
    let what = format!("seen {key} and 0123456789abcdef-token");
    daemon.journal.push("2026-01-01T00:00:00.000Z".into(), EventDetail::AdapterRestored { what });
    let archive = folder.join("r.tar");
    let config = folder.join("n.toml").display().to_string();
    let args = ["report", "--output", archive.to_str().unwrap(), "--config", &config];
    let shown = daemon.shows(&args);
    let found = unpack(&archive, &folder.join("out"));
    for (name, word) in [
        ("INDEX.txt", "daemon/routes.json"),
        ("config/netft.toml", "listen = \"127.0.0.1:9343\""),
        ("daemon/status.json", "\"verdict\""),
        ("daemon/routes.json", "\"real_local\""),
        ("daemon/peers.json", "node-3.example"),
        ("daemon/events.json", "adapter-restored"),
        ("daemon/metrics.txt", "netft_adapter_up 1"),
        ("validate.json", "\"findings\""),
        ("system/proc/version", "Linux"),
        ("system/proc-net/dev", "lo:"),
        ("system/settings.txt", "net/ipv4/conf/lo/rp_filter = "),
        ("system/ip-link.txt", "lo"),
    ] {
        let text = found.get(name).unwrap_or_else(|| panic!("no {name}: {shown}"));
        assert!(text.contains(word), "{name}: no {word:?} in {text}");
    }
    // The first peer answers, and the other is asked in vain.
    assert_eq!(found["peers/b-kernel.txt"], "told \\u{1b}[2J\n");
    assert!(found["INDEX.txt"].contains("peers/node-3.example-status.json"));
    assert!(!found.keys().any(|name| name.starts_with("peers/node-3")));
    let (code, answer) = daemon.ask("POST", "/v1/report?part=status", "");
    assert_eq!((code, answer["peers"].as_array().unwrap().len()), (200, 2));
    assert_eq!(daemon.ask("POST", "/v1/report?part=keys", "").0, 400);
    for (name, text) in &found {
        for secret in [key.as_str(), "0123456789abcdef-token", "hunter2"] {
            assert!(!text.contains(secret), "{name} has a secret");
        }
        assert!(name == "INDEX.txt" || shown.contains(name.as_str()), "{name} is not listed");
    }
    assert!(found["config/netft.toml"].contains("# key [removed]"));
    assert!(found["daemon/events.json"].contains("seen [removed] and [removed]"));
    let all = fs::read(&archive).unwrap();
    assert!(!all.windows(key.len()).any(|part| part == key.as_bytes()));
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(fs::metadata(&archive).unwrap().permissions().mode() & 0o777, 0o600);
    // Nothing is overwritten.
    let again = daemon.netft(&args);
    assert_eq!(again.status.code(), Some(3), "{again:?}");
}

/// A configuration with a secret behind every key that can lead to one, and those secrets.
fn config_of_secrets(folder: &Path) -> (String, Vec<String>) {
    let (mut config, mut secrets) = (String::new(), Vec::new());
    for table in CONFIG_TABLES {
        let (open, close) = if table.repeated { ("[[", "]]") } else { ("[", "]") };
        config += &format!("{open}{}{close}\n", table.path);
        for key in CONFIG_KEYS.iter().filter(|key| key.table() == table.path) {
            let secret = format!("planted{}0123", key.path.replace(['.', '_'], ""));
            let value = match key.syntax {
                KeySyntax::SecretFile(_) => {
                    let content = match key.path {
                        "dns.key_file" => format!("key \"k\" {{\n\tsecret \"{secret}\";\n}};\n"),
                        "metrics.key_file" => format!("-----BEGIN KEY-----\n{secret}\n-----END\n"),
                        "node.key" => format!("netft-key:{secret}\n"),
                        _ => format!("{secret}\n"),
                    };
                    fs::write(folder.join(key.path), content).unwrap();
                    // Somebody wrote the secret down beside its file, or in its place.
                    config += &format!("# {secret}\n");
                    match key.path {
                        "metrics.token_file" => format!("{secret:?}"),
                        _ => format!("{:?}", key.path),
                    }
                }
                KeySyntax::Command(_) => {
                    let short = &secret[..11];
                    secrets.push(short.to_owned());
                    format!("[\"/bin/true\", \"--password={secret}\", \"{secret}\", '{short}']")
                }
                _ if key.example.contains("://") => {
                    let with_user = format!("://operator:{secret}@");
                    key.example
                        .replace("://", &with_user)
                        .replace("primary", &format!("?t={secret}"))
                }
                KeySyntax::Number(_)
                | KeySyntax::NumberOrText(..)
                | KeySyntax::Choice(_)
                | KeySyntax::Text(_)
                | KeySyntax::PublicFile(_)
                | KeySyntax::TextList(_)
                | KeySyntax::TextOrList(_)
                | KeySyntax::Flag => {
                    config += &format!("{} = {}\n", key.name(), key.example);
                    continue;
                }
            };
            config += &format!("{} = {value}\n", key.name());
            secrets.push(secret);
        }
    }
    (config, secrets)
}

#[test]
fn no_secret_that_a_key_leads_to_is_in_a_report() {
    let daemon = Daemon::new(snapshot());
    let folder = daemon.dir.path();
    let (config, secrets) = config_of_secrets(folder);
    assert!(secrets.len() >= 10, "{secrets:?}");
    for secret in secrets.iter().filter(|secret| secret.len() > 11) {
        let what = format!("heard {secret}.");
        daemon
            .journal
            .push("2026-01-01T00:00:00.000Z".into(), EventDetail::AdapterRestored { what });
    }
    // What stands above a mistake is read all the same.
    for (number, end) in ["", "x = = 1\n"].iter().enumerate() {
        let path = folder.join("n.toml");
        fs::write(&path, config.clone() + end).unwrap();
        let archive = folder.join(format!("{number}.tar"));
        let (archive, path) = (archive.to_str().unwrap(), path.to_str().unwrap());
        let shown = daemon.shows(&["report", "--local", "--output", archive, "--config", path]);
        let found = unpack(Path::new(archive), &folder.join(format!("out-{number}")));
        assert!(found["daemon/events.json"].contains("heard [removed]."), "{shown}");
        for secret in &secrets {
            let leak = found.iter().find(|(_, text)| text.contains(secret));
            assert!(leak.is_none(), "{secret} is in {leak:?}");
        }
        // What is no secret stays.
        for kept in ["name = \"a\"", "\"10.1.0.9\"", "etcd.pem", "/bin/true", "@10.1.0.5:2379"] {
            assert!(found["config/netft.toml"].contains(kept), "{kept}");
        }
    }
}

#[test]
fn without_a_daemon_a_report_says_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let archive = folder.path().join("r.tar");
    let socket = folder.path().join("none.sock");
    let config = folder.path().join("none.toml");
    let args = ["report", "--json", "--output", archive.to_str().unwrap()];
    let done = netft(&socket, &[&args[..], &["--config", config.to_str().unwrap()]].concat());
    assert!(done.status.success(), "{done:?}");
    let answer: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(answer["schema"], 2);
    let missing: Vec<_> = answer["missing"].as_array().unwrap().iter().collect();
    for name in ["daemon/status.json", "config/netft.toml"] {
        let entry = missing.iter().find(|entry| entry["name"] == name).unwrap();
        assert!(!entry["reason"].as_str().unwrap().is_empty(), "{entry}");
    }
    let found = unpack(&archive, &folder.path().join("out"));
    assert!(found["INDEX.txt"].contains("not collected:"), "{}", found["INDEX.txt"]);
    assert!(found["INDEX.txt"].contains("no netftd listens"), "{}", found["INDEX.txt"]);
}
