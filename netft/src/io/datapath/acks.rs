//! Which acknowledgements this worker owes; when and where they go is decided by [`AckSchedule`].

use std::{net::SocketAddr, sync::Arc, time::Duration};

use netft_proto::{
    ids::RouteId,
    loss_detection::{AckSchedule, ImmediateAckRequest, STALL_REPORT_PERIOD},
    session::Session,
    time::Time,
    wire::{ack::Ack, header::FrameKind},
};

use crate::io::{
    counters::Counters, datapath::reply_path::ReplyPath, fib::Fib, path::Path,
    quic::transport::FrameClass, socket::SocketId,
};

/// A way back.
#[derive(Clone, Copy)]
pub(super) struct ReplyDestination {
    /// The route, if data came on one. Each worker has a socket of its own for it.
    pub(super) route: Option<RouteId>,
    pub(super) socket: SocketId,
    pub(super) to: SocketAddr,
}

impl PartialEq for ReplyDestination {
    fn eq(&self, other: &Self) -> bool {
        match (self.route, other.route) {
            (None, None) => (self.socket, self.to) == (other.socket, other.to),
            (one, other) => one == other,
        }
    }
}

/// A peer's question.
struct PendingImmediateAck {
    session: Arc<Session>,
    number: u16,
    reply_to: ReplyDestination,
    /// The sockets have been looked at since it came.
    sockets_polled: bool,
}

/// The debts of one worker, at most one per session heard lately, and the last question of each.
#[derive(Default)]
pub(super) struct AckSender {
    schedules: Vec<(Arc<Session>, AckSchedule<ReplyDestination>)>,
    immediate_acks: Vec<PendingImmediateAck>,
    frame: Vec<u8>,
    /// This worker's number: what it says goes to the worker that heard its data.
    queue_id: u8,
    /// How long this worker was not scheduled last, and when it was again.
    last_stall: Option<(Duration, Time)>,
}

impl AckSender {
    /// No debts of the worker of this number.
    pub(super) fn new(queue_id: u8) -> Self {
        Self { queue_id, ..Self::default() }
    }

    /// Notes data of a session.
    pub(super) fn on_data(
        &mut self,
        session: &Arc<Session>,
        frames: u64,
        reply_to: ReplyDestination,
        now: Time,
    ) {
        self.schedule_of(session, reply_to, now).on_new_data(frames, reply_to);
    }

    /// Notes data of a session that was here before.
    pub(super) fn on_duplicate_data(
        &mut self,
        session: &Arc<Session>,
        reply_to: ReplyDestination,
        now: Time,
    ) {
        self.schedule_of(session, reply_to, now).on_duplicate(reply_to);
    }

    /// Notes a question. It is answered when a turn that began later leaves nothing in the
    /// sockets: what was sent before it, and came to this worker, has been taken in by then.
    pub(super) fn on_immediate_ack_request(
        &mut self,
        session: &Arc<Session>,
        number: u16,
        reply_to: ReplyDestination,
    ) {
        let local = session.local_id();
        self.immediate_acks.retain(|asked| asked.session.local_id() != local);
        self.immediate_acks.push(PendingImmediateAck {
            session: session.clone(),
            number,
            reply_to,
            sockets_polled: false,
        });
    }

    /// Asks a peer what arrived.
    pub(super) fn request_immediate_ack(
        &mut self,
        session: &Session,
        question: ImmediateAckRequest,
        path: &Path,
        counters: &Counters,
    ) {
        let mut ack = session.build_ack().unwrap_or_default();
        ack.immediate_ack_request = question.number;
        send_ack(
            (session, self.queue_id),
            &ack,
            &ReplyPath::from_path(path),
            &mut self.frame,
            counters,
        );
    }

    /// Notes that this worker was not scheduled.
    pub(super) fn record_stall(&mut self, length: Duration, now: Time) {
        self.last_stall = Some((length, now));
    }

