//! Two workers, connected over the loopback interface; socket pairs stand for the adapters.

#![allow(clippy::unwrap_used)]

mod deferred_messages;
mod fragments;
mod padding;
mod retransmission;
mod template_replies;
#[path = "../../../../proto/src/packet/test_packets.rs"]
mod test_packets;
mod too_big;
mod tunnels;
mod untrusted;

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, atomic::Ordering::Relaxed},
    thread,
    time::Duration,
};

use arc_swap::ArcSwap;
use netft_proto::{
    ids::{PeerId, RouteId, virtual_addrs::VirtualAddrs},
    loss_detection::RetransmitLimits,
    packet::{
        checksum,
        ip::{IPV4_HEADER_LEN, InnerHeaders},
        virtio_net::{VnetFormat, VnetHdr},
    },
    session::{Cipher, Session, SessionParams},
    time::Time,
    wire::{
        DropReason,
        header::{FrameKind, HEADER_LEN, TAG_LEN},
        heartbeat::{Heartbeat, HeartbeatMessage},
        probe::{Probe, ProbeMessage},
    },
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::{AddressFamily, SocketFlags, SocketType, socketpair},
};
use test_packets::{Shape, TunnelShape, build, build_tunnel, check, plain, segment_packet};
use tokio::sync::mpsc;

use crate::io::{
    counters::RouteCounters,
    datapath::{
        report::{FromWorker, WorkerIo},
        workers::Workers,
    },
    fib::{Fib, FibPeer, FibRoute, SharedFib},
    path::Path,
    quic::QuicDatagram,
    socket::{SocketId, TunQueue, UdpSocket},
    sys::udp,
};

/// The addresses of the packets that `build` makes.
pub(super) const LEFT: VirtualAddrs = VirtualAddrs {
    v4: Ipv4Addr::new(169, 254, 1, 1),
    v6: Ipv6Addr::from_bits(0xfefe_fefe_fefe_fefe_fefe_fefe_fefe_fefe),
};
const RIGHT: VirtualAddrs = VirtualAddrs {
    v4: Ipv4Addr::new(169, 254, 2, 2),
    v6: Ipv6Addr::from_bits(0xfdfd_fdfd_fdfd_fdfd_fdfd_fdfd_fdfd_fdfd),
};
const PEER: PeerId = PeerId(0);
const ROUTE: RouteId = RouteId(7);
const MAX_DATAGRAM: usize = 1472;

pub(super) fn socket() -> Arc<UdpSocket> {
    let fd = udp::open_socket("127.0.0.1:0".parse().unwrap(), 1, false).unwrap();
    let local = SocketAddr::try_from(rustix::net::getsockname(&fd).unwrap()).unwrap();
    Arc::new(UdpSocket { id: SocketId(3), local, ifindex: 1, worker: 0, fd, fault: None })
}

pub(super) fn session(addrs: VirtualAddrs, secrets: (u8, u8)) -> Arc<Session> {
    Arc::new(Session::new(SessionParams {
        peer: PEER,
        peer_addrs: addrs,
        local_id: 5,
        remote_id: 5,
        boot_id: 77,
        cipher: Cipher::Aes256Gcm,
        tx_secret: [secrets.0; 32],
        rx_secret: [secrets.1; 32],
    }))
}

/// A socket pair that stands for an adapter: the worker's queue, and the kernel's side.
fn adapter(format: VnetFormat) -> (Arc<TunQueue>, OwnedFd) {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let (fd, kernel) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
    for fd in [&fd, &kernel] {
        rustix::net::sockopt::set_socket_send_buffer_size(fd, 4 << 20).unwrap();
    }
    (Arc::new(TunQueue { fd, format }), kernel)
}

/// A node with one peer over one route.
struct Node {
    workers: Workers,
    socket: Arc<UdpSocket>,
    session: Arc<Session>,
    queue: Arc<TunQueue>,
    kernel: OwnedFd,
    driver: mpsc::Receiver<FromWorker>,
    deferred: mpsc::Receiver<FromWorker>,
    quic: mpsc::Receiver<QuicDatagram>,
    fib: SharedFib,
}

