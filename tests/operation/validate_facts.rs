//! The checks of `netft validate` on prepared facts: each mistake is found, and its cause named.

use std::net::IpAddr;

use ipnet::IpNet;
use netft::{
    NodeKey,
    api::host::{PacketFilterState, StackedLink},
    config::{Config, PeerConfig, PrivateKey},
    topology::{Interface, LocalAddr, SourceAddresses},
};
use netftd::{
    control::schema::{
        EventDetail, Finding, Network, PeerPath, PeerValidation, PeerView, RouteView, Severity,
    },
    validate::{DaemonFacts, NodeFacts, exit_code, run_checks},
};
use serde_json::json;

fn find<'a>(findings: &'a [Finding], id: &str) -> Option<&'a Finding> {
    findings.iter().find(|finding| finding.id == id)
}

/// A node with two networks and nothing wrong with it.
fn fine() -> NodeFacts {
    let peer = PeerConfig::new("b", NodeKey([2; 32]))
        .with_address("10.1.0.2:3343".parse().unwrap())
        .with_address("10.2.0.2:3343".parse().unwrap());
    let mut config = Config::new("a", PrivateKey(Vec::new().into()), NodeKey([1; 32]));
    config.peers.push(peer);
    let link = |index: u32| {
        let net: IpNet = format!("10.{index}.0.1/24").parse().unwrap();
        let addr = LocalAddr { addr: net.addr(), prefix: net.trunc(), is_secondary: false };
        let healthy = Interface::healthy(index, format!("eth{}", index - 1));
        let interface = Interface { addrs: vec![addr], ..healthy };
        StackedLink { interface, parent: None, master: None, ethernet: true, queue_len: 1000 }
    };
    NodeFacts {
        config,
        links: vec![link(1), link(2)],
        sources: SourceAddresses::new(),
        ruleset: Ok(json!({ "nftables": [] })),
        packet_filter: Some(PacketFilterState::Installed),
        drawn_away: Vec::new(),
        strict_rp_filter: [].into(),
        mixed_arp: [].into(),
        forwarding: false,
        is_clock_synchronised: Some(true),
        receive_buffer: Some((8 << 20, 8 << 20)),
        bound_sockets: Vec::new(),
        daemon: Some(DaemonFacts::default()),
    }
}

#[test]
fn mistake_11_a_clock_nobody_keeps() {
    let mut facts = fine();
    assert_eq!(run_checks(&facts), []);
    facts.is_clock_synchronised = Some(false);
    let found = run_checks(&facts);
    assert_eq!((found.len(), found[0].id.as_str(), exit_code(&found)), (1, "clock", 1));
}

#[test]
fn mistake_12_a_cloned_identity() {
    let mut facts = fine();
    let events = vec![EventDetail::DuplicateNode { peer: "b".to_owned() }; 3];
    facts.daemon = Some(DaemonFacts { events, ..DaemonFacts::default() });
    let found = run_checks(&facts);
    assert_eq!((found.len(), found[0].id.as_str(), exit_code(&found)), (1, "cloned-identity", 2));
}

#[test]
fn mistake_13_buffers_too_small() {
    let mut facts = fine();
    facts.receive_buffer = Some((212_992, 8 << 20));
    let found = run_checks(&facts);
    assert_eq!((found.len(), found[0].id.as_str(), exit_code(&found)), (1, "buffers", 1));
    assert!(found[0].remedy.contains("rmem_max=8388608"), "{found:?}");
}

#[test]
fn the_plain_backend_is_named() {
    let mut facts = fine();
    facts.config.adapter.backend = netft::config::AdapterBackend::Plain;
    let found = run_checks(&facts);
    assert_eq!((found.len(), found[0].id.as_str(), exit_code(&found)), (1, "backend", 0));
    assert!(found[0].remedy.contains("offload"), "{found:?}");
}

#[test]
fn a_route_over_a_vlan_shares_the_fate_of_its_parent() {
    let mut facts = fine();
    facts.links[1].parent = Some(1);
    let found = run_checks(&facts);
    assert_eq!((found.len(), found[0].id.as_str()), (1, "shared-fate"));
    assert!(found[0].what.contains("depend on eth0"), "{found:?}");
}

