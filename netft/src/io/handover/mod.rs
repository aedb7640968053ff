//! Hand-over to another process: the socket between the two, packets with descriptors (unix(7)),
//! and the state that goes along.

mod state;
#[cfg(test)]
mod type_shape;

use std::{
    io,
    io::{IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use netft_proto::handover::{HANDOVER_VERSION, MAX_MESSAGE_LEN, PredecessorMessage};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg,
    sendmsg, socketpair,
};

pub(crate) use self::state::{
    ResumedSend, SavedAdapter, SavedHost, SavedPeerEntry, SavedRanks, SavedRouteEntry, SessionRank,
    SocketState, UnackedSend,
};

/// Most descriptors of one packet (`SCM_MAX_FD` of the kernel).
const MAX_DESCRIPTORS: usize = 253;
/// Content of a packet that only carries more descriptors.
const MORE_DESCRIPTORS: &[u8] = b"more";

/// The descriptors that make an adapter: it lives as long as somebody holds them.
#[derive(Debug)]
pub(crate) struct AdapterDescriptors {
    /// The lock file, locked.
    pub(crate) lock: OwnedFd,
    /// The queues of the device.
    pub(crate) queues: Vec<OwnedFd>,
}

/// An adapter that nobody serves: its descriptors, and the state of its sessions and routes.
#[derive(Debug)]
pub struct FrozenAdapter {
    /// Its lock and its queues.
    pub(crate) adapter: AdapterDescriptors,
    /// The state, in sealed memory.
    pub(crate) state: OwnedFd,
    /// The claim of the port; the lock again where there is none.
    pub(crate) port: OwnedFd,
    /// The UDP sockets.
    pub(crate) sockets: Vec<OwnedFd>,
}

impl FrozenAdapter {
    /// The message that goes with the descriptors.
    pub fn take_message(&self) -> PredecessorMessage {
        let count = |all: &[OwnedFd]| u16::try_from(all.len()).unwrap_or(u16::MAX);
        let (queues, sockets) = (count(&self.adapter.queues), count(&self.sockets));
        PredecessorMessage::Take { version: HANDOVER_VERSION, queues, sockets }
    }

    /// The descriptors in the order they are sent.
    pub fn to_borrowed(&self) -> Vec<BorrowedFd<'_>> {
        let first = [&self.adapter.lock, &self.state, &self.port];
        let all = first.into_iter().chain(&self.adapter.queues).chain(&self.sockets);
        all.map(AsFd::as_fd).collect()
    }

    /// Number of the descriptors that a message announces.
    pub const fn descriptor_count(message: PredecessorMessage) -> usize {
        let PredecessorMessage::Take { queues, sockets, .. } = message;
        3 + queues as usize + sockets as usize
    }

    /// Those that arrived with a message; `None` if they are not as many, or without a queue.
    pub fn from_received(message: PredecessorMessage, descriptors: Vec<OwnedFd>) -> Option<Self> {
        let PredecessorMessage::Take { queues, .. } = message;
        if queues == 0 || descriptors.len() != Self::descriptor_count(message) {
            return None;
        }
        let mut all = descriptors.into_iter();
        let (lock, state, port) = (all.next()?, all.next()?, all.next()?);
        let queues = all.by_ref().take(queues.into()).collect();
        Some(Self {
            adapter: AdapterDescriptors { lock, queues },
            state,
            port,
            sockets: all.collect(),
        })
    }
}

/// One end of the socket.
#[derive(Debug)]
pub struct HandoverSocket(OwnedFd);

