//! Clusters with a roster: changes reach every node, removed nodes are out, whatever is cut or off.

use std::{fs, thread, time::Duration};

use crate::common::{assert_nothing_lost, cluster::ClusterLab};
use netft_lab::{in_namespace, probe::DatagramProbe};
use serde_json::json;

/// Traffic on the sessions that follow a change of a key.
const TRAFFIC_TIME: Duration = Duration::from_secs(1);

#[test]
fn a_change_reaches_every_node_and_a_removed_one_is_out() {
    in_namespace("a_change_reaches_every_node_and_a_removed_one_is_out", || {
        let mut lab = ClusterLab::new(3, 2);
        lab.create();
        (0..3).for_each(|node| lab.start(node));
        lab.wait_mesh(&[0, 1, 2]);
        let status = lab.json(0, &["cluster", "status"]);
        assert_eq!((&status["wire_version"], &status["wire_unknown"]), (&1.into(), &json!([])));
        let text = lab.netft(0, &["cluster", "status"]);
        assert!(text.contains("wire version that all nodes speak: 1\n"), "{text}");
        // n2 is off while the roster changes, and learns it from the node that has no key.
        lab.kill(2);
        lab.netft(0, &["cluster", "set", "n2", "--site", "north"]);
        lab.wait("n1 has the new roster", |lab| lab.serial(1) == lab.serial(0));
        lab.kill(0);
        lab.start(2);
        lab.wait("n2 learns it from n1", |lab| lab.serial(2) == lab.serial(1));
        lab.start(0);
        lab.wait_mesh(&[0, 1, 2]);
        let text = fs::read_to_string(lab.path(2, "state/netft0.roster.toml")).unwrap();
        assert!(text.contains("site = \"north\""), "kept on disk: {text}");

        lab.netft(0, &["cluster", "remove", "n2"]);
        assert_eq!(lab.peers(0), ["n1"], "gone where the command ran when it returns");
        lab.wait("gone at n1", |lab| lab.peers(1) == ["n0"]);
        lab.wait("n2 knows that it is out", |lab| {
            lab.json(2, &["cluster", "status"])["member"] == false
        });
        assert_eq!(lab.peers(2), Vec::<String>::new());
        lab.wait_mesh(&[0, 1]);
        // A node that does not believe it: refused, for good.
        lab.kill(2);
        let peer = format!(
            "[[peer]]\nname = \"n1\"\nkey = \"{}\"\naddresses = [\"{}\"]\n",
            lab.write_config(1, ""),
            lab.lab.node_ipv4(0, 1)
        );
        lab.write_config(2, &peer);
        fs::remove_file(lab.path(2, "state/netft0.roster.toml")).unwrap();
        lab.start(2);
        lab.wait_refused(2, 1);
        assert_eq!(lab.peers(1), ["n0"]);
    });
}

#[test]
fn a_node_removed_while_it_was_off_does_not_come_back() {
    in_namespace("a_node_removed_while_it_was_off_does_not_come_back", || {
        let mut lab = ClusterLab::new(3, 1);
        lab.create();
        (0..3).for_each(|node| lab.start(node));
        lab.wait_mesh(&[0, 1, 2]);
        lab.kill(2);
        lab.netft(0, &["cluster", "remove", "n2"]);
        lab.wait("gone at n1", |lab| lab.peers(1) == ["n0"]);
        lab.start(2);
        lab.wait_refused(2, 0);
        lab.wait_refused(2, 1);
        assert_eq!([lab.peers(0), lab.peers(1)], [["n1"], ["n0"]]);
        // Added again it is a node as before, with the addresses that it had.
        let key = lab.write_config(2, "");
        lab.add(2, &key);
        lab.wait_mesh(&[0, 1, 2]);
    });
}

