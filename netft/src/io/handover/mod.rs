//! The socket between the two processes of a hand-over: packets with descriptors (unix(7)).

use std::{
    io,
    io::{IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use netft_proto::handover::MAX_MESSAGE_LEN;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg,
    sendmsg, socketpair,
};

/// Most descriptors of one packet (`SCM_MAX_FD` of the kernel).
const MAX_DESCRIPTORS: usize = 253;

/// The descriptors that make an adapter: it lives as long as somebody holds them.
#[derive(Debug)]
pub struct AdapterDescriptors {
    /// The lock file, locked.
    pub lock: OwnedFd,
    /// The queues of the device.
    pub queues: Vec<OwnedFd>,
}

impl AdapterDescriptors {
    /// The descriptors in the order they are sent.
    pub fn to_borrowed(&self) -> Vec<BorrowedFd<'_>> {
        [&self.lock].into_iter().chain(&self.queues).map(AsFd::as_fd).collect()
    }

    /// Those that arrived; `None` without a lock and a queue.
    pub fn from_received(descriptors: Vec<OwnedFd>) -> Option<Self> {
        let mut all = descriptors.into_iter();
        let lock = all.next()?;
        let queues: Vec<_> = all.collect();
        (!queues.is_empty()).then_some(Self { lock, queues })
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

    #[test]
    fn packets_keep_their_bounds_and_their_descriptors() {
        let (one, other) = HandoverSocket::pair().unwrap();
        let other = HandoverSocket::from_inherited(other);
        let error = other.receive_packet().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        let sent = AdapterDescriptors { lock: file("lock"), queues: vec![file("0"), file("1")] };
        one.send_packet(b"ready 1", &[]).unwrap();
        one.send_packet(b"take 1", &sent.to_borrowed()).unwrap();
        drop(sent);
        drop(one);
        let (bytes, none) = other.receive_packet().unwrap().unwrap();
        assert_eq!((&bytes[..], none.len()), (&b"ready 1"[..], 0));
        let (_, descriptors) = other.receive_packet().unwrap().unwrap();
        let received = AdapterDescriptors::from_received(descriptors).unwrap();
        let mut text = String::new();
        for descriptor in [received.lock].into_iter().chain(received.queues) {
            let mut file = File::from(descriptor);
            file.rewind().unwrap();
            file.read_to_string(&mut text).unwrap();
        }
        assert_eq!(text, "lock01");
        assert!(other.receive_packet().unwrap().is_none(), "the other end is gone");
        assert!(other.send_packet(b"x", &[]).is_err());
        assert!(AdapterDescriptors::from_received(Vec::new()).is_none());
    }

    #[test]
    fn a_packet_that_is_too_long_is_refused() {
        let (one, other) = HandoverSocket::pair().unwrap();
        one.send_packet(&[b'x'; MAX_MESSAGE_LEN + 1], &[]).unwrap();
        assert!(HandoverSocket::from_inherited(other).receive_packet().is_err());
    }
}