#[test]
fn a_node_that_does_not_run_its_file_is_told_so_and_one_without_a_daemon_too() {
    let mut facts = fine();
    let pending = vec!["~ hold: 1 s → 5 s".to_owned()];
    facts.daemon = Some(DaemonFacts {
        pending_changes: pending,
        socket_overflow: 7,
        ..DaemonFacts::default()
    });
    let found = run_checks(&facts);
    assert!(find(&found, "not-applied").unwrap().what.contains("hold"), "{found:?}");
    assert!(find(&found, "buffers").unwrap().what.contains('7'), "{found:?}");
    // What a reload refuses needs another remedy.
    let refused = Some("the key of this node changed: restart netftd".to_owned());
    facts.daemon = Some(DaemonFacts { reload_refused: refused, ..DaemonFacts::default() });
    let found = run_checks(&facts);
    let changed = find(&found, "not-applied").unwrap();
    assert!(changed.what.contains("the key of this node"), "{changed:?}");
    assert!(changed.remedy.contains("systemctl restart netftd"), "{changed:?}");
    assert!(!changed.remedy.contains("netft reload"), "{changed:?}");
    facts.daemon = None;
    let found = run_checks(&facts);
    assert_eq!((found.len(), found[0].id.as_str(), exit_code(&found)), (1, "no-daemon", 0));
}

/// As `nft -j list ruleset` shows firewalld 2, shortened.
#[test]
fn firewalld_is_told_which_zone_lacks_the_port() {
    let rule = |chain: &str, expr: serde_json::Value| {
        json!({ "rule": {
        "family": "inet", "table": "firewalld", "chain": chain, "handle": 1, "expr": expr } })
    };
    let matches = |left: serde_json::Value, right: &str| {
        let compared = json!({ "op": "==", "left": left, "right": right });
        json!({ "match": compared })
    };
    let state = json!({ "match": { "op": "in", "left": { "ct": { "key": "state" } },
        "right": { "set": ["established", "related"] } } });
    let interface = matches(json!({ "meta": { "key": "iifname" } }), "eth0");
    let mut rules = json!({ "nftables": [
        { "chain": { "family": "inet", "table": "firewalld", "name": "filter_INPUT",
            "type": "filter", "hook": "input", "prio": 10, "policy": "accept" } },
        rule("filter_INPUT", json!([state, { "accept": null }])),
        rule("filter_INPUT", json!([{ "jump": { "target": "filter_INPUT_ZONES" } }])),
        rule("filter_INPUT", json!([{ "reject": { "type": "icmpx" } }])),
        rule("filter_INPUT_ZONES",
            json!([interface, { "goto": { "target": "filter_IN_internal" } }])),
        rule("filter_INPUT_ZONES", json!([{ "accept": null }])),
        rule("filter_IN_internal", json!([{ "jump": { "target": "filter_IN_internal_allow" } }])),
        rule("filter_IN_internal", json!([{ "reject": null }])),
    ] });
    let mut facts = fine();
    facts.ruleset = Ok(rules.clone());
    let found = run_checks(&facts);
    // eth1 is in a zone that takes everything.
    assert_eq!((found.len(), found[0].severity), (1, Severity::Warning), "{found:#?}");
    let command = "firewall-cmd --permanent --zone=internal --add-port=3343/udp && \
                   firewall-cmd --reload";
    assert_eq!(found[0].remedy, format!("`{command}`"));
    let port = json!({ "payload": { "protocol": "udp", "field": "dport" } });
    let allow = json!([
        { "match": { "op": "==", "left": port, "right": { "range": [3000, 4000] } } },
        { "accept": null }
    ]);
    rules["nftables"].as_array_mut().unwrap().push(rule("filter_IN_internal_allow", allow));
    facts.ruleset = Ok(rules);
    assert_eq!(run_checks(&facts), []);
}

/// An unsupported rule never counts as blocked.
#[test]
fn a_rule_that_cannot_be_read_leaves_the_verdict_open() {
    let expr = json!([{ "xt": { "type": "match", "name": "udp" } }, { "accept": null }]);
    let mut facts = fine();
    facts.ruleset = Ok(json!({ "nftables": [
        { "chain": { "family": "ip", "table": "filter", "name": "INPUT",
            "type": "filter", "hook": "input", "prio": 0, "policy": "drop" } },
        { "rule": { "family": "ip", "table": "filter", "chain": "INPUT", "expr": expr } },
    ] }));
    let found = run_checks(&facts);
    assert!(!found.is_empty() && found.iter().all(|f| f.severity == Severity::Note), "{found:#?}");
    facts.ruleset = Err("cannot run nft".to_owned());
    assert_eq!(exit_code(&run_checks(&facts)), 0);
}

