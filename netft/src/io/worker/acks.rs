//! Which acknowledgements this worker owes, and when.
//!
//! Data is acknowledged after [`EVERY`] frames or [`ACK_DELAY`], on the route it came on last: the
//! only one that is known to work at this moment.

use std::{net::SocketAddr, os::fd::AsFd, sync::Arc, time::Duration};

use crate::{
    io::{
        counters::Counters,
        fib::{Fib, SocketId},
        sys::udp,
    },
    route::recovery::ACK_DELAY,
    time::Time,
    wire::{
        DropReason,
        header::{HEADER_LEN, Kind, TAG_LEN},
        session::Session,
    },
};

/// Frames that are acknowledged at once.
const EVERY: u64 = 256;

/// One session's debt.
struct Due {
    session: Arc<Session>,
    frames: u64,
    since: Time,
    socket: SocketId,
    to: SocketAddr,
}

/// The debts of one worker, at most one per session heard lately.
#[derive(Default)]
pub(super) struct Acks {
    due: Vec<Due>,
    frame: Vec<u8>,
}

impl Acks {
    /// Notes data of a session.
    pub(super) fn note(
        &mut self,
        session: &Arc<Session>,
        frames: u64,
        (socket, to): (SocketId, SocketAddr),
        now: Time,
    ) {
        let known = self.due.iter_mut().find(|due| due.session.local() == session.local());
        match known {
            Some(due) => {
                due.frames += frames;
                (due.socket, due.to) = (socket, to);
            }
            None => {
                self.due.push(Due { session: session.clone(), frames, since: now, socket, to });
            }
        }
    }

    /// Pays what is due.
    pub(super) fn pay(&mut self, fib: &Fib, counters: &Counters, now: Time) {
        let frame = &mut self.frame;
        self.due.retain(|due| {
            if due.frames < EVERY && now.since(due.since) < ACK_DELAY {
                return true;
            }
            send(due, frame, fib, counters);
            false
        });
    }

    /// How long the oldest debt may still wait.
    pub(super) fn wait(&self, now: Time) -> Option<Duration> {
        let oldest = self.due.iter().map(|due| due.since).min()?;
        Some(ACK_DELAY.saturating_sub(now.since(oldest)))
    }
}

fn send(due: &Due, frame: &mut Vec<u8>, fib: &Fib, counters: &Counters) {
    let Some(socket) = fib.sockets.get(&due.socket) else { return };
    let Some(ack) = due.session.acknowledgement() else { return };
    frame.clear();
    frame.resize(HEADER_LEN, 0);
    ack.encode(frame);
    frame.resize(frame.len() + TAG_LEN, 0);
    let sealed =
        due.session.reserve(1).and_then(|counter| due.session.seal(Kind::Ack, 0, counter, frame));
    if let Err(reason) = sealed {
        return counters.count(reason);
    }
    // Control traffic: a lost acknowledgement would cost a resend.
    match udp::send_one(socket.fd.as_fd(), &due.to, frame, Some(udp::TOS_CONTROL)) {
        Ok(()) => Counters::add(&counters.acks_sent, 1),
        Err(_) => counters.count(DropReason::SendFailed),
    }
}
