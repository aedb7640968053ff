//! Floating addresses whose owner raft decides on: three nodes, and a client on the segment.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use common::{
    commands::{has_programs, run_ip},
    programs, wait_until,
};
use netft_lab::{
    Lab, Netns, NetworkLayout,
    daemon::{Daemon, Site, SiteSettings},
    in_namespace, scheduling,
};
use rustix::process::Signal;

const VIP: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 80);
const CLIENT: usize = 3;
const PORT: u16 = 7000;
/// A service that an address follows.
const ROLE_PORT: u16 = 7100;
const CONNECT_TIMEOUT: Duration = Duration::from_millis(40);
/// Longest wait for what must happen.
const DEADLINE: Duration = Duration::from_secs(40);
/// A takeover: the lease, its margin, and the announcement.
const TAKEOVER_BOUND: Duration = Duration::from_millis(800);
const ROUNDS: usize = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Killed,
    Stopped,
    CutOff,
}

struct RaftLab {
    daemons: Vec<Option<Daemon>>,
    /// Logs of the processes that were killed, with their nodes.
    logs: Vec<(usize, String)>,
    site: Site,
    lab: Lab,
    is_over: Arc<AtomicBool>,
}

impl Drop for RaftLab {
    fn drop(&mut self) {
        self.is_over.store(true, Relaxed);
    }
}

impl RaftLab {
    fn start(folder: &std::path::Path, vips: &str) -> Self {
        let lab = Lab::with_layouts(4, &[NetworkLayout::Flat, NetworkLayout::Flat]).unwrap();
        let common = format!("{vips}\n[ownership]\nvoters = [\"a\", \"b\", \"c\"]\n");
        let stores: Vec<_> = (0..3)
            .map(|node| format!("store = {:?}", folder.join(format!("store{node}"))))
            .collect();
        let stores: Vec<&str> = stores.iter().map(String::as_str).collect();
        let settings =
            SiteSettings { common: &common, per_node: &stores, ..SiteSettings::default() };
        let site = Site::new(&lab, programs(), settings).unwrap();
        let is_over = Arc::new(AtomicBool::new(false));
        for node in 0..3 {
            serve_number(lab.node_netns(node), node as u8, &is_over);
        }
        let mut this = Self { daemons: Vec::new(), logs: Vec::new(), site, lab, is_over };
        for node in 0..3 {
            let daemon = this.spawn_daemon(node);
            this.daemons.push(Some(daemon));
        }
        this
    }

    fn spawn_daemon(&self, node: usize) -> Daemon {
        let filter = ["--log", "info,netftd::ownership=debug"];
        self.site.start_daemon_with(&self.lab, node, &filter).unwrap()
    }

