//! Nodes that one floating address moves between, judged by their logs and by a client.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use netft_lab::{
    Lab, Netns, NetworkLayout,
    daemon::{Daemon, Site, SiteSettings},
};
use rustix::process::Signal;

use super::{commands::run_ip, programs};

/// The address.
pub const VIP_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 80);
/// The host that asks for it.
pub const CLIENT_HOST: usize = 3;
const SERVICE_PORT: u16 = 7000;
const CONNECT_TIMEOUT: Duration = Duration::from_millis(40);
/// Questions without an answer that are silence.
const SILENT_ASKS: u32 = 20;
/// Runs a command without a TUN driver and without a capability.
const WITHOUT_PRIVILEGES: &str = "mount -t tmpfs none /dev/net
exec setpriv --bounding-set=-all \"$@\"";
/// Longest wait for what must happen.
pub const EVENT_DEADLINE: Duration = Duration::from_secs(40);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Killed,
    Stopped,
    CutOff,
}

/// The nodes that may own the address, and a client.
pub struct OwnerLab {
    pub daemons: Vec<Option<Daemon>>,
    /// Logs of the processes that were killed, with their nodes.
    pub logs: Vec<(usize, String)>,
    pub site: Site,
    pub lab: Lab,
    /// The node that is a witness.
    witness: Option<usize>,
    is_over: Arc<AtomicBool>,
}

impl Drop for OwnerLab {
    fn drop(&mut self) {
        self.is_over.store(true, Relaxed);
    }
}

impl OwnerLab {
    /// Three nodes, and a client that is no node. These tables are in every config.
    pub fn start(lab: Lab, common: &str, per_node: &[&str]) -> Self {
        Self::start_with(lab, common, per_node, None)
    }

    /// The same; one of them may be a witness.
    pub fn start_with(lab: Lab, common: &str, per_node: &[&str], witness: Option<usize>) -> Self {
        let settings = SiteSettings { common, per_node, ..SiteSettings::default() };
        let site = Site::new(&lab, programs(), settings).unwrap();
        let is_over = Arc::new(AtomicBool::new(false));
        for node in 0..3 {
            serve_number(lab.node_netns(node), node as u8, &is_over);
        }
        let mut this = Self { daemons: Vec::new(), logs: Vec::new(), site, lab, witness, is_over };
        for node in 0..3 {
            let daemon = this.spawn_daemon(node);
            this.daemons.push(Some(daemon));
        }
        this
    }

    /// Three nodes that vote, each with a store of its own in `folder`.
    pub fn start_raft(folder: &Path, vips: &str) -> Self {
        let common = format!("{vips}\n[ownership]\nvoters = [\"a\", \"b\", \"c\"]\n");
        let store = |node| format!("store = {:?}", folder.join(format!("store{node}")));
        let stores: Vec<_> = (0..3).map(store).collect();
        let stores: Vec<&str> = stores.iter().map(String::as_str).collect();
        Self::start(Self::hosts(), &common, &stores)
    }

    /// Four hosts on two networks.
    pub fn hosts() -> Lab {
        Lab::with_layouts(4, &[NetworkLayout::Flat, NetworkLayout::Flat]).unwrap()
    }

    pub fn spawn_daemon(&self, node: usize) -> Daemon {
        let filter = ["--log", "info,netftd::ownership=debug"];
        if self.witness != Some(node) {
            return self.site.start_daemon_with(&self.lab, node, &filter).unwrap();
        }
        let daemon = self.site.daemon_command(&self.lab, node).unwrap();
        let mut command = self.lab.node_netns(node).command_inside("unshare").unwrap();
        command.args(["--mount", "sh", "-ec", WITHOUT_PRIVILEGES, "sh"]);
        command.arg(daemon.get_program()).args(daemon.get_args()).args(filter).arg("--witness");
        self.site.start_command(node, command).unwrap()
    }

