//! Inspection of an adapter's incoming packets: every length and every checksum.
//!
//! A checksum is either complete and covers the whole packet, or marked by the kernel as partial
//! and covers the pseudo-header (a network card would complete it). Implemented independently of
//! netft's own checksum code, which it verifies.

use std::{
    os::fd::AsFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    thread::JoinHandle,
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::{RecvFlags, recv},
};
use socket2::Socket;

use crate::{error::LabError, netns::Netns, sys};

/// The kernel's `virtio_net_hdr` in front of every packet.
const VNET_HEADER_LEN: usize = 10;
/// Flag of a partial checksum in it.
const NEEDS_CSUM: u8 = 1;
/// Bytes of UDP payload kept at most.
const MAX_KEPT_BYTES: usize = 64 << 20;
/// Errors kept at most.
const MAX_ERRORS_KEPT: usize = 5;
/// Interval at which the inspector checks whether it should stop.
const STOP_POLL_INTERVAL: Duration = Duration::from_millis(20);

const PROTO_ICMP: u8 = 1;
const PROTO_TCP: u8 = 6;
const PROTO_UDP: u8 = 17;
const PROTO_ICMPV6: u8 = 58;

/// Result of an inspection.
#[derive(Clone, Debug, Default)]
pub struct ChecksumTally {
    /// Packets with a finished checksum.
    pub finished: u64,
    /// Packets with an unfinished one.
    pub unfinished: u64,
    /// Of these, packets merged from several.
    pub merged: u64,
    /// Packets of anything that is not TCP, UDP or ICMP.
    pub others: u64,
    /// Packets with something wrong.
    pub wrong: u64,
    /// The first errors.
    pub errors: Vec<String>,
    /// The payloads of UDP datagrams, merged ones split, up to 64 MiB.
    pub datagrams: Vec<Vec<u8>>,
    kept_bytes: usize,
}

/// A running inspector.
#[derive(Debug)]
pub struct ChecksumInspector {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<ChecksumTally>,
}

impl ChecksumInspector {
    /// Inspects packets received on the TUN device `adapter` of `netns`, as many as it has time
    /// for.
    ///
    /// # Errors
    /// When there is no such interface, or the kernel refuses packet sockets.
    pub fn start(netns: &Netns, adapter: &str) -> Result<Self, LabError> {
        let failed = LabError::io_error(format!("inspect {adapter}"));
        let socket = netns.run_inside(|| sys::relay_socket(adapter)).map_err(failed)?;
        // Best effort: the limit of the machine applies.
        let _ = socket.set_recv_buffer_size(8 << 20);
        let stop = Arc::new(AtomicBool::new(false));
        let thread = thread::spawn({
            let stop = Arc::clone(&stop);
            move || inspect_frames(&socket, &stop)
        });
        Ok(Self { stop, thread })
    }

    /// Stops; returns the result.
    ///
    /// # Panics
    /// When the inspector itself panicked.
    pub fn finish(self) -> ChecksumTally {
        self.stop.store(true, Relaxed);
        match self.thread.join() {
            Ok(tally) => tally,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

fn inspect_frames(socket: &Socket, stop: &AtomicBool) -> ChecksumTally {
    let mut tally = ChecksumTally::default();
    let mut frame = vec![0; VNET_HEADER_LEN + (1 << 17)];
    while !stop.load(Relaxed) {
        let wait = Timespec::try_from(STOP_POLL_INTERVAL).unwrap_or_default();
        // An interrupted wait is a short one.
        let _ = poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&wait));
        while let Ok((length, _)) = recv(socket.as_fd(), &mut *frame, RecvFlags::DONTWAIT) {
            tally.count_frame(&frame[..length]);
        }
    }
    tally
}

impl ChecksumTally {
    fn count_frame(&mut self, frame: &[u8]) {
        if let Err(what) = self.check_frame(frame) {
            self.wrong += 1;
            if self.errors.len() < MAX_ERRORS_KEPT {
                let head = &frame[..frame.len().min(VNET_HEADER_LEN + 60)];
                self.errors.push(format!("{what}: {} bytes, {head:02x?}", frame.len()));
            }
        }
    }

