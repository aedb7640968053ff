//! A running node goes over to another config: what is the same in both notices nothing.

use std::{fs, process::Output, thread, time::Duration};

use crate::common::{TEST_TIMEOUT, TRAFFIC_CHECK_TIME, assert_nothing_lost, programs, wait_until};
use netft_lab::{
    Lab, NetworkLayout,
    daemon::{ADAPTER_NAME, Daemon, Site, SiteSettings},
    in_namespace,
    probe::DatagramProbe,
};
use rustix::process::Signal;

/// Three nodes on three networks; `a` is the one that is reloaded.
struct Trio {
    daemons: Vec<Daemon>,
    site: Site,
    lab: Lab,
}

impl Trio {
    fn up() -> Self {
        let lab = Lab::with_layouts(3, &[NetworkLayout::Flat; 3]).unwrap();
        let site = Site::new(&lab, programs(), SiteSettings::default()).unwrap();
        let daemons = (0..3).map(|node| site.start_daemon(&lab, node).unwrap()).collect();
        let mut trio = Self { daemons, site, lab };
        for daemon in &mut trio.daemons {
            daemon.wait_ready(6).unwrap();
        }
        trio
    }

    fn config(&self) -> String {
        fs::read_to_string(self.site.config_path(0)).unwrap()
    }

    fn write(&self, text: &str) {
        fs::write(self.site.config_path(0), text).unwrap();
    }

    fn netft(&self, args: &[&str]) -> Output {
        self.site.operator_command(&self.lab, 0).unwrap().args(args).output().unwrap()
    }

