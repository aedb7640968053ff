//! `netft upgrade`: the adapter outlives the process that serves it. A successor that is not ready
//! costs nothing; one that fails later costs as much as a crash.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Output,
    thread,
    time::{Duration, Instant},
};

use crate::common::{
    self, NodePair, TEST_RATE, TEST_TIMEOUT, TRAFFIC_CHECK_TIME, assert_flow_alive,
};
use futures_util::TryStreamExt;
use netft::api::handover::HANDOVER_VERSION;
use netft_lab::{
    Lab, Moment,
    daemon::{ADAPTER_NAME, EventFollower, EventLine, SiteSettings},
    in_namespace, in_namespace_for, interface_index, scheduling,
    transfer::Transfer,
};
use rtnetlink::packet_route::link::LinkAttribute;
use rustix::process::{Pid, Signal, kill_process};

/// Longest time of the long run.
const LONG_RUN: Duration = Duration::from_secs(1800);

/// A detection time of 500 ms: a build without optimisation on a busy machine hands over in less.
const SLOW_DETECTION: &str = "[failover]\nhold = 300\n[heartbeat]\ndelay = 100\n";

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
        let deadline = Instant::now() + TEST_TIMEOUT;
        loop {
            let routes = self.daemon(0).routes().unwrap_or_default();
            if routes.iter().filter(|route| route.state == "up").count() == networks {
                return;
            }
            assert!(Instant::now() < deadline, "{routes:#?}");
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

    /// A successor that takes the adapter, and does no more than `lines`.
    fn ready_script(&self, name: &str, lines: &str) -> PathBuf {
        self.script(name, &format!("printf 'ready {HANDOVER_VERSION}' >&0; {lines}"))
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
        // The predecessor closes the metrics port, the successor opens it.
        let common = format!("{SLOW_DETECTION}[metrics]\nlisten = \"127.0.0.1:9343\"\n");
        let settings = SiteSettings { common: &common, ..SiteSettings::default() };
        let mut pair = NodePair::prepared_for(2, settings).start_and_wait();
        let mut operator = pair.site.operator_command(&pair.lab, 0).unwrap();
        assert!(operator.args(["drain", &Lab::nic_name(1)]).status().unwrap().success());
        let flows = [0, 1].map(|from| pair.transfer(from, Some(TEST_RATE), false));
        let probe = pair.probe(0, false);
        thread::sleep(TRAFFIC_CHECK_TIME);
        let (first, adapter) = (pair.identity(), pair.carrier_changes());
        let events = |pair: &mut NodePair| {
            let answer = pair.daemon(0).get_json("/v1/events").unwrap();
            answer["events"].as_array().unwrap().clone()
        };
        let told = events(&mut pair);
        let mut served = vec![first];
        let mut successors = Vec::new();
        // The second time the successor of the first hands over.
        for _ in 0..2 {
            let output = pair.upgrade(&[]);
            assert!(output.status.success(), "{output:?}");
            let identity = pair.identity();
            let said = String::from_utf8(output.stdout).unwrap();
            assert!(said.contains(&format!("serves, pid {}", identity.0)), "{said}");
            let is_same_run = |old: &(u64, String)| old.0 != identity.0 && old.1 == identity.1;
            assert!(served.iter().all(is_same_run), "{served:?} {identity:?}");
            successors.push(Successor(identity.0));
            served.push(identity);
            pair.wait_up();
        }
        assert_eq!(pair.carrier_changes(), adapter, "its queues were never all closed");
        let all = events(&mut pair);
        assert_eq!(all[..told.len()], told[..], "the history goes on");
        assert!(!all.iter().any(|event| event["event"] == "restarted"), "it is one run");
        let left = pair.daemons[0].as_mut().unwrap().wait_exit(TEST_TIMEOUT).unwrap();
        assert!(left.success(), "{left:?}");
        let routes = pair.daemon(0).get_json("/v1/routes").unwrap();
        let routes = routes["routes"].as_array().unwrap();
        assert_eq!(routes.iter().filter(|route| !route["drain"].is_null()).count(), 1);
        thread::sleep(TRAFFIC_CHECK_TIME);
        let report = probe.finish().full_report();
        println!("two upgrades: {report:?}");
        assert_eq!((report.lost, report.duplicates), (0, 0));
        flows.into_iter().for_each(assert_flow_alive);
    });
}

