//! Requests that say nothing new are answered here: the driver sleeps on.

use netft_proto::{
    ids::RouteId,
    session::Session,
    wire::{
        header::{HEADER_LEN, Kind, LANE_LATE, LANE_PATIENT, TAG_LEN},
        heartbeat::{Heartbeat, MAX_LEN},
    },
};

use crate::io::{
    counters::Counters,
    datapath::{reply_path::Way, rx::Batch},
    fib::Fib,
    quic::transport::Class,
};

impl Batch<'_, '_> {
    /// Answers a request that came on `route` and `lane`, if a form for it holds. Returns whether
    /// it did; the driver answers otherwise, also what could not be sent: it knows what that means.
    pub(super) fn answer(
        &self,
        (session, route): (&Session, RouteId),
        lane: u8,
        request: &[u8],
    ) -> bool {
        let fib = self.fib;
        let Some(reply) = reply(fib, session, route, request) else { return false };
        let Some((place, _)) = fib.forms.get(&session.peer()) else { return false };
        let Some(socket) = fib.sockets.get(&self.socket()) else { return false };
        let Some(sealing) = fib.peers.get(*place).and_then(|peer| peer.session.as_ref()) else {
            return false;
        };
        let mut frame = Vec::with_capacity(HEADER_LEN + MAX_LEN + TAG_LEN);
        let write = |frame: &mut Vec<u8>| reply.encode(frame);
        let lane = if lane == LANE_PATIENT { LANE_LATE } else { 0 };
        let sealed = sealing.message(Kind::Heartbeat, lane, &mut frame, write);
        let way = Way { carrier: None, socket: &socket.fd, to: self.from() };
        let sent = sealed.and_then(|()| way.send(&frame, Class::Control)).is_ok();
        if sent {
            Counters::add(&self.lent.counters.tx_frames, 1);
        }
        sent
    }
}

/// A connection of the route's own sends under a lock that whoever receives may hold.
fn reply(fib: &Fib, session: &Session, route: RouteId, request: &[u8]) -> Option<Heartbeat> {
    let (_, form) = fib.forms.get(&session.peer())?;
    if Heartbeat::is_reply(request) || fib.carriers.contains_key(&route) {
        return None;
    }
    form.answer(session.boot_id(), route, &Heartbeat::decode(request).ok()?)
}