/// A route of `fine` that is up and carries packets of this size.
fn route(path_mtu: usize) -> RouteView {
    let text = json!({ "id": 1, "peer": "b", "real_local": "10.1.0.1:3343",
        "real_remote": "10.1.0.2:3343", "virtual_local": "169.254.1.1",
        "virtual_remote": "169.254.1.2", "delay_ms": 30, "threshold": 5, "priority": 1,
        "attributes": 1, "transport": "udp", "state": "up", "tx": true, "rx": true, "active": true,
        "rtt_us": null, "loss": 0.0, "heartbeats_sent": 1, "heartbeats_missed": 0,
        "last_change": "", "reason": "", "path_mtu": path_mtu, "path_mtu_limit": 1500,
        "path_mtu_age_ms": 20, "tx_frames": 0, "tx_bytes": 0 });
    serde_json::from_value(text).unwrap()
}

/// Findings with this answer of the peer.
fn with(answer: PeerValidation, routes: Vec<RouteView>) -> Vec<Finding> {
    let mut facts = fine();
    facts.daemon = Some(DaemonFacts { peers: vec![answer], routes, ..DaemonFacts::default() });
    run_checks(&facts)
}

fn answer() -> PeerValidation {
    PeerValidation { peer: "b".to_owned(), clock_skew_ms: Some(40), ..PeerValidation::default() }
}

#[test]
fn clocks_of_two_nodes_that_differ_by_seconds_are_told_with_their_side() {
    assert_eq!(with(answer(), Vec::new()), []);
    for (skew, text) in
        [(3500, "3 s ahead of"), (-7_200_000, "7200 s behind"), (i64::MIN, "behind")]
    {
        let found = with(PeerValidation { clock_skew_ms: Some(skew), ..answer() }, Vec::new());
        assert_eq!((found.len(), found[0].id.as_str()), (1, "clock-skew"));
        assert!(found[0].place == "b" && found[0].what.contains(text), "{found:?}");
        assert_eq!(exit_code(&found), 1);
    }
}

#[test]
fn a_peer_that_was_not_asked_is_a_warning() {
    let error = Some("its netftd is too old to be asked".to_owned());
    let found = with(PeerValidation { error, clock_skew_ms: None, ..answer() }, Vec::new());
    assert_eq!((found.len(), found[0].id.as_str(), exit_code(&found)), (1, "peer-not-asked", 1));
    assert!(found[0].what.contains("too old"), "{found:?}");
}

#[test]
fn the_two_halves_of_a_path_are_compared() {
    let back = |path_mtu, path_mtu_limit| PeerValidation {
        paths: vec![PeerPath {
            real_local: "10.1.0.2:3343".parse().unwrap(),
            real_remote: "10.1.0.1:3343".parse().unwrap(),
            path_mtu,
            path_mtu_limit,
            path_mtu_probing: false,
        }],
        ..answer()
    };
    let ids = |found: &[Finding]| found.iter().map(|f| f.id.clone()).collect::<Vec<_>>();
    assert_eq!(with(back(1500, 1500), vec![route(1500)]), []);
    let found = with(back(1400, 1500), vec![route(1500)]);
    assert_eq!(ids(&found), ["path-mtu-differs"]);
    assert!(found[0].what.contains("1500 bytes reach b, packets of 1400 come back"), "{found:?}");
    assert!(found[0].place.ends_with("(eth0)") && found[0].remedy.contains("by direction"));
    let mut searching = back(1400, 1500);
    searching.paths[0].path_mtu_probing = true;
    assert_eq!(with(searching, vec![route(1500)]), [], "it may find 1500");
    // One end has jumbo frames and the other not.
    let found = with(back(1500, 9000), vec![route(1500)]);
    assert_eq!(ids(&found), Vec::<String>::new());
    let mut small = route(1300);
    small.path_mtu_limit = Some(1300);
    let found = with(back(1500, 1500), vec![small]);
    assert!(found[0].remedy.contains("one MTU: 1500"), "{found:?}");
    assert_eq!(ids(&with(back(1400, 1500), vec![route(1400)])), ["path-mtu"]);
}

