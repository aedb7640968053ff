//! The open sockets: one per local address and worker, pinned to one interface.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
};

use netft_proto::{session::MAX_FRAME_LEN, wire::header::FRAME_OVERHEAD};
use rustix::event::{PollFd, PollFlags, Timespec};

use crate::io::{
    datapath::workers::Workers,
    handover::SocketState,
    socket::{SocketId, UdpSocket},
    socket_fault::FaultSwitch,
    sys::{reuseport, udp},
};

/// The sockets by local address.
#[derive(Default)]
pub(super) struct Sockets {
    open: BTreeMap<SocketAddr, Vec<Arc<UdpSocket>>>,
    last_id: u32,
}

impl Sockets {
    /// The sockets of a local address on an interface, opened if they are not. A socket dies with
    /// its interface's index (reliability 2.1), so a new index means new sockets. Returns whether
    /// anything changed.
    ///
    /// # Errors
    /// Of the kernel; the address may have gone in between.
    pub(super) fn ensure_open(
        &mut self,
        local: SocketAddr,
        ifindex: u32,
        workers: &Workers,
    ) -> io::Result<bool> {
        if self.open.get(&local).is_some_and(|sockets| sockets[0].ifindex == ifindex) {
            return Ok(false);
        }
        self.close_sockets(local, workers);
        let count = workers.worker_count();
        let mut sockets = Vec::with_capacity(count);
        for worker in 0..count {
            let fd = udp::open_socket(local, ifindex, count > 1)?;
            self.last_id += 1;
            let id = SocketId(self.last_id);
            sockets.push(Arc::new(UdpSocket { id, local, ifindex, worker, fd, fault: None }));
        }
        // Without it the kernel chooses the socket by the addresses: slower, not wrong.
        let is_filtered =
            count > 1 && reuseport::attach_queue_filter(sockets[0].fd.as_fd(), count).is_ok();
        for socket in &sockets {
            workers.register_socket(socket)?;
        }
        tracing::debug!(%local, ifindex, sockets = count, is_filtered, "UDP sockets opened");
        self.open.insert(local, sockets);
        Ok(true)
    }

    /// Takes over the sockets of a predecessor process. Nobody reads them before
    /// [`register_all`](Self::register_all). Those of an address that are not one for each worker
    /// are left out.
    pub(super) fn adopt_sockets(
        &mut self,
        sockets: Vec<(SocketState, OwnedFd)>,
        worker_count: usize,
    ) {
        for (SocketState { local, ifindex, worker }, fd) in sockets {
            self.last_id += 1;
            let id = SocketId(self.last_id);
            let socket = UdpSocket { id, local, ifindex, worker, fd, fault: None };
            self.open.entry(local).or_default().push(Arc::new(socket));
        }
        self.open.retain(|_, sockets| {
            sockets.sort_by_key(|socket| socket.worker);
            let is_complete = sockets.iter().map(|it| it.worker).eq(0..worker_count);
            is_complete && sockets.iter().all(|socket| socket.ifindex == sockets[0].ifindex)
        });
        tracing::debug!(addresses = self.open.len(), "UDP sockets taken over");
    }

    /// Has the workers receive on every socket that was taken over.
    ///
    /// # Errors
    /// Of the kernel.
    pub(super) fn register_all(&self, workers: &Workers) -> io::Result<()> {
        self.iter_sockets().try_for_each(|socket| workers.register_socket(socket))
    }

    /// Every socket with a second descriptor, for a successor process.
    ///
    /// # Errors
    /// No descriptor is left.
    pub(super) fn duplicate_all(&self) -> io::Result<Vec<(SocketState, OwnedFd)>> {
        let duplicate = |socket: &Arc<UdpSocket>| {
            let UdpSocket { local, ifindex, worker, .. } = **socket;
            Ok((SocketState { local, ifindex, worker }, socket.kernel_fd().try_clone()?))
        };
        self.iter_sockets().map(duplicate).collect()
    }

    /// Opens one socket, read by one worker, at a port the kernel chooses.
    ///
    /// # Errors
    /// Of the kernel.
    pub(super) fn open_ephemeral(
        &mut self,
        bind_addr: SocketAddr,
        ifindex: u32,
        worker: usize,
        workers: &Workers,
    ) -> io::Result<Arc<UdpSocket>> {
        let fd = udp::open_socket(bind_addr, ifindex, false)?;
        let local = SocketAddr::try_from(rustix::net::getsockname(&fd)?)?;
        self.last_id += 1;
        let worker = worker % workers.worker_count();
        let id = SocketId(self.last_id);
        let socket = Arc::new(UdpSocket { id, local, ifindex, worker, fd, fault: None });
        workers.register_socket(&socket)?;
        self.open.insert(local, vec![socket.clone()]);
        Ok(socket)
    }

