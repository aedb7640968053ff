//! Planted mistakes, each found by `netft validate`, and not found before it is planted.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::{
    fs,
    net::{IpAddr, UdpSocket},
    process::Command,
};

use common::{HOLD_CONFIG, NodePair, TEST_TIMEOUT};
use ipnet::IpNet;
use netft::{
    NodeKey,
    api::host::{PacketFilterState, StackedLink},
    config::{Config, PeerConfig, PrivateKey},
    topology::{Interface, LocalAddr, SourceAddresses},
};
use netft_lab::{Lab, NetworkLayout, daemon::SiteSettings, in_namespace, interface_index};
use netftd::{
    control::schema::{
        EventDetail, Finding, PeerPath, PeerValidation, RouteView, Severity, ValidationResult,
    },
    validate::{DaemonFacts, NodeFacts, exit_code, run_checks},
};
use rtnetlink::{Handle, LinkBridge, LinkMessageBuilder, LinkUnspec};
use serde_json::json;

/// Findings of `netft validate` on node 0, and its exit code.
fn findings(pair: &NodePair) -> (Vec<Finding>, i32) {
    let mut command = pair.site.operator_command(&pair.lab, 0).unwrap();
    command.args(["validate", "--json", "--config"]).arg(pair.site.config_path(0));
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let answer: ValidationResult = serde_json::from_str(&text).unwrap_or_else(|error| {
        panic!("{error} in {text}{}", String::from_utf8_lossy(&output.stderr))
    });
    (answer.findings, output.status.code().unwrap())
}

fn find<'a>(findings: &'a [Finding], id: &str) -> Option<&'a Finding> {
    findings.iter().find(|finding| finding.id == id)
}

/// The mistake `id` is not there, is planted on node 0, and is found.
fn planted(
    networks: usize,
    id: &str,
    severity: Severity,
    plant: impl FnOnce(&NodePair),
) -> Finding {
    let pair = NodePair::prepared(&vec![NetworkLayout::Flat; networks], SiteSettings::default());
    let (before, _) = findings(&pair);
    assert!(find(&before, id).is_none_or(|f| f.severity == Severity::Note), "{before:#?}");
    plant(&pair);
    let (after, code) = findings(&pair);
    let found = find(&after, id).unwrap_or_else(|| panic!("no {id} in {after:#?}"));
    assert_eq!(found.severity, severity, "{found:?}");
    assert_eq!(code, i32::from(exit_code(&after)));
    assert!(code >= if severity == Severity::Error { 2 } else { 1 });
    assert!(!found.place.is_empty() && !found.what.is_empty() && !found.remedy.is_empty());
    found.clone()
}

fn on_node<F, Fut>(pair: &NodePair, what: F)
where
    F: FnOnce(Handle) -> Fut + Send,
    Fut: Future<Output = Result<(), rtnetlink::Error>>,
{
    pair.lab.node_netns(0).run_netlink("plant a mistake", what).unwrap();
}

fn sysctl(pair: &NodePair, key: &str, value: &str) {
    pair.lab.node_netns(0).run_inside(|| fs::write(format!("/proc/sys/net/{key}"), value).unwrap());
}

/// Loads nftables rules on a node; false where there is no nft.
fn nft(pair: &NodePair, node: usize, rules: &str) -> bool {
    if Command::new("nft").arg("--version").output().is_err() {
        eprintln!("skipped: nft is not installed");
        return false;
    }
    let output =
        pair.lab.node_netns(node).command_inside("nft").unwrap().arg(rules).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    true
}

#[test]
fn mistake_1_one_network_only() {
    in_namespace("mistake_1_one_network_only", || {
        let pair = NodePair::start_up(2);
        assert_eq!(find(&findings(&pair).0, "one-network"), None);
        let pair = NodePair::start_up(1);
        let (after, code) = findings(&pair);
        let found = find(&after, "one-network").unwrap();
        assert_eq!((found.severity, found.place.as_str()), (Severity::Warning, "b"));
        assert!(code >= 1);
    });
}

