//! Transmission of one control frame on the path that a peer's frame arrived on.

use std::{net::SocketAddr, sync::Arc};

use netft_proto::wire::DropReason;

use crate::io::{
    path::Path,
    quic::transport::{FrameClass, QuicTransport, SendOutcome},
    socket::UdpSocket,
    sys::udp,
};

/// The transport of one frame: the QUIC connection of its route, or a UDP socket.
pub(super) struct ReplyPath<'a> {
    pub(super) transport: Option<&'a Arc<QuicTransport>>,
    pub(super) socket: &'a UdpSocket,
    pub(super) to: SocketAddr,
}

impl<'a> ReplyPath<'a> {
    /// The transport of a path.
    pub(super) fn from_path(path: &'a Path) -> Self {
        Self { transport: path.transport.as_ref(), socket: &path.socket, to: path.remote }
    }

    /// Sends one sealed frame.
    pub(super) fn send_frame(&self, frame: &[u8], class: FrameClass) -> Result<(), DropReason> {
        if let Some(transport) = self.transport {
            let outcome = transport.send_frames(frame, frame.len(), usize::MAX, class);
            return match outcome {
                SendOutcome { sent: 1.., .. } => Ok(()),
                SendOutcome { window_full: 1.., .. } => Err(DropReason::QueueFull),
                _ => Err(DropReason::SendFailed),
            };
        }
        let tos = (class == FrameClass::Control).then_some(udp::TOS_CONTROL);
        let sent = self.socket.send(&self.to, frame, None, tos);
        sent.map_err(|_| DropReason::SendFailed)
    }
}