/// Header of the left node's queue: with tunnel offload, or none.
fn left_format(vnet: bool) -> VnetFormat {
    if vnet { VnetFormat::Tunnel } else { VnetFormat::Absent }
}

/// Header of the right node's queue: that of older kernels, or none.
fn right_format(vnet: bool) -> VnetFormat {
    if vnet { VnetFormat::Basic } else { VnetFormat::Absent }
}

fn pair(left_vnet: bool, right_vnet: bool) -> (Node, Node) {
    let (one, two) = (socket(), socket());
    let (a, b) = (one.local, two.local);
    let left = node(one, b, LEFT, session(RIGHT, (1, 2)), left_format(left_vnet), None);
    let right = node(two, a, RIGHT, session(LEFT, (2, 1)), right_format(right_vnet), None);
    (left, right)
}

fn node(
    socket: Arc<UdpSocket>,
    remote: SocketAddr,
    local: VirtualAddrs,
    session: Arc<Session>,
    format: VnetFormat,
    // The remote end of the active route, if not the other node; its backup leads there then.
    active: Option<SocketAddr>,
) -> Node {
    let limits = RetransmitLimits::default();
    node_with_limits(limits, socket, (remote, active), local, session, format)
}

fn node_with_limits(
    retransmit_limits: RetransmitLimits,
    socket: Arc<UdpSocket>,
    (remote, active): (SocketAddr, Option<SocketAddr>),
    local: VirtualAddrs,
    session: Arc<Session>,
    format: VnetFormat,
) -> Node {
    let to = active.unwrap_or(remote);
    let path = |route, remote| Path {
        route,
        socket: socket.clone(),
        remote,
        max_datagram: MAX_DATAGRAM,
        plain_sends: false,
        rtt: None,
        loss_epoch: 0,
        counters: Arc::default(),
        transport: None,
    };
    let backup = active.map(|_| path(RouteId(ROUTE.0 + 1), remote));
    let path = path(ROUTE, to);
    let peer = FibPeer {
        is_unreachable: false,
        peer: PEER,
        session: Some(session.clone()),
        active: Some(Arc::new(path)),
        duplicate: None,
        backups: backup.into_iter().map(Arc::new).collect(),
        steering: None,
        candidates: Vec::new(),
    };
    let (queue, kernel) = adapter(format);
    let mut fib = Fib { local_addrs: Some(local), peers: vec![peer], ..Fib::default() };
    fib.by_v4.insert(session.peer_addrs().v4, 0);
    fib.by_v6.insert(session.peer_addrs().v6, 0);
    fib.sessions.insert(session.local_id(), session.clone());
    let route = FibRoute { peer: PEER, route: ROUTE, received: Arc::default() };
    fib.routes.insert((socket.id, remote), route);
    fib.sockets.insert(socket.id, socket.clone());
    let (to_driver, driver) = mpsc::channel(64);
    let (to_quic, quic) = mpsc::channel(64);
    let (to_driver_deferred, deferred) = mpsc::channel(64);
    let fib = Arc::new(ArcSwap::from_pointee(fib));
    let io = WorkerIo {
        fib: fib.clone(),
        to_driver,
        to_driver_deferred,
        to_quic,
        retransmit_limits,
        busy_poll: Duration::ZERO,
    };
    let workers = Workers::start(1, io, &[]).unwrap();
    workers.register_socket(&socket).unwrap();
    Node { workers, socket, session, queue, kernel, driver, deferred, quic, fib }
}