/// Events of a peer since `since` that an upgrade must not cause: routes that went down, sessions
/// that ended or began.
fn disturbances(events: &EventFollower, since: Moment) -> Vec<String> {
    let is_down =
        |event: &EventLine| event.name == "state-changed" && event.str_field("to") == Some("down");
    let tells = |event: &EventLine| {
        let session = ["session-established", "session-ended", "remote-unreachable"];
        is_down(event) || session.contains(&event.name.as_str())
    };
    let since = events.events_so_far().into_iter().filter(|it| it.is_at_or_after(since.wall));
    since.filter(tells).map(|event| format!("{event:?}")).collect()
}

/// One upgrade, as the traffic and the peer saw it; a line of the table of `scripts/upgrades`.
struct UpgradeOutcome {
    /// Datagrams sent, lost and doubled, both directions together.
    sent: u64,
    lost: u64,
    duplicates: u64,
    longest_gap: Duration,
    /// Bits per second of both flows together.
    tcp_rate: f64,
    broken_flows: usize,
    routes_down: usize,
    /// Sessions that began or ended, and peers that were unreachable.
    session_events: usize,
    /// The worst delay of the threads meanwhile: a machine that stalls drops packets.
    scheduling_delay: Duration,
}

impl UpgradeOutcome {
    const TABLE_HEAD: &'static str = "| upgrade | dying route | sent | lost | twice \
        | longest gap, ms | TCP, Gbit/s | broken flows | routes down | session events \
        | scheduling delay, ms |\n\
        |---|---|---|---|---|---|---|---|---|---|---|";

    fn print_row(&self, number: u64, dying: bool) {
        println!(
            "| {number} | {} | {} | {} | {} | {} | {:.2} | {} | {} | {} | {} |",
            if dying { "yes" } else { "no" },
            self.sent,
            self.lost,
            self.duplicates,
            self.longest_gap.as_millis(),
            self.tcp_rate / 1e9,
            self.broken_flows,
            self.routes_down,
            self.session_events,
            self.scheduling_delay.as_millis(),
        );
    }

    /// Asserts that the upgrade that began at `since` cost nothing, where threads ran in time.
    fn assert_unnoticed(&self, dying: bool, told: &[String], since: Instant) {
        assert_eq!(self.duplicates, 0);
        let is_whole = self.lost == 0 && self.broken_flows == 0 && self.session_events == 0;
        // The route that died, and no other.
        let is_quiet = is_whole && self.routes_down <= usize::from(dying);
        scheduling::assert_timely(is_quiet, since, || {
            format!("{} lost, {} flows broken: {told:#?}", self.lost, self.broken_flows)
        });
    }
}

/// `count` upgrades of the first node in a row. The second node sees nothing of them: no datagram
/// is lost or arrives twice, no flow breaks, no route goes down, and the session goes on. With
/// `dying` a network dies in the same second as each upgrade: its route alone goes down.
fn upgrade_under_traffic(count: u64, dense: bool, dying: bool) {
    let common = if dense { common::HOLD_CONFIG } else { SLOW_DETECTION };
    let mut pair = NodePair::start_with(3, SiteSettings { common, ..SiteSettings::default() });
    let events = pair.events(1);
    let mut successor = None;
    println!("{}", UpgradeOutcome::TABLE_HEAD);
    for number in 0..count {
        let rate = if dense { None } else { Some(TEST_RATE) };
        let flows_began = Instant::now();
        let flows = [0, 1].map(|from| pair.transfer(from, rate, false));
        let start = |from| if dense { pair.dense_probe(from) } else { pair.probe(from, false) };
        let probes = [start(0), start(1)];
        thread::sleep(TRAFFIC_CHECK_TIME);
        let (boot_id, began) = (pair.identity().1, Moment::now());
        let network = pair.active(0).0;
        if dying {
            // Before, at, or after the moment at which nobody serves.
            let lab = &pair.lab;
            let output = thread::scope(|scope| {
                scope.spawn(move || {
                    thread::sleep(Duration::from_millis(150 + 20 * (number % 10)));
                    lab.black_hole(network).unwrap();
                });
                pair.upgrade(&[])
            });
            assert!(output.status.success(), "{output:?}");
        } else {
            let output = pair.upgrade(&[]);
            assert!(output.status.success(), "{output:?}");
        }
        let identity = pair.identity();
        assert_eq!(identity.1, boot_id, "the peers see one run");
        successor = Some(Successor(identity.0));
        thread::sleep(2 * TRAFFIC_CHECK_TIME);
        let bits = flows.iter().map(Transfer::bytes_received).sum::<u64>() as f64 * 8.0;
        let tcp_rate = bits / flows_began.elapsed().as_secs_f64();
        let reports = probes.map(|probe| probe.finish().full_report());
        let told = disturbances(&events, began);
        let routes_down = told.iter().filter(|event| event.contains("down")).count();
        let outcome = UpgradeOutcome {
            sent: reports.iter().map(|report| report.sent).sum(),
            lost: reports.iter().map(|report| report.lost).sum(),
            duplicates: reports.iter().map(|report| report.duplicates).sum(),
            longest_gap: reports.iter().map(|report| report.longest_gap).max().unwrap_or_default(),
            tcp_rate,
            broken_flows: flows.iter().filter(|flow| flow.is_broken()).count(),
            routes_down,
            session_events: told.len() - routes_down,
            scheduling_delay: scheduling::worst_delay(began.monotonic),
        };
        outcome.print_row(number, dying);
        outcome.assert_unnoticed(dying, &told, began.monotonic);
        flows.into_iter().for_each(assert_flow_alive);
        if dying {
            pair.lab.heal_network(network).unwrap();
            pair.wait_up();
        }
    }
    drop(successor);
}

