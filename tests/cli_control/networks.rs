//! Networks in JSON and as a table.

use netft::{
    config::NetworkRole,
    topology::{InterfaceState, MetricSource, NetworkInfo, NetworkInterface, NetworkState},
};

use super::*;

fn interface(peer: Option<u16>, addr: &str, state: InterfaceState) -> NetworkInterface {
    NetworkInterface {
        peer: peer.map(PeerId),
        number: 2,
        name: peer.is_none().then(|| "eth0".to_owned()),
        addr: addr.parse().unwrap(),
        state,
    }
}

fn two() -> Snapshot {
    let mut snapshot = snapshot();
    snapshot.networks = vec![
        NetworkInfo {
            prefix: "10.1.0.0/24".parse().unwrap(),
            state: NetworkState::Partitioned,
            role: NetworkRole::ClusterAndClient,
            metric: 10_100,
            metric_source: MetricSource::Interface,
            interfaces: vec![
                interface(None, "10.1.0.1", InterfaceState::Unreachable),
                interface(Some(0), "10.1.0.2", InterfaceState::Up),
            ],
        },
        NetworkInfo {
            prefix: "fd00:9::/64".parse().unwrap(),
            state: NetworkState::Unavailable,
            role: NetworkRole::None,
            metric: 1000,
            metric_source: MetricSource::Remembered,
            interfaces: Vec::new(),
        },
    ];
    snapshot
}

#[test]
fn networks_in_json_have_exactly_these_fields() {
    let daemon = Daemon::new(two());
    let (code, answer) = daemon.ask("GET", "/v1/networks", "");
    assert_eq!(code, 200);
    let own = serde_json::json!({
        "node": answer["networks"][0]["interfaces"][0]["node"],
        "interface": "eth0",
        "number": 2,
        "address": "10.1.0.1",
        "state": "unreachable",
    });
    let expected = serde_json::json!({
        "schema": 2,
        "networks": [
            {
                "prefix": "10.1.0.0/24",
                "state": "partitioned",
                "role": "cluster-and-client",
                "metric": 10_100,
                "metric_from": "interface",
                "interfaces": [
                    own,
                    {
                        "node": "b",
                        "interface": null,
                        "number": 2,
                        "address": "10.1.0.2",
                        "state": "up",
                    },
                ],
            },
            {
                "prefix": "fd00:9::/64",
                "state": "unavailable",
                "role": "none",
                "metric": 1000,
                "metric_from": "remembered",
                "interfaces": [],
            },
        ],
    });
    assert_eq!(answer, expected);
    let (_, status) = daemon.ask("GET", "/v1/status", "");
    assert_eq!(own["node"], status["node"]["name"]);
    let shown: Value = serde_json::from_str(&daemon.shows(&["networks", "--json"])).unwrap();
    assert_eq!(shown, expected);
}

#[test]
fn networks_are_a_table_with_a_line_per_interface() {
    let daemon = Daemon::new(two());
    let table = daemon.shows(&["networks"]);
    let lines: Vec<Vec<_>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines.len(), 4, "{table}");
    let heads = ["network", "state", "role", "metric", "node", "interface", "address"];
    assert_eq!(lines[0][..7], heads, "{table}");
    let first = ["10.1.0.0/24", "partitioned", "cluster-and-client", "10100"];
    assert_eq!(lines[1][..4], first, "{table}");
    assert_eq!(lines[1][5..], ["eth0", "10.1.0.1", "unreachable"], "{table}");
    assert_eq!(lines[2], ["b", "#2", "10.1.0.2", "up"], "{table}");
    assert_eq!(lines[3], ["fd00:9::/64", "unavailable", "none", "1000"], "{table}");
    *daemon.node.snapshot.lock().unwrap() = snapshot();
    assert_eq!(daemon.shows(&["networks"]), "no networks\n");
}

#[test]
fn the_widest_networks_fit_and_no_name_reaches_the_terminal() {
    let mut wide = two();
    let long = "2001:db8:1111:2222:3333:4444:5555:6666";
    wide.networks[0].prefix = format!("{long}/128").parse().unwrap();
    wide.networks[0].metric = u32::MAX;
    wide.networks[0].interfaces[1].addr = long.parse().unwrap();
    wide.networks[0].interfaces[0].name = Some("e\x1b[2J".to_owned());
    wide.peers[0].name = "Q".repeat(64);
    let daemon = Daemon::new(wide);
    let table = daemon.shows(&["networks"]);
    assert_eq!(table.lines().count(), 4, "{table}");
    assert_eq!(table.matches('Q').count(), 64, "{table}");
    assert!(!table.contains('\x1b') && table.contains("u{1b}"), "{table}");
}
