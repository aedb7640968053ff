//! `netft validate` over all nodes: mistakes planted on the other node, and between the two.

use std::fs;

use crate::common::{
    HOLD_CONFIG, NodePair, TEST_TIMEOUT,
    commands::{has_programs, run_nft},
};
use netft_lab::{
    daemon::{RouteRow, SiteSettings},
    in_namespace,
};
use netftd::control::schema::{Finding, PeerValidation, Severity, ValidationResult};
use rustix::process::Signal;

/// Output of `netft validate` on node 0: JSON with its exit code, or text.
fn run(pair: &NodePair, args: &[&str]) -> (String, i32) {
    let mut command = pair.site.operator_command(&pair.lab, 0).unwrap();
    command.arg("validate").args(args).arg("--config").arg(pair.site.config_path(0));
    let output = command.output().unwrap();
    println!("{}", String::from_utf8_lossy(&output.stderr));
    (String::from_utf8(output.stdout).unwrap(), output.status.code().unwrap())
}

fn validate(pair: &NodePair) -> (ValidationResult, i32) {
    let (text, code) = run(pair, &["--json"]);
    (serde_json::from_str(&text).unwrap(), code)
}

fn find<'a>(findings: &'a [Finding], id: &str) -> Option<&'a Finding> {
    findings.iter().find(|finding| finding.id == id)
}

/// The text output, printed for the test log.
fn show(pair: &NodePair) {
    println!("{}", run(pair, &[]).0);
}

/// Something that is wrong whatever the machine: not the clock, nor buffers.
fn planted(answer: &PeerValidation) -> Vec<&Finding> {
    let of_machine = |f: &&Finding| ["clock", "buffers", "rp-filter"].contains(&&*f.id);
    let bad = answer.findings.iter().filter(|finding| finding.severity > Severity::Note);
    bad.filter(|finding| !of_machine(finding)).collect()
}

/// Slow to lose a route, as the machine may be busy; a narrow path is found all the same.
const PATIENT: &str = "[heartbeat]\nthreshold = 60\n\n[failover]\nhold = 300\n";

fn pair() -> NodePair {
    NodePair::start_with(2, SiteSettings { common: PATIENT, ..SiteSettings::default() })
}

#[test]
fn a_mistake_on_the_peer_is_shown_under_its_name() {
    in_namespace("a_mistake_on_the_peer_is_shown_under_its_name", || {
        let pair = pair();
        let (before, _) = validate(&pair);
        let b = &before.peers[0];
        assert_eq!((before.peers.len(), b.peer.as_str(), &b.error), (1, "b", &None));
        assert_eq!(planted(b), Vec::<&Finding>::new());
        assert!(b.clock_skew_ms.unwrap().abs() < 2000, "{b:?}");
        assert_eq!(b.paths.len(), 2, "{b:?}");
        for id in ["peer-not-asked", "clock-skew", "path-mtu", "path-mtu-differs"] {
            assert_eq!(find(&before.findings, id), None);
        }

        pair.lab
            .node_netns(1)
            .run_inside(|| fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap());
        // Asked again at once: the peer waits for its query interval and runs the checks again.
        let (after, code) = validate(&pair);
        let found = find(&after.peers[0].findings, "forwarding").unwrap();
        assert!(found.severity == Severity::Warning && code >= 1, "{found:?}");
        assert_eq!(find(&after.findings, "forwarding"), None, "it is not here");

        let (text, _) = run(&pair, &[]);
        let (here, there) = text.split_once("\non b: ").unwrap();
        assert!(here.starts_with("on this node: ") && there.contains("warning forwarding"));
        println!("{text}");
        assert!(there.contains("2 of 2 nodes checked: "), "{text}");
        let (local, _) = run(&pair, &["--local", "--json"]);
        let local: ValidationResult = serde_json::from_str(&local).unwrap();
        assert!(
            local.daemon
                && local.peers.is_empty()
                && find(&local.findings, "peer-not-asked").is_none()
        );
    });
}

