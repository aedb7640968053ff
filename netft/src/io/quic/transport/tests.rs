//! Two ends on the loopback interface, driven by hand; timers are waited for.

#![allow(clippy::unwrap_used)]

use std::{
    os::fd::AsFd,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use netft_proto::{config::PrivateKey, ids::NodeKey, wire::header};

use super::*;
use crate::io::{
    identity,
    quic::tls::{ALPN_TRANSPORT, SERVER_NAME, TlsIdentity},
    socket::SocketId,
    sys::udp,
};

const MTU: u16 = 1472;
const TEST_TIMEOUT: Duration = Duration::from_secs(8);
/// Receives per turn at most.
const RECEIVES: usize = 16;

/// A node's key, and its public half.
type Key = (PrivateKey, NodeKey);

fn key() -> Key {
    let key = identity::generate_key().unwrap();
    let public = identity::public_key(&key).unwrap();
    (key, public)
}

fn socket(id: u32) -> Arc<UdpSocket> {
    let fd = udp::open_socket("127.0.0.1:0".parse().unwrap(), 1, false).unwrap();
    let local = SocketAddr::try_from(rustix::net::getsockname(&fd).unwrap()).unwrap();
    Arc::new(UdpSocket { id: SocketId(id), local, ifindex: 1, worker: 0, fd, fault: None })
}

/// One end of a route.
struct End {
    transport: QuicTransport,
    socket: Arc<UdpSocket>,
    buf: Vec<u8>,
    /// Datagrams received, and those of them that are not QUIC.
    packets: usize,
    strange: usize,
    /// The longest of them, bytes.
    longest: usize,
}

impl End {
    fn new(key: &Key, peer: NodeKey, socket: Arc<UdpSocket>, remote: SocketAddr) -> Self {
        let settings = NodeTransportSettings::new(&key.0, key.1).unwrap().for_peer([peer]).unwrap();
        let transport = QuicTransport::new(settings, remote, MTU);
        transport.set_socket(Some(&socket));
        Self { transport, socket, buf: vec![0; 65_536], packets: 0, strange: 0, longest: 0 }
    }

    /// Serves socket and timers once; returns the received frames. Under bulk data the socket is
    /// never empty.
    fn turn(&mut self) -> Vec<Bytes> {
        let mut frames = Vec::new();
        for _ in 0..RECEIVES {
            let Some(got) = udp::recv_batch(self.socket.fd.as_fd(), &mut self.buf).unwrap() else {
                break;
            };
            let packets = || self.buf[..got.len].chunks(got.segment);
            self.packets += packets().count();
            self.longest = packets().map(<[u8]>::len).chain([self.longest]).max().unwrap();
            self.strange += packets().filter(|packet| !header::is_quic(packet[0])).count();
            self.transport.receive_packets(packets(), &mut frames, |_| {});
        }
        if self.transport.next_timeout().is_some_and(|at| at <= clock::now()) {
            self.transport.on_timeout();
        }
        frames
    }
}

/// Two ends with each other's keys.
fn pair() -> [End; 2] {
    let keys = [key(), key()];
    let sockets = [socket(1), socket(2)];
    let end = |own: usize| {
        let far = 1 - own;
        End::new(&keys[own], keys[far].1, sockets[own].clone(), sockets[far].local)
    };
    [end(0), end(1)]
}

/// Serves both ends until `done`; returns the frames received by each.
fn until(
    ends: &mut [End; 2],
    done: impl Fn(&[End; 2], &[Vec<Bytes>; 2]) -> bool,
) -> [Vec<Bytes>; 2] {
    let deadline = Instant::now() + TEST_TIMEOUT;
    let mut came = [Vec::new(), Vec::new()];
    loop {
        for (end, came) in ends.iter_mut().zip(&mut came) {
            came.extend(end.turn());
        }
        if done(ends, &came) {
            return came;
        }
        assert!(Instant::now() < deadline, "waited in vain");
        thread::sleep(Duration::from_millis(1));
    }
}

fn connected() -> [End; 2] {
    let mut ends = pair();
    ends[0].transport.dial();
    until(&mut ends, |ends, _| ends.iter().all(|end| end.transport.is_connected()));
    ends
}

#[test]
fn frames_travel_both_ways_and_only_quic_is_on_the_wire() {
    let mut ends = connected();
    let room = ends[0].transport.max_frame_len();
    assert_eq!(room, usize::from(MTU) - TRANSPORT_OVERHEAD);
    let data: Vec<u8> = (0..50 * room).map(|n| n as u8).collect();
    for end in &ends {
        let sent = end.transport.send_frames(&data, room, room, FrameClass::Bulk);
        assert_eq!((sent.sent, sent.bytes), (50, data.len() as u64), "{sent:?}");
        assert_eq!(end.transport.send_frames(b"beat", 4, usize::MAX, FrameClass::Control).sent, 1);
    }
    let came = until(&mut ends, |_, came| came.iter().all(|came| came.len() == 51));
    for came in came {
        assert_eq!(came[..50].concat(), data);
        assert_eq!(came[50], "beat");
    }
    assert_eq!(ends.map(|end| end.strange), [0, 0]);
}

/// S-06: the address of a dialer is proven before anything is kept for it.
#[test]
fn the_first_answer_to_a_dial_is_a_retry() {
    let mut ends = pair();
    ends[0].transport.dial();
    let deadline = Instant::now() + TEST_TIMEOUT;
    let mut answer = vec![0; 65_536];
    loop {
        ends[1].turn();
        if udp::recv_batch(ends[0].socket.fd.as_fd(), &mut answer).unwrap().is_some() {
            break;
        }
        assert!(Instant::now() < deadline);
    }
    // Long header, fixed bit, type 3 (RFC 9000 section 17.2.5).
    assert_eq!(answer[0] >> 4, 0xf);
    assert_eq!(ends[1].transport.lock().open_connections().count(), 0);
}

#[test]
fn a_frame_that_is_too_large_is_counted_and_the_others_go() {
    let mut ends = connected();
    let room = ends[0].transport.max_frame_len();
    let sent = ends[0].transport.send_frames(
        &vec![1; room + 1 + 9],
        room + 1,
        usize::MAX,
        FrameClass::Bulk,
    );
    assert_eq!((sent.sent, sent.too_big), (1, 1));
    until(&mut ends, |_, came| came[1].len() == 1);
    assert!(ends[0].transport.is_connected());
}

/// Control frames are sent whatever is in flight.
#[test]
fn a_full_window_refuses_bulk_data_and_no_heartbeat() {
    let ends = connected();
    let room = ends[0].transport.max_frame_len();
    let batch = vec![1; 40 * room];
    // No acknowledgement arrives.
    let full = (0..10_000).find_map(|_| {
        let sent = ends[0].transport.send_frames(&batch, room, room, FrameClass::Bulk);
        (sent.window_full > 0).then_some(sent)
    });
    let full = full.unwrap();
    assert_eq!(full.sent + full.window_full, 40, "the newest are refused");
    for _ in 0..100 {
        let beat = ends[0].transport.send_frames(b"beat", 4, usize::MAX, FrameClass::Control);
        assert_eq!((beat.sent, beat.window_full), (1, 0));
    }
}

/// A full socket loses a burst, which must not lower the MTU.
#[test]
fn lost_bursts_do_not_make_the_path_narrow() {
    let mut ends = connected();
    let room = ends[0].transport.max_frame_len();
    let batch = vec![1; 20 * room];
    for _ in 0..8 {
        assert_eq!(ends[0].transport.send_frames(&batch, room, room, FrameClass::Bulk).sent, 20);
        let mut lost = vec![0; 65_536];
        while udp::recv_batch(ends[1].socket.fd.as_fd(), &mut lost).unwrap().is_some() {}
        // Later packets reveal the loss.
        for _ in 0..4 {
            ends[0].transport.send_frames(b"beat", 4, usize::MAX, FrameClass::Control);
        }
        let acknowledged = ends[0].packets;
        until(&mut ends, |ends, _| ends[0].packets > acknowledged);
    }
    assert_eq!(ends[0].transport.max_frame_len(), room);
}

/// The MTU of the interface is larger than that of the path.
#[test]
fn on_a_narrow_path_packets_hold_one_frame() {
    let mut ends = connected();
    let room = ends[0].transport.max_frame_len();
    for limit in [room - 1, room / 2 + 20, room / 3] {
        // Acknowledgements are due at both ends, to be sent with the next packet.
        let back = ends[1].transport.send_frames(&[7; 300 * 50], 50, limit, FrameClass::Bulk);
        assert_eq!(back.sent, 300);
        until(&mut ends, |_, came| came[0].len() == 300);
        ends[1].longest = 0;
        let sent =
            ends[0].transport.send_frames(&vec![1; 30 * limit + 9], limit, limit, FrameClass::Bulk);
        assert_eq!((sent.sent, sent.fault), (31, None));
        until(&mut ends, |_, came| came[1].len() == 31);
        let longest = ends[1].longest;
        assert!(
            (limit..=limit + TRANSPORT_OVERHEAD).contains(&longest),
            "{longest} bytes of {limit}"
        );
    }
    let wide = ends[0].transport.send_frames(&vec![1; 3 * room], room, room - 1, FrameClass::Bulk);
    assert_eq!((wide.sent, wide.too_big), (0, 3), "sealed for a wider path");
}

/// An acknowledgement per batch would fill the sender's socket, and delayed ones its window.
#[test]
fn a_sender_of_bulk_data_gets_few_acknowledgements() {
    let mut ends = connected();
    let room = ends[0].transport.max_frame_len();
    let (batch, batches) = (vec![1; 40 * room], 100);
    let (began, before) = (Instant::now(), ends[0].packets);
    let mut came = 0;
    for _ in 0..batches {
        assert_eq!(ends[0].transport.send_frames(&batch, room, room, FrameClass::Bulk).sent, 40);
        came += ends[1].turn().len();
        ends[0].turn();
    }
    assert_eq!(came, 40 * batches);
    // By number, or because 25 ms are over: as often as this machine took that long.
    let timers = began.elapsed().as_millis() as usize / 25;
    let (answers, most) = (ends[0].packets - before, 40 * batches / 128 + 2 * timers + 8);
    assert!(answers <= most, "{answers} packets back, {most} expected");
}

#[test]
fn nobody_but_the_peer_gets_a_connection() {
    let (a, b, unknown) = (key(), key(), key());
    let sockets = [socket(1), socket(2)];
    let mut ends = [
        End::new(&a, b.1, sockets[0].clone(), sockets[1].local),
        End::new(&unknown, a.1, sockets[1].clone(), sockets[0].local),
    ];
    ends[1].transport.dial();
    let mut complaint = None;
    let deadline = Instant::now() + TEST_TIMEOUT;
    while complaint.is_none() {
        ends.iter_mut().for_each(|end| drop(end.turn()));
        complaint = ends[0].transport.take_error();
        assert!(!ends[0].transport.is_connected() && Instant::now() < deadline);
    }
    let complaint = complaint.unwrap().to_lowercase();
    assert!(complaint.contains("unpinned") || complaint.contains("not pinned"), "{complaint}");
}

#[test]
fn of_two_connections_made_at_once_both_ends_keep_the_same() {
    let mut ends = pair();
    ends.iter().for_each(|end| end.transport.dial());
    let one = |end: &End| {
        let core = end.transport.lock();
        let live: Vec<_> = core.open_connections().collect();
        (live.len() == 1).then(|| live[0])
    };
    until(&mut ends, |ends, _| {
        ends.iter().all(|end| one(end).is_some() && end.transport.is_connected())
    });
    let [a, b] = [0, 1].map(|end| one(&ends[end]).unwrap());
    assert_ne!(a, b, "one end dialled it, the other did not");
    let sent = ends
        .each_ref()
        .map(|end| end.transport.send_frames(b"x", 1, usize::MAX, FrameClass::Bulk).sent);
    assert_eq!(sent, [1, 1]);
    until(&mut ends, |_, came| came.iter().all(|came| came.len() == 1));
}

#[test]
fn a_closed_connection_is_reported_and_can_be_dialled_again() {
    let mut ends = connected();
    ends[0].transport.take_changed();
    ends[1].transport.close(CloseReason::Declined);
    until(&mut ends, |ends, _| {
        !ends[0].transport.is_connected() && ends[0].transport.take_changed()
    });
    assert!(ends[0].transport.take_declined());
    let sent = ends[0].transport.send_frames(b"x", 1, usize::MAX, FrameClass::Control);
    assert_eq!((sent.sent, sent.unconnected), (0, 1));
    ends[0].transport.dial();
    until(&mut ends, |ends, _| ends.iter().all(|end| end.transport.is_connected()));
}

/// `cargo test --release … -- --ignored --nocapture raw_quinn`: what quinn's own DATAGRAM frames
/// reach over the same loopback interface, with its own tasks, sockets and congestion control.
#[test]
#[ignore = "a figure, not a check"]
fn raw_quinn_datagrams() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (seconds, keys) = (5, [key(), key()]);
        let tls = |own: usize| TlsIdentity::new(&keys[own].0, keys[own].1).unwrap();
        let server = tls(1).server_config([keys[0].1].into_iter(), &[ALPN_TRANSPORT]).unwrap();
        let server = quinn::crypto::rustls::QuicServerConfig::try_from(server).unwrap();
        let mut server = quinn::ServerConfig::with_crypto(Arc::new(server));
        let client = tls(0).client_config([keys[1].1].into_iter(), &[ALPN_TRANSPORT]).unwrap();
        let client = quinn::crypto::rustls::QuicClientConfig::try_from(client).unwrap();
        let mut client = quinn::ClientConfig::new(Arc::new(client));
        let mut transport = quinn::TransportConfig::default();
        transport
            .initial_mtu(MTU)
            .mtu_discovery_config(None)
            .datagram_receive_buffer_size(Some(8 << 20))
            .datagram_send_buffer_size(1 << 20);
        let transport = Arc::new(transport);
        server.transport_config(transport.clone());
        client.transport_config(transport);
        let any = "127.0.0.1:0".parse().unwrap();
        let far = quinn::Endpoint::server(server, any).unwrap();
        let near = quinn::Endpoint::client(any).unwrap();
        let to = far.local_addr().unwrap();
        let sink = tokio::spawn(async move {
            let connection = far.accept().await.unwrap().await.unwrap();
            let (mut began, mut bytes) = (None, 0);
            while let Ok(datagram) = connection.read_datagram().await {
                began.get_or_insert_with(Instant::now);
                bytes += datagram.len();
            }
            bytes as f64 * 8.0 / 1e9 / began.map_or(1.0, |at| at.elapsed().as_secs_f64())
        });
        let connection = near.connect_with(client, to, SERVER_NAME).unwrap().await.unwrap();
        let payload = Bytes::from(vec![0; connection.max_datagram_size().unwrap()]);
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(seconds) {
            connection.send_datagram_wait(payload.clone()).await.unwrap();
        }
        connection.close(0u32.into(), b"done");
        println!("raw quinn: {:.2} Gbit/s received", sink.await.unwrap());
    });
}