#[test]
fn networks_the_peer_told_of_count() {
    in_namespace("networks_the_peer_told_of_count", || {
        let pair = NodePair::start_with(
            2,
            SiteSettings { listed_networks: 1, common: HOLD_CONFIG, ..SiteSettings::default() },
        );
        assert_eq!(find(&findings(&pair).0, "one-network"), None);
    });
}

#[test]
fn mistake_2_two_routes_over_one_card() {
    in_namespace("mistake_2_two_routes_over_one_card", || {
        let found = planted(1, "shared-fate", Severity::Warning, |pair| {
            on_node(pair, |netlink| async move {
                let bridge = LinkBridge::new("br9").up().build();
                netlink.link().add(bridge).execute().await?;
                let bridge = interface_index(&netlink, "br9").await?;
                let address: IpAddr = [10, 77, 0, 1].into();
                netlink.address().add(bridge, address, 24).execute().await?;
                let card = interface_index(&netlink, &Lab::nic_name(0)).await?;
                let card: LinkMessageBuilder<LinkUnspec> = LinkUnspec::new_with_index(card);
                netlink.link().change(card.controller(bridge).build()).execute().await
            });
            let first = pair.lab.node_ipv4(0, 1);
            let both = format!("addresses = [\"{first}\", \"10.77.0.2\"]");
            pair.rewrite_config(0, &format!("addresses = [\"{first}\"]"), &both);
            pair.rewrite_config(
                0,
                "[[peer]]",
                "[[network]]\nprefix = \"10.77.0.0/24\"\n\n[[peer]]",
            );
        });
        assert!(found.place.contains("br9"), "{found:?}");
        assert!(found.what.contains("depend on eth0"), "{found:?}");
    });
}

#[test]
fn mistake_3_the_peers_address_is_our_own() {
    in_namespace("mistake_3_the_peers_address_is_our_own", || {
        let found = planted(2, "duplicate-address", Severity::Error, |pair| {
            let (own, peer) =
                (pair.lab.node_ipv4(0, 0).to_string(), pair.lab.node_ipv4(0, 1).to_string());
            pair.rewrite_config(0, &format!("\"{peer}\""), &format!("\"{own}\""));
        });
        assert!(found.what.contains("this node's own"), "{found:?}");
    });
}

#[test]
fn mistake_4_two_nodes_with_one_identity() {
    in_namespace("mistake_4_two_nodes_with_one_identity", || {
        let found = planted(1, "config", Severity::Error, |pair| {
            let text = fs::read_to_string(pair.site.config_path(0)).unwrap();
            let key = text.split("key = \"").last().unwrap().split('"').next().unwrap();
            let peer =
                format!("[[peer]]\nname = \"c\"\nkey = \"{key}\"\naddresses = [\"10.1.0.9\"]\n");
            fs::write(pair.site.config_path(0), text.clone() + &peer).unwrap();
        });
        assert!(found.what.contains("the same key") && found.what.contains("netft.toml:"));
    });
}

#[test]
fn mistake_5_an_interface_that_carries_too_little() {
    in_namespace("mistake_5_an_interface_that_carries_too_little", || {
        let found = planted(2, "mtu", Severity::Warning, |pair| {
            on_node(pair, |netlink| async move {
                let card = interface_index(&netlink, &Lab::nic_name(1)).await?;
                let card: LinkMessageBuilder<LinkUnspec> = LinkUnspec::new_with_index(card);
                netlink.link().change(card.mtu(1300).build()).execute().await
            });
        });
        assert!(found.place.contains("(eth1)"), "{found:?}");
        assert!(found.what.contains("1300") && found.remedy.contains("mtu 1480"), "{found:?}");
    });
}