impl Node {
    /// Writes a packet to the adapter, as the kernel does.
    fn write_packet(&self, hdr: &VnetHdr, packet: &[u8]) {
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&hdr.encode()[..self.queue.format.header_len()]);
        bytes.extend_from_slice(packet);
        rustix::io::write(&self.kernel, &bytes).unwrap();
    }

    /// Registers the adapter with the worker: all packets written before are read in one turn.
    fn start_adapter(&self) {
        self.workers.register_queue(0, &self.queue).unwrap();
    }

    /// Reads one write to the adapter, as the kernel does.
    fn read_packet(&self) -> (VnetHdr, Vec<u8>) {
        await_readable(&self.kernel);
        let mut buf = vec![0; 70_000];
        let len = rustix::io::read(&self.kernel, &mut buf).unwrap();
        let (hdr, packet) = self.queue.format.split_header(&buf[..len]).unwrap();
        (hdr, packet.to_vec())
    }

    fn drop_count(&self, reason: DropReason) -> u64 {
        self.workers.counters()[0].drops[reason as usize].load(Relaxed)
    }

    /// Waits until this many packets were dropped for `reason`.
    fn await_drops(&self, reason: DropReason, count: u64) {
        await_until(|| self.drop_count(reason) >= count);
        assert_eq!(self.drop_count(reason), count, "{}", reason.as_str());
    }

    /// A sealed frame of this node's session.
    fn seal_frame(&self, kind: FrameKind, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![0; HEADER_LEN];
        frame.extend_from_slice(payload);
        frame.extend_from_slice(&[0; TAG_LEN]);
        let counter = self.session.reserve_counters(1).unwrap();
        self.session.seal_frame(kind, 0, counter, &mut frame).unwrap();
        frame
    }
}

/// A heartbeat of the peer's route 9 without reports, as it stands in a frame.
fn heartbeat_bytes(message: HeartbeatMessage) -> Vec<u8> {
    let heartbeat = Heartbeat {
        message,
        route: 9,
        your_route: 0,
        sequence: 1,
        sent_at: 1,
        held_us: 0,
        stalled_ms: 0,
        serial: 1,
        reports: Vec::new(),
    };
    let mut bytes = Vec::new();
    heartbeat.encode(&mut bytes);
    bytes
}

fn await_readable(fd: &OwnedFd) {
    let limit = Timespec { tv_sec: 20, tv_nsec: 0 };
    let ready = poll(&mut [PollFd::new(fd, PollFlags::IN)], Some(&limit)).unwrap();
    assert_eq!(ready, 1, "nothing to read");
}

fn await_until(mut condition: impl FnMut() -> bool) {
    for _ in 0..20_000 {
        if condition() {
            return;
        }
        thread::sleep(Duration::from_millis(1));
    }
    panic!("the condition did not become true");
}

/// A packet as the kernel writes it to an adapter.
type AdapterPacket = (VnetHdr, Vec<u8>);

/// Packets of every kind: as the kernel writes them with offload, and segmented.
fn traffic() -> (Vec<AdapterPacket>, Vec<Vec<u8>>) {
    let mut packets = Vec::new();
    for v6 in [false, true] {
        for udp in [false, true] {
            for payload in [60_000, 1, 2500, 700] {
                let shape = Shape { v6, udp, dont_fragment: false, ..plain(udp, payload) };
                packets.push(build(&shape));
            }
        }
    }
    let mut icmp = build(&Shape { flags: 0, ..plain(true, 40) }).1;
    icmp[9] = 1;
    checksum::set_ipv4_checksum(&mut icmp[..IPV4_HEADER_LEN]);
    packets.push((VnetHdr::default(), icmp));
    let single = packets
        .iter()
        .flat_map(|(hdr, packet)| segment_packet(hdr, packet, 1400).unwrap())
        .collect();
    (packets, single)
}

fn completed(packets: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut packets = packets.to_vec();
    for packet in &mut packets {
        let inner = InnerHeaders::parse(packet).unwrap();
        checksum::complete_checksum(packet, &inner);
    }
    packets
}