impl HandoverSocket {
    /// Both ends: this process's, non-blocking, and the one for the other process.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn pair() -> io::Result<(Self, OwnedFd)> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (own, other) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        Ok((Self(own), other))
    }

    /// The end that this process was started with.
    pub const fn from_inherited(end: OwnedFd) -> Self {
        Self(end)
    }

    /// Sends a packet.
    ///
    /// # Errors
    /// The other process is gone, or there are too many descriptors.
    pub fn send_packet(&self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        if descriptors.len() > MAX_DESCRIPTORS {
            return Err(io::Error::other(format!("more than {MAX_DESCRIPTORS} descriptors")));
        }
        let mut space =
            [const { MaybeUninit::uninit() }; rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(io::Error::other("the descriptors do not fit"));
        }
        sendmsg(&self.0, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// Sends a message with descriptors, in as many packets as they need.
    ///
    /// # Errors
    /// The other process is gone.
    pub fn send_all(&self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let (first, rest) = descriptors.split_at(descriptors.len().min(MAX_DESCRIPTORS));
        self.send_packet(bytes, first)?;
        rest.chunks(MAX_DESCRIPTORS).try_for_each(|more| self.send_packet(MORE_DESCRIPTORS, more))
    }

    /// Receives a packet with its descriptors; `None` once the other process is gone.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] while there is none; a packet that is too long.
    pub fn receive_packet(&self) -> io::Result<Option<(Vec<u8>, Vec<OwnedFd>)>> {
        let mut bytes = vec![0; MAX_MESSAGE_LEN];
        let mut space =
            [const { MaybeUninit::uninit() }; rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        let received = match recvmsg(&self.0, &mut parts, &mut control, flags) {
            Ok(received) => received,
            Err(rustix::io::Errno::CONNRESET) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let mut descriptors = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(files) = message {
                descriptors.extend(files);
            }
        }
        if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
            return Err(io::Error::other("a packet that is too long"));
        }
        if received.bytes == 0 {
            return Ok(None);
        }
        bytes.truncate(received.bytes);
        Ok(Some((bytes, descriptors)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::{
        fs::File,
        io::{Read, Seek, Write},
    };

    use super::*;

    fn file(text: &str) -> OwnedFd {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file.into()
    }

    /// More sockets than one packet takes.
    #[test]
    fn any_number_of_descriptors_arrives_in_order() {
        let (one, other) = HandoverSocket::pair().unwrap();
        let other = HandoverSocket::from_inherited(other);
        let adapter = AdapterDescriptors { lock: file("lock"), queues: vec![file("q")] };
        let sockets = (0..600).map(|number| file(&format!("s{number}"))).collect();
        let frozen = FrozenAdapter { adapter, state: file("state"), port: file("port"), sockets };
        let sent = frozen.take_message();
        one.send_all(&sent.encode(), &frozen.to_borrowed()).unwrap();
        let mut received = Vec::new();
        let mut message = None;
        while received.len() < FrozenAdapter::descriptor_count(sent) {
            let (bytes, files) = other.receive_packet().unwrap().unwrap();
            let decoded = || PredecessorMessage::decode(&bytes).unwrap();
            message.get_or_insert_with(decoded);
            received.extend(files);
        }
        assert_eq!(message, Some(sent));
        let received = FrozenAdapter::from_received(sent, received).unwrap();
        let text = |descriptor: &OwnedFd| {
            let (mut file, mut text) = (File::from(descriptor.try_clone().unwrap()), String::new());
            file.rewind().unwrap();
            file.read_to_string(&mut text).unwrap();
            text
        };
        assert_eq!(text(&received.state) + &text(&received.port), "stateport");
        assert_eq!(received.sockets.len(), 600);
        assert!((0..600).all(|place| text(&received.sockets[place]) == format!("s{place}")));
        assert!(FrozenAdapter::from_received(sent, Vec::new()).is_none());
    }

    #[test]
    fn packets_keep_their_bounds_and_their_descriptors() {
        let (one, other) = HandoverSocket::pair().unwrap();
        let other = HandoverSocket::from_inherited(other);
        let error = other.receive_packet().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        let sent = [file("lock"), file("0"), file("1")];
        one.send_packet(b"ready 1", &[]).unwrap();
        one.send_packet(b"take 1", &sent.each_ref().map(AsFd::as_fd)).unwrap();
        drop(sent);
        drop(one);
        let (bytes, none) = other.receive_packet().unwrap().unwrap();
        assert_eq!((&bytes[..], none.len()), (&b"ready 1"[..], 0));
        let (_, descriptors) = other.receive_packet().unwrap().unwrap();
        let mut text = String::new();
        for descriptor in descriptors {
            let mut file = File::from(descriptor);
            file.rewind().unwrap();
            file.read_to_string(&mut text).unwrap();
        }
        assert_eq!(text, "lock01");
        assert!(other.receive_packet().unwrap().is_none(), "the other end is gone");
        assert!(other.send_packet(b"x", &[]).is_err());
    }

    #[test]
    fn a_packet_that_is_too_long_is_refused() {
        let (one, other) = HandoverSocket::pair().unwrap();
        one.send_packet(&[b'x'; MAX_MESSAGE_LEN + 1], &[]).unwrap();
        assert!(HandoverSocket::from_inherited(other).receive_packet().is_err());
    }
}
