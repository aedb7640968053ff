//! Floating addresses of two nodes whose third vote is a witness, which has no adapter, no TUN
//! driver and no capability.

use std::{path::Path, thread, time::Duration};

use crate::common::{
    commands::{has_programs, run_ip},
    owner_lab::{Fault, OwnerLab, VIP_ADDRESS},
    wait_until,
};
use netft_lab::in_namespace;

const WITNESS_NODE: usize = 2;

fn start_nodes(folder: &Path) -> OwnerLab {
    let common = "[ownership]\nvoters = [\"a\", \"b\", \"c\"]\n";
    let store = |node| format!("store = {:?}\n", folder.join(format!("store{node}")));
    let web =
        format!("[[vip]]\nname = \"web\"\naddress = \"{VIP_ADDRESS}/24\"\nownership = \"raft\"\n");
    let tables = [store(0) + &web, store(1) + &web, store(2)];
    let tables: Vec<&str> = tables.iter().map(String::as_str).collect();
    OwnerLab::start_with(OwnerLab::hosts(), common, &tables, Some(WITNESS_NODE))
}

/// What a node says of the engine.
fn summary(test: &OwnerLab, node: usize) -> String {
    test.ask_operator(node, &["vip", "list"])
}

/// F-74: with the witness, the owner may be lost in any way, one node after the other.
#[test]
fn f_74_two_nodes_and_a_witness_outlive_the_owner() {
    in_namespace("f_74_two_nodes_and_a_witness_outlive_the_owner", || {
        if !has_programs(&["nft", "ip"]) {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let mut test = start_nodes(folder.path());
        test.await_owner(|_| true);
        wait_until("the witness", || summary(&test, 0).contains("3 of 3 voters reached"));
        let links = run_ip(test.lab.node_netns(WITNESS_NODE), "-brief link show");
        assert!(!links.contains("netft"), "a witness has no adapter: {links}");
        let status = test.daemons[WITNESS_NODE].as_ref().unwrap().get_json("/v1/status").unwrap();
        assert_eq!(status["adapter"]["backend"], "none", "{status}");
        let role = status["ownership"]["role"].as_str().unwrap();
        assert!(role == "follower", "a witness never leads: {role}");
        thread::sleep(Duration::from_secs(2));
        for fault in [Fault::Killed, Fault::Stopped, Fault::CutOff] {
            test.lose_owner(fault);
        }
        test.assert_one_owner(20);
    });
}

/// F-74: the witness may go, and the nodes lose nothing; what comes back takes part again.
#[test]
fn f_74_two_nodes_go_on_without_their_witness() {
    in_namespace("f_74_two_nodes_go_on_without_their_witness", || {
        if !has_programs(&["nft", "ip"]) {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let mut test = start_nodes(folder.path());
        let owner = usize::from(test.await_owner(|_| true));
        wait_until("the witness", || summary(&test, 0).contains("3 of 3 voters reached"));
        test.inject_fault(WITNESS_NODE, Fault::Killed);
        wait_until("its loss", || summary(&test, 0).contains("2 of 3 voters reached (not c)"));
        assert_eq!(usize::from(test.await_owner(|_| true)), owner);
        let next = 1 - owner;
        let name = test.site.name(next).to_owned();
        test.run_netft(owner, &["vip", "move", "web", "--to", &name]);
        test.await_owner(|number| usize::from(number) == next);
        test.repair(WITNESS_NODE, Fault::Killed);
        wait_until("the witness", || summary(&test, 0).contains("3 of 3 voters reached"));
        test.lose_owner(Fault::Killed);
        test.assert_one_owner(10);
    });
}
