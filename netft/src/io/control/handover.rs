//! Hand-over of the driver: stops it and saves its state for a successor process, or starts it with
//! the state of a predecessor process.

use std::{
    collections::BTreeMap,
    io,
    os::fd::OwnedFd,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use netft_proto::{
    engine::SavedSpec,
    ids::{NodeKey, PeerId, RouteId},
    route::Attributes,
    session::Session,
    topology::PlannedRoute,
    wire::interfaces::Advertisement,
};

use crate::io::{
    clock,
    control::{drill, driver::Driver, route_table::RouteEntry},
    counters::RouteCounters,
    datapath::report::FromWorker,
    handover::{SavedAdapter, SavedPeerEntry, SavedRanks, SavedRouteEntry},
    messages::FrozenState,
};

/// The state that a predecessor process left, with its sockets and its sessions.
pub(crate) struct ResumedState {
    pub state: SavedAdapter,
    pub sockets: Vec<OwnedFd>,
    /// By the peer's key.
    pub sessions: BTreeMap<NodeKey, Vec<Arc<Session>>>,
}

/// Stops the workers, and returns the state and the sockets. `next_message`: what the workers have
/// sent to the driver.
///
/// # Errors
/// No descriptor is left.
pub(super) fn freeze_driver(
    mut driver: Driver,
    mut next_message: impl FnMut() -> Option<FromWorker>,
    mut ranks: SavedRanks,
) -> io::Result<FrozenState> {
    drill::end_for_successor(&mut driver);
    // Their peers leave these routes at once.
    driver.components.connections.close_all();
    driver.engine.request_on_all_routes(clock::now());
    driver.poll();
    let sends = driver.workers.stop_and_save();
    // Counters are read once nobody seals any more, and with what was received until then.
    while let Some(message) = next_message() {
        driver.on_worker_message(message);
    }
    let sockets = driver.sockets.duplicate_all()?;
    let (sockets, descriptors) = sockets.into_iter().unzip();
    let mut state = SavedAdapter {
        boot_id: driver.sessions.boot_id(),
        advertisement_serial: driver.planner.advertisement_serial(),
        last_route: driver.routes.last_id(),
        generation: ranks.generation,
        sockets,
        host: driver.planner.host_state().to_saved(),
        ..SavedAdapter::default()
    };
    let peers: Vec<_> = driver.peers.iter().map(|(peer, _)| peer).collect();
    for peer in peers {
        if let Some(mut saved) = save_peer(&driver, peer) {
            saved.ranks = ranks.by_peer.remove(&peer).unwrap_or_default();
            state.peers.push(saved);
        }
    }
    let given_up = state.set_sends(sends);
    if given_up > 0 {
        tracing::warn!(
            sends = given_up,
            "the oldest unacknowledged frames are given up: too many bytes"
        );
    }
    driver.publisher.withdraw();
    Ok(FrozenState { state, sockets: descriptors })
}

fn save_peer(driver: &Driver, peer: PeerId) -> Option<SavedPeerEntry> {
    let entry = driver.peers.get(peer)?;
    let preferred = entry.preferred_session()?.local_id();
    let mut engine = driver.engine.save_peer(peer)?;
    let mut routes = Vec::new();
    for (id, route) in driver.routes.iter().filter(|(_, it)| it.plan.spec.peer == peer) {
        if !route.is_relayed() {
            routes.push(save_route(id, route));
        }
    }
    // A relayed route has sockets on the loopback interface that are its process's own.
    engine.routes.retain(|known| routes.iter().any(|route| route.id == known.id));
    let mut saved = SavedPeerEntry::new(driver.config.peer_of(peer)?.key, engine);
    saved.sessions = entry.live_sessions().iter().map(|session| session.to_saved()).collect();
    saved.preferred = Some(preferred);
    saved.adapter_up = entry.adapter_up.unwrap_or_default();
    saved.advertisement = driver.planner.advertisement_of(peer).map(|list| {
        let mut bytes = Vec::new();
        list.encode(&mut bytes);
        bytes
    });
    let resolved = driver.planner.host_state().resolved.get(&peer);
    saved.resolved = resolved.cloned().unwrap_or_default();
    saved.routes = routes;
    Some(saved)
}

fn save_route(id: RouteId, entry: &RouteEntry) -> SavedRouteEntry {
    let count =
        |counters: &RouteCounters| [counters.frames.load(Relaxed), counters.bytes.load(Relaxed)];
    let ([sent, sent_bytes], [received, received_bytes]) =
        (count(&entry.counters), count(&entry.received));
    SavedRouteEntry {
        id,
        planned: SavedSpec::new(&entry.plan.spec),
        ifindex: entry.plan.ifindex,
        ifname: entry.plan.ifname.clone(),
        configured_remote: entry.configured_remote,
        learned_at: entry.learned_at,
        traffic: [sent, sent_bytes, received, received_bytes],
    }
}

/// Gives a driver that has not begun the sessions, routes and sockets of a predecessor process.
/// Peers that its config does not know, and those whose state is unusable, begin anew.
pub(super) fn resume_driver(driver: &mut Driver, resumed: ResumedState) {
    let ResumedState { mut state, sockets, mut sessions } = resumed;
    driver.routes.skip_ids(state.last_route);
    driver.planner.resume_serial(state.advertisement_serial);
    for saved in std::mem::take(&mut state.peers) {
        let Some(config) = driver.config.peers.iter().find(|peer| peer.key == saved.key()) else {
            continue;
        };
        let (peer, name) = (config.id, config.name.clone());
        let live = sessions.remove(&saved.key()).unwrap_or_default();
        let count = saved.routes.len();
        if resume_peer(driver, peer, saved, live).is_none() {
            tracing::warn!(peer = name, "the session was not taken over");
        } else {
            tracing::debug!(peer = name, routes = count, "session and routes taken over");
        }
    }
    let sockets = state.sockets.into_iter().zip(sockets).collect();
    driver.sockets.adopt_sockets(sockets, driver.workers.worker_count());
    driver.publisher.mark_dirty("sessions and routes were taken over");
}

fn resume_peer(
    driver: &mut Driver,
    peer: PeerId,
    saved: SavedPeerEntry,
    live: Vec<Arc<Session>>,
) -> Option<()> {
    let preferred = saved.preferred?;
    let boot_id = live.iter().find(|session| session.local_id() == preferred)?.boot_id();
    let routes = saved.routes.iter().map(|route| restore_route(peer, route));
    let routes = routes.collect::<Option<Vec<_>>>()?;
    driver.engine.restore_peer(clock::now(), peer, saved.engine).ok()?;
    for (route, entry) in saved.routes.iter().zip(routes) {
        driver.routes.restore(route.id, entry);
    }
    let entry = driver.peers.get_mut(peer)?;
    for session in live {
        let is_preferred = session.local_id() == preferred;
        entry.add_session(session, is_preferred, saved.adapter_up);
    }
    entry.record_boot_id(boot_id);
    if let Some(list) = saved.advertisement.and_then(|it| Advertisement::decode(&it).ok()) {
        driver.planner.on_advertisement(peer, &list);
    }
    Some(())
}

fn restore_route(peer: PeerId, saved: &SavedRouteEntry) -> Option<RouteEntry> {
    let spec = saved.planned.to_spec(peer).ok()?;
    debug_assert_eq!(spec.attributes.0 & Attributes::RELAYED, 0);
    let plan = PlannedRoute { spec, ifindex: saved.ifindex, ifname: saved.ifname.clone() };
    let mut entry = RouteEntry::new(plan, saved.learned_at);
    entry.configured_remote = saved.configured_remote;
    let [sent, sent_bytes, received, received_bytes] = saved.traffic;
    entry.counters.count_frames(sent, sent_bytes);
    entry.received.count_frames(received, received_bytes);
    Some(entry)
}