#[test]
fn every_packet_of_one_node_arrives_at_the_other() {
    let (packets, expected) = traffic();
    for (left_vnet, right_vnet) in [(true, true), (true, false), (false, true), (false, false)] {
        let (left, right) = pair(left_vnet, right_vnet);
        if left_vnet {
            packets.iter().for_each(|(hdr, packet)| left.write_packet(hdr, packet));
        } else {
            // The kernel completes the checksums for an adapter without offload.
            let completed = completed(&expected);
            completed.iter().for_each(|packet| left.write_packet(&VnetHdr::default(), packet));
        }
        right.start_adapter();
        left.start_adapter();
        let mut got: Vec<Vec<u8>> = Vec::new();
        while got.len() < expected.len() {
            let (hdr, packet) = right.read_packet();
            let singles = segment_packet(&hdr, &packet, 1400).unwrap();
            assert!(!left_vnet || right_vnet || singles.len() == 1);
            got.extend(singles);
        }
        assert!(completed(&got) == completed(&expected), "{left_vnet} {right_vnet}");
        // The receiver counts on the route, once a batch is through, what the sender counts there.
        let counts = |counters: &RouteCounters| {
            (counters.frames.load(Relaxed), counters.bytes.load(Relaxed))
        };
        let fibs = [left.fib.load_full(), right.fib.load_full()];
        let sent = counts(&fibs[0].peers[0].active.as_ref().unwrap().counters);
        let received = || counts(&fibs[1].routes.values().next().unwrap().received);
        await_until(|| received() == sent);
        // A frame holds one packet or several.
        assert!(sent.0 > 0 && sent.1 > expected.iter().map(|packet| packet.len() as u64).sum());
        if right_vnet {
            let writes = right.workers.counters()[0].adapter_writes.load(Relaxed);
            assert!(writes < expected.len() as u64 / 2, "{writes} writes");
        }
        for reason in DropReason::ALL {
            assert_eq!(
                (left.drop_count(reason), right.drop_count(reason)),
                (0, 0),
                "{}",
                reason.as_str()
            );
        }
    }
}

/// Each is written in one piece: the end of one and the start of the next do not share a send.
#[test]
fn super_packets_that_fit_a_send_are_not_split() {
    let (left, right) = pair(true, true);
    let segment = usize::from(build(&plain(false, 60_000)).0.gso_size);
    let (hdr, packet) = build(&plain(false, 25 * segment));
    for _ in 0..4 {
        left.write_packet(&hdr, &packet);
    }
    right.start_adapter();
    left.start_adapter();
    for _ in 0..4 {
        assert_eq!(right.read_packet().1.len(), packet.len());
    }
    // Frames are counted after they are sent.
    let sent = || left.workers.counters()[0].tx_frames.load(Relaxed);
    await_until(|| sent() >= 4 * 25);
    assert_eq!(sent(), 4 * 25);
}

#[test]
fn a_plain_adapter_gets_complete_checksums() {
    let (left, right) = pair(true, false);
    let (hdr, packet) = build(&plain(false, 5000));
    left.write_packet(&hdr, &packet);
    right.start_adapter();
    left.start_adapter();
    let mut stream = Vec::new();
    while stream.len() < 5000 {
        let (_, packet) = right.read_packet();
        let inner = InnerHeaders::parse(&packet).unwrap();
        let mut again = packet.clone();
        checksum::complete_checksum(&mut again, &inner);
        assert_eq!(again, packet);
        check(&packet).unwrap();
        stream.extend_from_slice(&packet[inner.header_len()..]);
    }
    assert_eq!(stream, &packet[packet.len() - 5000..]);
}

#[test]
fn small_packets_share_frames_and_flows_stay_in_order() {
    let (left, right) = pair(true, true);
    for i in 0..60u8 {
        let (hdr, mut packet) = build(&Shape { flow: i % 3, ..plain(true, 64) });
        packet[28] = i;
        left.write_packet(&hdr, &packet);
    }
    right.start_adapter();
    left.start_adapter();
    let mut seen = [Vec::new(), Vec::new(), Vec::new()];
    while seen.iter().map(Vec::len).sum::<usize>() < 60 {
        let (hdr, packet) = right.read_packet();
        for packet in segment_packet(&hdr, &packet, 1400).unwrap() {
            seen[usize::from(packet[28] % 3)].push(packet[28]);
        }
    }
    for flow in &seen {
        assert!(flow.is_sorted(), "{flow:?}");
    }
    // 15 packets of 92 bytes fit a frame. Frames are counted after they are sent.
    await_until(|| left.workers.counters()[0].tx_frames.load(Relaxed) > 0);
    assert_eq!(left.workers.counters()[0].tx_frames.load(Relaxed), 4);
    // Three flows interleaved in one batch are one write each.
    assert!(right.workers.counters()[0].adapter_writes.load(Relaxed) <= 3 * 4);
}

