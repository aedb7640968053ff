//! `netft upgrade`: the adapter outlives the process that serves it. A successor that is not ready
//! costs nothing; one that fails later costs as much as a crash.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Output,
    thread,
    time::Duration,
};

use common::{NodePair, TEST_RATE, TEST_TIMEOUT, TRAFFIC_CHECK_TIME, assert_flow_alive};
use futures_util::TryStreamExt;
use netft_lab::{
    Lab,
    daemon::{ADAPTER_NAME, SiteSettings},
    in_namespace, interface_index,
};
use rtnetlink::packet_route::link::LinkAttribute;
use rustix::process::{Pid, Signal, kill_process};

/// A daemon that is no child of the test; killed when dropped.
struct Successor(u64);

impl Drop for Successor {
    fn drop(&mut self) {
        let pid = i32::try_from(self.0).ok().and_then(Pid::from_raw);
        let _ = pid.map(|pid| kill_process(pid, Signal::KILL));
    }
}

impl NodePair {
    fn upgrade(&self, args: &[&str]) -> Output {
        let mut operator = self.site.operator_command(&self.lab, 0).unwrap();
        operator.arg("upgrade").args(args).output().unwrap()
    }

    /// Process id and boot id of the first node's daemon.
    fn identity(&mut self) -> (u64, String) {
        let status = self.daemon(0).get_json("/v1/status").unwrap();
        let boot_id = status["node"]["boot_id"].as_str().unwrap().to_owned();
        (status["node"]["pid"].as_u64().unwrap(), boot_id)
    }

    /// How often the carrier of the first node's adapter changed, and the adapter's index: a device
    /// whose last queue is closed loses its carrier.
    fn carrier_changes(&self) -> (u32, u32) {
        let netns = self.lab.node_netns(0);
        let found = netns.run_netlink("read the adapter", |netlink| async move {
            let index = interface_index(&netlink, ADAPTER_NAME).await?;
            let found = netlink.link().get().match_index(index).execute().try_next().await?;
            let changes = found.unwrap().attributes.into_iter().find_map(|it| match it {
                LinkAttribute::CarrierChanges(changes) => Some(changes),
                _ => None,
            });
            Ok((changes.unwrap(), index))
        });
        found.unwrap()
    }

    /// Waits until the first node has as many routes up as there are networks, whoever serves.
    fn wait_up(&mut self) {
        let networks = self.lab.network_count();
        let deadline = std::time::Instant::now() + TEST_TIMEOUT;
        loop {
            let routes = self.daemon(0).routes().unwrap_or_default();
            if routes.iter().filter(|route| route.state == "up").count() == networks {
                return;
            }
            assert!(std::time::Instant::now() < deadline, "{routes:#?}");
            thread::sleep(TRAFFIC_CHECK_TIME / 25);
        }
    }

