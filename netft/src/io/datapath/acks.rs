//! Which acknowledgements this worker owes; when and where they go is decided by [`Debt`].

use std::{net::SocketAddr, sync::Arc, time::Duration};

use netft_proto::{
    ids::RouteId,
    loss_detection::{Debt, Question, STALL_TOLD},
    session::Session,
    time::Time,
    wire::{ack::Ack, header::Kind},
};

use crate::io::{
    counters::Counters,
    datapath::reply_path::Way,
    fib::{Fib, Path, SocketId},
    quic::transport::Class,
};

/// A way back.
#[derive(Clone, Copy)]
pub(super) struct Back {
    /// The route, if data came on one. Each worker has a socket of its own for it.
    pub(super) route: Option<RouteId>,
    pub(super) socket: SocketId,
    pub(super) to: SocketAddr,
}

impl PartialEq for Back {
    fn eq(&self, other: &Self) -> bool {
        match (self.route, other.route) {
            (None, None) => (self.socket, self.to) == (other.socket, other.to),
            (one, other) => one == other,
        }
    }
}

/// A peer's question.
struct Asked {
    session: Arc<Session>,
    number: u16,
    back: Back,
    /// The sockets have been looked at since it came.
    looked: bool,
}

/// The debts of one worker, at most one per session heard lately, and the last question of each.
#[derive(Default)]
pub(super) struct Acks {
    due: Vec<(Arc<Session>, Debt<Back>)>,
    asked: Vec<Asked>,
    frame: Vec<u8>,
    /// This worker's number: what it says goes to the worker that heard its data.
    lane: u8,
    /// How long this worker was not scheduled last, and when it was again.
    stalled: Option<(Duration, Time)>,
}

impl Acks {
    /// No debts of the worker of this number.
    pub(super) fn new(lane: u8) -> Self {
        Self { lane, ..Self::default() }
    }

    /// Notes data of a session.
    pub(super) fn note(&mut self, session: &Arc<Session>, frames: u64, back: Back, now: Time) {
        self.debt(session, back, now).add(frames, back);
    }

    /// Notes data of a session that was here before.
    pub(super) fn repeated(&mut self, session: &Arc<Session>, back: Back, now: Time) {
        self.debt(session, back, now).repeat(back);
    }

    /// Notes a question. It is answered when a turn that began later leaves nothing in the
    /// sockets: what was sent before it, and came to this worker, has been taken in by then.
    pub(super) fn asked(&mut self, session: &Arc<Session>, number: u16, back: Back) {
        let local = session.local();
        self.asked.retain(|asked| asked.session.local() != local);
        self.asked.push(Asked { session: session.clone(), number, back, looked: false });
    }

    /// Asks a peer what arrived.
    pub(super) fn ask(
        &mut self,
        session: &Session,
        question: Question,
        path: &Path,
        counters: &Counters,
    ) {
        let mut ack = session.acknowledgement().unwrap_or_default();
        ack.asks = question.number;
        send((session, self.lane), &ack, &Way::of(path), &mut self.frame, counters);
    }

    /// Notes that this worker was not scheduled.
    pub(super) fn stalled(&mut self, length: Duration, now: Time) {
        self.stalled = Some((length, now));
    }

    /// Pays what is due. `drained`: the turn left nothing in the sockets.
    pub(super) fn pay(&mut self, fib: &Fib, counters: &Counters, now: Time, drained: bool) {
        let stalled = self.stalled.filter(|(_, ended)| now.since(*ended) < STALL_TOLD);
        let stalled = stalled.map_or(0, |(length, _)| length.as_millis());
        let stalled_ms = u16::try_from(stalled).unwrap_or(u16::MAX);
        let Self { due, asked, frame, lane, .. } = self;
        let mut put = |session: &Session, back: Back, answers| {
            let Some(socket) = fib.sockets.get(&back.socket) else { return };
            let ack = session.acknowledgement().or((answers != 0).then(Ack::default));
            let Some(ack) = ack else { return };
            let ack = Ack { stalled_ms, answers, ..ack };
            let carrier = back.route.and_then(|route| fib.carrier(route));
            let way = Way { carrier, socket: &socket.fd, to: back.to };
            send((session, *lane), &ack, &way, frame, counters);
        };
        due.retain(|(session, debt)| {
            let due = debt.due(now);
            if due {
                ways(session, debt, fib).for_each(|back| put(session, back, 0));
            }
            !due
        });
        asked.retain_mut(|asked| {
            let due = drained && std::mem::replace(&mut asked.looked, true);
            if due {
                put(&asked.session, asked.back, asked.number);
            }
            !due
        });
    }

    /// How long the oldest debt may still wait.
    pub(super) fn wait(&self, now: Time) -> Option<Duration> {
        if !self.asked.is_empty() {
            return Some(Duration::ZERO);
        }
        self.due.iter().map(|(_, debt)| debt.wait(now)).min()
    }

    fn debt(&mut self, session: &Arc<Session>, back: Back, now: Time) -> &mut Debt<Back> {
        let local = session.local();
        let place = self.due.iter().position(|(known, _)| known.local() == local);
        let place = place.unwrap_or_else(|| {
            self.due.push((session.clone(), Debt::new(back, now)));
            self.due.len() - 1
        });
        &mut self.due[place].1
    }
}

fn ways(session: &Session, debt: &Debt<Back>, fib: &Fib) -> impl Iterator<Item = Back> {
    let entry = fib.peers.iter().find(|entry| entry.peer == session.peer());
    let back = |path: &Arc<Path>| Back {
        route: Some(path.route),
        socket: path.socket.id,
        to: path.remote,
    };
    let own = entry.and_then(|entry| entry.active.as_ref()).map(back);
    let up = move |way: Back| {
        let paths = entry.map(|entry| entry.active.iter().chain(&entry.backups));
        paths.into_iter().flatten().any(|path| Some(path.route) == way.route)
    };
    debt.ways(up, own)
}

fn send(
    (session, lane): (&Session, u8),
    ack: &Ack,
    way: &Way<'_>,
    frame: &mut Vec<u8>,
    counters: &Counters,
) {
    if let Err(reason) = session.message(Kind::Ack, lane, frame, |frame| ack.encode(frame)) {
        return counters.count(reason);
    }
    // Control traffic: a lost acknowledgement would cost a resend.
    match way.send(frame, Class::Control) {
        Ok(()) => Counters::add(&counters.acks_sent, 1),
        Err(reason) => counters.count(reason),
    }
}