    fn check_frame(&mut self, frame: &[u8]) -> Result<(), &'static str> {
        let (meta, packet) =
            frame.split_first_chunk::<VNET_HEADER_LEN>().ok_or("no header of the kernel")?;
        let [flags, kind, ..] = *meta;
        let field = |at: usize| usize::from(u16::from_ne_bytes([meta[at], meta[at + 1]]));
        let (segment, start, offset) = (field(4), field(6), field(8));
        let PacketHeaders { transport_offset: at, protocol, pseudo_sum: pseudo } =
            parse_headers(packet)?;
        let body = &packet[at..];
        let pseudo = checksum_add(pseudo, &(body.len() as u32).to_be_bytes());
        let place = match protocol {
            PROTO_TCP => 16,
            PROTO_UDP => 6,
            PROTO_ICMP | PROTO_ICMPV6 => 2,
            _ => {
                self.others += 1;
                return Ok(());
            }
        };
        let stored = body.get(place..place + 2).ok_or("a header that is cut off")?;
        if flags & NEEDS_CSUM != 0 {
            if (start, offset) != (at, place) {
                return Err("an unfinished checksum in the wrong place");
            }
            if checksum_fold(pseudo).to_be_bytes() != *stored {
                return Err("an unfinished checksum that is wrong");
            }
            self.unfinished += 1;
            self.merged += u64::from(kind != 0);
        } else {
            if kind != 0 {
                return Err("a super-packet with a finished checksum");
            }
            let pseudo = if protocol == PROTO_ICMP { 0 } else { pseudo };
            let none = protocol == PROTO_UDP && stored == [0, 0] && packet[0] >> 4 == 4;
            if !none && checksum_fold(checksum_add(pseudo, body)) != u16::MAX {
                return Err("a checksum that is wrong");
            }
            self.finished += 1;
        }
        if protocol == PROTO_UDP {
            let size = if kind == 0 { usize::MAX } else { segment };
            let payload = body.get(8..).ok_or("a UDP header that is cut off")?;
            for datagram in payload.chunks(size) {
                if self.kept_bytes + datagram.len() <= MAX_KEPT_BYTES {
                    self.kept_bytes += datagram.len();
                    self.datagrams.push(datagram.to_vec());
                }
            }
        }
        Ok(())
    }
}

/// Headers before the transport header.
struct PacketHeaders {
    transport_offset: usize,
    protocol: u8,
    /// The sum of the pseudo-header without the length.
    pseudo_sum: u64,
}

fn parse_headers(packet: &[u8]) -> Result<PacketHeaders, &'static str> {
    let be16 = |at: usize| usize::from(u16::from_be_bytes([packet[at], packet[at + 1]]));
    match packet.first().map(|first| first >> 4) {
        Some(4) if packet.len() >= 20 => {
            let at = usize::from(packet[0] & 15) * 4;
            if be16(2) != packet.len() || at < 20 || at > packet.len() {
                return Err("an IPv4 length that is wrong");
            }
            if checksum_fold(checksum_add(0, &packet[..at])) != u16::MAX {
                return Err("an IPv4 header checksum that is wrong");
            }
            // A fragment has no whole checksum of its own.
            let fragment = be16(6) & 0x3fff != 0;
            let protocol = if fragment { u8::MAX } else { packet[9] };
            Ok(PacketHeaders {
                transport_offset: at,
                protocol,
                pseudo_sum: checksum_add(protocol.into(), &packet[12..20]),
            })
        }
        Some(6) if packet.len() >= 40 => {
            if be16(4) + 40 != packet.len() {
                return Err("an IPv6 length that is wrong");
            }
            let protocol = packet[6];
            Ok(PacketHeaders {
                transport_offset: 40,
                protocol,
                pseudo_sum: checksum_add(protocol.into(), &packet[8..40]),
            })
        }
        _ => Err("neither IPv4 nor IPv6"),
    }
}