    pub fn await_owner(&self, is_good: impl Fn(u8) -> bool) -> u8 {
        let start = Instant::now();
        loop {
            if let Some(owner) = self.ask_once().filter(|owner| is_good(*owner)) {
                return owner;
            }
            assert!(start.elapsed() < EVENT_DEADLINE, "nobody answers:\n{}", self.all_logs());
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// The node that answers the client at this moment.
    pub fn ask_once(&self) -> Option<u8> {
        self.lab.node_netns(CLIENT_HOST).run_inside(ask_owner)
    }

    /// Waits until the address is not answered for, and that not only once.
    pub fn await_silence(&self) {
        let start = Instant::now();
        let mut refusals = 0;
        while refusals < SILENT_ASKS {
            let is_answered = self.ask_once().is_some();
            refusals = if is_answered { 0 } else { refusals + 1 };
            assert!(start.elapsed() < EVENT_DEADLINE, "it is answered for:\n{}", self.all_logs());
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// The owner of an address as a node knows it.
    pub fn owner_of(&self, vip: &str) -> Option<String> {
        let list = self.daemons.iter().flatten().next()?.get_json("/v1/vips").ok()?;
        let found = list["vips"].as_array()?.iter().find(|one| one["name"] == vip)?.clone();
        found["owner"].as_str().map(str::to_owned)
    }

    pub fn wait_owners(&self, wanted: &[(&str, &str)]) {
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
            assert!(start.elapsed() < EVENT_DEADLINE, "{wanted:?}, found {owners:?}:\n{all}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Output of `netft` on a node, whatever its exit code.
    pub fn ask_operator(&self, node: usize, words: &[&str]) -> String {
        let output = self.site.operator_command(&self.lab, node).unwrap().args(words).output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    }

    /// Output of `netft` on a node; it must succeed.
    pub fn run_netft(&self, node: usize, arguments: &[&str]) -> String {
        let mut command = self.site.operator_command(&self.lab, node).unwrap();
        let output = command.args(arguments).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{arguments:?}: {output:?}\n{}", self.all_logs());
        text
    }

    pub fn all_logs(&self) -> String {
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

    pub fn inject_fault(&mut self, node: usize, fault: Fault) {
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

    pub fn repair(&mut self, node: usize, fault: Fault) {
        match fault {
            Fault::Killed => self.daemons[node] = Some(self.spawn_daemon(node)),
            Fault::Stopped => {
                self.daemons[node].as_ref().unwrap().send_signal(Signal::CONT).unwrap();
            }
            Fault::CutOff => self.set_cards(node, "up"),
        }
    }

    /// Times of all leases by the one clock of the machine: node, start, end.
    pub fn leases(&self) -> Vec<(usize, u64, u64)> {
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

    /// Asserts that no two nodes held a lease at once.
    pub fn assert_one_owner(&self, least_leases: usize) {
        let mut leases = self.leases();
        leases.sort_by_key(|lease| lease.1);
        let count = leases.len();
        assert!(count > least_leases, "{count} leases in the logs:\n{}", self.all_logs());
        for (place, (node, from, until)) in leases.iter().enumerate() {
            for (other, begun, ended) in &leases[..place] {
                let is_apart = ended <= from || until <= begun;
                assert!(node == other || is_apart, "n{node} from {from}, n{other} until {ended}");
            }
        }
    }

    /// Loses the owner to a fault; the gap until another answers. It is repaired then.
    pub fn lose_owner(&mut self, fault: Fault) -> Duration {
        let owner = self.await_owner(|_| true);
        let began = Instant::now();
        self.inject_fault(usize::from(owner), fault);
        let next = self.await_owner(|number| number != owner);
        let gap = began.elapsed();
        println!("n{owner} {fault:?}, n{next} answers after {gap:?}");
        self.repair(usize::from(owner), fault);
        // It rejoins before the next one is lost.
        thread::sleep(Duration::from_secs(3));
        gap
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
    let listener =
        netns.run_inside(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, SERVICE_PORT)).unwrap());
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
    let at = SocketAddr::from((VIP_ADDRESS, SERVICE_PORT));
    let mut stream = TcpStream::connect_timeout(&at, CONNECT_TIMEOUT).ok()?;
    stream.set_read_timeout(Some(CONNECT_TIMEOUT)).ok()?;
    let mut number = [0];
    stream.read_exact(&mut number).ok()?;
    Some(number[0])
}