/// `cargo test --release … -- --ignored --nocapture late`: how late heartbeats are under bulk data
/// at full speed, and what plain UDP datagrams do in their place, in turns.
#[test]
#[ignore = "a figure, not a check"]
fn how_late_heartbeats_are_under_saturation() {
    for _ in 0..3 {
        how_late(true);
        how_late(false);
    }
}

fn how_late(quic: bool) {
    let [sender, mut receiver] = connected();
    let room = sender.transport.max_frame_len();
    let (seconds, delay) = (3, Duration::from_millis(5));
    let over = AtomicBool::new(false);
    let bulk = AtomicU64::new(0);
    let mut received = 0;
    let to = receiver.socket.local;
    let plain = |bytes: &[u8], stride: usize, tos: Option<u8>| {
        let segment = (bytes.len() > stride).then_some(stride as u16);
        let sent = sender.socket.send_classified(&to, bytes, segment, tos);
        if sent.is_ok() { bytes.len() as u64 } else { 0 }
    };
    let mut late = thread::scope(|scope| {
        let (sender, over, bulk, plain) = (&sender, &over, &bulk, &plain);
        // Acknowledgements come back to the sender's socket.
        scope.spawn(move || {
            let mut buf = vec![0; 65_536];
            let batch = vec![0; 45 * room];
            while !over.load(Relaxed) {
                if !quic {
                    bulk.fetch_add(plain(&batch, room, None), Relaxed);
                    continue;
                }
                let sent = sender.transport.send_frames(&batch, room, room, FrameClass::Bulk);
                bulk.fetch_add(sent.bytes, Relaxed);
                while let Ok(Some(got)) = udp::recv_batch(sender.socket.fd.as_fd(), &mut buf) {
                    let packets = buf[..got.len].chunks(got.segment);
                    sender.transport.receive_packets(packets, &mut Vec::new(), |_| {});
                }
                if sender.transport.next_timeout().is_some_and(|at| at <= clock::now()) {
                    sender.transport.on_timeout();
                }
            }
        });
        scope.spawn(move || {
            let began = Instant::now();
            for n in 1.. {
                let due = began + delay * n;
                thread::sleep(due.saturating_duration_since(Instant::now()));
                if began.elapsed() > Duration::from_secs(seconds) {
                    return over.store(true, Relaxed);
                }
                // Due then, by the clock of this process.
                let at = (clock::now().as_nanos() - due.elapsed().as_nanos() as u64).to_be_bytes();
                if quic {
                    assert_eq!(
                        sender.transport.send_frames(&at, 8, usize::MAX, FrameClass::Control).sent,
                        1
                    );
                } else {
                    plain(&at, 8, Some(udp::TOS_CONTROL));
                }
            }
        });
        let mut late = Vec::new();
        let mut buf = vec![0; 65_536];
        while !over.load(Relaxed) {
            let mut frame = |frame: &[u8]| {
                received += frame.len();
                if let Ok(at) = <[u8; 8]>::try_from(frame) {
                    late.push(clock::now().since(Time::from_nanos(u64::from_be_bytes(at))));
                }
            };
            if quic {
                receiver.turn().iter().for_each(|bytes| frame(bytes));
            } else if let Ok(Some(got)) = udp::recv_batch(receiver.socket.fd.as_fd(), &mut buf) {
                buf[..got.len].chunks(got.segment).for_each(&mut frame);
            }
        }
        late
    });
    late.sort();
    let at = |share: usize| late[(late.len() - 1) * share / 100];
    let gigabits = |bytes: f64| bytes * 8.0 / 1e9 / seconds as f64;
    let (taken, received) = (gigabits(bulk.load(Relaxed) as f64), gigabits(received as f64));
    let (name, beats) = (if quic { "quic" } else { "udp" }, late.len());
    println!("{name}: {taken:.2} Gbit/s taken, {received:.2} received; {beats} heartbeats");
    println!("late p50 {:?}, p99 {:?}, max {:?}", at(50), at(99), at(100));
}
