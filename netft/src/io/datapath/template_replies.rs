//! Requests that say nothing new are answered here: the driver sleeps on.

use netft_proto::{
    ids::RouteId,
    session::Session,
    wire::{
        header::{DEFER_REPLY, DEFERRED_REPLY, FrameKind, HEADER_LEN, TAG_LEN},
        heartbeat::{Heartbeat, HeartbeatMessage, MAX_HEARTBEAT_LEN},
    },
};

use crate::io::{
    counters::Counters,
    datapath::{reply_path::ReplyPath, rx::RxBatch},
    fib::Fib,
    quic::transport::FrameClass,
};

impl RxBatch<'_, '_> {
    /// Answers a request that came on `route` and `lane`, if a form for it holds. Returns whether
    /// it did; the driver answers otherwise, also what could not be sent: it knows what that means.
    pub(super) fn reply_from_template(
        &self,
        (session, route): (&Session, RouteId),
        queue: u8,
        request: &Heartbeat,
    ) -> bool {
        let fib = self.fib;
        let Some(reply) = build_reply(fib, session, route, request) else { return false };
        let Some((place, _)) = fib.reply_templates.get(&session.peer()) else { return false };
        let Some(socket) = fib.sockets.get(&self.socket()) else { return false };
        let Some(sealing) = fib.peers.get(*place).and_then(|peer| peer.session.as_ref()) else {
            return false;
        };
        let mut frame = Vec::with_capacity(HEADER_LEN + MAX_HEARTBEAT_LEN + TAG_LEN);
        let write = |frame: &mut Vec<u8>| reply.encode(frame);
        let queue = if queue == DEFER_REPLY { DEFERRED_REPLY } else { 0 };
        let sealed = sealing.seal_message(FrameKind::Heartbeat, queue, &mut frame, write);
        let reply_path = ReplyPath { transport: None, socket: &socket.fd, to: self.source_addr() };
        let sent = sealed.and_then(|()| reply_path.send_frame(&frame, FrameClass::Control)).is_ok();
        if sent {
            Counters::add(&self.context.counters.tx_frames, 1);
        }
        sent
    }
}

/// A connection of the route's own sends under a lock that whoever receives may hold.
fn build_reply(
    fib: &Fib,
    session: &Session,
    route: RouteId,
    request: &Heartbeat,
) -> Option<Heartbeat> {
    let (_, template) = fib.reply_templates.get(&session.peer())?;
    if request.message == HeartbeatMessage::Reply || fib.transports.contains_key(&route) {
        return None;
    }
    template.build_reply(session.boot_id(), route, request)
}