#[test]
fn a_roster_put_back_by_hand_comes_forward_and_a_forged_one_is_refused() {
    in_namespace("a_roster_put_back_by_hand_comes_forward_and_a_forged_one_is_refused", || {
        let mut lab = ClusterLab::new(2, 1);
        lab.create();
        let file = lab.path(1, "state/netft0.roster.toml");
        let old = fs::read_to_string(&file).unwrap();
        (0..2).for_each(|node| lab.start(node));
        lab.wait_mesh(&[0, 1]);
        lab.netft(0, &["cluster", "set", "n0", "--site", "north"]);
        lab.wait("n1 has it", |lab| lab.serial(1) == lab.serial(0));
        let serial = lab.serial(0);
        // The operator cannot go back, and a backup of the file only goes forward.
        let back = lab.path(1, "old");
        fs::write(&back, &old).unwrap();
        let error = lab.netft_error(1, &["cluster", "import", back.to_str().unwrap()]);
        assert!(error.contains("only a higher serial replaces it"), "{error}");
        lab.kill(1);
        fs::write(&file, &old).unwrap();
        lab.start(1);
        lab.wait("n1 has it again", |lab| lab.serial(1) == serial);
        let forged = old.replace("serial = 2", "serial = 99");
        assert_ne!(forged, old);
        fs::write(&back, &forged).unwrap();
        let error = lab.netft_error(1, &["cluster", "import", back.to_str().unwrap()]);
        assert!(error.contains("the signature does not fit"), "{error}");
        lab.kill(1);
        fs::write(&file, &forged).unwrap();
        let check = lab.daemon_command(1, "--check").output().unwrap();
        let error = String::from_utf8(check.stderr).unwrap();
        assert_eq!(check.status.code(), Some(2), "{error}");
        assert!(error.contains("netft0.roster.toml: the signature does not fit"), "{error}");
        // Without the cluster's key nothing can be changed.
        fs::write(&file, &old).unwrap();
        let error = lab.netft_error(1, &["cluster", "remove", "n0"]);
        assert!(error.contains("the cluster's key is not on this node"), "{error}");
    });
}

#[test]
fn a_contradiction_is_named_with_both_places() {
    in_namespace("a_contradiction_is_named_with_both_places", || {
        let mut lab = ClusterLab::new(2, 1);
        lab.create();
        let other = "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=";
        let block = format!("\n[[peer]]\nname = \"n0\"\nkey = \"{other}\"\n");
        lab.write_config(1, &block);
        let check = |lab: &ClusterLab| {
            let check = lab.daemon_command(1, "--check").output().unwrap();
            (check.status.code(), String::from_utf8(check.stderr).unwrap())
        };
        let (code, error) = check(&lab);
        assert_eq!(code, Some(2), "{error}");
        for part in ["netft.toml:7:7", "peer \"n0\" has the key AgIC", "netft0.roster.toml, line 7"]
        {
            assert!(error.contains(part), "{part}: {error}");
        }
        // Live: the daemon goes on, and says it.
        lab.write_config(1, "");
        (0..2).for_each(|node| lab.start(node));
        lab.wait_mesh(&[0, 1]);
        lab.write_config(1, &block);
        let error = lab.netft_error(1, &["reload"]);
        assert!(error.contains("contradicts the cluster's roster"), "{error}");
        assert!(lab.routes_up(1) > 0);
    });
}

#[test]
fn generated_folders_make_a_cluster_and_hold_no_secret_but_their_own() {
    in_namespace("generated_folders_make_a_cluster_and_hold_no_secret_but_their_own", || {
        let mut lab = ClusterLab::new(3, 2);
        let inventory = lab.path(0, "inventory.toml");
        let mut text = "cluster = \"prod\"\n".to_owned();
        for node in 0..3 {
            let address = lab.lab.node_ipv4(0, node);
            text += &format!("[[node]]\nname = \"n{node}\"\naddresses = [\"{address}\"]\n");
        }
        fs::write(&inventory, &text).unwrap();
        let out = lab.path(0, "out");
        let args = ["--inventory", inventory.to_str().unwrap(), "--out", out.to_str().unwrap()];
        let generate = [&["cluster", "generate"], &args[..]].concat();
        lab.netft(0, &generate);
        let roster = fs::read(out.join("roster.toml")).unwrap();
        lab.netft(0, &generate);
        assert_eq!(fs::read(out.join("roster.toml")).unwrap(), roster, "nothing changed");
        for node in 0..3 {
            let from = out.join(format!("n{node}"));
            fs::create_dir(lab.path(node, "state")).unwrap();
            for (file, to) in [
                ("netft.toml", "netft.toml"),
                ("key", "key"),
                ("netft0.roster.toml", "state/netft0.roster.toml"),
            ] {
                fs::rename(from.join(file), lab.path(node, to)).unwrap();
            }
            assert_eq!(fs::read_dir(from).unwrap().count(), 0, "and no other file");
            lab.start(node);
        }
        lab.wait_mesh(&[0, 1, 2]);
    });
}

