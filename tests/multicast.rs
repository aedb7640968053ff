//! Multicast and broadcast on the adapter: every other node gets them, once.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::{
    collections::BTreeMap,
    io::ErrorKind,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use common::{TEST_TIMEOUT, TRAFFIC_CHECK_TIME, three_nodes::NodeTriple, wait_until};
use netft_lab::{daemon::ADAPTER_NAME, in_namespace};
use socket2::{Domain, InterfaceIndexOrAddress, SockRef, Socket, Type};

const PORT: u16 = 5353;

/// Datagrams that programs send and receive on the adapter.
trait Groups {
    fn scope(&self, node: usize) -> u32;
    fn sender(&self, node: usize, group: IpAddr) -> UdpSocket;
    fn listen(&self, node: usize, group: IpAddr) -> Listener;
}

impl Groups for NodeTriple {
    /// The adapter's number at a node.
    fn scope(&self, node: usize) -> u32 {
        match self.site.virtual_endpoint(&self.lab, node, true).unwrap() {
            SocketAddr::V6(v6) => v6.scope_id(),
            SocketAddr::V4(_) => unreachable!("an IPv6 address was asked for"),
        }
    }

    /// A socket that sends to `group` on the adapter, as programs do: it names the interface, and
    /// no route is needed.
    fn sender(&self, node: usize, group: IpAddr) -> UdpSocket {
        let (addrs, scope) = (self.site.virtual_addrs(node), self.scope(node));
        self.lab.node_netns(node).run_inside(|| {
            let socket = match group {
                IpAddr::V4(v4) if v4.is_broadcast() => {
                    let socket = UdpSocket::bind((addrs.v4, 0)).unwrap();
                    socket.set_broadcast(true).unwrap();
                    SockRef::from(&socket).bind_device(Some(ADAPTER_NAME.as_bytes())).unwrap();
                    socket
                }
                IpAddr::V4(_) => {
                    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
                    SockRef::from(&socket).set_multicast_if_v4(&addrs.v4).unwrap();
                    socket
                }
                IpAddr::V6(_) => {
                    let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).unwrap();
                    SockRef::from(&socket).set_multicast_if_v6(scope).unwrap();
                    socket
                }
            };
            socket.connect((group, PORT)).unwrap();
            socket
        })
    }

    fn listen(&self, node: usize, group: IpAddr) -> Listener {
        let scope = self.scope(node);
        let socket = self.lab.node_netns(node).run_inside(|| {
            let socket = Socket::new(Domain::for_address((group, PORT).into()), Type::DGRAM, None);
            let socket = socket.unwrap();
            socket.set_reuse_address(true).unwrap();
            match group {
                IpAddr::V4(v4) => {
                    socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT)).into()).unwrap();
                    let interface = InterfaceIndexOrAddress::Index(scope);
                    if v4.is_multicast() {
                        socket.join_multicast_v4_n(&v4, &interface).unwrap();
                    }
                }
                IpAddr::V6(v6) => {
                    socket.set_only_v6(true).unwrap();
                    socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, PORT)).into()).unwrap();
                    socket.join_multicast_v6(&v6, scope).unwrap();
                }
            }
            socket.set_recv_buffer_size(1 << 20).unwrap();
            UdpSocket::from(socket)
        });
        Listener::start(socket)
    }
}

