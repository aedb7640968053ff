//! An operator's overrides outlive the daemon: drains, routes out of use, priorities and policies,
//! after a crash and a stop; a limit ends by itself; a damaged file and a full disk.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Output},
    time::SystemTime,
};

use crate::common::{self, NodePair, TEST_TIMEOUT};
use netft_lab::{
    Lab,
    daemon::{ADAPTER_NAME, RouteRow},
    in_namespace,
};
use serde_json::Value;

impl NodePair {
    fn netft(&self, args: &[&str]) -> Output {
        self.site.operator_command(&self.lab, 0).unwrap().args(args).output().unwrap()
    }

    fn run_netft(&self, args: &[&str]) -> String {
        let output = self.netft(args);
        assert!(output.status.success(), "netft {args:?}: {output:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(said, "", "netft {args:?} warns");
        String::from_utf8(output.stdout).unwrap()
    }

    fn override_file(&self) -> PathBuf {
        self.site.runtime_dir(0).join(format!("state/{ADAPTER_NAME}.overrides"))
    }

    /// The first node's route over a network.
    fn route_over(&mut self, network: usize) -> Value {
        let answer = self.daemon(0).get_json("/v1/routes").unwrap();
        let routes = answer["routes"].as_array().unwrap();
        let nic = Lab::nic_name(network);
        routes.iter().find(|route| route["interface"] == *nic).cloned().unwrap()
    }

    fn route_id(&mut self, network: usize) -> String {
        self.route_over(network)["id"].to_string()
    }

    fn status(&mut self) -> Value {
        self.daemon(0).get_json("/v1/status").unwrap()
    }

    fn kill_and_start(&mut self) {
        self.daemons[0].take().unwrap().kill().unwrap();
        self.start(0);
        self.wait_two_ways("routes after the start");
    }

    /// Waits until every route that is in use is up.
    fn wait_two_ways(&mut self, what: &str) {
        let networks = self.lab.network_count();
        let settled = |route: &RouteRow| route.state == "up" || route.state == "admin-down";
        self.daemon(0)
            .wait_for(what, TEST_TIMEOUT, |routes| {
                routes.len() == networks
                    && routes.iter().all(settled)
                    && routes.iter().any(|route| route.active)
            })
            .unwrap();
    }

    /// Asserts that every override of the test is in force.
    fn assert_overrides(&mut self) {
        let drained = self.route_over(0);
        assert!(["draining", "drained"].map(Value::from).contains(&drained["drain"]), "{drained}");
        assert_eq!(drained["drain_by"], "here");
        assert_eq!(self.route_over(1)["state"], "admin-down");
        let changed = self.route_over(2);
        let values = ["priority", "delay_ms", "threshold"].map(|key| changed[key].clone());
        assert_eq!(values, [Value::from(7777), 50.into(), 9.into()]);
        let status = self.status();
        assert_eq!(status["policies"]["duplicate"], 1);
        assert_eq!(status["overrides_unsaved"], Value::Null);
        let overrides = status["overrides"].as_array().unwrap();
        let kinds: Vec<_> = overrides.iter().map(|it| it["kind"].as_str().unwrap()).collect();
        let mut sorted = kinds.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, ["admin-down", "drain", "policies", "priority", "timing"]);
        self.wait_active(0, 2);
    }
}