#[test]
fn a_path_no_probe_proves_is_a_note_and_one_still_searched_is_told_as_such() {
    let mut unproven = route(1500);
    unproven.path_mtu_age_ms = None;
    let found = with(answer(), vec![unproven.clone()]);
    assert_eq!((found.len(), found[0].id.as_str(), exit_code(&found)), (1, "path-mtu", 0));
    // An older netftd that does not report it yields no finding.
    unproven.path_mtu_limit = None;
    assert_eq!(with(answer(), vec![unproven]), []);
    let mut searching = route(1228);
    searching.path_mtu_probing = true;
    assert!(with(answer(), vec![searching])[0].what.contains("at least 1228"));
}

#[test]
fn an_address_that_is_on_two_interfaces_or_the_adapters_elsewhere_is_found() {
    let mut facts = fine();
    let twice = facts.links[0].interface.addrs[0];
    facts.links[1].interface.addrs.push(twice);
    let found = run_checks(&facts);
    let one = find(&found, "duplicate-address").unwrap();
    assert_eq!((one.severity, one.place.as_str()), (Severity::Warning, "eth0, eth1"));

    let mut facts = fine();
    let addr: IpAddr = facts.config.adapter.addrs.v4.into();
    let net = IpNet::new(addr, 16).unwrap();
    facts.links[1].interface.addrs.push(LocalAddr {
        addr,
        prefix: net.trunc(),
        is_secondary: false,
    });
    let found = run_checks(&facts);
    let one = find(&found, "duplicate-address").unwrap();
    assert_eq!((one.severity, exit_code(&found)), (Severity::Error, 2));
    assert!(one.what.contains("virtual address"), "{one:?}");
}

#[test]
fn a_peer_no_network_leads_to_is_an_error_and_its_address_is_named() {
    let mut facts = fine();
    let peer =
        PeerConfig::new("b", NodeKey([2; 32])).with_address("192.0.2.7:3343".parse().unwrap());
    facts.config.peers = vec![peer];
    let found = run_checks(&facts);
    assert_eq!(exit_code(&found), 2);
    assert_eq!(find(&found, "no-network").unwrap().place, "b");
    let address = find(&found, "unreachable-address").unwrap();
    assert!(address.place.contains("192.0.2.7"), "{address:?}");
}

/// A peer of `fine` without a session, for this cause.
fn without_session(cause: &str, reason: &str) -> PeerView {
    let text = json!({ "name": "b", "key": "", "v4": "169.254.1.2", "v6": "fe80::2",
        "addresses": [], "session": false, "session_state": "none", "session_cause": cause,
        "session_reason": reason, "reachable": false, "active": null, "failovers": 0,
        "adapter_up": null, "cipher": null, "policy": "failover", "classes": [] });
    serde_json::from_value(text).unwrap()
}

/// A route of `fine` that carries nothing, for this reason.
fn broken(reason: &str) -> RouteView {
    let down = RouteView { tx: false, rx: false, active: false, ..route(1500) };
    RouteView { state: netft::route::RouteState::Down, reason: reason.to_owned(), ..down }
}

fn of_daemon(daemon: DaemonFacts) -> Vec<Finding> {
    run_checks(&NodeFacts { daemon: Some(daemon), ..fine() })
}

