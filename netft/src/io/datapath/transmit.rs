//! Transmission of sealed data frames on a path: one segmented send (UDP GSO) where the interface
//! can, one send per frame where it cannot.

use netft_proto::wire::DropReason;

use crate::io::{
    datapath::{quic_tx, tx_context::TxContext},
    path::Path,
    socket::{SocketId, UdpSocket},
    sys::udp::SendFault,
};

/// Limit of remembered sockets without segmentation offload. One that is forgotten costs one failed
/// send.
const MAX_PLAIN_SOCKETS: usize = 64;

/// The sockets whose interface cannot segment: their frames are sent one by one.
pub(super) struct PlainSockets(Vec<SocketId>);

impl PlainSockets {
    pub(super) fn new() -> Self {
        Self(Vec::with_capacity(MAX_PLAIN_SOCKETS))
    }

    #[inline]
    fn contains(&self, socket: &UdpSocket) -> bool {
        self.0.contains(&socket.id)
    }

    #[cold]
    fn switch_offload_off(&mut self, socket: &UdpSocket) {
        if self.0.len() == MAX_PLAIN_SOCKETS {
            self.0.clear();
        }
        self.0.push(socket.id);
        let UdpSocket { local, ifindex, .. } = socket;
        tracing::debug!(%local, ifindex, "UDP GSO switched off: frames are sent one by one");
    }
}

/// Sends frames of `stride` bytes, the last may be shorter.
pub(super) fn transmit_frames(
    path: &Path,
    bytes: &[u8],
    stride: usize,
    plain: &mut PlainSockets,
    context: &mut TxContext<'_>,
) {
    if let Some(transport) = &path.transport {
        return quic_tx::transmit_over_quic(path, transport, bytes, stride, context);
    }
    let frames = bytes.len().div_ceil(stride);
    let fits = stride <= path.max_datagram;
    if frames > 1 && fits && !path.plain_sends && !plain.contains(&path.socket) {
        match send_datagrams(path, bytes, Some(stride as u16)) {
            Ok(()) => return context.count_sent(path, bytes.len(), frames as u64),
            Err((SendFault::NoOffload, _)) => plain.switch_offload_off(&path.socket),
            Err((SendFault::SegmentsRefused, _)) => {}
            Err(fault) => return context.on_send_failed(path, frames as u64, fault),
        }
    }
    for frame in bytes.chunks(stride) {
        // A frame that was sealed for a path of a larger MTU would be lost on this one.
        if frame.len() > path.max_datagram {
            context.counters.count_drop(DropReason::TooBig);
            continue;
        }
        match send_datagrams(path, frame, None) {
            Ok(()) => context.count_sent(path, frame.len(), 1),
            Err(fault) => context.on_send_failed(path, 1, fault),
        }
    }
}

/// One send call.
fn send_datagrams(path: &Path, bytes: &[u8], segment: Option<u16>) -> Result<(), (SendFault, i32)> {
    path.socket.send_classified(&path.remote, bytes, segment, None)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::{
        os::fd::AsFd,
        sync::{Arc, atomic::Ordering::Relaxed},
    };

    use netft_proto::ids::RouteId;
    use tokio::sync::mpsc;

    use super::*;
    use crate::io::sys::udp;
    use crate::io::{counters::Counters, datapath::driver_queue::DriverQueue};

    /// A path from a socket to itself.
    fn path() -> Path {
        let fd = udp::open_socket("127.0.0.1:0".parse().unwrap(), 1, false).unwrap();
        let local = std::net::SocketAddr::try_from(rustix::net::getsockname(&fd).unwrap()).unwrap();
        let socket =
            Arc::new(UdpSocket { id: SocketId(1), local, ifindex: 1, worker: 0, fd, fault: None });
        Path {
            route: RouteId(1),
            socket,
            remote: local,
            max_datagram: 1200,
            plain_sends: false,
            rtt: None,
            loss_epoch: 0,
            counters: Arc::default(),
            transport: None,
        }
    }

    #[test]
    fn frames_of_a_route_where_segmented_sends_vanish_are_sent_one_by_one() {
        let receiver = udp::open_socket("127.0.0.1:0".parse().unwrap(), 1, false).unwrap();
        let mut path = path();
        path.remote = rustix::net::getsockname(&receiver).unwrap().try_into().unwrap();
        let counters = Counters::default();
        let mut driver_queue = DriverQueue::new(mpsc::channel(1).0, mpsc::channel(1).0);
        let mut context = TxContext { counters: &counters, driver_queue: &mut driver_queue };
        let mut received = |path: &Path| {
            let bytes = [7; 3 * 1000];
            transmit_frames(path, &bytes, 1000, &mut PlainSockets::new(), &mut context);
            let mut buf = vec![0; 65_536];
            udp::recv_batch(receiver.as_fd(), &mut buf).unwrap().unwrap().len
        };
        assert_eq!(received(&path), 3000, "the receiver's kernel leaves one send together");
        path.plain_sends = true;
        assert_eq!(received(&path), 1000);
    }

    #[test]
    fn frames_sealed_for_a_wider_route_are_counted_and_not_sent() {
        let path = path();
        let counters = Counters::default();
        let mut driver_queue = DriverQueue::new(mpsc::channel(1).0, mpsc::channel(1).0);
        let mut context = TxContext { counters: &counters, driver_queue: &mut driver_queue };
        let bytes = [0; 1400 * 2 + 700];
        transmit_frames(&path, &bytes, 1400, &mut PlainSockets::new(), &mut context);
        assert_eq!(counters.drops[DropReason::TooBig as usize].load(Relaxed), 2);
        assert_eq!(counters.tx_frames.load(Relaxed), 1, "the last one is shorter");
        assert_eq!(path.counters.bytes.load(Relaxed), 700);
    }
}