#[test]
fn mistake_6_the_port_is_closed_here_u3_u16() {
    in_namespace("mistake_6_the_port_is_closed_here_u3_u16", || {
        let pair = NodePair::prepared(&[NetworkLayout::Flat; 2], SiteSettings::default());
        let policy = "table inet guard { chain entry { type filter hook input priority 0; \
                      policy drop; iifname \"lo\" accept; tcp dport 22 accept; }; }";
        if !nft(&pair, 0, policy) {
            return;
        }
        let (closed, code) = findings(&pair);
        let found = find(&closed, "firewall").unwrap();
        assert_eq!((found.severity, code), (Severity::Error, 2));
        assert!(found.what.contains("policy drop of chain entry"), "{found:?}");
        let rule = "nft insert rule inet guard entry udp dport 3343 accept";
        let firewalld = "firewall-cmd --permanent --add-port=3343/udp && firewall-cmd --reload";
        assert!(found.remedy.contains(rule) && found.remedy.contains(firewalld), "{found:?}");

        // A stateful filter passes what answers this node's heartbeats.
        assert!(nft(&pair, 0, "insert rule inet guard entry ct state established accept"));
        let (stateful, _) = findings(&pair);
        assert_eq!(find(&stateful, "firewall").unwrap().severity, Severity::Warning);

        // The printed command mends it.
        assert!(nft(&pair, 0, rule.strip_prefix("nft ").unwrap()));
        assert_eq!(find(&findings(&pair).0, "firewall"), None);
    });
}

#[test]
fn mistake_7_a_strict_reverse_path_filter_where_ways_differ() {
    in_namespace("mistake_7_a_strict_reverse_path_filter_where_ways_differ", || {
        planted(2, "rp-filter", Severity::Warning, |pair| {
            sysctl(pair, "ipv4/conf/all/rp_filter", "1");
            on_node(pair, |netlink| async move {
                let card = interface_index(&netlink, &Lab::nic_name(1)).await?;
                let address: IpAddr = [10, 1, 0, 200].into();
                netlink.address().add(card, address, 24).execute().await
            });
        });
    });
}

#[test]
fn mistake_8_another_program_has_the_port() {
    in_namespace("mistake_8_another_program_has_the_port", || {
        let mut held = None;
        let found = planted(2, "port", Severity::Error, |pair| {
            let address = (pair.lab.node_ipv4(1, 0), 3343);
            held = Some(pair.lab.node_netns(0).run_inside(|| UdpSocket::bind(address).unwrap()));
        });
        assert!(found.place.ends_with(":3343"), "{found:?}");
    });
}

#[test]
fn mistake_9_link_local_packets_are_forwarded() {
    in_namespace("mistake_9_link_local_packets_are_forwarded", || {
        planted(2, "forwarding", Severity::Warning, |pair| sysctl(pair, "ipv4/ip_forward", "1"));
    });
}

#[test]
fn mistake_10_the_port_is_closed_at_the_peer() {
    in_namespace("mistake_10_the_port_is_closed_at_the_peer", || {
        let mut pair = NodePair::start_up(2);
        let (before, _) = findings(&pair);
        for id in ["no-answer", "one-way", "no-daemon"] {
            assert_eq!(find(&before, id), None);
        }
        let drop = "table inet guard { chain entry { type filter hook input priority 0; \
                    iifname \"eth1\" udp dport 3343 drop; }; }";
        if !nft(&pair, 1, drop) {
            return;
        }
        let other = pair.lab.node_ipv4(1, 0).into();
        pair.daemon(0)
            .wait_for("a route that is not heard", TEST_TIMEOUT, |routes| {
                routes.iter().any(|route| route.local_address() == Some(other) && !route.tx)
            })
            .unwrap();
        let (after, code) = findings(&pair);
        let found = find(&after, "one-way").unwrap();
        assert!(found.severity == Severity::Warning && code >= 1, "{found:?}");
        assert!(found.what.contains("b receives nothing from this node"), "{found:?}");
        // Blocked at the peer is distinguished from blocked here.
        assert_eq!(find(&after, "firewall").filter(|f| f.severity > Severity::Note), None);
    });
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
        let interface = Interface {
            index,
            name: format!("eth{}", index - 1),
            kind: None,
            up: true,
            carrier: true,
            loopback: false,
            mtu: 1500,
            has_default_route: false,
            speed: None,
            addrs: vec![addr],
        };
        StackedLink { interface, parent: None, master: None, ethernet: true }
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
