//! Cost of many floating addresses on one node. Figures of a release build: `NETFTD=…/netftd
//! NETFT=…/netft NETFT_SECONDS=20 cargo test --test vip_cost -- --nocapture`.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::{
    thread,
    time::{Duration, Instant},
};

use common::{commands::has_programs, number_from_env, programs};
use netft_lab::{
    Lab,
    daemon::{Daemon, Site, SiteSettings},
    in_namespace,
};

/// Addresses on the node.
const VIP_COUNT: u8 = 100;
/// Probes of RFC 5227 take up to 7 s.
const ONLINE_TIMEOUT: Duration = Duration::from_secs(90);

fn all_vips(ownership: &str) -> String {
    let vip = |number: u8| {
        let head =
            format!("[[vip]]\nname = \"v{number}\"\naddress = \"10.1.0.{}\"\n", 100 + number);
        format!("{head}ownership = \"{ownership}\"\n")
    };
    (0..VIP_COUNT).map(vip).collect()
}

fn online_count(daemon: &Daemon) -> u64 {
    let status = daemon.get_json("/v1/status").unwrap_or_default();
    status["vips"]["online"].as_u64().unwrap_or_default()
}

fn wait_online(daemon: &Daemon, count: u64) -> Duration {
    let start = Instant::now();
    while online_count(daemon) != count {
        let found = online_count(daemon);
        assert!(start.elapsed() < ONLINE_TIMEOUT, "{found} of {count}:\n{}", daemon.log_text());
        thread::sleep(Duration::from_millis(5));
    }
    start.elapsed()
}

/// Processor time of a daemon over a while, in parts of a core.
fn load_of(daemon: &Daemon) -> f64 {
    let span = Duration::from_secs(number_from_env("NETFT_SECONDS", 3));
    let (start, before) = (Instant::now(), daemon.processor_time().unwrap());
    thread::sleep(span);
    let used = daemon.processor_time().unwrap() - before;
    used.as_secs_f64() / start.elapsed().as_secs_f64()
}

/// F-96.
#[test]
fn f_96_a_hundred_addresses_cost_about_what_one_costs() {
    in_namespace("f_96_a_hundred_addresses_cost_about_what_one_costs", || {
        if !has_programs(&["nft"]) {
            return;
        }
        let lab = Lab::new(2, 1).unwrap();
        let common = all_vips("manual");
        let settings = SiteSettings { common: &common, ..SiteSettings::default() };
        let site = Site::new(&lab, programs(), settings).unwrap();
        let mut daemons: Vec<_> =
            (0..2).map(|node| site.start_daemon(&lab, node).unwrap()).collect();
        daemons[0].wait_ready(1).unwrap();
        let order = |number: u8, action: &str| {
            let mut command = site.operator_command(&lab, 0).unwrap();
            let output = command.args(["vip", action, &format!("v{number}")]).output().unwrap();
            assert!(output.status.success(), "{output:?}");
        };
        let idle = load_of(&daemons[0]);
        // The announcements after the first seconds are rare.
        let load_later = || {
            thread::sleep(Duration::from_secs(10));
            load_of(&daemons[0])
        };
        order(0, "online");
        wait_online(&daemons[0], 1);
        let one = load_later();
        (1..VIP_COUNT).for_each(|number| order(number, "online"));
        wait_online(&daemons[0], VIP_COUNT.into());
        let all = load_later();
        let percent = |part: f64| 100.0 * part;
        println!(
            "percent of a core: {:.2} without an address, {:.2} with one, {:.2} with {VIP_COUNT}",
            percent(idle),
            percent(one),
            percent(all)
        );
        // Each address by itself would cost 100 times as much.
        let bound = 10.0 * (one - idle).max(0.002);
        assert!(all - idle < bound, "{idle} without, {one} with one, {all} with all");
    });
}

/// F-96: by raft, and the takeover of all of them.
#[test]
fn f_96_a_hundred_addresses_are_taken_over_together() {
    in_namespace("f_96_a_hundred_addresses_are_taken_over_together", || {
        if !has_programs(&["nft"]) {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let lab = Lab::new(3, 2).unwrap();
        let common = all_vips("raft").replace(
            "ownership = \"raft\"\n",
            "ownership = \"raft\"\npreferred = [\"a\", \"b\"]\n",
        ) + "[ownership]\n";
        let store = |node: usize| format!("store = {:?}", folder.path().join(format!("s{node}")));
        let stores: Vec<_> = (0..3).map(store).collect();
        let stores: Vec<&str> = stores.iter().map(String::as_str).collect();
        let settings =
            SiteSettings { common: &common, per_node: &stores, ..SiteSettings::default() };
        let site = Site::new(&lab, programs(), settings).unwrap();
        let mut daemons: Vec<_> =
            (0..3).map(|node| site.start_daemon(&lab, node).unwrap()).collect();
        wait_online(&daemons[0], VIP_COUNT.into());
        thread::sleep(Duration::from_secs(10));
        for (daemon, name) in daemons.iter().zip(["a", "b", "c"]) {
            println!("{name}: {:.2} percent of a core", 100.0 * load_of(daemon));
        }
        daemons.remove(0).kill().unwrap();
        let took = wait_online(&daemons[0], VIP_COUNT.into());
        println!("all {VIP_COUNT} addresses taken over after {took:?}");
        assert_eq!(online_count(&daemons[1]), 0, "the second of the preferred has them");
    });
}
