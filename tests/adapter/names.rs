//! Peers behind names, with an `/etc/hosts` of the test's own.

use std::{fs, path::PathBuf, process::Command};

use crate::common::{NodePair, TEST_TIMEOUT, wait_until};
use netft_lab::{
    Moment, ScratchDir,
    daemon::{RouteRow, SiteSettings},
    in_namespace,
};

/// The file every resolver of this mount namespace reads.
struct Hosts {
    file: PathBuf,
    _scratch: ScratchDir,
}

impl Hosts {
    fn mounted() -> Self {
        let scratch = ScratchDir::new("hosts").unwrap();
        let file = scratch.path().join("hosts");
        fs::write(&file, "127.0.0.1 localhost\n").unwrap();
        // Nobody listens there: a name that is not in the file fails at once.
        let servers = scratch.path().join("resolv.conf");
        fs::write(&servers, "nameserver 127.0.0.1\n").unwrap();
        for (own, etc) in [(&file, "/etc/hosts"), (&servers, "/etc/resolv.conf")] {
            let mount = Command::new("mount").arg("--bind").arg(own).arg(etc).status();
            assert!(mount.unwrap().success(), "{etc}");
        }
        Self { file, _scratch: scratch }
    }

    fn say(&self, lines: &str) {
        fs::write(&self.file, format!("127.0.0.1 localhost\n{lines}")).unwrap();
    }
}

#[test]
fn peers_are_found_by_name_and_followed_when_they_are_lost() {
    in_namespace("peers_are_found_by_name_and_followed_when_they_are_lost", || {
        let hosts = Hosts::mounted();
        let common = "[failover]\nhold = 300\n";
        let mut pair = NodePair::prepared_for(
            2,
            SiteSettings { listed_networks: 1, common, ..SiteSettings::default() },
        );
        pair.rewrite_config(0, "[\"10.1.0.2\"]", "[\"b.test\"]");
        pair.rewrite_config(1, "[\"10.1.0.1\"]", "[\"a.test:3343\"]");
        let begin = Moment::now();
        pair.start(0);
        pair.start(1);
        let listens = |node: usize| pair.daemons[node].as_ref().unwrap().routes().is_ok();
        wait_until("both listen", || listens(0) && listens(1));
        let events = [0, 1].map(|node| pair.events(node));
        for events in &events {
            // No name is no reason to end.
            let failed = |event: &netft_lab::daemon::EventLine| event.name == "name-failed";
            events.wait_for("a name that fails", begin.wall, TEST_TIMEOUT, failed).unwrap();
        }
        assert!(pair.daemon(0).routes().unwrap().is_empty());
        hosts.say("10.1.0.2 b.test\n10.1.0.1 a.test\n");
        for node in [0, 1] {
            let routes = pair.wait_routes_up(node);
            assert_eq!(routes.len(), 2, "the other peer is affected: {routes:?}");
        }

        // It moves while nothing leads there.
        hosts.say("10.1.0.2 a-former-b.test\n10.1.0.77 b.test\n10.1.0.1 a.test\n");
        pair.lab.black_hole(0).unwrap();
        pair.lab.black_hole(1).unwrap();
        let there = |routes: &[RouteRow]| {
            routes.iter().any(|route| route.real_remote.starts_with("10.1.0.77"))
        };
        pair.daemon(0).wait_for("a route to the new address", TEST_TIMEOUT, there).unwrap();
        pair.lab.heal_network(0).unwrap();
        pair.lab.heal_network(1).unwrap();
        wait_until("it is back", || {
            let routes = pair.daemons[0].as_ref().unwrap().routes().unwrap();
            routes.iter().filter(|route| route.state == "up").count() == 2
        });
    });
}
