//! Floating addresses that the operator moves: three nodes, a client on the segment, a router and a
//! client behind it.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use crate::common::{
    commands::{has_programs, run_ip, run_nft, run_program},
    programs, wait_until,
};
use futures_util::TryStreamExt;
use netft_lab::{
    Lab, Netns, NetworkLayout,
    capture::Capture,
    daemon::{Daemon, Site, SiteSettings},
    in_namespace, interface_index, scheduling,
};
use rustix::process::Signal;
use serde_json::Value;

const VIP_V4: &str = "10.1.0.80";
const VIP_V6: &str = "fd00:1::80";
const LEASE_TIME: Duration = Duration::from_millis(400);
/// Nodes of the lab beside the three with a daemon.
const CLIENT_NODE: usize = 3;
const ROUTER_NODE: usize = 4;
const REMOTE_NODE: usize = 5;
/// The service behind the address.
const SERVICE_PORT: u16 = 7000;
/// Longest wait for one connection.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(40);
/// Probes of RFC 5227 take up to 7 s.
const ONLINE_TIMEOUT: Duration = Duration::from_secs(20);

struct VipLab {
    daemons: Vec<Daemon>,
    site: Site,
    lab: Lab,
    is_over: Arc<AtomicBool>,
}

impl Drop for VipLab {
    fn drop(&mut self) {
        self.is_over.store(true, Relaxed);
    }
}

impl VipLab {
    /// Daemons on nodes 0 to 2, which have network 0 only; the client, too. The router joins it to
    /// network 1, where the remote client is.
    fn start() -> Self {
        let lab = Lab::with_layouts(6, &[NetworkLayout::Flat, NetworkLayout::Flat]).unwrap();
        for node in [0, 1, 2, CLIENT_NODE] {
            lab.delete_nic(1, node).unwrap();
        }
        lab.delete_nic(0, REMOTE_NODE).unwrap();
        lab.node_netns(ROUTER_NODE).run_inside(|| {
            std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
        });
        for node in [0, 1, 2, CLIENT_NODE] {
            run_ip(lab.node_netns(node), "route add 10.2.0.0/24 via 10.1.0.5");
        }
        run_ip(lab.node_netns(REMOTE_NODE), "route add 10.1.0.0/24 via 10.2.0.5");
        let common = format!(
            "[[vip]]\nname = \"web\"\naddress = [\"{VIP_V4}/24\", \"{VIP_V6}\"]\nlease = {}\n",
            LEASE_TIME.as_millis()
        );
        let settings = SiteSettings { common: &common, ..SiteSettings::default() };
        let site = Site::new(&lab, programs(), settings).unwrap();
        let is_over = Arc::new(AtomicBool::new(false));
        for node in 0..3 {
            serve(lab.node_netns(node), node as u8, &is_over);
        }
        let daemons = (0..3).map(|node| site.start_daemon(&lab, node).unwrap()).collect();
        let mut this = Self { daemons, site, lab, is_over };
        for daemon in &mut this.daemons {
            let are_peers_there = |routes: &[netft_lab::daemon::RouteRow]| {
                routes.iter().filter(|route| route.active).count() >= 2
            };
            daemon.wait_for("routes to both peers", ONLINE_TIMEOUT, are_peers_there).unwrap();
        }
        this
    }

    fn netns(&self, node: usize) -> &Netns {
        self.lab.node_netns(node)
    }

    /// Runs `netft vip …` on a node.
    fn vip(&self, node: usize, words: &[&str]) -> Result<String, String> {
        let mut command = self.site.operator_command(&self.lab, node).unwrap();
        let output = command.arg("vip").args(words).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match output.status.success() {
            true => Ok(text(&output.stdout)),
            false => Err(text(&output.stderr)),
        }
    }

    fn view(&self, node: usize) -> Value {
        self.daemons[node].get_json("/v1/vips").unwrap()["vips"][0].clone()
    }