#[test]
fn a_peer_that_does_not_answer_is_told_of_in_one_line() {
    in_namespace("a_peer_that_does_not_answer_is_told_of_in_one_line", || {
        let settings = SiteSettings { common: HOLD_CONFIG, ..SiteSettings::default() };
        let mut pair = NodePair::prepared_for(2, settings);
        pair.start(0);
        let some = |routes: &[RouteRow]| !routes.is_empty();
        pair.daemon(0).wait_for("a daemon that answers", TEST_TIMEOUT, some).unwrap();
        let why = |pair: &NodePair| {
            let (found, code) = validate(pair);
            let line = find(&found.findings, "peer-not-asked").unwrap();
            assert!(line.place == "b" && !line.what.contains('\n') && code >= 1, "{line:?}");
            assert!(found.peers[0].error.is_some() && found.peers[0].findings.is_empty());
            line.what.clone()
        };
        assert!(why(&pair).contains("no session"));
        pair.start(1);
        pair.wait_routes_up(0);
        pair.wait_routes_up(1);
        pair.daemon(1).send_signal(Signal::STOP).unwrap();
        // With the session still there, or without: it does not wait for ever.
        let said = why(&pair);
        show(&pair);
        assert!(said.contains("within 4 s") || said.contains("no session"), "{said}");
        pair.daemon(1).send_signal(Signal::CONT).unwrap();
    });
}

#[test]
fn a_path_that_carries_less_than_its_interfaces_is_found_at_once_on_both_ends() {
    in_namespace(
        "a_path_that_carries_less_than_its_interfaces_is_found_at_once_on_both_ends",
        || {
            let mut pair = pair();
            let (before, _) = validate(&pair);
            assert_eq!(find(&before.findings, "path-mtu"), None, "{before:#?}");
            // Idle routes are confirmed every 10 s: only a fresh probe finds it.
            pair.lab.make_mtu_black_hole(1, 1400).unwrap();
            let (after, code) = validate(&pair);
            show(&pair);
            for (findings, own) in [(&after.findings, 0), (&after.peers[0].findings, 1)] {
                let found = find(findings, "path-mtu").unwrap_or_else(|| panic!("{after:#?}"));
                assert!(found.severity == Severity::Warning && code >= 1);
                let address = pair.lab.node_ipv4(1, own).to_string();
                assert!(found.place.contains(&format!("{address}:3343 →")), "{found:?}");
                assert!(found.place.ends_with("(eth1)"), "{found:?}");
                assert!(found.what.contains("the interface MTU is 1500"), "{found:?}");
            }
            pair.lab.make_mtu_black_hole(1, 1500).unwrap();
            for _ in 0..20 {
                let (healed, _) = validate(&pair);
                if find(&healed.findings, "path-mtu").is_none() {
                    return;
                }
            }
            panic!("a path that is whole again is still called narrow: {:?}", pair.daemon(0));
        },
    );
}

#[test]
fn a_path_that_carries_less_one_way_is_told_by_direction() {
    in_namespace("a_path_that_carries_less_one_way_is_told_by_direction", || {
        if !has_programs(&["nft"]) {
            return;
        }
        let pair = pair();
        assert_eq!(find(&validate(&pair).0.findings, "path-mtu-differs"), None);
        let drop = "table inet wire { chain entry { type filter hook input priority 0; \
                    iifname \"eth0\" udp dport 3343 meta length > 1400 drop; }; }";
        run_nft(pair.lab.node_netns(1), drop);
        // A size that is still searched for is not compared.
        let runs = (0..10).map(|_| validate(&pair));
        let mut reported =
            runs.skip_while(|(v, _)| find(&v.findings, "path-mtu-differs").is_none());
        let (after, code) = reported.next().unwrap();
        let found = find(&after.findings, "path-mtu-differs").unwrap();
        show(&pair);
        assert!(found.severity == Severity::Warning && code >= 1);
        assert!(found.what.ends_with("reach b, packets of 1500 come back"), "{found:?}");
        assert!(find(&after.findings, "path-mtu").is_some());
        assert_eq!(find(&after.peers[0].findings, "path-mtu"), None, "the way back is whole");
    });
}