    /// Pays what is due. `drained`: the turn left nothing in the sockets.
    pub(super) fn send_due_acks(
        &mut self,
        fib: &Fib,
        counters: &Counters,
        now: Time,
        drained: bool,
    ) {
        let stalled = self.last_stall.filter(|(_, ended)| now.since(*ended) < STALL_REPORT_PERIOD);
        let stalled = stalled.map_or(0, |(length, _)| length.as_millis());
        let stalled_ms = u16::try_from(stalled).unwrap_or(u16::MAX);
        let Self { schedules: due, immediate_acks: asked, frame, queue_id: lane, .. } = self;
        let mut put = |session: &Session, reply_to: ReplyDestination, answers| {
            let Some(socket) = fib.sockets.get(&reply_to.socket) else { return };
            let ack = session.build_ack().or((answers != 0).then(Ack::default));
            let Some(ack) = ack else { return };
            let ack = Ack { stalled_ms, immediate_ack_reply: answers, ..ack };
            let transport = reply_to.route.and_then(|route| fib.transport_of(route));
            let reply_path = ReplyPath { transport, socket: &socket.fd, to: reply_to.to };
            send_ack((session, *lane), &ack, &reply_path, frame, counters);
        };
        due.retain(|(session, debt)| {
            let due = debt.is_due(now);
            if due {
                reply_destinations(session, debt, fib).for_each(|back| put(session, back, 0));
            }
            !due
        });
        asked.retain_mut(|asked| {
            let due = drained && std::mem::replace(&mut asked.sockets_polled, true);
            if due {
                put(&asked.session, asked.reply_to, asked.number);
            }
            !due
        });
    }

    /// How long the oldest debt may still wait.
    pub(super) fn ack_timeout(&self, now: Time) -> Option<Duration> {
        if !self.immediate_acks.is_empty() {
            return Some(Duration::ZERO);
        }
        self.schedules.iter().map(|(_, debt)| debt.until_due(now)).min()
    }

    fn schedule_of(
        &mut self,
        session: &Arc<Session>,
        reply_to: ReplyDestination,
        now: Time,
    ) -> &mut AckSchedule<ReplyDestination> {
        let local = session.local_id();
        let place = self.schedules.iter().position(|(known, _)| known.local_id() == local);
        let place = place.unwrap_or_else(|| {
            self.schedules.push((session.clone(), AckSchedule::new(reply_to, now)));
            self.schedules.len() - 1
        });
        &mut self.schedules[place].1
    }
}

fn reply_destinations(
    session: &Session,
    debt: &AckSchedule<ReplyDestination>,
    fib: &Fib,
) -> impl Iterator<Item = ReplyDestination> {
    let entry = fib.peers.iter().find(|entry| entry.peer == session.peer());
    let destination = |path: &Arc<Path>| ReplyDestination {
        route: Some(path.route),
        socket: path.socket.id,
        to: path.remote,
    };
    let own = entry.and_then(|entry| entry.active.as_ref()).map(destination);
    let up = move |destination: ReplyDestination| {
        let paths = entry.map(|entry| entry.active.iter().chain(&entry.backups));
        paths.into_iter().flatten().any(|path| Some(path.route) == destination.route)
    };
    debt.return_paths(up, own)
}

fn send_ack(
    (session, queue_id): (&Session, u8),
    ack: &Ack,
    reply_path: &ReplyPath<'_>,
    frame: &mut Vec<u8>,
    counters: &Counters,
) {
    if let Err(reason) =
        session.seal_message(FrameKind::Ack, queue_id, frame, |frame| ack.encode(frame))
    {
        return counters.count_drop(reason);
    }
    // Control traffic: a lost acknowledgement would cost a resend.
    match reply_path.send_frame(frame, FrameClass::Control) {
        Ok(()) => Counters::add(&counters.acks_sent, 1),
        Err(reason) => counters.count_drop(reason),
    }
}
