//! Open descriptors that the packet path reads and writes: UDP sockets and adapter queues.

use std::{
    collections::BTreeSet,
    io,
    net::SocketAddr,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
};

use netft_proto::packet::virtio_net::VnetFormat;

use crate::io::{
    socket_fault::{FaultDescriptors, FaultSwitch, OutgoingDatagrams, SocketFault, open_timer},
    sys::{
        udp,
        udp::{ReceivedBatch, SendFault},
    },
};

/// The number of a socket, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SocketId(pub u32);

/// An open UDP socket, pinned to one interface and one local address.
pub struct UdpSocket {
    /// Its number.
    pub id: SocketId,
    /// The local address.
    pub local: SocketAddr,
    /// The interface it is pinned to.
    pub ifindex: u32,
    /// The worker that receives on it: workers share a local address through `SO_REUSEPORT`.
    pub worker: usize,
    /// The descriptor, non-blocking; with a fault, that of the fault's timer.
    pub fd: OwnedFd,
    /// The fault that a drill injects. `fd` is no socket then, so that every call on it fails and
    /// finds the fault on the error's path: a socket without one pays nothing.
    pub(in crate::io) fault: Option<Box<InjectedFault>>,
}

/// A fault, and the socket without it.
pub(in crate::io) struct InjectedFault {
    plain: Arc<UdpSocket>,
    fault: SocketFault,
}

impl UdpSocket {
    /// The same socket with a fault between this node and `remotes`.
    ///
    /// # Errors
    /// No descriptor is left for the fault's timer.
    pub(in crate::io) fn with_fault(
        socket: &Arc<Self>,
        remotes: BTreeSet<SocketAddr>,
        switch: Arc<FaultSwitch>,
    ) -> io::Result<Self> {
        let Self { id, local, ifindex, worker, .. } = **socket;
        let fault = SocketFault::new(remotes, switch);
        let fault = Some(Box::new(InjectedFault { plain: socket.clone(), fault }));
        Ok(Self { id, local, ifindex, worker, fd: open_timer()?, fault })
    }

    /// The socket without its fault; `None` if it has none.
    pub(in crate::io) fn without_fault(&self) -> Option<Arc<Self>> {
        self.fault.as_ref().map(|injected| injected.plain.clone())
    }

    /// The kernel's socket.
    pub(in crate::io) fn kernel_fd(&self) -> &OwnedFd {
        self.fault.as_ref().map_or(&self.fd, |injected| &injected.plain.fd)
    }

    /// The timer of its fault, which expires when a datagram that it holds is due.
    pub(in crate::io) fn fault_timer(&self) -> Option<&OwnedFd> {
        self.fault.as_ref().map(|_| &self.fd)
    }

    /// Sends what its lifted fault holds, and wakes the worker for what it received.
    pub(in crate::io) fn release_held(&self) {
        if let Some(injected) = &self.fault {
            injected.fault.release_held(self.fault_descriptors());
        }
    }

    fn fault_descriptors(&self) -> FaultDescriptors<'_> {
        FaultDescriptors { socket: self.kernel_fd().as_fd(), timer: self.fd.as_fd() }
    }

    /// Sends as [`udp::send_to`] does.
    ///
    /// # Errors
    /// See [`udp::classify_send_error`].
    #[inline]
    pub(in crate::io) fn send(
        &self,
        remote: &SocketAddr,
        bytes: &[u8],
        segment: Option<u16>,
        tos: Option<u8>,
    ) -> io::Result<()> {
        let sent = udp::send_to(self.fd.as_fd(), remote, bytes, segment, tos);
        sent.or_else(|error| {
            self.on_send_error(error, &OutgoingDatagrams { remote: *remote, bytes, segment, tos })
        })
    }

    /// As [`send`](Self::send).
    ///
    /// # Errors
    /// The fault, with its errno.
    #[inline]
    pub(in crate::io) fn send_classified(
        &self,
        remote: &SocketAddr,
        bytes: &[u8],
        segment: Option<u16>,
        tos: Option<u8>,
    ) -> Result<(), (SendFault, i32)> {
        self.send(remote, bytes, segment, tos).map_err(|error| {
            let errno = error.raw_os_error().unwrap_or_default();
            (udp::classify_send_error(&error, segment.is_some()), errno)
        })
    }

    #[cold]
    fn on_send_error(&self, error: io::Error, datagrams: &OutgoingDatagrams<'_>) -> io::Result<()> {
        match &self.fault {
            Some(injected) => injected.fault.send(datagrams, self.fault_descriptors()),
            None => Err(error),
        }
    }

    /// Receives as [`udp::recv_batch`] does.
    ///
    /// # Errors
    /// As [`udp::recv_batch`].
    #[inline]
    pub(in crate::io) fn receive(&self, buf: &mut [u8]) -> io::Result<Option<ReceivedBatch>> {
        match udp::recv_batch(self.fd.as_fd(), buf) {
            Err(error) => self.on_receive_error(error, buf),
            received => received,
        }
    }

    #[cold]
    fn on_receive_error(
        &self,
        error: io::Error,
        buf: &mut [u8],
    ) -> io::Result<Option<ReceivedBatch>> {
        match &self.fault {
            Some(injected) => injected.fault.receive(buf, self.fault_descriptors()),
            None => Err(error),
        }
    }
}

/// One queue of the adapter.
pub struct TunQueue {
    /// The descriptor, non-blocking.
    pub fd: OwnedFd,
    /// The `virtio_net_hdr` that reads and writes begin with.
    pub format: VnetFormat,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::{sync::atomic::Ordering::Relaxed, time::Duration};

    use netft_proto::{drill::DrillFault, wire::DropReason};
    use rustix::{
        event::{PollFd, PollFlags, poll},
        time::Timespec,
    };