/// Counts how often each number came, and from whom.
struct Listener {
    heard: Arc<Mutex<BTreeMap<(IpAddr, u64), u32>>>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Listener {
    fn start(socket: UdpSocket) -> Self {
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let (heard, over): (Arc<Mutex<BTreeMap<_, u32>>>, Arc<AtomicBool>) = Default::default();
        let thread = thread::spawn({
            let (heard, over) = (heard.clone(), over.clone());
            move || {
                let mut datagram = [0; 2048];
                while !over.load(Relaxed) {
                    match socket.recv_from(&mut datagram) {
                        Ok((8.., from)) => {
                            let number = u64::from_be_bytes(*datagram.first_chunk().unwrap());
                            *heard.lock().unwrap().entry((from.ip(), number)).or_default() += 1;
                        }
                        Ok(_) => panic!("a datagram of somebody else"),
                        Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
                    }
                }
            }
        });
        Self { heard, over, thread: Some(thread) }
    }

    fn count(&self) -> usize {
        self.heard.lock().unwrap().len()
    }

    /// The numbers that came, each once and from `from`.
    fn numbers(&self, from: IpAddr) -> Vec<u64> {
        let heard = self.heard.lock().unwrap();
        let wrong: Vec<_> = heard.iter().filter(|((ip, _), n)| **n != 1 || *ip != from).collect();
        assert!(wrong.is_empty(), "not once from {from}: {wrong:?}");
        heard.keys().map(|(_, number)| *number).collect()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.over.store(true, Relaxed);
        // A thread that panicked has printed its message.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn send(socket: &UdpSocket, numbers: std::ops::Range<u64>, len: usize) {
    for number in numbers {
        let mut datagram = vec![0; len];
        datagram[..8].copy_from_slice(&number.to_be_bytes());
        socket.send(&datagram).unwrap();
    }
}

#[test]
fn every_other_node_gets_multicast_and_broadcast_once() {
    in_namespace("every_other_node_gets_multicast_and_broadcast_once", || {
        let three = NodeTriple::start_up("");
        // The last ones are fragments on the adapter.
        for (group, len) in [
            ("224.0.0.251", 64),
            ("239.192.7.7", 64),
            ("255.255.255.255", 64),
            ("ff02::fb", 64),
            ("ff15::7", 64),
            ("224.0.0.251", 2000),
            ("ff02::fb", 2000),
        ] {
            let group: IpAddr = group.parse().unwrap();
            let others = [1, 2].map(|node| three.listen(node, group));
            send(&three.sender(0, group), 0..20, len);
            let all = || others.iter().all(|listener| listener.count() == 20);
            wait_until(&format!("{group} with {len} bytes at both"), all);
            // Time for copies that must not come.
            thread::sleep(TRAFFIC_CHECK_TIME / 2);
            let addrs = three.site.virtual_addrs(0);
            let from = if group.is_ipv4() { addrs.v4.into() } else { addrs.v6.into() };
            for listener in &others {
                assert_eq!(listener.numbers(from), (0..20).collect::<Vec<_>>(), "{group}");
            }
        }
        assert_eq!(three.drops(0, "multicast_rate"), 0);
    });
}

#[test]
fn what_is_above_the_bound_is_dropped_and_counted() {
    in_namespace("what_is_above_the_bound_is_dropped_and_counted", || {
        let three = NodeTriple::start_up("[adapter]\nmulticast = 1\n");
        let group = Ipv4Addr::new(224, 0, 0, 251).into();
        let others = [1, 2].map(|node| three.listen(node, group));
        let socket = three.sender(0, group);
        send(&socket, 0..200, 64);
        let counted = |count: usize| three.drops(0, "multicast_rate") as usize + count == 200;
        wait_until("all 200 accounted for", || others.iter().all(|other| counted(other.count())));
        // A burst is a super-packet; the few seconds this may take add some.
        assert!((64..100).contains(&others[0].count()), "{}", others[0].count());

        // Off at the receiver: it takes none. Off at the sender: none goes.
        let reload = |node: usize, from: &str, to: &str| {
            let path = three.site.config_path(node);
            let text = std::fs::read_to_string(&path).unwrap();
            assert!(text.contains(from));
            std::fs::write(&path, text.replace(from, to)).unwrap();
            let output =
                three.site.operator_command(&three.lab, node).unwrap().arg("reload").output();
            let output = output.unwrap();
            assert!(output.status.success(), "{output:?}");
        };
        reload(0, "multicast = 1\n", "multicast = 100000\n");
        reload(1, "multicast = 1\n", "multicast = 0\n");
        let before = [0, 1].map(|other: usize| others[other].count());
        let refused = three.drops(1, "inner_destination");
        send(&socket, 1000..1010, 64);
        wait_until("ten at the third", || others[1].count() == before[1] + 10);
        wait_until("ten refused", || three.drops(1, "inner_destination") == refused + 10);
        assert_eq!(others[0].count(), before[0]);
        reload(0, "multicast = 100000\n", "multicast = 0\n");
        let unsent = three.drops(0, "no_peer");
        send(&socket, 2000..2010, 64);
        wait_until("ten that stay", || three.drops(0, "no_peer") >= unsent + 10);
        thread::sleep(TRAFFIC_CHECK_TIME / 2);
        assert_eq!(others[1].count(), before[1] + 10);
    });
}

#[test]
fn a_failover_in_between_loses_none() {
    in_namespace("a_failover_in_between_loses_none", || {
        let mut three = NodeTriple::start_up("[adapter]\nmulticast = 10000\n");
        let group = Ipv4Addr::new(239, 192, 7, 7).into();
        let others = [1, 2].map(|node| three.listen(node, group));
        let socket = three.sender(0, group);
        let over = Arc::new(AtomicBool::new(false));
        let sender = thread::spawn({
            let over = over.clone();
            move || {
                let (start, mut number) = (Instant::now(), 0);
                while !over.load(Relaxed) {
                    send(&socket, number..number + 1, 64);
                    number += 1;
                    let due = start + Duration::from_millis(2) * number as u32;
                    thread::sleep(due.saturating_duration_since(Instant::now()));
                }
                number
            }
        });
        thread::sleep(TRAFFIC_CHECK_TIME);
        three.lab.black_hole(0).unwrap();
        // Network 0 is preferred: both flows leave it.
        let away = three.lab.node_ipv4(0, 0);
        three.daemons[0]
            .wait_for("both peers on the other network", TEST_TIMEOUT, |routes| {
                let mut active = routes.iter().filter(|route| route.active);
                active.clone().count() == 2
                    && active.all(|route| route.local_address() != Some(away.into()))
            })
            .unwrap();
        thread::sleep(TRAFFIC_CHECK_TIME);
        over.store(true, Relaxed);
        let sent = sender.join().unwrap();
        wait_until("all at both", || others.iter().all(|other| other.count() as u64 == sent));
        thread::sleep(TRAFFIC_CHECK_TIME / 2);
        let from = three.site.virtual_addrs(0).v4.into();
        for listener in &others {
            assert_eq!(listener.numbers(from), (0..sent).collect::<Vec<_>>());
        }
    });
}