    fn await_owner(&self, is_good: impl Fn(u8) -> bool) -> u8 {
        let start = Instant::now();
        loop {
            let owner = self.lab.node_netns(CLIENT).run_inside(ask_owner);
            if let Some(owner) = owner.filter(|owner| is_good(*owner)) {
                return owner;
            }
            assert!(start.elapsed() < DEADLINE, "nobody answers:\n{}", self.all_logs());
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// The owner of an address as a node knows it.
    fn owner_of(&self, vip: &str) -> Option<String> {
        let list = self.daemons.iter().flatten().next()?.get_json("/v1/vips").ok()?;
        let found = list["vips"].as_array()?.iter().find(|one| one["name"] == vip)?.clone();
        found["owner"].as_str().map(str::to_owned)
    }

    fn wait_owners(&self, wanted: &[(&str, &str)]) {
        let start = Instant::now();
        loop {
            let owners: Vec<_> = wanted.iter().map(|(vip, _)| self.owner_of(vip)).collect();
            let is_right = |(owner, (_, node)): (&Option<String>, &(&str, &str))| {
                owner.as_deref() == Some(*node)
            };
            if owners.iter().zip(wanted).all(is_right) {
                return;
            }
            let all = self.all_logs();
            assert!(start.elapsed() < DEADLINE, "{wanted:?}, found {owners:?}:\n{all}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Runs `netft` on a node, and returns its output.
    fn ask_operator(&self, node: usize, words: &[&str]) -> String {
        let output = self.site.operator_command(&self.lab, node).unwrap().args(words).output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    }

    fn all_logs(&self) -> String {
        let live = self.daemons.iter().flatten().map(Daemon::log_text);
        let logs: Vec<String> = self.logs.iter().map(|(_, log)| log.clone()).chain(live).collect();
        logs.join("\n----\n")
    }

    fn set_cards(&self, node: usize, state: &str) {
        for network in 0..2 {
            let line = format!("link set {} {state}", Lab::nic_name(network));
            run_ip(self.lab.node_netns(node), &line);
        }
    }

    fn inject_fault(&mut self, node: usize, fault: Fault) {
        match fault {
            Fault::Killed => {
                let daemon = self.daemons[node].take().unwrap();
                self.logs.push((node, daemon.log_text()));
                daemon.kill().unwrap();
            }
            Fault::Stopped => {
                self.daemons[node].as_ref().unwrap().send_signal(Signal::STOP).unwrap();
            }
            Fault::CutOff => self.set_cards(node, "down"),
        }
    }

    fn repair(&mut self, node: usize, fault: Fault) {
        match fault {
            Fault::Killed => self.daemons[node] = Some(self.spawn_daemon(node)),
            Fault::Stopped => {
                self.daemons[node].as_ref().unwrap().send_signal(Signal::CONT).unwrap();
            }
            Fault::CutOff => self.set_cards(node, "up"),
        }
    }

    /// Times of all leases by the one clock of the machine: node, start, end.
    fn leases(&self) -> Vec<(usize, u64, u64)> {
        let live = self.daemons.iter().enumerate();
        let live = live.filter_map(|(node, daemon)| Some((node, daemon.as_ref()?.log_text())));
        let mut leases: Vec<(usize, u64, u64)> = Vec::new();
        for (node, log) in self.logs.iter().cloned().chain(live) {
            for line in log.lines() {
                if line.contains("ownership: granted") {
                    leases.push((node, number_of(line, "now="), number_of(line, "until_ns=")));
                } else if line.contains("ownership: let go") {
                    let at = number_of(line, "now=");
                    for lease in leases.iter_mut().filter(|lease| lease.0 == node) {
                        if lease.1 <= at {
                            lease.2 = lease.2.min(at);
                        }
                    }
                }
            }
        }
        leases
    }
}

/// The number after `key` in a log line, which may be coloured.
fn number_of(line: &str, key: &str) -> u64 {
    let plain: String = line.replace("\u{1b}[0m", "").replace("\u{1b}[2m", "");
    let plain = plain.replace("\u{1b}[3m", "");
    let rest = plain.split(key).nth(1).unwrap_or_else(|| panic!("no {key} in {line:?}"));
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or_else(|_| panic!("{key} in {line:?}"))
}

/// Answers every connection with the number of the node.
fn serve_number(netns: &Netns, number: u8, is_over: &Arc<AtomicBool>) {
    let listener = netns.run_inside(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).unwrap());
    listener.set_nonblocking(true).unwrap();
    let is_over = Arc::clone(is_over);
    thread::spawn(move || {
        while !is_over.load(Relaxed) {
            match listener.accept() {
                Ok((mut stream, _)) => drop(stream.write_all(&[number])),
                Err(_) => thread::sleep(Duration::from_millis(1)),
            }
        }
    });
}

/// The number of the node that answers at the address, in the namespace of the calling thread.
fn ask_owner() -> Option<u8> {
    let at = SocketAddr::from((VIP, PORT));
    let mut stream = TcpStream::connect_timeout(&at, CONNECT_TIMEOUT).ok()?;
    stream.set_read_timeout(Some(CONNECT_TIMEOUT)).ok()?;
    let mut number = [0];
    stream.read_exact(&mut number).ok()?;
    Some(number[0])
}

/// F-60: with real processes and kernels.
#[test]
fn f_60_the_address_goes_on_and_never_has_two_owners() {
    in_namespace("f_60_the_address_goes_on_and_never_has_two_owners", || {
        if !has_programs(&["nft", "ip"]) {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let web =
            format!("[[vip]]\nname = \"web\"\naddress = \"{VIP}/24\"\nownership = \"raft\"\n");
        let mut test = RaftLab::start(folder.path(), &web);
        let start = Instant::now();
        let mut owner = test.await_owner(|_| true);
        // Every node has joined, so that any of them may be lost.
        thread::sleep(Duration::from_secs(3));
        let mut gaps = Vec::new();
        for round in 0..ROUNDS {
            for fault in [Fault::Killed, Fault::Stopped, Fault::CutOff] {
                owner = test.await_owner(|_| true);
                let began = Instant::now();
                test.inject_fault(usize::from(owner), fault);
                let next = test.await_owner(|number| number != owner);
                let gap = began.elapsed();
                println!("round {round}: n{owner} {fault:?}, n{next} answers after {gap:?}");
                gaps.push(gap);
                test.repair(usize::from(owner), fault);
                // It rejoins before the next one is lost.
                thread::sleep(Duration::from_secs(3));
            }
        }
        gaps.sort();
        let at = |percent: usize| gaps[(gaps.len() - 1) * percent / 100];
        println!("{} takeovers: p50 {:?}, p99 {:?}", gaps.len(), at(50), at(99));
        let mut leases = test.leases();
        leases.sort_by_key(|lease| lease.1);
        assert!(leases.len() > 50, "{} leases in the logs of {owner}", leases.len());
        for (place, (node, from, until)) in leases.iter().enumerate() {
            for (other, begun, ended) in &leases[..place] {
                let is_apart = ended <= from || until <= begun;
                assert!(node == other || is_apart, "n{node} from {from}, n{other} until {ended}");
            }
        }
        scheduling::assert_within("half of the takeovers", at(50), TAKEOVER_BOUND, start);
    });
}

/// A service on a node that a check finds; ends when dropped.
struct Role(Arc<AtomicBool>, Option<thread::JoinHandle<()>>);

impl Role {
    fn begin(netns: &Netns) -> Self {
        let listener = netns.run_inside(|| TcpListener::bind((Ipv4Addr::LOCALHOST, ROLE_PORT)));
        let listener = listener.unwrap();
        listener.set_nonblocking(true).unwrap();
        let is_over = Arc::new(AtomicBool::new(false));
        let is_done = Arc::clone(&is_over);
        let thread = thread::spawn(move || {
            while !is_done.load(Relaxed) {
                drop(listener.accept());
                thread::sleep(Duration::from_millis(1));
            }
        });
        Self(is_over, Some(thread))
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
        self.1.take().unwrap().join().unwrap();
    }
}

/// F-95.
#[test]
fn f_95_an_address_goes_where_its_rules_want_it() {
    in_namespace("f_95_an_address_goes_where_its_rules_want_it", || {
        if !has_programs(&["nft", "ip"]) {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let vip = |name: &str, number: u8, rules: &str| {
            let head = format!("[[vip]]\nname = {name:?}\naddress = \"10.1.0.{number}\"\n");
            format!("{head}ownership = \"raft\"\n{rules}\n")
        };
        let check = format!(
            "follow = true\ncheck = {{ tcp = \"127.0.0.1:{ROLE_PORT}\", interval = 100, \
             timeout = 100, rise = 1, fall = 1 }}"
        );
        let vips = vip("home", 80, "preferred = [\"b\", \"c\"]\nfailback = 500")
            + &vip("stay", 81, "preferred = [\"b\"]")
            + &vip("mate", 82, "placement = { together_with = [\"home\"] }")
            + &vip("away", 83, "placement = { apart_from = [\"home\"] }")
            + &vip("role", 84, &check);
        let mut test = RaftLab::start(folder.path(), &vips);
        test.wait_owners(&[("home", "b"), ("stay", "b"), ("mate", "b")]);
        assert_ne!(test.owner_of("away").as_deref(), Some("b"));
        assert_eq!(test.owner_of("role"), None, "no check passes");
        let on_a = Role::begin(test.lab.node_netns(0));
        test.wait_owners(&[("role", "a")]);
        // Both pass: the one that began last, by more than messages take, leads the service.
        thread::sleep(Duration::from_millis(500));
        let on_c = Role::begin(test.lab.node_netns(2));
        test.wait_owners(&[("role", "c")]);
        drop(on_c);
        test.wait_owners(&[("role", "a")]);
        // The second of the preferred nodes, with its company, and then back.
        thread::sleep(Duration::from_secs(2));
        test.inject_fault(1, Fault::Killed);
        test.wait_owners(&[("home", "c"), ("mate", "c")]);
        let stayed = test.owner_of("stay").unwrap();
        test.repair(1, Fault::Killed);
        test.wait_owners(&[("home", "b"), ("mate", "b"), ("role", "a")]);
        assert_ne!(test.owner_of("away").as_deref(), Some("b"));
        assert_eq!(test.owner_of("stay"), Some(stayed), "it does not return by itself");
        drop(on_a);
    });
}

/// F-98.
#[test]
fn f_98_the_engine_is_seen_and_takes_up_what_a_reload_adds() {
    in_namespace("f_98_the_engine_is_seen_and_takes_up_what_a_reload_adds", || {
        if !has_programs(&["nft", "ip"]) {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let head = |name: &str, number: u8| {
            format!("[[vip]]\nname = {name:?}\naddress = \"10.1.0.{number}\"\n")
        };
        let web = head("web", 80) + "ownership = \"raft\"\n";
        let mut test = RaftLab::start(folder.path(), &web);
        test.await_owner(|_| true);
        let engine = |node: usize| {
            let status = test.daemons[node].as_ref().unwrap().get_json("/v1/status");
            status.unwrap_or_default()["ownership"].clone()
        };
        let is_settled = |node: usize| {
            let engine = engine(node);
            let voters = engine["voters"].as_array().cloned().unwrap_or_default();
            let reached = voters.iter().filter(|voter| voter["reached"] == true).count();
            engine["leader"].is_string() && reached == 3
        };
        wait_until("a leader", || (0..3).all(is_settled));
        let (first, second) = (engine(0), engine(1));
        assert_eq!((&first["leader"], &first["term"]), (&second["leader"], &second["term"]));
        assert_eq!(first["problem"], serde_json::Value::Null);
        let text = test.ask_operator(0, &["status"]);
        assert!(text.contains("leads in term") && text.contains("3 of 3 voters"), "{text}");
        let why = test.ask_operator(0, &["vip", "why", "web"]);
        assert!(why.contains("no node owned it"), "{why}");
        let metrics = test.ask_operator(0, &["metrics"]);
        assert!(metrics.contains("netft_ownership_voter_reached{voter=\"c\"} 1"), "{metrics}");
        // An address that a reload adds has an owner; one that it changes keeps its own.
        let owner = test.owner_of("web");
        let added = head("db", 81) + "ownership = \"raft\"\n";
        for node in 0..3 {
            let path = test.site.config_path(node);
            let text = std::fs::read_to_string(&path).unwrap();
            let changed = text.replace(&web, &format!("{web}failback = 700\n{added}"));
            std::fs::write(&path, changed).unwrap();
            let done = test.ask_operator(node, &["reload"]);
            assert!(done.contains("db"), "{done}");
            if node == 0 {
                wait_until("the difference", || {
                    let text = test.ask_operator(0, &["vip", "list"]);
                    text.contains("db: it is not defined there") && text.contains("web: its def")
                });
                let events = test.ask_operator(1, &["events", "-n", "100"]);
                assert!(events.contains("it is defined there, and not here, on a"), "{events}");
            }
        }
        let are_same = |test: &RaftLab| {
            (0..3).all(|node| {
                let text = test.ask_operator(node, &["vip", "list"]);
                text.matches(": normal since").count() == 2 && !text.contains("different")
            })
        };
        wait_until("the same definitions", || are_same(&test));
        wait_until("an owner", || test.owner_of("db").is_some());
        assert_eq!(test.owner_of("web"), owner);
        let view = test.daemons[0].as_ref().unwrap().get_json("/v1/vips").unwrap();
        let history = view["vips"].to_string();
        assert!(!history.contains("it was removed"), "{history}");
        // One that is removed is taken from its owner.
        for node in 0..3 {
            let path = test.site.config_path(node);
            let text = std::fs::read_to_string(&path).unwrap();
            std::fs::write(&path, text.replace(&added, "")).unwrap();
            test.ask_operator(node, &["reload"]);
        }
        wait_until("the removal", || are_same(&test));
        let text = test.ask_operator(0, &["vip", "list"]);
        assert!(!text.contains("db"), "{text}");
        test.inject_fault(2, Fault::Killed);
        wait_until("c is missed", || {
            let text = test.ask_operator(0, &["vip", "list"]);
            text.contains("2 of 3 voters reached (not c)")
        });
        wait_until("c is down", || {
            let text = test.ask_operator(0, &["vip", "list"]);
            text.contains("partner c: partner-down")
                && test.ask_operator(0, &["peer", "show", "c"]).contains("partner-down")
        });
    });
}