    fn wait_state(&self, node: usize, state: &str) {
        let start = Instant::now();
        while self.view(node)["state"] != state {
            let view = self.view(node);
            assert!(start.elapsed() < ONLINE_TIMEOUT, "node {node} is not {state}: {view}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Takes the address on a node, without another owner.
    fn bring_online(&self, node: usize) {
        self.vip(node, &["online", "web"]).unwrap();
        self.wait_state(node, "online");
    }

    /// The node that answers a client.
    fn owner_seen_by(&self, client: usize, addr: &str) -> Option<u8> {
        self.netns(client)
            .run_inside(|| ask((addr.parse::<IpAddr>().unwrap(), SERVICE_PORT).into()))
    }

    fn addresses(&self, node: usize) -> Vec<String> {
        let listed = self.netns(node).run_netlink("list addresses", |netlink| async move {
            let card = interface_index(&netlink, &Lab::nic_name(0)).await?;
            let found: Vec<_> = netlink.address().get().execute().try_collect().await?;
            Ok(found.into_iter().filter(|one| one.header.index == card).collect::<Vec<_>>())
        });
        let mut texts: Vec<_> = listed.unwrap().iter().map(address_text).collect();
        texts.sort();
        texts
    }
}

fn address_text(message: &rtnetlink::packet_route::address::AddressMessage) -> String {
    use rtnetlink::packet_route::address::AddressAttribute;
    let addr = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Address(addr) => Some(addr.to_string()),
        _ => None,
    });
    format!("{}/{}", addr.unwrap(), message.header.prefix_len)
}

/// Answers every connection with the number of the node.
fn serve(netns: &Netns, number: u8, is_over: &Arc<AtomicBool>) {
    let listeners = netns.run_inside(|| {
        let addrs: [SocketAddr; 2] =
            [([0, 0, 0, 0], SERVICE_PORT).into(), ([0u16; 8], SERVICE_PORT).into()];
        let [v4, v6] = addrs;
        let v6 = socket2::Socket::new(socket2::Domain::IPV6, socket2::Type::STREAM, None).and_then(
            |socket| {
                socket.set_only_v6(true)?;
                socket.bind(&v6.into())?;
                socket.listen(64)?;
                Ok(TcpListener::from(socket))
            },
        );
        [TcpListener::bind(v4).unwrap(), v6.unwrap()]
    });
    for listener in listeners {
        let is_over = Arc::clone(is_over);
        listener.set_nonblocking(true).unwrap();
        thread::spawn(move || {
            while !is_over.load(Relaxed) {
                match listener.accept() {
                    Ok((mut stream, _)) => drop(stream.write_all(&[number])),
                    Err(_) => thread::sleep(Duration::from_millis(1)),
                }
            }
        });
    }
}

/// The number of the node that answers at `at`, in the namespace of the calling thread.
fn ask(at: SocketAddr) -> Option<u8> {
    let mut stream = TcpStream::connect_timeout(&at, CONNECT_TIMEOUT).ok()?;
    stream.set_read_timeout(Some(CONNECT_TIMEOUT)).ok()?;
    let mut number = [0];
    stream.read_exact(&mut number).ok()?;
    Some(number[0])
}

/// Asks again and again until the end; each answer with its time.
struct Asking {
    is_over: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<Vec<(Instant, u8)>>>,
}

impl Asking {
    fn start(netns: &Netns, addr: &str) -> Self {
        let at: SocketAddr = (addr.parse::<IpAddr>().unwrap(), SERVICE_PORT).into();
        let is_over = Arc::new(AtomicBool::new(false));
        let is_done = Arc::clone(&is_over);
        // The namespace is entered by the thread that asks.
        let (ready, begun) = std::sync::mpsc::channel();
        let thread = netns.run_inside(|| {
            thread::spawn(move || {
                ready.send(()).unwrap();
                let mut answers = Vec::new();
                while !is_done.load(Relaxed) {
                    answers.extend(ask(at).map(|number| (Instant::now(), number)));
                    thread::sleep(Duration::from_millis(2));
                }
                answers
            })
        });
        begun.recv().unwrap();
        Self { is_over, thread: Some(thread) }
    }