    /// Output of `netft reload`.
    fn reload(&self) -> String {
        let output = self.netft(&["reload"]);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// The numbers of the routes to `peer`, with network and delay.
    fn routes(&self, peer: &str) -> Vec<(u64, usize, u64)> {
        let routes = self.daemons[0].routes().unwrap();
        let of = routes.iter().filter(|route| route.peer == peer);
        of.map(|route| {
            let network = self.lab.network_of(0, route.local_address().unwrap()).unwrap();
            (route.id, network, route.delay_ms)
        })
        .collect()
    }

    fn wait(&mut self, what: &str, peer: &str, up: usize) {
        self.daemons[0]
            .wait_for(what, TEST_TIMEOUT, |routes| {
                let of: Vec<_> = routes.iter().filter(|route| route.peer == peer).collect();
                of.len() == up && of.iter().all(|route| route.state == "up")
            })
            .unwrap();
    }

    /// Returns whether the first node's kernel leads the virtual address of `node` to the adapter.
    fn has_kernel_route(&self, node: usize) -> bool {
        let table = self
            .lab
            .node_netns(0)
            .run_inside(|| fs::read_to_string("/proc/thread-self/net/route").unwrap());
        let addr = u32::from_ne_bytes(self.site.virtual_addrs(node).v4.octets());
        table.contains(&format!("{ADAPTER_NAME}\t{addr:08X}\t"))
    }

    fn probe(&self, from: usize, to: usize) -> DatagramProbe {
        let end = |node| self.site.virtual_endpoint(&self.lab, node, false).unwrap();
        let (from, to) = ((from, end(from)), (to, end(to)));
        DatagramProbe::start(
            (self.lab.node_netns(from.0), from.1),
            (self.lab.node_netns(to.0), to.1),
        )
        .unwrap()
    }
}

/// `text` without the table of `kind` that holds `mark`.
fn without(text: &str, kind: &str, mark: &str) -> String {
    let mut tables: Vec<_> = text.split(kind).collect();
    let before = tables.len();
    let head = tables.remove(0).to_owned();
    let (gone, stay): (Vec<_>, Vec<_>) = tables.into_iter().partition(|t| t.contains(mark));
    assert_eq!(stay.len() + 2, before, "{mark} in {text}");
    // The last table of a kind may be followed by tables of another one.
    let rest = gone[0].find("\n[[").map_or("", |at| &gone[0][at + 1..]);
    let stay: String = stay.iter().map(|table| format!("{kind}{table}")).collect();
    format!("{head}{stay}{rest}")
}

#[test]
fn peers_networks_and_timings_change_under_traffic_that_notices_nothing() {
    in_namespace("peers_networks_and_timings_change_under_traffic_that_notices_nothing", || {
        let mut trio = Trio::up();
        let whole = trio.config();
        let before = trio.routes("b");
        assert_eq!(before.len(), 3);
        let established = |trio: &Trio| {
            let events = trio.daemons[0].get_json("/v1/events").unwrap();
            let all = events["events"].as_array().unwrap().iter();
            all.filter(|event| event["event"] == "session-established" && event["peer"] == "b")
                .count()
        };
        let sessions = established(&trio);
        let probes = [trio.probe(0, 1), trio.probe(1, 0)];
        thread::sleep(TRAFFIC_CHECK_TIME);

        // A dry run says the same and does nothing.
        let no_c = without(&whole, "[[peer]]", "\"c\"");
        trio.write(&no_c);
        let dry = trio.netft(&["reload", "--dry-run"]);
        let dry = String::from_utf8(dry.stdout).unwrap();
        assert!(dry.starts_with("- peer c\n") && dry.contains("(peer c)"), "{dry}");
        assert_eq!(trio.routes("c").len(), 3);

        // A peer goes.
        assert_eq!(trio.reload(), dry);
        assert_eq!(trio.routes("c"), []);
        let peers = trio.daemons[0].get_json("/v1/peers").unwrap();
        assert_eq!(peers["peers"].as_array().unwrap().len(), 1, "{peers}");
        thread::sleep(TRAFFIC_CHECK_TIME);

        // A network goes, and comes back.
        let last = trio.lab.node_address(2, 1, false).to_string();
        let prefix = format!("{}.0/24", last.rsplit_once('.').unwrap().0);
        trio.write(&without(&no_c, "[[network]]", &prefix));
        let text = trio.reload();
        assert!(text.contains(&format!("- network {prefix}\n- route ")), "{text}");
        assert_eq!(trio.routes("b"), before[..2]);
        thread::sleep(TRAFFIC_CHECK_TIME);
        trio.write(&no_c);
        let text = trio.reload();
        assert!(text.contains(&format!("+ network {prefix}: ")), "{text}");
        trio.wait("the network's route", "b", 3);

        // The network that carries the data goes, and comes back.
        let first = trio.lab.node_address(0, 1, false).to_string();
        let prefix = format!("{}.0/24", first.rsplit_once('.').unwrap().0);
        trio.write(&without(&no_c, "[[network]]", &prefix));
        trio.reload();
        assert_eq!(trio.routes("b").len(), 2);
        thread::sleep(TRAFFIC_CHECK_TIME);
        trio.write(&no_c);
        trio.reload();
        trio.wait("the network's route", "b", 3);

        // The timing of every route changes, and that of one.
        let slower = format!("{no_c}\n[heartbeat]\ndelay = 100\n");
        trio.write(&slower);
        let text = trio.reload();
        let timing = "~ timing in one subnet: 30 ms × 5 → 100 ms × 5\n";
        assert!(text.starts_with(timing) && text.contains("3343 (peer b): 30 ms"), "{text}");
        assert!(trio.routes("b").iter().all(|(_, _, delay)| *delay == 100));
        thread::sleep(TRAFFIC_CHECK_TIME);

        // A peer comes, and everything is as it was.
        trio.write(&whole);
        let text = trio.reload();
        assert!(text.contains("+ peer c: "), "{text}");
        assert!(trio.has_kernel_route(2), "before a session can bring the peer up");
        trio.wait("a session with c", "c", 3);
        let flow = trio.probe(0, 2);
        thread::sleep(TRAFFIC_CHECK_TIME);
        assert_nothing_lost(&flow.finish());
        for probe in probes {
            assert_nothing_lost(&probe.finish());
        }
        // Neither the session nor the routes of b were touched.
        assert_eq!(trio.routes("b")[0], before[1]);
        assert_eq!(established(&trio), sessions);
        assert_eq!(trio.reload(), "no changes\n");
    });
}

#[test]
fn policies_change_and_those_set_by_hand_stay_until_the_file_says_otherwise() {
    in_namespace(
        "policies_change_and_those_set_by_hand_stay_until_the_file_says_otherwise",
        || {
            let mut trio = Trio::up();
            let whole = trio.config();
            // A peer that went and came back has a number that is no place in the config.
            trio.write(&without(&whole, "[[peer]]", "\"b\""));
            trio.reload();
            trio.write(&whole);
            trio.reload();
            trio.wait("a session with b", "b", 3);
            let policies = |trio: &Trio| {
                ["b", "c"].map(|name| {
                    let peer = trio.daemons[0].get_json(&format!("/v1/peers/{name}")).unwrap();
                    peer["peer"]["policy"].as_str().unwrap().to_owned()
                })
            };
            let output = trio.netft(&["peer", "set", "b", "--policy", "balance"]);
            assert!(output.status.success(), "{output:?}");
            assert_eq!(policies(&trio), ["balance", "failover"]);

            let probe = trio.probe(0, 1);
            let c =
                |policy: &str| whole.replace("name = \"c\"", &format!("name = \"c\"\n{policy}"));
            trio.write(&c("policy = \"duplicate\""));
            assert_eq!(trio.reload(), "~ peer c: policy failover → duplicate\n");
            assert_eq!(policies(&trio), ["balance", "duplicate"]);
            trio.write(&whole.replace("name = \"b\"", "name = \"b\"\npolicy = \"duplicate\""));
            trio.reload();
            assert_eq!(policies(&trio), ["duplicate", "failover"]);
            trio.write(&whole);
            trio.reload();
            assert_eq!(policies(&trio), ["failover", "failover"]);
            assert_nothing_lost(&probe.finish());
        },
    );
}

#[test]
fn c_07_a_config_that_is_wrong_leaves_everything_as_it_is() {
    in_namespace("c_07_a_config_that_is_wrong_leaves_everything_as_it_is", || {
        let trio = Trio::up();
        let whole = trio.config();
        let before = trio.daemons[0].get_json("/v1/peers").unwrap();
        let wrong = without(&whole, "[[peer]]", "\"c\"") + "\n[failover]\nhold = \"long\"\n";
        trio.write(&wrong);
        let output = trio.netft(&["reload"]);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{text}");
        let line = wrong.lines().count();
        let place = format!("netft.toml:{line}:8");
        assert!(text.contains(&place) && text.contains("hold = \"long\"\n"), "{text}");
        assert!(text.contains("^^^^^^"), "{text}");

        // One thing that cannot change refuses the rest of the file, too.
        let other = without(&whole, "[[peer]]", "\"c\"") + "\n[session]\nport = 4000\n";
        trio.write(&other);
        for args in [&["reload"][..], &["reload", "--dry-run"]] {
            let output = trio.netft(args);
            let text = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(2), "{text}");
            assert!(text.contains("3343 → 4000") && text.contains("restart netftd"), "{text}");
        }

        // The signal logs what the command prints.
        trio.write(&wrong);
        trio.daemons[0].send_signal(Signal::HUP).unwrap();
        wait_until("the reason in the log", || trio.daemons[0].log_text().contains(&place));
        let after = trio.daemons[0].get_json("/v1/peers").unwrap();
        assert_eq!(after["peers"], before["peers"]);
    });
}

#[test]
fn f_42_a_storm_of_signals_costs_a_few_reloads_and_no_packet() {
    in_namespace("f_42_a_storm_of_signals_costs_a_few_reloads_and_no_packet", || {
        let trio = Trio::up();
        let whole = trio.config();
        let probe = trio.probe(0, 1);
        for round in 0..200 {
            // Every other one is another config.
            let hold = format!("\n[failover]\nhold = {}\n", 500 + round);
            trio.write(&(whole.clone() + &hold));
            trio.daemons[0].send_signal(Signal::HUP).unwrap();
            thread::sleep(Duration::from_millis(2));
        }
        // The last one counts, whatever was left out before it.
        wait_until("the last config", || trio.daemons[0].log_text().contains("→ 699 ms"));
        let reloads = trio.daemons[0].log_text().matches("reload: ").count();
        assert!(reloads <= 20, "{reloads} reloads");
        assert_nothing_lost(&probe.finish());
    });
}
