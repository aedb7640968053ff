//! The acknowledgements that this worker owes. When and where they are sent is decided by
//! [`AckSchedule`].

use std::{net::SocketAddr, sync::Arc, time::Duration};

use netft_proto::{
    ids::RouteId,
    loss_detection::{AckSchedule, ImmediateAckRequest, STALL_REPORT_PERIOD},
    session::Session,
    time::Time,
    wire::{ack::Ack, header::FrameKind},
};

use crate::io::{
    clock, counters::Counters, datapath::reply_path::ReplyPath, fib::Fib, path::Path,
    quic::transport::FrameClass, socket::SocketId,
};

/// The return path of an acknowledgement.
#[derive(Clone, Copy)]
pub(super) struct ReplyDestination {
    /// The route, if the data came on one. Each worker has its own socket for it.
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

/// The data frames of one batch, as far as acknowledgements follow from them.
#[derive(Default)]
pub(super) struct ReceivedData<'l> {
    /// Frames and their highest counter, of the two sessions a batch may mix at a rekey.
    by_session: [Option<(&'l Arc<Session>, u64, u64)>; 2],
    /// A session of which data arrived a second time.
    pub(super) duplicate_session: Option<&'l Arc<Session>>,
    /// Frames of it that did.
    pub(super) duplicate_frames: u64,
    /// The last request for an immediate acknowledgement, and its session.
    pub(super) immediate_ack: Option<(&'l Arc<Session>, u16)>,
}

impl<'l> ReceivedData<'l> {
    /// Notes an authentic data frame.
    #[inline]
    pub(super) fn record_data(&mut self, session: &'l Arc<Session>, counter: u64) {
        for slot in &mut self.by_session {
            match slot {
                Some((known, frames, highest)) if known.local_id() == session.local_id() => {
                    *frames += 1;
                    *highest = (*highest).max(counter);
                    return;
                }
                Some(_) => {}
                None => {
                    *slot = Some((session, 1, counter));
                    return;
                }
            }
        }
    }

    /// Counts the frames by the route they came on.
    fn record_arrivals(&self, route: RouteId) {
        for (session, frames, _) in self.by_session.iter().flatten() {
            session.record_arrivals(route, *frames);
        }
        if let Some(session) = self.duplicate_session {
            session.record_arrivals(route, self.duplicate_frames);
        }
    }

    /// Returns whether no acknowledgement follows.
    pub(super) fn is_empty(&self) -> bool {
        self.by_session[0].is_none()
            && self.duplicate_session.is_none()
            && self.immediate_ack.is_none()
    }
}

/// A peer's request for an immediate acknowledgement.
struct PendingImmediateAck {
    session: Arc<Session>,
    number: u16,
    reply_to: ReplyDestination,
    /// The sockets have been read since it arrived.
    sockets_polled: bool,
}

/// The acknowledgement schedules of one worker, at most one per session with recent data, and the
/// last immediate request of each session.
#[derive(Default)]
pub(super) struct AckSender {
    schedules: Vec<(Arc<Session>, AckSchedule<ReplyDestination>)>,
    immediate_acks: Vec<PendingImmediateAck>,
    frame: Vec<u8>,
    /// This worker's number: the peer steers replies by it to the worker that received the data.
    queue_id: u8,
    /// Duration and end of the last time this worker was not scheduled.
    last_stall: Option<(Duration, Time)>,
}

impl AckSender {
    /// Nothing owed by the worker of this number.
    pub(super) fn new(queue_id: u8) -> Self {
        Self { queue_id, ..Self::default() }
    }

    /// Takes the data of one batch, which came from `reply_to`.
    pub(super) fn on_received(&mut self, data: ReceivedData<'_>, reply_to: ReplyDestination) {
        if let Some(route) = reply_to.route {
            data.record_arrivals(route);
        }
        for (session, frames, highest) in data.by_session.into_iter().flatten() {
            session.record_received(highest);
            let now = clock::now();
            self.schedule_of(session, reply_to, now).on_new_data(frames, reply_to);
        }
        // Anyone can replay captured frames: replies to those go to routes only.
        if reply_to.route.is_none() {
            return;
        }
        if let Some(session) = data.duplicate_session {
            self.schedule_of(session, reply_to, clock::now()).on_duplicate(reply_to);
        }
        if let Some((session, number)) = data.immediate_ack {
            self.on_immediate_ack_request(session, number, reply_to);
        }
    }

    /// Queues the reply to a request. It is sent after a later turn that leaves nothing unread:
    /// what was sent to this worker before the request has been received by then.
    fn on_immediate_ack_request(
        &mut self,
        session: &Arc<Session>,
        number: u16,
        reply_to: ReplyDestination,
    ) {
        let local = session.local_id();
        self.immediate_acks.retain(|pending| pending.session.local_id() != local);
        self.immediate_acks.push(PendingImmediateAck {
            session: session.clone(),
            number,
            reply_to,
            sockets_polled: false,
        });
    }

    /// Requests an immediate acknowledgement from a peer.
    pub(super) fn request_immediate_ack(
        &mut self,
        session: &Session,
        request: ImmediateAckRequest,
        path: &Path,
        counters: &Counters,
    ) {
        let mut ack = session.build_ack().unwrap_or_default();
        ack.immediate_ack_request = request.number;
        let reply_path = ReplyPath::from_path(path);
        send_ack((session, self.queue_id), &ack, &reply_path, &mut self.frame, counters);
    }

    /// Records that this worker was not scheduled.
    pub(super) fn record_stall(&mut self, length: Duration, now: Time) {
        self.last_stall = Some((length, now));
    }

    /// Sends what is due. `drained`: the turn left nothing unread in the sockets.
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
        let Self { schedules, immediate_acks, frame, queue_id, .. } = self;
        let mut send = |session: &Session, reply_to: ReplyDestination, answers| {
            let Some(socket) = fib.sockets.get(&reply_to.socket) else { return };
            let ack = session.build_ack().or((answers != 0).then(Ack::default));
            let Some(ack) = ack else { return };
            let mut ack = Ack { stalled_ms, immediate_ack_reply: answers, ..ack };
            if let Some(route) = reply_to.route {
                ack.set_arrivals(session.arrivals_on(route));
            }
            let transport = reply_to.route.and_then(|route| fib.transport_of(route));
            let reply_path = ReplyPath { transport, socket, to: reply_to.to };
            send_ack((session, *queue_id), &ack, &reply_path, frame, counters);
        };
        schedules.retain(|(session, schedule)| {
            let due = schedule.is_due(now);
            if due {
                reply_destinations(session, schedule, fib).for_each(|to| send(session, to, 0));
            }
            !due
        });
        immediate_acks.retain_mut(|pending| {
            let due = drained && std::mem::replace(&mut pending.sockets_polled, true);
            if due {
                send(&pending.session, pending.reply_to, pending.number);
            }
            !due
        });
    }

    /// Time until an acknowledgement is due.
    pub(super) fn ack_timeout(&self, now: Time) -> Option<Duration> {
        if !self.immediate_acks.is_empty() {
            return Some(Duration::ZERO);
        }
        self.schedules.iter().map(|(_, schedule)| schedule.until_due(now)).min()
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

/// The paths an acknowledgement is sent on.
fn reply_destinations(
    session: &Session,
    schedule: &AckSchedule<ReplyDestination>,
    fib: &Fib,
) -> impl Iterator<Item = ReplyDestination> {
    let entry = fib.peers.iter().find(|entry| entry.peer == session.peer());
    let destination = |path: &Arc<Path>| ReplyDestination {
        route: Some(path.route),
        socket: path.socket.id,
        to: path.remote,
    };
    let active = entry.and_then(|entry| entry.active.as_ref()).map(destination);
    let is_usable = move |destination: ReplyDestination| {
        let paths = entry.map(|entry| entry.usable_paths());
        paths.into_iter().flatten().any(|path| Some(path.route) == destination.route)
    };
    schedule.return_paths(is_usable, active)
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
    // Control traffic: a lost acknowledgement would cost a retransmission.
    match reply_path.send_frame(frame, FrameClass::Control) {
        Ok(()) => Counters::add(&counters.acks_sent, 1),
        Err(reason) => counters.count_drop(reason),
    }
}
