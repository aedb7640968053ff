//! Replies nobody waits for.
//!
//! While all is well a reply changes nothing, and is what an idle node's worker wakes up for two
//! times of three. So while no data flows, requests say that their reply may wait
//! ([`LANE_PATIENT`]); it comes to a socket that nobody watches, with the moment of its arrival,
//! and is read here when the driver wakes up: at the latest to ask again, and before it judges who
//! is silent.
//!
//! [`LANE_PATIENT`]: netft_proto::wire::header::LANE_PATIENT

use std::{collections::BTreeMap, io::ErrorKind, net::SocketAddr, os::fd::AsFd};

use netft_proto::{
    ids::PeerId,
    time::Time,
    wire::{
        DropReason,
        header::{Header, Kind, OVERHEAD},
        heartbeat::{Heartbeat, MAX_LEN, Message},
    },
};

use crate::io::{
    clock,
    control::driver::{Driver, Known},
    datapath::FromWorker,
    fib::{Fib, SocketId},
    sys::{udp, udp::Received},
};

/// The most datagrams read from one socket at a time; the others come with the next wake-up.
const MAX_READ: u32 = 1024;
/// Bytes of the longest heartbeat, sealed, and more: what is longer is none.
const INPUT_LEN: usize = 1024;
const _: () = assert!(INPUT_LEN > OVERHEAD + MAX_LEN);

/// Where replies may wait.
#[derive(Default)]
pub(super) struct Late {
    /// How many replies to each local address are not read. One that was lost stays counted, and
    /// costs a look into an empty socket.
    expected: BTreeMap<SocketAddr, u32>,
    /// When was looked last: what waits came since, whatever the wall clock says.
    looked: Time,
}

impl Late {
    /// A patient request left from `local`.
    pub(super) fn expect(&mut self, local: SocketAddr) {
        let expected = self.expected.entry(local).or_default();
        *expected = (*expected + 1).min(MAX_READ);
    }
}

impl Driver {
    /// Whether the reply to a heartbeat may wait until the driver is awake.
    pub(super) fn can_wait(&self, peer: PeerId, route: &Known, heartbeat: &Heartbeat) -> bool {
        heartbeat.message == Message::Request
            && self.pace.is_idle()
            && self.engine.form(peer).is_some()
            && self.sockets.late_at(route.plan.spec.real_local).is_some()
    }

    /// Takes in the replies that wait.
    pub(super) fn hear_late(&mut self) {
        if self.late.expected.is_empty() {
            return;
        }
        let looked = std::mem::replace(&mut self.late.looked, clock::now());
        let fib = self.fib.load_full();
        for (local, expected) in std::mem::take(&mut self.late.expected) {
            let left = self.hear_late_at(local, expected, looked, &fib);
            if left > 0 {
                self.late.expected.insert(local, left);
            }
        }
    }

    /// Reads what waits at a local address, where so many replies are expected. Returns how many
    /// are still.
    fn hear_late_at(
        &mut self,
        local: SocketAddr,
        mut expected: u32,
        looked: Time,
        fib: &Fib,
    ) -> u32 {
        let mut input = [0; INPUT_LEN];
        for _ in 0..MAX_READ {
            let first = self.sockets.at(local).first().map(|first| first.id);
            let (Some(socket), Some(first)) = (self.sockets.late_at(local), first) else {
                return 0;
            };
            let heard = match udp::recv(socket.as_fd(), &mut input) {
                Ok(None) => break,
                Ok(Some(received)) => {
                    let at = received.at.map_or_else(clock::now, clock::then).max(looked);
                    heartbeat(fib, first, &received, &mut input, at)
                }
                Err(error) if error.kind() == ErrorKind::InvalidData => Err(DropReason::Malformed),
                Err(_) => break,
            };
            match heard {
                Ok(heard) => {
                    self.count_received();
                    self.on_worker(heard);
                    expected -= 1;
                }
                Err(reason) => self.count(reason),
            }
            if expected == 0 {
                break;
            }
        }
        expected
    }
}

/// What a datagram says that came to the address of the socket `first`.
fn heartbeat(
    fib: &Fib,
    first: SocketId,
    received: &Received,
    input: &mut [u8],
    received_at: Time,
) -> Result<FromWorker, DropReason> {
    let frame = &mut input[..received.len];
    let header = Header::decode(frame)?;
    if header.kind != Kind::Heartbeat {
        return Err(DropReason::Unsupported);
    }
    let session = fib.sessions.get(&header.session).ok_or(DropReason::UnknownSession)?;
    let plaintext = session.open(&header, frame)?.to_vec();
    let peer = session.peer();
    match fib.routes.get(&(first, received.from)) {
        Some((owner, route)) if *owner == peer => Ok(FromWorker::Heartbeat {
            peer,
            route: *route,
            session_boot_id: session.boot_id(),
            plaintext,
            received_at,
            answered: false,
        }),
        _ => Err(DropReason::Misrouted),
    }
}