#[test]
fn packets_that_cannot_go_out_are_counted_by_reason() {
    let (left, _right) = pair(true, true);
    let none = VnetHdr::default();
    let mut multicast = build(&plain(true, 10)).1;
    multicast[16..20].copy_from_slice(&[224, 0, 0, 251]);
    left.write_packet(&none, &multicast);
    left.write_packet(&none, &[0x45, 0, 0]);
    left.write_packet(&none, &build(&plain(true, 1413)).1);
    left.start_adapter();
    left.await_drops(DropReason::NoPeer, 1);
    left.await_drops(DropReason::InnerMalformed, 1);
    left.await_drops(DropReason::TooBig, 1);
}

#[test]
fn own_frames_that_come_back_through_the_adapter_are_dropped() {
    let (left, right) = pair(true, true);
    let mut looped = build(&plain(true, 100)).1;
    looped[16..20].copy_from_slice(&[127, 0, 0, 1]);
    looped[22..24].copy_from_slice(&right.socket.local.port().to_be_bytes());
    left.write_packet(&VnetHdr::default(), &looped);
    left.start_adapter();
    left.await_drops(DropReason::Loop, 1);
    assert_eq!(left.workers.counters()[0].tx_frames.load(Relaxed), 0);
}

#[test]
fn a_dead_adapter_is_reported_once_and_the_next_one_works() {
    let (mut left, right) = pair(true, true);
    right.start_adapter();
    left.start_adapter();
    let (queue, kernel) = adapter(VnetFormat::Tunnel);
    drop(std::mem::replace(&mut left.kernel, kernel));
    let received = left.driver.blocking_recv().unwrap();
    assert!(matches!(received, FromWorker::AdapterError { worker: 0 }), "{received:?}");
    left.queue = queue;
    left.start_adapter();
    let (hdr, packet) = build(&plain(true, 30));
    left.write_packet(&hdr, &packet);
    assert_eq!(right.read_packet().1, packet);
    assert!(left.driver.try_recv().is_err());
}

#[test]
fn a_closed_remote_port_counts_against_no_route_and_stops_nothing() {
    let (mut left, right) = pair(true, true);
    left.start_adapter();
    let Node { workers, socket, .. } = right;
    workers.stop();
    drop(socket);
    let (hdr, packet) = build(&plain(true, 30));
    for _ in 0..11 {
        left.write_packet(&hdr, &packet);
    }
    let counters = left.workers.counters()[0].clone();
    await_until(|| counters.adapter_reads.load(Relaxed) == 11);
    // Anyone can send an ICMP message: it must not take a route down.
    assert!(left.driver.try_recv().is_err());
    assert_eq!(left.drop_count(DropReason::SendFailed), 0);
}

#[test]
fn a_deregistered_socket_is_released() {
    let (left, right) = pair(true, true);
    let weak = Arc::downgrade(&left.socket);
    let others = 3; // The table and its route, and this test.
    left.workers.deregister_socket(&left.socket);
    await_until(|| weak.strong_count() == others);
    udp::send_control(right.socket.fd.as_fd(), &left.socket.local, &[1], None).unwrap();
    await_readable(&left.socket.fd);
    assert_eq!(left.drop_count(DropReason::Malformed), 0);
}

#[test]
fn a_wake_up_is_not_lost_behind_an_earlier_one() {
    let (done, finished) = std::sync::mpsc::sync_channel(1);
    let changed = socket();
    thread::spawn(move || {
        for round in 0..10_000u32 {
            let (to_driver, _driver) = mpsc::channel(1);
            let (to_quic, _quic) = mpsc::channel(1);
            let io = WorkerIo {
                fib: Arc::default(),
                to_driver_deferred: to_driver.clone(),
                to_driver,
                to_quic,
                retransmit_limits: RetransmitLimits::default(),
                busy_poll: Duration::ZERO,
            };
            let workers = Workers::start(1, io, &[]).unwrap();
            workers.deregister_socket(&changed);
            // The stop falls on every point of the turn that the change causes.
            for _ in 0..round * 7 % 4096 {
                std::hint::spin_loop();
            }
            workers.stop();
        }
        done.send(()).unwrap();
    });
    finished.recv_timeout(Duration::from_secs(60)).unwrap();
}
