//! Heartbeat replies from the worker: a request that changes nothing is answered from the engine's
//! reply template, without waking the driver.

use netft_proto::{
    ids::RouteId,
    session::Session,
    wire::{
        header::{FrameKind, HEADER_LEN, TAG_LEN},
        heartbeat::{Heartbeat, HeartbeatMessage, MAX_HEARTBEAT_LEN},
    },
};

use crate::io::{
    counters::Counters,
    datapath::{
        reply_path::ReplyPath,
        rx_context::{RxContext, RxSource},
    },
    fib::Fib,
    quic::transport::FrameClass,
};

/// Answers a request that arrived on `route`, if a template holds for it. Returns
/// whether the reply was sent; otherwise the driver answers, and handles the error of a failed
/// send.
pub(super) fn send_template_reply(
    context: &RxContext<'_>,
    source: &RxSource<'_>,
    (session, route): (&Session, RouteId),
    request: &Heartbeat,
) -> bool {
    let fib = context.fib;
    let Some(reply) = build_reply(fib, session, route, request) else { return false };
    let Some((place, _)) = fib.reply_templates.get(&session.peer()) else { return false };
    let Some(socket) = fib.sockets.get(&source.socket) else { return false };
    let Some(sealing) = fib.peers.get(*place).and_then(|peer| peer.session.as_ref()) else {
        return false;
    };
    let mut frame = Vec::with_capacity(HEADER_LEN + MAX_HEARTBEAT_LEN + TAG_LEN);
    let write = |frame: &mut Vec<u8>| reply.encode(frame);
    let sealed = sealing.seal_message(FrameKind::Heartbeat, 0, &mut frame, write);
    let reply_path = ReplyPath { transport: None, socket, to: source.from };
    let sent = sealed.and_then(|()| reply_path.send_frame(&frame, FrameClass::Control)).is_ok();
    if sent {
        Counters::add(&context.counters.tx_frames, 1);
    }
    sent
}

/// The reply to a request; `None` where the driver has to answer. It also answers on routes over
/// QUIC: their connection sends under the lock that the receiving worker may hold.
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
