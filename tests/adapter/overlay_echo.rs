//! Routes up, and a firewall that drops on the adapter: told, and over when it is.

use std::time::{Duration, SystemTime};

use crate::common::{
    NodePair,
    commands::{has_programs, run_nft},
    wait_until,
};
use netft_lab::{daemon::EventLine, in_namespace};

/// Longest wait for an echo to be confirmed lost, or answered again.
const ECHO_TIMEOUT: Duration = Duration::from_secs(30);

/// Output of a command of `netft` on node 0.
fn netft(pair: &NodePair, arguments: &[&str]) -> String {
    let mut command = pair.site.operator_command(&pair.lab, 0).unwrap();
    let output = command.args(arguments).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

fn is_about_b(name: &'static str, text: &'static str) -> impl Fn(&EventLine) -> bool {
    move |event| {
        let says = event.str_field("what").is_none_or(|what| what.contains(text));
        event.name == name && says
    }
}

/// The peer's firewall, changed while everything runs: the node whose packets it drops learns it.
#[test]
fn f_46_a_peers_firewall_on_the_adapter_is_told_until_it_is_open() {
    in_namespace("f_46_a_peers_firewall_on_the_adapter_is_told_until_it_is_open", || {
        if !has_programs(&["nft"]) {
            return;
        }
        let pair = NodePair::start_up(1);
        let events = pair.events(0);
        // After the echo of the start: the peer tells that its rules changed.
        let is_answered = || pair.lab.node_netns(0).kernel_counters().get("IcmpInEchoReps") > 0;
        wait_until("the first echo", is_answered);
        let start = SystemTime::now();
        let rules = "table inet f { chain i { type filter hook input priority 0; policy drop; \
                     iif lo accept; udp dport 3343 accept; ct state established,related accept; \
                     }; }";
        run_nft(pair.lab.node_netns(1), rules);
        let lost = is_about_b("overlay-lost", "firewall");
        events.wait_for("the firewall", start, ECHO_TIMEOUT, lost).unwrap();
        assert!(netft(&pair, &["peers"]).contains("a firewall there or here"));
        assert!(netft(&pair, &["status"]).contains("(1 without an answer through the adapter)"));
        let config = pair.site.config_path(0);
        let found = netft(&pair, &["validate", "--json", "--config", config.to_str().unwrap()]);
        assert!(found.contains("no-answer-through-adapter"), "{found}");
        run_nft(pair.lab.node_netns(1), "delete table inet f");
        let over = is_about_b("overlay-answers", "");
        events.wait_for("an answer", start, ECHO_TIMEOUT, over).unwrap();
        assert!(!netft(&pair, &["peers"]).contains("a firewall there or here"));
        assert!(events.events_so_far().iter().all(|event| event.name != "state-changed"
            || event.str_field("to") != Some("down")));
    });
}

/// A host that takes one service and drops ICMP decides on purpose; one that drops ICMP alone
/// answers otherwise.
#[test]
fn f_46_a_host_without_icmp_answers_and_an_own_firewall_is_named() {
    in_namespace("f_46_a_host_without_icmp_answers_and_an_own_firewall_is_named", || {
        if !has_programs(&["nft"]) {
            return;
        }
        let pair = NodePair::start_up(1);
        let events = pair.events(0);
        let start = SystemTime::now();
        // Counted, to see that the echo was tried.
        let rules = "table inet f { counter tried {}; chain i { type filter hook input priority 0; \
                     iifname netft0 icmp type echo-request counter name tried drop; }; }";
        let peer = pair.lab.node_netns(1);
        run_nft(peer, rules);
        wait_until("an echo", || {
            let list = ["list", "counter", "inet", "f", "tried"];
            let output = peer.command_inside("nft").unwrap().args(list).output().unwrap();
            !String::from_utf8_lossy(&output.stdout).contains("packets 0 ")
        });
        // Long enough for two that fail.
        std::thread::sleep(Duration::from_secs(6));
        assert!(events.events_so_far().iter().all(|event| event.name != "overlay-lost"));
        let rules = "table inet f { chain o { type filter hook output priority 0; \
                     oifname netft0 drop; }; }";
        run_nft(pair.lab.node_netns(0), rules);
        let refused = is_about_b("overlay-lost", "this node's firewall");
        events.wait_for("the own firewall", start, ECHO_TIMEOUT, refused).unwrap();
    });
}