#[test]
fn t_04_the_true_cause_is_named_and_no_firewall() {
    for (cause, id, remedy) in [
        ("no-address", "no-address", "`addresses`"),
        ("wrong-key", "wrong-key", "`netft pubkey` on b"),
        ("key-refused", "refused-by-peer", "in the configuration of b"),
        ("duplicate", "cloned-identity", "netft keygen"),
        ("refused", "refused", "agree"),
        ("no-answer", "no-answer", "start netftd on b"),
        ("small-mtu", "small-mtu", "raise the MTU"),
    ] {
        let sessions = vec![without_session(cause, "as the daemon says")];
        let routes = vec![broken("added")];
        let found = of_daemon(DaemonFacts { sessions, routes, ..DaemonFacts::default() });
        // The routes of a peer without a session add nothing.
        assert_eq!(found.len(), 1, "{found:#?}");
        let found = &found[0];
        assert_eq!(
            (found.id.as_str(), found.severity, found.place.as_str()),
            (id, Severity::Error, "b")
        );
        assert_eq!(found.what, "as the daemon says");
        assert!(found.remedy.contains(remedy), "{found:?}");
        let blames = found.remedy.contains("firewall");
        assert_eq!(blames, cause == "no-answer", "{found:?}");
    }
    for (reason, id, remedy) in [
        ("carrier lost", "no-carrier", "plug in the cable of eth0"),
        ("interface down", "interface-down", "ip link set eth0 up"),
        ("address gone", "address-gone", "add it again"),
        ("send error", "send-error", "ip route get 10.1.0.2 from 10.1.0.1"),
        ("peer's end is down", "peer-end-down", "on b check the interface with 10.1.0.2"),
        ("heartbeats missed", "no-answer", "through firewalls"),
    ] {
        let found =
            of_daemon(DaemonFacts { routes: vec![broken(reason)], ..DaemonFacts::default() });
        assert_eq!((found.len(), found[0].id.as_str()), (1, id), "{found:#?}");
        assert!(found[0].remedy.contains(remedy), "{found:?}");
        assert_eq!(found[0].remedy.contains("firewall"), id == "no-answer", "{found:?}");
    }
    // An interface is named once.
    let routes = vec![broken("carrier lost"), RouteView { id: 2, ..broken("carrier lost") }];
    assert_eq!(of_daemon(DaemonFacts { routes, ..DaemonFacts::default() }).len(), 1);
}

#[test]
fn t_04_netmasks_that_differ_are_named_with_their_holders() {
    let network = |prefix: &str, ends: &[(&str, &str)]| {
        let ends = ends.iter().map(|(node, address)| {
            json!({ "node": node, "interface": null,
            "number": 1, "address": address, "state": "up" })
        });
        let text = json!({ "prefix": prefix, "state": "up", "role": "cluster", "metric": 1,
            "metric_from": "interface", "interfaces": ends.collect::<Vec<_>>() });
        serde_json::from_value::<Network>(text).unwrap()
    };
    let alike = vec![
        network("10.1.0.0/24", &[("a", "10.1.0.1"), ("b", "10.1.0.2")]),
        network("10.2.0.0/24", &[("a", "10.2.0.1"), ("b", "10.2.0.2")]),
    ];
    assert_eq!(of_daemon(DaemonFacts { networks: alike, ..DaemonFacts::default() }), []);
    let differ = vec![
        network("10.1.0.0/16", &[("b", "10.1.0.2")]),
        network("10.1.0.0/24", &[("a", "10.1.0.1")]),
    ];
    let found = of_daemon(DaemonFacts { networks: differ, ..DaemonFacts::default() });
    assert_eq!((found.len(), found[0].id.as_str()), (1, "netmask-differs"), "{found:#?}");
    assert!(found[0].what.ends_with("a has 10.1.0.1/24, b has 10.1.0.2/16"), "{found:?}");
}

/// F-67, and addresses that no list holds.
#[test]
fn mistake_16_interfaces_on_one_subnet_and_too_many_addresses() {
    let mut facts = fine();
    let second = facts.links[1].interface.addrs[0];
    let first = facts.links[0].interface.addrs[0];
    facts.links[1].interface.addrs[0].prefix = first.prefix;
    facts.mixed_arp = [facts.links[1].interface.name.clone()].into();
    let ids = |facts: &NodeFacts| {
        let found = run_checks(facts).into_iter();
        found.map(|finding| finding.id).collect::<Vec<_>>()
    };
    assert!(ids(&facts).contains(&"shared-subnet".to_owned()));
    facts.links[1].interface.addrs[0] = second;
    for n in 0..300u16 {
        let [high, low] = n.to_be_bytes();
        let net = IpNet::new_assert([172, 16 + high, low, 1].into(), 24);
        let addr = LocalAddr { addr: net.addr(), prefix: net.trunc(), is_secondary: false };
        facts.links[1].interface.addrs.push(addr);
    }
    assert_eq!(ids(&facts), ["interface-list"]);
}
