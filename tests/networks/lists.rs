//! The networks that the nodes' interfaces form, as `netft networks` lists them.

use crate::common::{NodePair, UNLISTED_NETWORKS, three_nodes::NodeTriple, wait_until};
use netft_lab::{daemon::Daemon, in_namespace};
use serde_json::Value;

/// A node's row of a network; null while it has none.
fn network(daemon: &Daemon, prefix: &str) -> Value {
    let Ok(answer) = daemon.get_json("/v1/networks") else { return Value::Null };
    let rows = answer["networks"].as_array().unwrap();
    rows.iter().find(|row| row["prefix"] == prefix).cloned().unwrap_or_default()
}

fn wait_for_state(pair: &NodePair, prefix: &str, state: &str) -> Value {
    let daemon = pair.daemons[0].as_ref().unwrap();
    wait_until(&format!("{prefix} {state}"), || network(daemon, prefix)["state"] == state);
    network(daemon, prefix)
}

#[test]
fn u_28_networks_go_down_and_come_back_as_they_were() {
    in_namespace("u_28_networks_go_down_and_come_back_as_they_were", || {
        let pair = NodePair::start_with(3, UNLISTED_NETWORKS);
        for (place, prefix) in ["10.1.0.0/24", "10.2.0.0/24", "10.3.0.0/24"].iter().enumerate() {
            let row = wait_for_state(&pair, prefix, "up");
            assert_eq!(row["role"], "cluster", "{row}");
            assert_eq!(row["metric_from"], "interface", "{row}");
            let [own, far] = &row["interfaces"].as_array().unwrap()[..] else { panic!("{row}") };
            assert_eq!((&own["node"], &own["state"]), (&"a".into(), &"up".into()));
            assert_eq!(own["interface"], format!("eth{place}"));
            assert_eq!((&far["node"], &far["state"]), (&"b".into(), &"up".into()));
            assert_eq!(far["address"], pair.lab.node_ipv4(place, 1).to_string());
        }
        // The other family on the same wires.
        wait_for_state(&pair, "fd00:1::/64", "up");

        pair.lab.black_hole(0).unwrap();
        let row = wait_for_state(&pair, "10.1.0.0/24", "down");
        assert_eq!(row["interfaces"][0]["state"], "unreachable", "{row}");
        assert_eq!(row["interfaces"][1]["state"], "unreachable", "{row}");
        wait_for_state(&pair, "fd00:1::/64", "down");
        wait_for_state(&pair, "10.2.0.0/24", "up");
        pair.lab.heal_network(0).unwrap();
        wait_for_state(&pair, "10.1.0.0/24", "up");

        let before = wait_for_state(&pair, "10.2.0.0/24", "up");
        pair.lab.delete_nic(1, 0).unwrap();
        let gone = wait_for_state(&pair, "10.2.0.0/24", "unavailable");
        assert_eq!(gone["metric_from"], "remembered", "{gone}");
        assert_eq!((&gone["metric"], &gone["role"]), (&before["metric"], &before["role"]));
        assert_eq!(gone["interfaces"].as_array().unwrap().len(), 1, "{gone}");
        pair.lab.add_nic(1, 0).unwrap();
        assert_eq!(wait_for_state(&pair, "10.2.0.0/24", "up")["metric"], before["metric"]);

        let mut shown = pair.site.operator_command(&pair.lab, 0).unwrap();
        let shown = String::from_utf8(shown.arg("networks").output().unwrap().stdout).unwrap();
        let line = shown.lines().find(|line| line.starts_with("10.3.0.0/24")).unwrap();
        assert!(line.contains(" up ") && line.contains(" eth2 "), "{shown}");
    });
}

#[test]
fn a_network_that_reaches_one_of_two_is_partitioned() {
    in_namespace("a_network_that_reaches_one_of_two_is_partitioned", || {
        let three = NodeTriple::start_up("");
        three.lab.drop_one_way(0, 0, 2).unwrap();
        let state = |node: usize| network(&three.daemons[node], "10.1.0.0/24")["state"].clone();
        // Every frame to node 2 is dropped, from any sender.
        wait_until("a partition, and one node cut off", || {
            [0, 1, 2].map(state) == ["partitioned", "partitioned", "down"]
        });
        let row = network(&three.daemons[0], "10.1.0.0/24");
        let states: Vec<_> =
            row["interfaces"].as_array().unwrap().iter().map(|one| &one["state"]).collect();
        assert_eq!(states, ["unreachable", "up", "unreachable"], "{row}");
        assert_eq!(network(&three.daemons[0], "10.2.0.0/24")["state"], "up");
        three.lab.heal_network(0).unwrap();
        wait_until("one network again", || [0, 1, 2].map(state) == ["up"; 3]);
    });
}