/// Adds 16-bit words, big-endian; an odd last byte counts as the high one.
fn checksum_add(start: u64, bytes: &[u8]) -> u64 {
    let mut words = bytes.chunks_exact(2);
    let mut total = start;
    for word in words.by_ref() {
        total += u64::from(u16::from_be_bytes([word[0], word[1]]));
    }
    total + words.remainder().first().map_or(0, |last| u64::from(*last) << 8)
}

/// To 16 bits in ones' complement.
fn checksum_fold(mut total: u64) -> u16 {
    while total > u64::from(u16::MAX) {
        total = (total & 0xffff) + (total >> 16);
    }
    total as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A UDP datagram as RFC 768 has it, with the checksum left out.
    fn datagram(payload: &[u8]) -> Vec<u8> {
        let mut packet =
            vec![0x45, 0, 0, (28 + payload.len()) as u8, 0, 1, 0x40, 0, 64, PROTO_UDP, 0, 0];
        packet.extend_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2, 0, 7, 0, 9, 0]);
        packet.extend_from_slice(&[(8 + payload.len()) as u8, 0, 0]);
        packet.extend_from_slice(payload);
        let head = !checksum_fold(checksum_add(0, &packet[..20]));
        packet[10..12].copy_from_slice(&head.to_be_bytes());
        packet
    }

    fn pseudo(packet: &[u8]) -> u64 {
        checksum_add(u64::from(PROTO_UDP), &packet[12..20]) + (packet.len() - 20) as u64
    }

    fn seen(meta: [u8; VNET_HEADER_LEN], packet: &[u8]) -> ChecksumTally {
        let mut tally = ChecksumTally::default();
        tally.count_frame(&[&meta, packet].concat());
        tally
    }

    #[test]
    fn right_checksums_pass_and_one_changed_bit_does_not() {
        let mut packet = datagram(b"odd");
        let finished = !checksum_fold(checksum_add(pseudo(&packet), &packet[20..]));
        packet[26..28].copy_from_slice(&finished.to_be_bytes());
        let tally = seen([0; VNET_HEADER_LEN], &packet);
        assert_eq!((tally.finished, tally.wrong), (1, 0), "{:?}", tally.errors);
        assert_eq!(tally.datagrams, [b"odd".to_vec()]);
        for bit in 0..packet.len() * 8 {
            let mut broken = packet.clone();
            broken[bit / 8] ^= 1 << (bit % 8);
            let tally = seen([0; VNET_HEADER_LEN], &broken);
            // Other versions, protocols and fragments have no such checksum to be wrong.
            assert_eq!(tally.wrong + tally.others, 1, "bit {bit}");
        }
    }

    #[test]
    fn an_unfinished_checksum_is_that_of_the_pseudo_header() {
        let mut packet = datagram(b"twoone");
        let unfinished = checksum_fold(pseudo(&packet));
        packet[26..28].copy_from_slice(&unfinished.to_be_bytes());
        let mut meta = [NEEDS_CSUM, 5, 28, 0, 3, 0, 20, 0, 6, 0];
        let tally = seen(meta, &packet);
        assert_eq!((tally.unfinished, tally.merged, tally.wrong), (1, 1, 0));
        assert_eq!(tally.datagrams, [b"two".to_vec(), b"one".to_vec()]);
        assert_eq!(seen([0; VNET_HEADER_LEN], &packet).wrong, 1, "it is not finished");
        meta[6] = 24;
        assert_eq!(seen(meta, &packet).wrong, 1, "the kernel would finish it elsewhere");
        packet[27] ^= 1;
        meta[6] = 20;
        assert_eq!(seen(meta, &packet).wrong, 1);
    }
}
