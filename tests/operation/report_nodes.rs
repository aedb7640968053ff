//! `netft report` over all nodes: what a peer tells of itself, without its secrets.

use std::{fs, path::Path, process::Command};

use crate::common::NodePair;
use netft_lab::{daemon::SiteSettings, in_namespace};

/// A file of the archive.
fn read_part(archive: &Path, name: &str) -> String {
    let pattern = format!("*/{name}");
    let tar = Command::new("tar").arg("-xOf").arg(archive).args(["--wildcards", &pattern]).output();
    let tar = tar.unwrap();
    assert!(tar.status.success(), "{name}: {tar:?}");
    String::from_utf8(tar.stdout).unwrap()
}

#[test]
fn a_report_has_the_parts_of_every_reachable_node() {
    in_namespace("a_report_has_the_parts_of_every_reachable_node", || {
        let pair = NodePair::start_with(2, SiteSettings::default());
        // Somebody wrote the other node's key down in its configuration.
        let theirs = pair.site.config_path(1);
        let config = fs::read_to_string(&theirs).unwrap();
        let key = fs::read_to_string(theirs.with_file_name("key")).unwrap();
        let key = key.trim().split(':').next_back().unwrap().to_owned();
        fs::write(&theirs, format!("# {key}\n{config}")).unwrap();
        let archive = pair.site.runtime_dir(0).join("report.tar");
        let report = |args: &[&str]| {
            let mut command = pair.site.operator_command(&pair.lab, 0).unwrap();
            command.arg("report").arg("--config").arg(pair.site.config_path(0));
            command.arg("--output").arg(&archive).args(args);
            let output = command.output().unwrap();
            assert!(output.status.success(), "{output:?}");
            String::from_utf8(output.stdout).unwrap()
        };
        let index = report(&[]);
        println!("{index}");
        for (name, word) in [
            ("peers/b-status.json", "\"verdict\""),
            ("peers/b-peers.json", "\"name\":\"a\""),
            ("peers/b-routes.json", "\"peer\":\"a\""),
            ("peers/b-networks.json", "\"prefix\""),
            ("peers/b-vips.json", "\"vips\""),
            ("peers/b-events.json", "session-established"),
            ("peers/b-netft.toml", "name = \"b\""),
            ("peers/b-journal.txt", "== journal.txt"),
            ("peers/b-kernel.txt", "net/ipv4/conf/lo/rp_filter = "),
        ] {
            let text = read_part(&archive, name);
            assert!(text.contains(word), "{name}: no {word:?} in {text}");
            assert!(!text.contains(&key), "{name} has the key");
            assert!(index.contains(name), "{name} is not listed");
        }
        assert!(read_part(&archive, "peers/b-netft.toml").contains("# [removed]"));
        fs::remove_file(&archive).unwrap();
        assert!(!report(&["--local"]).contains("peers/"));
    });
}