#[test]
fn f_97_overrides_hold_after_a_crash_and_after_a_stop() {
    in_namespace("f_97_overrides_hold_after_a_crash_and_after_a_stop", || {
        let mut pair = NodePair::start_up(3);
        pair.run_netft(&["drain", &Lab::nic_name(0)]);
        let (down, changed) = (pair.route_id(1), pair.route_id(2));
        pair.run_netft(&["route", "down", &down]);
        let set = ["--priority", "7777", "--delay", "50", "--threshold", "9"];
        pair.run_netft(&[&["route", "set", &changed][..], &set].concat());
        pair.run_netft(&["peer", "set", "b", "--policy", "duplicate"]);
        pair.assert_overrides();
        pair.kill_and_start();
        pair.assert_overrides();
        // Each place that an operator looks at names them.
        // Its code says that a route is out of use.
        let status = String::from_utf8(pair.netft(&["status"]).stdout).unwrap();
        assert!(status.contains(&format!("interface {}: drained", Lab::nic_name(0))), "{status}");
        let dry = pair.run_netft(&["reload", "--dry-run"]);
        assert!(dry.starts_with("no changes\n") && dry.contains("admin-down"), "{dry}");
        let config = pair.site.config_path(0);
        let found = pair.netft(&["validate", "--local", "--config", config.to_str().unwrap()]);
        let found = String::from_utf8(found.stdout).unwrap();
        assert!(found.contains("set by an operator"), "{found}");

        pair.daemons[0].take().unwrap().stop().unwrap();
        pair.start(0);
        pair.wait_two_ways("routes after a stop");
        pair.assert_overrides();

        // What is taken back stays taken back.
        pair.run_netft(&["undrain", &Lab::nic_name(0)]);
        let down = pair.route_id(1);
        pair.run_netft(&["route", "up", &down]);
        pair.run_netft(&["peer", "set", "b", "--policy", "failover"]);
        pair.kill_and_start();
        assert_eq!(pair.route_over(0)["drain"], Value::Null);
        assert_eq!(pair.route_over(1)["state"], "up");
        assert_eq!(pair.status()["overrides"].as_array().unwrap().len(), 2, "priority and timing");
    });
}

#[test]
fn a_drain_with_a_limit_ends_by_itself_also_after_a_crash() {
    in_namespace("a_drain_with_a_limit_ends_by_itself_also_after_a_crash", || {
        let mut pair = NodePair::start_up(2);
        let (long, short) = (Lab::nic_name(0), pair.route_id(1));
        pair.run_netft(&["route", "drain", &short, "--until", "2s", "--force"]);
        pair.run_netft(&["drain", &long, "--until", "1h", "--force"]);
        pair.kill_and_start();
        let left = |pair: &mut NodePair| pair.status()["overrides"].as_array().unwrap().clone();
        let deadline = std::time::Instant::now() + TEST_TIMEOUT;
        while left(&mut pair).len() != 1 || pair.route_over(1)["drain"] != Value::Null {
            assert!(std::time::Instant::now() < deadline, "{:?}", left(&mut pair));
            std::thread::sleep(common::TRAFFIC_CHECK_TIME / 25);
        }
        let drain = &left(&mut pair)[0];
        assert_eq!(drain["interface"], *long);
        assert!(drain["until"].is_string() && pair.route_over(0)["drain"] != Value::Null);
        // Its end is on the disk too.
        common::wait_until("the end on the disk", || {
            !fs::read_to_string(pair.override_file()).unwrap().contains("drained")
        });
    });
}

#[test]
fn a_damaged_file_is_set_aside_whole_and_said() {
    in_namespace("a_damaged_file_is_set_aside_whole_and_said", || {
        let mut pair = NodePair::start_up(2);
        pair.run_netft(&["drain", &Lab::nic_name(0)]);
        pair.run_netft(&["peer", "set", "b", "--policy", "duplicate"]);
        pair.daemons[0].take().unwrap().kill().unwrap();
        let file = pair.override_file();
        let text = fs::read_to_string(&file).unwrap();
        fs::write(&file, text.replace("duplicate", "duplicatf")).unwrap();
        let start = SystemTime::now();
        pair.start(0);
        pair.wait_routes_up(0);
        let events = pair.events(0);
        let refused = |event: &netft_lab::daemon::EventLine| event.name == "overrides-refused";
        let event = events.wait_for("the refusal", start, TEST_TIMEOUT, refused).unwrap();
        let reason = event.str_field("reason").unwrap();
        assert!(reason.contains("digest") && reason.contains("overrides.refused"), "{reason}");
        assert_eq!(pair.route_over(0)["drain"], Value::Null, "nothing of it is in force");
        assert_eq!(pair.status()["overrides"], serde_json::json!([]));
        assert!(!file.exists() && file.with_extension("overrides.refused").exists());
        pair.run_netft(&["drain", &Lab::nic_name(1)]);
        pair.kill_and_start();
        assert_ne!(pair.route_over(1)["drain"], Value::Null);
    });
}