    /// Closes the sockets of a local address. Returns whether there were any.
    pub(super) fn close_sockets(&mut self, local: SocketAddr, workers: &Workers) -> bool {
        let Some(sockets) = self.open.remove(&local) else { return false };
        tracing::debug!(%local, "UDP sockets closed");
        for socket in &sockets {
            workers.deregister_socket(socket);
        }
        true
    }

    /// Closes every socket whose local address is not wanted.
    pub(super) fn close_unwanted(
        &mut self,
        wanted: impl Fn(SocketAddr) -> bool,
        workers: &Workers,
    ) -> bool {
        let stale: Vec<_> = self.open.keys().copied().filter(|local| !wanted(*local)).collect();
        for local in &stale {
            self.close_sockets(*local, workers);
        }
        !stale.is_empty()
    }

    /// Puts a fault between this node and the remote ends of some local addresses. Each send and
    /// receive there goes through it from the next table on.
    ///
    /// # Errors
    /// No descriptor is left, or a local address has no socket; nothing has a fault then.
    pub(super) fn inject_fault(
        &mut self,
        ends: &BTreeMap<SocketAddr, BTreeSet<SocketAddr>>,
        switch: &Arc<FaultSwitch>,
        workers: &Workers,
    ) -> io::Result<()> {
        let mut faulted = BTreeMap::new();
        for (local, remotes) in ends {
            let sockets = self.open.get(local).ok_or(io::ErrorKind::AddrNotAvailable)?;
            let wrap = |socket: &Arc<UdpSocket>| {
                Ok(Arc::new(UdpSocket::with_fault(socket, remotes.clone(), switch.clone())?))
            };
            faulted.insert(*local, sockets.iter().map(wrap).collect::<io::Result<Vec<_>>>()?);
        }
        for socket in faulted.values().flatten() {
            if let Err(error) = workers.replace_socket(socket) {
                self.iter_sockets().try_for_each(|socket| workers.replace_socket(socket))?;
                return Err(error);
            }
        }
        self.open.extend(faulted);
        Ok(())
    }

    /// Returns whether the sockets of a local address have a fault.
    pub(super) fn has_fault(&self, local: SocketAddr) -> bool {
        self.sockets_at(local).iter().any(|socket| socket.fault.is_some())
    }

    /// Sends what a lifted fault holds, and has the workers take in the rest.
    pub(super) fn release_held(&self) {
        self.iter_sockets().for_each(|socket| socket.release_held());
    }

    /// Takes the faults away. Datagrams that one still holds are dropped and counted.
    pub(super) fn remove_faults(&mut self, workers: &Workers) {
        for socket in self.open.values_mut().flatten() {
            if let Some(plain) = socket.without_fault() {
                // Only the addition of a timer can fail.
                let _ = workers.replace_socket(&plain);
                *socket = plain;
            }
        }
    }

    /// The sockets of a local address, one per worker.
    pub(super) fn sockets_at(&self, local: SocketAddr) -> &[Arc<UdpSocket>] {
        self.open.get(&local).map_or(&[], Vec::as_slice)
    }

    /// Polls the sockets of a local address for unread datagrams: their worker was not scheduled. A
    /// socket that cannot be polled has none.
    pub(super) fn has_unread(&self, local: SocketAddr) -> bool {
        self.sockets_at(local).iter().any(|socket| {
            let mut asked = [PollFd::new(socket.kernel_fd(), PollFlags::IN)];
            rustix::event::poll(&mut asked, Some(&Timespec::default())).is_ok_and(|n| n > 0)
                && asked[0].revents().contains(PollFlags::IN)
        })
    }

    /// Every open socket.
    pub(super) fn iter_sockets(&self) -> impl Iterator<Item = &Arc<UdpSocket>> {
        self.open.values().flatten()
    }
}

/// UDP payload that fits an interface's MTU (IPv4: 20 + 8 bytes of headers, IPv6: 40 + 8), and is
/// no larger than a frame may be.
/// At least an empty frame, whatever MTU the kernel reports.
pub(super) fn max_datagram(mtu: u32, remote: IpAddr) -> usize {
    let headers = match remote {
        IpAddr::V4(_) => 28,
        IpAddr::V6(_) => 48,
    };
    (mtu as usize).saturating_sub(headers).clamp(FRAME_OVERHEAD, MAX_FRAME_LEN)
}
