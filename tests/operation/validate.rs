//! Planted mistakes, each found by `netft validate`, and not found before it is planted.

use std::{
    fs,
    net::{IpAddr, UdpSocket},
};

use crate::common::{
    HOLD_CONFIG, NodePair, TEST_TIMEOUT,
    commands::{has_programs, run_nft},
};
use netft_lab::{Lab, NetworkLayout, daemon::SiteSettings, in_namespace, interface_index};
use netftd::{
    control::schema::{Finding, Severity, ValidationResult},
    validate::exit_code,
};
use rtnetlink::{Handle, LinkBridge, LinkMessageBuilder, LinkUnspec};

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
    let is_there = has_programs(&["nft"]);
    if is_there {
        run_nft(pair.lab.node_netns(node), rules);
    }
    is_there
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

/// Two daemons with another key of each other: no firewall is to blame.
#[test]
fn t_04_a_wrong_key_is_named_and_shown_among_the_peers() {
    in_namespace("t_04_a_wrong_key_is_named_and_shown_among_the_peers", || {
        let mut pair = NodePair::prepared_for(1, SiteSettings::default());
        pair.site.replace_peer_key(0, 1).unwrap();
        pair.start(0);
        pair.start(1);
        crate::common::wait_until("the wrong key to be named", || {
            find(&findings(&pair).0, "wrong-key").is_some()
        });
        let (found, code) = findings(&pair);
        assert!(code == 2 && find(&found, "no-answer").is_none(), "{found:#?}");
        let wrong = find(&found, "wrong-key").unwrap();
        assert!(wrong.place == "b" && wrong.what.contains("another key"), "{wrong:?}");
        let cause = |pair: &mut NodePair, node: usize| {
            let peers = pair.daemon(node).get_json("/v1/peers").unwrap();
            peers["peers"][0]["session_cause"].as_str().unwrap_or_default().to_owned()
        };
        assert_eq!(cause(&mut pair, 0), "wrong-key");
        assert_eq!(cause(&mut pair, 1), "key-refused");
    });
}