#[test]
fn on_a_full_disk_an_override_is_in_force_and_says_that_it_will_not_last() {
    in_namespace("on_a_full_disk_an_override_is_in_force_and_says_that_it_will_not_last", || {
        let mut pair = NodePair::start_up(2);
        let state = pair.override_file().parent().unwrap().to_owned();
        fs::create_dir_all(&state).unwrap();
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=32k,mode=0700", "tmpfs"])
            .arg(&state)
            .status();
        assert!(mount.unwrap().success());
        pair.run_netft(&["drain", &Lab::nic_name(0)]);
        let filler = state.join("filler");
        assert!(fs::write(&filler, vec![1; 1 << 20]).is_err(), "the disk is small");
        let priority = ["route", "set", &pair.route_id(1), "--priority", "7777"].map(str::to_owned);
        let priority: Vec<_> = priority.iter().map(String::as_str).collect();
        let output = pair.netft(&priority);
        let warning = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success() && warning.contains("No space left"), "{warning}");
        assert_eq!(pair.route_over(1)["priority"], 7777, "in force all the same");
        let unsaved = pair.status()["overrides_unsaved"].clone();
        assert!(unsaved.as_str().unwrap().contains("No space left"), "{unsaved}");
        // The former file is whole.
        pair.kill_and_start();
        assert_ne!(pair.route_over(0)["drain"], Value::Null);
        assert_ne!(pair.route_over(1)["priority"], 7777);
        fs::remove_file(&filler).unwrap();
        let again = pair.route_id(1);
        pair.run_netft(&["route", "set", &again, "--priority", "7777"]);
        pair.kill_and_start();
        assert_eq!(pair.route_over(1)["priority"], 7777);
    });
}

/// `--save` writes an operator's changes into the file, whose comments stay: they are settings.
#[test]
fn f_127_saved_overrides_are_settings_of_the_file() {
    in_namespace("f_127_saved_overrides_are_settings_of_the_file", || {
        let mut pair = NodePair::start_up(2);
        pair.rewrite_config(0, "[node]", "# The node in room 7.\n[node] # the first");
        let (first, second) = (pair.route_id(0), pair.route_id(1));
        pair.run_netft(&["route", "set", &first, "--priority", "7777"]);
        pair.run_netft(&["peer", "set", "b", "--policy", "duplicate"]);
        pair.run_netft(&["drain", &Lab::nic_name(1)]);
        let drift = pair.run_netft(&["diff"]);
        for what in ["no changes", "priority 7777", "policies duplicate", "drained"] {
            assert!(drift.contains(what), "{what}: {drift}");
        }
        let kinds = |pair: &mut NodePair| {
            let overrides = pair.status()["overrides"].as_array().unwrap().clone();
            let kinds = overrides.iter().map(|one| one["kind"].as_str().unwrap().to_owned());
            kinds.collect::<Vec<_>>().join(" ")
        };
        // The command's own change alone.
        let set = ["route", "set", &second, "--delay", "50", "--threshold", "9", "--save"];
        let saved = pair.netft(&set);
        let said = String::from_utf8(saved.stderr.clone()).unwrap();
        assert!(saved.status.success() && said.contains("written to"), "{saved:?}");
        let text = fs::read_to_string(pair.site.config_path(0)).unwrap();
        assert!(text.contains("delay = 50") && !text.contains("7777"), "{text}");
        assert_eq!(kinds(&mut pair), "drain priority policies");
        // A change of the file that is not in force would be put into force with it.
        pair.rewrite_config(0, "hold = 300", "hold = 301");
        let refused = pair.netft(&["diff", "--save"]);
        let said = String::from_utf8(refused.stderr).unwrap();
        assert!(!refused.status.success() && said.contains("`netft reload` first"), "{said}");
        pair.rewrite_config(0, "hold = 301", "hold = 300");
        let saved = pair.netft(&["diff", "--save"]);
        assert!(saved.status.success(), "{saved:?}");
        let text = fs::read_to_string(pair.site.config_path(0)).unwrap();
        assert!(text.contains("# The node in room 7.\n[node] # the first"), "{text}");
        for _ in 0..2 {
            assert_eq!(kinds(&mut pair), "drain", "the others are settings");
            let [one, other] = [0, 1].map(|network| pair.route_over(network));
            assert_eq!((&one["priority"], &other["delay_ms"]), (&7777.into(), &50.into()));
            assert_eq!(pair.status()["policies"]["duplicate"], 1);
            assert!(!other["drain"].is_null());
            pair.kill_and_start();
        }
    });
}
