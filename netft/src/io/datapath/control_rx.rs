//! Received control frames: heartbeats, path MTU probes, path challenges. All but a heartbeat that
//! a reply template answers are decided on by the driver.

use netft_proto::{
    ids::PeerId,
    session::Session,
    wire::{
        DropReason,
        challenge::Challenge,
        heartbeat::{Heartbeat, HeartbeatMessage},
        probe::Probe,
    },
};

use crate::io::{
    clock,
    datapath::{
        report::FromWorker,
        rx_context::{RxContext, RxSource},
        template_replies,
    },
};

/// Passes a heartbeat on to the driver, after the reply where a template holds.
pub(super) fn process_heartbeat<'a>(
    context: &RxContext<'a>,
    source: &mut RxSource<'a>,
    session: &Session,
    heartbeat: Heartbeat,
) -> Result<(), DropReason> {
    let (peer, session_boot_id) = (session.peer(), session.boot_id());
    let RxContext { fib, driver_queue, counters, .. } = context;
    let Some(route) = source.route_of_peer(fib, peer) else {
        if heartbeat.message == HeartbeatMessage::Request {
            report_peer_reflexive(context, source, session, heartbeat);
        }
        return Err(DropReason::Misrouted);
    };
    let received_at = clock::now();
    // Only an unanswered request needs the driver at once. Replies of a healthy peer and requests
    // answered here wait in the deferred queue until the driver wakes up anyway.
    let is_healthy = fib.healthy_peers.contains(&peer);
    let answered = is_healthy
        && template_replies::send_template_reply(context, source, (session, route), &heartbeat);
    let can_defer = answered || heartbeat.message == HeartbeatMessage::Reply;
    let message =
        FromWorker::Heartbeat { peer, route, session_boot_id, heartbeat, received_at, answered };
    if is_healthy && can_defer {
        driver_queue.send_deferred(message, counters);
    } else {
        driver_queue.send(message, counters);
    }
    Ok(())
}

/// Reports a heartbeat request from an address that is no route of its sender.
#[cold]
fn report_peer_reflexive(
    context: &RxContext<'_>,
    source: &RxSource<'_>,
    session: &Session,
    heartbeat: Heartbeat,
) {
    let Some(local) = source.local_addr(context.fib) else { return };
    let message = FromWorker::PeerReflexive {
        peer: session.peer(),
        session_boot_id: session.boot_id(),
        local,
        from: source.from,
        heartbeat,
    };
    context.driver_queue.send(message, context.counters);
}

/// Reports a path MTU probe, without its padding.
pub(super) fn report_probe<'a>(
    context: &RxContext<'a>,
    source: &mut RxSource<'a>,
    peer: PeerId,
    probe: Probe,
) -> Result<(), DropReason> {
    let route = source.route_of_peer(context.fib, peer).ok_or(DropReason::Misrouted)?;
    let message = FromWorker::Probe { peer, route, probe };
    context.driver_queue.send(message, context.counters);
    Ok(())
}

/// Reports a path challenge or its response.
#[cold]
pub(super) fn report_challenge<'a>(
    context: &RxContext<'a>,
    source: &mut RxSource<'a>,
    peer: PeerId,
    challenge: Challenge,
) {
    let route = source.route_of_peer(context.fib, peer);
    let Some(local) = source.local_addr(context.fib) else { return };
    let message = FromWorker::Challenge { peer, route, local, from: source.from, challenge };
    context.driver_queue.send(message, context.counters);
}