    fn finish(mut self) -> Vec<(Instant, u8)> {
        self.is_over.store(true, Relaxed);
        self.thread.take().unwrap().join().unwrap()
    }
}

fn longest_gap(answers: &[(Instant, u8)]) -> Duration {
    answers.windows(2).map(|two| two[1].0 - two[0].0).max().unwrap()
}

/// The hardware address that a host has for an IPv4 address.
fn neighbor(netns: &Netns, addr: &str) -> Option<String> {
    let table = netns.run_inside(|| std::fs::read_to_string("/proc/thread-self/net/arp").unwrap());
    let line = table.lines().find(|line| line.split_whitespace().next() == Some(addr))?;
    Some(line.split_whitespace().nth(3)?.to_owned())
}

fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

#[test]
fn f_90_a_move_answers_everywhere_and_updates_the_neighbors() {
    in_namespace("f_90_a_move_answers_everywhere_and_updates_the_neighbors", || {
        if !has_programs(&["nft", "ip"]) {
            return;
        }
        let test = VipLab::start();
        assert_eq!(test.owner_seen_by(CLIENT_NODE, VIP_V4), None, "nobody has it");
        test.bring_online(0);
        for (client, addr) in [(CLIENT_NODE, VIP_V4), (CLIENT_NODE, VIP_V6), (REMOTE_NODE, VIP_V4)]
        {
            assert_eq!(test.owner_seen_by(client, addr), Some(0), "{client} {addr}");
        }
        let macs = [0, 1].map(|node| mac_text(Lab::nic_mac(0, node)));
        for host in [CLIENT_NODE, ROUTER_NODE] {
            assert_eq!(neighbor(test.netns(host), VIP_V4).as_ref(), Some(&macs[0]));
        }
        // Its own connections do not come from the address.
        let own = test.netns(0).run_inside(|| {
            let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.connect((test.lab.node_ipv4(0, CLIENT_NODE), 9)).unwrap();
            socket.local_addr().unwrap().ip()
        });
        assert_eq!(own, test.lab.node_address(0, 0, false));
        // The same load without a move is the control of the gap.
        let start = Instant::now();
        let asking = Asking::start(test.netns(CLIENT_NODE), VIP_V4);
        thread::sleep(Duration::from_millis(600));
        let control = longest_gap(&asking.finish());
        let asking = Asking::start(test.netns(CLIENT_NODE), VIP_V4);
        thread::sleep(Duration::from_millis(300));
        test.vip(0, &["move", "web", "--to", test.site.name(1)]).unwrap();
        // At once: the announcement, not a new question, changed the entries.
        for host in [CLIENT_NODE, ROUTER_NODE] {
            assert_eq!(neighbor(test.netns(host), VIP_V4).as_ref(), Some(&macs[1]), "{host}");
        }
        thread::sleep(Duration::from_millis(300));
        let answers = asking.finish();
        let gap = longest_gap(&answers);
        println!("gap of the move {gap:?}, control {control:?}");
        assert!(answers.first().unwrap().1 == 0 && answers.last().unwrap().1 == 1);
        let changes = answers.windows(2).filter(|two| two[0].1 != two[1].1).count();
        assert_eq!(changes, 1, "two owners answered");
        // One lost connection attempt, beside the control.
        scheduling::assert_within("the move", gap, control + 3 * CONNECT_TIMEOUT, start);
        for (client, addr) in [(CLIENT_NODE, VIP_V6), (REMOTE_NODE, VIP_V4)] {
            assert_eq!(test.owner_seen_by(client, addr), Some(1), "{client} {addr}");
        }
        assert_eq!(test.view(0)["state"], "offline");
        // The node that shall have it may ask, too.
        test.vip(2, &["move", "web", "--to", test.site.name(2)]).unwrap();
        assert_eq!(test.owner_seen_by(CLIENT_NODE, VIP_V4), Some(2));
        let error = test.vip(0, &["move", "web", "--to", test.site.name(1)]).unwrap_err();
        assert!(error.contains("run the command on its owner"), "{error}");
        let why = test.vip(2, &["why", "web"]).unwrap();
        assert!(why.contains("the operator wants it on this node"), "{why}");
    });
}

/// An ARP request of the client for the address.
fn arp_request(lab: &Lab) -> Vec<u8> {
    let mac = Lab::nic_mac(0, CLIENT_NODE);
    let mut frame = vec![0xff; 6];
    frame.extend(mac);
    frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(mac);
    frame.extend(lab.node_ipv4(0, CLIENT_NODE).octets());
    frame.extend([0; 6]);
    frame.extend(VIP_V4.parse::<Ipv4Addr>().unwrap().octets());
    frame
}

/// ARP messages of a node that say that it has the address.
fn arp_answers(frames: &[Vec<u8>], node: usize) -> usize {
    let vip = VIP_V4.parse::<Ipv4Addr>().unwrap().octets();
    let is_answer = |frame: &&Vec<u8>| {
        frame.len() >= 42
            && frame[12..14] == [8, 6]
            && frame[6..12] == Lab::nic_mac(0, node)
            && frame[28..32] == vip
    };
    frames.iter().filter(is_answer).count()
}

#[test]
fn f_91_a_stopped_owner_is_silent_once_its_lease_ends() {
    in_namespace("f_91_a_stopped_owner_is_silent_once_its_lease_ends", || {
        if !has_programs(&["nft", "ip"]) {
            return;
        }
        let test = VipLab::start();
        test.bring_online(0);
        let capture = Capture::start(test.netns(CLIENT_NODE), &Lab::nic_name(0)).unwrap();
        // The lab itself: the owner answers questions.
        capture.inject_frame(&arp_request(&test.lab)).unwrap();
        wait_until("an ARP answer", || arp_answers(&capture.frames(), 0) > 0);
        let start = Instant::now();
        let asking = Asking::start(test.netns(CLIENT_NODE), VIP_V4);
        thread::sleep(Duration::from_millis(200));
        test.daemons[0].send_signal(Signal::STOP).unwrap();
        let stopped = Instant::now();
        thread::sleep(3 * LEASE_TIME);
        let answers = asking.finish();
        let last = answers.last().unwrap().0;
        assert!(last >= start + Duration::from_millis(100), "it answered before");
        let late = last.saturating_duration_since(stopped);
        println!("last answer {late:?} after the stop, lease {LEASE_TIME:?}");
        scheduling::assert_within("the last answer", late, LEASE_TIME + CONNECT_TIMEOUT, start);
        // The addresses are still there: the kernel itself is silent.
        assert!(test.addresses(0).contains(&format!("{VIP_V4}/32")));
        let before = arp_answers(&capture.frames(), 0);
        for _ in 0..5 {
            capture.inject_frame(&arp_request(&test.lab)).unwrap();
            thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(arp_answers(&capture.frames(), 0), before, "it answers ARP");
        assert_eq!(test.owner_seen_by(CLIENT_NODE, VIP_V6), None);
        // Another node takes it, and the old owner does not disturb it when it goes on.
        test.bring_online(1);
        assert_eq!(test.owner_seen_by(CLIENT_NODE, VIP_V4), Some(1));
        let asking = Asking::start(test.netns(CLIENT_NODE), VIP_V4);
        test.daemons[0].send_signal(Signal::CONT).unwrap();
        thread::sleep(Duration::from_secs(1));
        let answers = asking.finish();
        assert!(answers.len() > 10 && answers.iter().all(|(_, number)| *number == 1));
        assert!(!test.addresses(0).contains(&format!("{VIP_V4}/32")));
        test.wait_state(0, "failed");
        let reason = test.view(0)["reason"].to_string();
        assert!(reason.contains(&mac_text(Lab::nic_mac(0, 1))), "{reason}");
    });
}

#[test]
fn f_92_a_conflict_leaves_the_address_unconfigured_and_names_the_holder() {
    in_namespace("f_92_a_conflict_leaves_the_address_unconfigured_and_names_the_holder", || {
        if !has_programs(&["nft", "ip"]) {
            return;
        }
        let test = VipLab::start();
        for addr in [format!("{VIP_V4}/24"), format!("{VIP_V6}/64")] {
            run_ip(test.netns(CLIENT_NODE), &format!("address add {addr} dev eth0"));
            test.vip(0, &["online", "web"]).unwrap();
            test.wait_state(0, "failed");
            let reason = test.view(0)["reason"].to_string();
            assert!(reason.contains(&mac_text(Lab::nic_mac(0, CLIENT_NODE))), "{reason}");
            assert!(test.addresses(0).iter().all(|one| !one.starts_with(VIP_V4)));
            test.vip(0, &["offline", "web"]).unwrap();
            run_ip(test.netns(CLIENT_NODE), &format!("address del {addr} dev eth0"));
        }
        // The holder is gone: it heals by itself.
        test.bring_online(0);
        assert_eq!(test.owner_seen_by(CLIENT_NODE, VIP_V4), Some(0));
    });
}

#[test]
fn f_93_what_other_programs_change_is_put_back() {
    in_namespace("f_93_what_other_programs_change_is_put_back", || {
        if !has_programs(&["nft", "ip"]) {
            return;
        }
        let test = VipLab::start();
        run_ip(test.netns(0), "address add 10.1.0.200/24 dev eth0");
        run_ip(test.netns(0), "route add 10.77.0.0/16 via 10.1.0.5 proto static");
        let routes = || test.netns(0).run_inside(read_routes);
        let (before, routes_before) = (test.addresses(0), routes());
        test.bring_online(0);
        for addr in [format!("{VIP_V4}/32"), format!("{VIP_V6}/128")] {
            run_ip(test.netns(0), &format!("address del {addr} dev eth0"));
            wait_until("the address", || test.addresses(0).contains(&addr));
        }
        wait_until("an answer", || test.owner_seen_by(CLIENT_NODE, VIP_V4) == Some(0));
        let tables = || run_program(test.netns(0), "nft", &["list", "tables"]);
        assert_eq!(tables().matches("netft_vip_").count(), 2, "{}", tables());
        run_nft(test.netns(0), "flush ruleset");
        wait_until("the fence", || tables().matches("netft_vip_").count() == 2);
        wait_until("an answer", || test.owner_seen_by(CLIENT_NODE, VIP_V4) == Some(0));
        let history = test.view(0)["history"].to_string();
        assert!(history.contains("removed 10.1.0.80: it was put back"), "{history}");
        assert!(history.contains("changed the fence: it was put back"), "{history}");
        // The fence works again: a stopped owner is silent.
        test.daemons[0].send_signal(Signal::STOP).unwrap();
        wait_until("silence", || test.owner_seen_by(CLIENT_NODE, VIP_V4).is_none());
        test.daemons[0].send_signal(Signal::CONT).unwrap();
        // Nothing else of the interface is touched, by taking it or by letting it go.
        test.vip(0, &["offline", "web"]).unwrap();
        assert_eq!(test.addresses(0), before);
        assert_eq!(routes(), routes_before);
    });
}

/// The IPv4 and IPv6 routes of the calling thread's namespace.
fn read_routes() -> BTreeMap<&'static str, String> {
    ["route", "ipv6_route"]
        .into_iter()
        .map(|name| {
            let text = std::fs::read_to_string(format!("/proc/thread-self/net/{name}")).unwrap();
            // Without the counters of use.
            let lines = text.lines().filter(|line| !line.contains("netft0"));
            let columns = |line: &str| {
                let words: Vec<_> = line.split_whitespace().collect();
                let used = if name == "route" { 4..7 } else { 6..8 };
                let kept = words.iter().enumerate().filter(|(at, _)| !used.contains(at));
                kept.map(|(_, word)| *word).collect::<Vec<_>>().join(" ")
            };
            (name, lines.map(columns).collect::<Vec<_>>().join("\n"))
        })
        .collect()
}

#[test]
fn f_94_a_clean_stop_and_a_cleanup_leave_nothing() {
    in_namespace("f_94_a_clean_stop_and_a_cleanup_leave_nothing", || {
        if !has_programs(&["nft", "ip"]) {
            return;
        }
        let mut test = VipLab::start();
        test.bring_online(0);
        let tables = |test: &VipLab| run_program(test.netns(0), "nft", &["list", "tables"]);
        test.daemons.remove(0).kill().unwrap();
        // A crash leaves the address, and the fence that keeps it silent.
        thread::sleep(2 * LEASE_TIME);
        assert!(test.addresses(0).contains(&format!("{VIP_V4}/32")));
        assert_eq!(test.owner_seen_by(CLIENT_NODE, VIP_V4), None);
        let mut cleanup = test.site.daemon_command(&test.lab, 0).unwrap();
        assert!(cleanup.arg("--cleanup").output().unwrap().status.success());
        assert!(test.addresses(0).iter().all(|one| !one.starts_with(VIP_V4)));
        assert!(!tables(&test).contains("netft_vip_"), "{}", tables(&test));
        // What the operator wanted outlives the crash; it is probed for, since it was away.
        test.daemons.insert(0, test.site.start_daemon(&test.lab, 0).unwrap());
        wait_until("the control socket", || test.daemons[0].get_json("/v1/vips").is_ok());
        test.wait_state(0, "online");
        test.daemons.remove(0).stop().unwrap();
        assert!(test.addresses(0).iter().all(|one| !one.starts_with(VIP_V4)));
        assert!(!tables(&test).contains("netft_vip_"), "{}", tables(&test));
    });
}