/// Each node's key is replaced under traffic: nothing is lost, the addresses stay, and the old key
/// is refused.
#[test]
fn every_key_of_a_cluster_is_replaced_under_traffic() {
    in_namespace("every_key_of_a_cluster_is_replaced_under_traffic", || {
        let mut lab = ClusterLab::new(3, 2);
        lab.create();
        (0..3).for_each(|node| lab.start(node));
        lab.wait_mesh(&[0, 1, 2]);
        let before = nodes(&lab, 0);
        let endpoint = |at: usize, port: u16| {
            let address = before[at]["address"].as_str().unwrap();
            format!("{address}:{port}").parse().unwrap()
        };
        let probes: Vec<_> = (0..3)
            .map(|from| {
                let to = (from + 1) % 3;
                let from = (lab.lab.node_netns(from), endpoint(from, 5000));
                let to = (lab.lab.node_netns(to), endpoint(to, 5001));
                DatagramProbe::start(from, to).unwrap()
            })
            .collect();
        for node in ["n2", "n0", "n1"] {
            lab.netft(0, &["cluster", "key", "rotate", node]);
        }
        // The sessions that the new keys agree on carry data from here on.
        thread::sleep(TRAFFIC_TIME);
        for probe in probes {
            assert_nothing_lost(&probe.finish());
        }
        let after = nodes(&lab, 0);
        for (old, new) in before.iter().zip(&after) {
            assert_ne!(old["key"], new["key"], "{new}");
            assert_eq!((&old["address"], &old["address6"]), (&new["address"], &new["address6"]));
            assert_eq!(new["next_key"], serde_json::Value::Null);
        }
        lab.wait("every node shows the same keys", |lab| {
            (1..3)
                .all(|node| nodes(lab, node).iter().zip(&after).all(|(a, b)| a["key"] == b["key"]))
        });

        // Restarted with the files on its disk it is the same node.
        lab.kill(2);
        lab.start(2);
        lab.wait_mesh(&[0, 1, 2]);
        // A thief with the first key, which `node.key` still holds, is refused.
        lab.kill(2);
        fs::remove_file(lab.path(2, "state/netft0.roster.toml")).unwrap();
        let peer = format!(
            "[[peer]]\nname = \"n1\"\nkey = \"{}\"\naddresses = [\"{}\"]\n",
            after[1]["key"].as_str().unwrap(),
            lab.lab.node_ipv4(0, 1)
        );
        lab.write_config(2, &peer);
        lab.start(2);
        lab.wait("the first key is refused", |lab| {
            let peer = lab.json(2, &["peers"])["peers"][0].clone();
            peer["session"] == false && peer["session_cause"] == "key-refused"
        });
    });
}

/// A rotation that is cut off, or that the node misses, leaves it usable.
#[test]
fn a_node_that_misses_the_change_of_its_key_comes_back() {
    in_namespace("a_node_that_misses_the_change_of_its_key_comes_back", || {
        let mut lab = ClusterLab::new(3, 1);
        lab.create();
        (0..3).for_each(|node| lab.start(node));
        lab.wait_mesh(&[0, 1, 2]);
        let first = nodes(&lab, 0)[2]["key"].clone();
        lab.kill(1);
        let rotate = ["cluster", "key", "rotate", "n2", "--timeout", "1"];
        let error = lab.netft_error(0, &rotate);
        assert!(
            error.contains("do not accept its next key yet") && error.contains("n1"),
            "{error}"
        );
        let next = nodes(&lab, 0)[2]["next_key"].clone();
        assert!(next.is_string(), "the next key is in the roster");
        // Between the two steps: still its first key, also after a crash.
        lab.start(1);
        lab.kill(2);
        lab.start(2);
        lab.wait_mesh(&[0, 1, 2]);
        assert_eq!(nodes(&lab, 2)[2]["key"], first);
        // The second step happens while it is off: every node refuses the key it had.
        lab.wait("n1 and n2 have the roster", |lab| {
            lab.serial(1) == lab.serial(0) && lab.serial(2) == lab.serial(0)
        });
        lab.kill(2);
        lab.netft(0, &[&rotate[..], &["--force"]].concat());
        assert_eq!(nodes(&lab, 0)[2]["key"], next);
        lab.start(2);
        lab.wait_mesh(&[0, 1, 2]);
        lab.wait("n2 knows its key", |lab| nodes(lab, 2)[2]["key"] == next);
        // Run again after it was done, it is another rotation.
        lab.netft(0, &rotate);
        assert_ne!(nodes(&lab, 0)[2]["key"], next);
        lab.wait_mesh(&[0, 1, 2]);
    });
}

/// The nodes of a node's roster, by name.
fn nodes(lab: &ClusterLab, node: usize) -> Vec<serde_json::Value> {
    lab.json(node, &["cluster", "show"])["nodes"].as_array().cloned().unwrap_or_default()
}