#[test]
fn f_115_the_peer_sees_nothing_of_an_upgrade() {
    let name = "f_115_the_peer_sees_nothing_of_an_upgrade";
    in_namespace(name, || upgrade_under_traffic(2, false, false));
}

#[test]
fn f_115_a_route_that_dies_with_an_upgrade_costs_nothing() {
    let name = "f_115_a_route_that_dies_with_an_upgrade_costs_nothing";
    in_namespace(name, || upgrade_under_traffic(1, false, true));
}

/// A signal to stop that comes while nobody serves is for the one that serves in the end.
#[test]
fn a_signal_during_the_hand_over_stops_whoever_serves() {
    in_namespace("a_signal_during_the_hand_over_stops_whoever_serves", || {
        let mut pair = NodePair::start_up(1);
        // The successor takes the adapter and says nothing until it ends.
        let hangs = pair.ready_script("hangs", "exec sleep 1");
        let pid = pair.identity().0;
        let output = thread::scope(|scope| {
            scope.spawn(|| {
                thread::sleep(Duration::from_millis(500));
                kill_process(Pid::from_raw(pid as i32).unwrap(), Signal::TERM).unwrap();
            });
            pair.upgrade(&[text(&hangs)])
        });
        assert!(!output.status.success(), "{output:?}");
        let left = pair.daemons[0].as_mut().unwrap().wait_exit(TEST_TIMEOUT).unwrap();
        assert!(left.success(), "{left:?}");
        assert!(pair.adapter(0).is_none(), "it stopped in order");
    });
}

/// `scripts/upgrades N`: 10,000 datagrams per second each way and TCP at full speed both ways.
#[test]
#[ignore = "long"]
fn many_upgrades_under_full_traffic_lose_nothing() {
    let count = common::number_from_env("NETFT_UPGRADES", 50);
    in_namespace_for("many_upgrades_under_full_traffic_lose_nothing", LONG_RUN, || {
        upgrade_under_traffic(count.div_ceil(2), true, false);
        upgrade_under_traffic(count / 2, true, true);
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
        let former = pair.script("former", "printf 'ready 1' >&0; exec sleep 60");
        let strange = pair.script("strange", "printf 'hello' >&0; exec sleep 60");
        let writable = pair.script("writable", "exit 0");
        fs::set_permissions(&writable, fs::Permissions::from_mode(0o777)).unwrap();
        for (program, timeout, words) in [
            (dies.as_path(), "4", "the successor ended"),
            (&hangs, "1", "took too long"),
            (&later, "4", "speaks version 99"),
            (&former, "4", "speaks version 1"),
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
        // One with a change that a successor cannot apply is refused before a successor starts.
        let port = "[session]\nport = 4343\n[node]";
        pair.rewrite_config(0, "[node]", port);
        let error = error_of(&pair.upgrade(&[]));
        assert!(error.contains("restart netftd to apply it"), "{error}");
        pair.rewrite_config(0, port, "[node]");
        // A file of overrides that the successor cannot read stays where it is.
        let overrides = pair.site.runtime_dir(0).join("state").join("netft0.overrides");
        fs::create_dir_all(overrides.parent().unwrap()).unwrap();
        fs::write(&overrides, "netft-overrides 99 0\n{}\n").unwrap();
        assert!(error_of(&pair.upgrade(&[])).contains("the successor ended"));
        assert!(overrides.exists(), "it is the running netftd's");
        fs::remove_file(&overrides).unwrap();
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
        let dies = pair.ready_script("dies", "exec sleep 0.3");
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
