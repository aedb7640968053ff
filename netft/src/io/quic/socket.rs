//! The socket of the QUIC endpoint: one synthetic address per peer, independent of its routes.
//!
//! A datagram for a peer is sent on its active route, or on every candidate while none is active,
//! so a handshake races over all of them; a handshake of the peer is answered on its return path.
//! Received datagrams are attributed by socket and source address; TLS proves who sent them. Called
//! by quinn's tasks; every call is bounded by the number of candidate routes and never blocks.

use std::{
    fmt, io,
    io::IoSliceMut,
    net::{Ipv6Addr, SocketAddr},
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Instant,
};

use netft_proto::{config::DEFAULT_PORT, ids::PeerId, wire::DropReason};
use quinn::{
    AsyncUdpSocket, UdpPoller,
    udp::{RecvMeta, Transmit},
};
use tokio::sync::mpsc;

use crate::io::{
    counters::Counters,
    fib::{FibRoute, SharedFib},
    path::Path,
    quic::{
        handshake_return_path::HandshakeReturnPaths,
        peer_address::{PEER_ADDRESS_PREFIX, address_of, peer_of},
        types::QuicDatagram,
        unverified_sources::UnverifiedSources,
    },
    socket::UdpSocket,
};

/// All routes to all peers, as one socket.
pub(in crate::io) struct RouteSocket {
    fib: SharedFib,
    /// quinn reads from one task; the lock is never contended.
    arrivals: Mutex<mpsc::Receiver<QuicDatagram>>,
    /// Locked once per datagram, at control-plane rate.
    return_paths: Mutex<HandshakeReturnPaths>,
    /// Locked for datagrams that arrived on no route.
    unverified_sources: Arc<Mutex<UnverifiedSources>>,
    counters: Arc<Counters>,
    /// Nothing is sent any more: the sessions are a successor process's.
    muted: Arc<AtomicBool>,
}

impl RouteSocket {
    pub(in crate::io) fn new(
        fib: SharedFib,
        arrivals: mpsc::Receiver<QuicDatagram>,
        counters: Arc<Counters>,
    ) -> Self {
        let (arrivals, unverified_sources) = (Mutex::new(arrivals), Arc::default());
        let (return_paths, muted) = (Mutex::default(), Arc::default());
        Self { fib, arrivals, return_paths, unverified_sources, counters, muted }
    }

    /// The switch that keeps anything from being sent.
    pub(in crate::io) fn mute_switch(&self) -> Arc<AtomicBool> {
        self.muted.clone()
    }

    /// The unverified sources, shared with the session manager.
    pub(in crate::io) fn unverified_sources(&self) -> Arc<Mutex<UnverifiedSources>> {
        self.unverified_sources.clone()
    }

    fn lock_unverified_sources(&self) -> MutexGuard<'_, UnverifiedSources> {
        self.unverified_sources.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_return_paths(&self) -> MutexGuard<'_, HandshakeReturnPaths> {
        self.return_paths.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send_on_path(&self, path: &Path, bytes: &[u8]) {
        self.send_datagram(&path.socket, path.remote, bytes);
    }

    fn count_drop(&self, reason: DropReason) {
        Counters::count_drop(&self.counters, reason);
    }

    /// Sends on one route. A failed send is counted but not an error of the session: another route
    /// or QUIC's retransmission recovers the loss.
    fn send_datagram(&self, socket: &UdpSocket, remote: SocketAddr, bytes: &[u8]) {
        if socket.send(&remote, bytes, None, None).is_err() {
            self.count_drop(DropReason::SendFailed);
        }
    }
}

impl fmt::Debug for RouteSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RouteSocket").finish_non_exhaustive()
    }
}

impl AsyncUdpSocket for RouteSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(AlwaysWritable)
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        if self.muted.load(Relaxed) {
            return Ok(());
        }
        let fib = self.fib.load();
        let find = |peer: PeerId| fib.peers.iter().find(|entry| entry.peer == peer);
        let mut entry = peer_of(transmit.destination).and_then(find);
        if entry.is_none()
            && let Some(source) = self.lock_unverified_sources().find_source(transmit.destination)
        {
            // An active route takes precedence over the unverified source address.
            entry = source.peer.and_then(find).filter(|entry| entry.active.is_some());
            if entry.is_none() {
                if let Some(socket) = fib.sockets.get(&source.socket) {
                    self.send_datagram(socket, source.from, transmit.contents);
                }
                return Ok(());
            }
        }
        let Some(entry) = entry else {
            self.count_drop(DropReason::NoPeer);
            return Ok(());
        };
        let answer =
            self.lock_return_paths().return_path_for(entry.peer, transmit.contents, Instant::now());
        let origin = answer.and_then(|answer| {
            let path = entry.candidates.iter().find(|path| path.route == answer.route)?;
            Some((path, answer.also_active_route))
        });
        match &entry.active {
            Some(path) => {
                let separate = origin.filter(|(origin, _)| origin.route != path.route);
                if let Some((origin, _)) = separate {
                    self.send_on_path(origin, transmit.contents);
                }
                if separate.is_none_or(|(_, both)| both) {
                    self.send_on_path(path, transmit.contents);
                }
            }
            None if entry.candidates.is_empty() => self.count_drop(DropReason::NoRoute),
            None => {
                entry.candidates.iter().for_each(|path| self.send_on_path(path, transmit.contents))
            }
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut arrivals = self.arrivals.lock().unwrap_or_else(PoisonError::into_inner);
        let room = bufs.len().min(meta.len());
        let mut filled = 0;
        while filled < room {
            // The queue is closed when the daemon stops. That is not an error: QUIC still has to
            // close its connections, and an error here would end its driver task.
            let Poll::Ready(Some(datagram)) = arrivals.poll_recv(cx) else { break };
            let fib = self.fib.load();
            let route = fib.routes.get(&(datagram.socket, datagram.from));
            let addr = match route {
                Some(&FibRoute { peer, route, .. }) => {
                    self.lock_return_paths().on_peer_datagram(
                        peer,
                        route,
                        &datagram.bytes,
                        Instant::now(),
                    );
                    address_of(peer)
                }
                None if fib.expects_unverified_sources() => {
                    self.lock_unverified_sources().assign_address(datagram.socket, datagram.from)
                }
                None => {
                    self.count_drop(DropReason::UnknownSource);
                    continue;
                }
            };
            let len = datagram.bytes.len();
            if len > bufs[filled].len() {
                self.count_drop(DropReason::TooBig);
                continue;
            }
            bufs[filled][..len].copy_from_slice(&datagram.bytes);
            meta[filled] = RecvMeta { addr, len, stride: len, ecn: None, dst_ip: None };
            filled += 1;
        }
        if filled == 0 { Poll::Pending } else { Poll::Ready(Ok(filled)) }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        let [a, b, c] = PEER_ADDRESS_PREFIX;
        Ok((Ipv6Addr::new(a, b, c, 0, 0, 0, 2, 0), DEFAULT_PORT).into())
    }
}

/// Always writable: a full socket buffer drops the datagram, and QUIC retransmits it.
#[derive(Debug)]
struct AlwaysWritable;

impl UdpPoller for AlwaysWritable {
    fn poll_writable(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