    /// A program that stands in for a successor.
    fn script(&self, name: &str, lines: &str) -> PathBuf {
        let path = self.site.runtime_dir(0).join(name);
        fs::write(&path, format!("#!/bin/sh\n{lines}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn error_of(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn an_upgrade_keeps_the_adapter_its_connections_and_overrides() {
    in_namespace("an_upgrade_keeps_the_adapter_its_connections_and_overrides", || {
        // The port of the metrics goes from hand to hand.
        let common = "[metrics]\nlisten = \"127.0.0.1:9343\"\n";
        let settings = SiteSettings { common, ..SiteSettings::default() };
        let mut pair = NodePair::prepared_for(2, settings).start_and_wait();
        let mut operator = pair.site.operator_command(&pair.lab, 0).unwrap();
        assert!(operator.args(["drain", &Lab::nic_name(1)]).status().unwrap().success());
        let flows = [0, 1].map(|from| pair.transfer(from, Some(TEST_RATE), false));
        let probe = pair.probe(0, false);
        thread::sleep(TRAFFIC_CHECK_TIME);
        let (first, adapter) = (pair.identity(), pair.carrier_changes());
        let mut served = vec![first];
        let mut successors = Vec::new();
        // The second time the successor of the first hands over.
        for _ in 0..2 {
            let output = pair.upgrade(&[]);
            assert!(output.status.success(), "{output:?}");
            let identity = pair.identity();
            let said = String::from_utf8(output.stdout).unwrap();
            assert!(said.contains(&format!("serves, pid {}", identity.0)), "{said}");
            assert!(served.iter().all(|old| old.0 != identity.0 && old.1 != identity.1));
            successors.push(Successor(identity.0));
            served.push(identity);
            pair.wait_up();
        }
        assert_eq!(pair.carrier_changes(), adapter, "its queues were never all closed");
        let left = pair.daemons[0].as_mut().unwrap().wait_exit(TEST_TIMEOUT).unwrap();
        assert!(left.success(), "{left:?}");
        let routes = pair.daemon(0).get_json("/v1/routes").unwrap();
        let routes = routes["routes"].as_array().unwrap();
        assert_eq!(routes.iter().filter(|route| !route["drain"].is_null()).count(), 1);
        thread::sleep(TRAFFIC_CHECK_TIME);
        let report = probe.finish().full_report();
        println!("two upgrades: {report:?}");
        assert_eq!(report.duplicates, 0);
        flows.into_iter().for_each(assert_flow_alive);
    });
}

#[test]
fn f_99_a_successor_that_is_not_ready_costs_nothing() {
    in_namespace("f_99_a_successor_that_is_not_ready_costs_nothing", || {
        let mut pair = NodePair::start_up(2);
        let before = (pair.identity(), pair.carrier_changes());
        let probe = pair.probe(0, false);
        let dies = pair.script("dies", "exit 7");
        let hangs = pair.script("hangs", "exec sleep 60");
        let later = pair.script("later", "printf 'ready 99 x' >&0; exec sleep 60");
        let strange = pair.script("strange", "printf 'hello' >&0; exec sleep 60");
        let writable = pair.script("writable", "exit 0");
        fs::set_permissions(&writable, fs::Permissions::from_mode(0o777)).unwrap();
        for (program, timeout, words) in [
            (dies.as_path(), "4", "the successor ended"),
            (&hangs, "1", "took too long"),
            (&later, "4", "speaks version 99"),
            (&strange, "4", "no netftd that can take over"),
            (&writable, "4", "others than root can write it"),
            (Path::new("/no/such/file"), "4", "No such file"),
            (Path::new("netftd"), "4", "absolute path"),
        ] {
            let error = error_of(&pair.upgrade(&["--timeout", timeout, text(program)]));
            assert!(error.contains(words), "{program:?}: {error}");
            assert_eq!((pair.identity(), pair.carrier_changes()), before, "{program:?}");
        }
        // A config that is wrong is found by the successor, which never becomes ready.
        pair.rewrite_config(0, "[node]", "[nodes]");
        assert!(error_of(&pair.upgrade(&[])).contains("the successor ended"));
        pair.rewrite_config(0, "[nodes]", "[node]");
        assert_eq!((pair.identity(), pair.carrier_changes()), before);
        common::assert_nothing_lost(&probe.finish());
        let events = pair.daemon(0).get_json("/v1/events").unwrap();
        let down = |event: &&serde_json::Value| event["to"] == "down";
        assert_eq!(events["events"].as_array().unwrap().iter().filter(down).count(), 0);
    });
}

#[test]
fn a_successor_that_dies_with_the_adapter_gives_it_back() {
    in_namespace("a_successor_that_dies_with_the_adapter_gives_it_back", || {
        let mut pair = NodePair::start_up(2);
        let flow = pair.transfer(0, Some(TEST_RATE), false);
        thread::sleep(TRAFFIC_CHECK_TIME);
        let ((pid, boot_id), (_, index)) = (pair.identity(), pair.carrier_changes());
        let dies = pair.script("dies", "printf 'ready 1' >&0; exec sleep 0.3");
        let error = error_of(&pair.upgrade(&[text(&dies)]));
        assert!(error.contains("the former netftd serves again"), "{error}");
        pair.wait_up();
        let (again, other_boot) = pair.identity();
        assert_eq!(again, pid, "the service keeps its main process");
        assert_ne!(other_boot, boot_id);
        assert_eq!(pair.carrier_changes().1, index, "the device is the same");
        // It can be upgraded all the same.
        let output = pair.upgrade(&[]);
        assert!(output.status.success(), "{output:?}");
        let _successor = Successor(pair.identity().0);
        pair.wait_up();
        thread::sleep(Duration::from_millis(100));
        assert_flow_alive(flow);
    });
}
