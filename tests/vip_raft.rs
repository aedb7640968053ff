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
    programs,
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
    fn start(folder: &std::path::Path) -> Self {
        let lab = Lab::with_layouts(4, &[NetworkLayout::Flat, NetworkLayout::Flat]).unwrap();
        let common = format!(
            "[[vip]]\nname = \"web\"\naddress = \"{VIP}/24\"\nownership = \"raft\"\n\n[ownership]\n\
             voters = [\"a\", \"b\", \"c\"]\n"
        );
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
        let mut test = RaftLab::start(folder.path());
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