    use super::*;
    use crate::io::counters::Counters;

    const DATAGRAMS: usize = 20;
    const STRIDE: u16 = 100;

    fn plain_socket(id: u32) -> Arc<UdpSocket> {
        let fd = udp::open_socket("127.0.0.1:0".parse().unwrap(), 1, false).unwrap();
        let local = rustix::net::getsockname(&fd).unwrap().try_into().unwrap();
        Arc::new(UdpSocket { id: SocketId(id), local, ifindex: 1, worker: 0, fd, fault: None })
    }

    /// A socket with a fault towards another one, and the switch.
    struct Pair {
        faulted: UdpSocket,
        remote: Arc<UdpSocket>,
        switch: Arc<FaultSwitch>,
        counters: Arc<Counters>,
    }

    fn pair(fault: DrillFault) -> Pair {
        let (socket, remote) = (plain_socket(1), plain_socket(2));
        let counters = Arc::<Counters>::default();
        let switch = Arc::new(FaultSwitch::new(fault, counters.clone()));
        let remotes = [remote.local].into();
        let faulted = UdpSocket::with_fault(&socket, remotes, switch.clone()).unwrap();
        Pair { faulted, remote, switch, counters }
    }

    /// Datagrams that arrive at a socket until it has none.
    fn received(socket: &UdpSocket) -> usize {
        let mut buf = vec![0; 65_536];
        let mut count = 0;
        while let Some(batch) = socket.receive(&mut buf).unwrap() {
            assert!(batch.len <= DATAGRAMS * usize::from(STRIDE));
            count += batch.len.div_ceil(batch.segment);
        }
        count
    }

    /// Sends datagrams in one segmented send.
    fn send(from: &UdpSocket, to: SocketAddr) {
        let bytes = [7; DATAGRAMS * STRIDE as usize];
        from.send(&to, &bytes, Some(STRIDE), None).unwrap();
    }

    impl Pair {
        /// Datagrams that arrive at the remote end, and at this one.
        fn exchange(&self) -> [usize; 2] {
            send(&self.faulted, self.remote.local);
            send(&self.remote, self.faulted.local);
            [received(&self.remote), received(&self.faulted)]
        }
    }

    #[test]
    fn each_fault_harms_the_directions_it_names_until_it_is_lifted() {
        let all = DATAGRAMS;
        for (fault, expected) in [
            (DrillFault::Blackhole, [0, 0]),
            (DrillFault::Carrier, [0, 0]),
            (DrillFault::OneWay, [0, all]),
            (DrillFault::Loss(100), [0, 0]),
            (DrillFault::Loss(0), [all, all]),
        ] {
            let pair = pair(fault);
            assert_eq!(pair.exchange(), expected, "{fault}");
            let dropped = 2 * all - expected.iter().sum::<usize>();
            assert_eq!(pair.switch.dropped(), dropped as u64, "{fault}");
            let counted = &pair.counters.drops[DropReason::DrillFault as usize];
            assert_eq!(counted.load(Relaxed), dropped as u64, "{fault}");
            pair.switch.lift();
            assert_eq!(pair.exchange(), [all, all], "{fault}");
        }
    }

    #[test]
    fn partial_loss_keeps_whole_datagrams() {
        let pair = pair(DrillFault::Loss(50));
        let arrived: Vec<_> = (0..20).map(|_| pair.exchange()).collect();
        let sum: usize = arrived.iter().flatten().sum();
        assert_eq!(sum as u64 + pair.switch.dropped(), 40 * DATAGRAMS as u64);
        assert!(pair.switch.dropped() > 0 && sum > 0);
    }

    #[test]
    fn other_remote_ends_of_the_socket_are_spared() {
        let pair = pair(DrillFault::Blackhole);
        let other = plain_socket(3);
        send(&pair.faulted, other.local);
        send(&other, pair.faulted.local);
        assert_eq!([received(&other), received(&pair.faulted)], [DATAGRAMS, DATAGRAMS]);
        assert_eq!(pair.switch.dropped(), 0);
    }

    #[test]
    fn a_delay_holds_datagrams_and_loses_none() {
        let pair = pair(DrillFault::Delay(Duration::from_secs(3600)));
        assert_eq!(pair.exchange(), [0, 0]);
        pair.switch.lift();
        pair.faulted.release_held();
        assert_eq!([received(&pair.remote), received(&pair.faulted)], [DATAGRAMS, DATAGRAMS]);
        assert_eq!(pair.switch.dropped(), 0);
    }

    #[test]
    fn the_timer_wakes_for_what_is_due() {
        let pair = pair(DrillFault::Delay(Duration::from_millis(5)));
        assert_eq!(pair.exchange(), [0, 0]);
        let mut arrived = [0, 0];
        while arrived != [DATAGRAMS, DATAGRAMS] {
            let mut asked = [PollFd::new(pair.faulted.fault_timer().unwrap(), PollFlags::IN)];
            poll(&mut asked, None).unwrap();
            arrived[1] += received(&pair.faulted);
            arrived[0] += received(&pair.remote);
        }
        let mut asked = [PollFd::new(pair.faulted.fault_timer().unwrap(), PollFlags::IN)];
        assert_eq!(poll(&mut asked, Some(&Timespec::default())).unwrap(), 0, "nothing is held");
    }

    #[test]
    fn what_a_fault_still_holds_at_its_end_is_counted() {
        let pair = pair(DrillFault::Delay(Duration::from_secs(3600)));
        assert_eq!(pair.exchange(), [0, 0]);
        let Pair { faulted, switch, .. } = pair;
        assert_eq!(faulted.without_fault().unwrap().id, faulted.id);
        drop(faulted);
        assert_eq!(switch.dropped(), 2, "one batch each way");
    }
}
