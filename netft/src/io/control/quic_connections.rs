//! The QUIC connections of routes: which routes have one, who dials, and what their state means
//! for the route.
//!
//! A route's carrier is QUIC when the config of either end says so: the end that wants it dials,
//! and an end that is dialled, by the peer's own key and from the route's own address, uses it too,
//! until the peer says otherwise, or does not dial again for three seconds without one. When both
//! want it, the one with the smaller key dials first. Without a connection the route is broken
//! here, at once and with that as its cause, and whoever wants it dials again every second.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};

use netft_proto::{
    config::Config,
    engine::Input,
    ids::{PeerId, RouteId},
    route,
    route::Reason,
    session::MAX_FRAME,
    time::Time,
    wire::header::OVERHEAD,
};

use crate::io::{
    control::driver::Driver,
    counters::Counters,
    quic::transport::{ADDED, Carrier, Class, Common, Marks, Outcome, Settings, Why},
    sys::udp::SendFault,
};

/// How long a handshake may take. Every attempt starts anew.
const ATTEMPT: Duration = Duration::from_secs(1);
/// The shortest time between two attempts.
const PAUSE: Duration = Duration::from_millis(250);
/// How long the node with the larger key waits for the other one to dial.
const COURTESY: Duration = Duration::from_millis(300);
/// How long a peer that asks has to prove itself, and one that restarted to ask again.
const PATIENCE: Duration = Duration::from_secs(3);
/// Smallest UDP payload QUIC works over (RFC 9000 section 14).
const MIN_PAYLOAD: usize = 1200;

/// The connections, and what they are made with.
#[derive(Default)]
pub(super) struct Connections {
    /// Made once.
    common: Option<Common>,
    held: BTreeMap<RouteId, Held>,
}

/// The connection of one route.
struct Held {
    carrier: Arc<Carrier>,
    peer: PeerId,
    /// This node's config wants it.
    here: bool,
    /// The peer wants it, and has proven its key.
    there: bool,
    /// As the engine was told.
    up: bool,
    broken: bool,
    smaller: bool,
    dialled_at: Option<Time>,
    /// Dial not before.
    next_dial: Time,
    /// Given up then, unless a connection comes up.
    forget_at: Option<Time>,
    /// What was complained of last.
    complaint: String,
}

impl Held {
    fn used(&self) -> bool {
        self.here || self.there
    }

    fn wants_dial(&self) -> bool {
        self.here && !self.up
    }

    fn wait_to_dial(&mut self, now: Time) {
        let grace = if self.smaller { Duration::ZERO } else { COURTESY };
        let paused = self.dialled_at.map_or(now, |at| at + PAUSE);
        self.next_dial = paused.max(now + grace);
    }
}

impl Connections {
    /// The connection whose state the frames of a route depend on.
    pub(super) fn of(&self, route: RouteId) -> Option<&Arc<Carrier>> {
        self.held.get(&route).filter(|held| held.used()).map(|held| &held.carrier)
    }

    /// Every connection, those that nobody has proven a key on among them.
    pub(super) fn all(&self) -> impl Iterator<Item = (RouteId, &Arc<Carrier>)> {
        self.held.iter().map(|(id, held)| (*id, &held.carrier))
    }

    /// The largest frame a route takes whose interface takes `datagram` bytes, and what its carrier
    /// adds to it.
    pub(super) fn limit(&self, route: RouteId, datagram: usize) -> (usize, usize) {
        let Some(carrier) = self.of(route) else { return (datagram, 0) };
        (datagram.saturating_sub(ADDED).min(carrier.room()).max(OVERHEAD), ADDED)
    }

    /// How a packet for a connection is told where there is none.
    pub(super) fn marks(&mut self, config: &Config) -> Option<Marks> {
        Some(self.common(config)?.marks())
    }

    /// When a timer, a dial or an end of patience is due.
    pub(super) fn next_wake(&self) -> Option<Time> {
        let due = |held: &Held| {
            let dial = held.wants_dial().then_some(held.next_dial);
            [held.carrier.deadline(), dial, held.forget_at].into_iter().flatten().min()
        };
        self.held.values().filter_map(due).min()
    }

    fn common(&mut self, config: &Config) -> Option<&Common> {
        if self.common.is_none() {
            let made = Common::new(&config.key, config.public_key);
            self.common = made.inspect_err(|error| tracing::error!(%error, "no QUIC")).ok();
        }
        self.common.as_ref()
    }

    fn settings(&mut self, config: &Config, peer: PeerId) -> Option<Settings> {
        let key = config.peer_of(peer)?.key;
        let settings = self.common(config)?.with(key);
        settings.inspect_err(|error| tracing::error!(%error, "no QUIC with this peer")).ok()
    }
}

impl Driver {
    /// Timers, dials and news of the connections: before the engine's own timers.
    pub(super) fn serve_connections(&mut self, now: Time) {
        if self.dirty {
            self.follow_connections(now);
        }
        let mut changed = Vec::new();
        let mut gone = Vec::new();
        for (id, held) in &mut self.connections.held {
            if held.carrier.deadline().is_some_and(|at| at <= now) {
                held.carrier.tick();
            }
            let ready = self.routes.get(id).is_some_and(|known| known.fault.is_none());
            if held.wants_dial() && held.next_dial <= now {
                held.next_dial = now + ATTEMPT;
                if ready {
                    held.dialled_at = Some(now);
                    held.carrier.dial();
                }
            }
            // A worker's message may have found no place.
            if held.carrier.take_news() || held.carrier.up() != held.up {
                changed.push(*id);
            }
            if held.forget_at.is_some_and(|at| at <= now) {
                held.forget_at = None;
                held.there = false;
                if !held.here {
                    gone.push(*id);
                }
            }
        }
        changed.into_iter().for_each(|id| self.carrier_changed(id, now));
        gone.into_iter().for_each(|id| self.drop_carrier(id, Why::GoingAway));
    }

    /// Takes in what a worker saw of a connection.
    pub(super) fn carrier_news(&mut self, id: RouteId, now: Time) {
        if self.connections.held.contains_key(&id) {
            self.carrier_changed(id, now);
        }
    }

    /// Gives whoever asks for a connection on this route the chance to prove its key.
    pub(super) fn carrier_asked(&mut self, id: RouteId, now: Time) {
        if !self.connections.held.contains_key(&id) && self.hold_carrier(id, now) {
            if let Some(held) = self.connections.held.get_mut(&id) {
                held.forget_at = Some(now + PATIENCE);
            }
            self.follow_connections(now);
            self.dirty = true;
        }
    }

    /// The peer was started again: connections with its former run are of no use.
    pub(super) fn renew_connections(&mut self, peer: PeerId, now: Time) {
        for held in self.connections.held.values_mut().filter(|held| held.peer == peer) {
            held.carrier.close(Why::Redial);
            held.forget_at = held.there.then_some(now + PATIENCE);
        }
    }

    /// A route leads to another address of its peer: a connection there is begun anew.
    pub(super) fn renew_connection(&mut self, id: RouteId, now: Time) {
        if self.connections.held.contains_key(&id) {
            self.drop_carrier(id, Why::Redial);
            self.follow_connections(now);
        }
    }

    /// Says farewell on every connection.
    pub(super) fn close_connections(&self) {
        self.connections.held.values().for_each(|held| held.carrier.close(Why::GoingAway));
    }

    /// Makes connections follow the routes: their config, sockets and interfaces.
    pub(super) fn follow_connections(&mut self, now: Time) {
        let wanted = |driver: &Self, id: &RouteId| {
            let known = driver.routes.get(id);
            known.is_some_and(|known| known.plan.spec.carrier == route::Carrier::Quic)
        };
        let stale: Vec<_> = self
            .connections
            .held
            .keys()
            .filter(|id| !self.routes.contains_key(id))
            .copied()
            .collect();
        for id in stale {
            if let Some(held) = self.connections.held.remove(&id) {
                held.carrier.close(Why::GoingAway);
            }
        }
        let ids: Vec<_> = self.routes.keys().copied().collect();
        for id in ids {
            let here = wanted(self, &id);
            let held = self.connections.held.get(&id).map(|held| held.here);
            match (held, here) {
                (None, true) => {
                    self.hold_carrier(id, now);
                }
                (Some(false), true) => {
                    if let Some(held) = self.connections.held.get_mut(&id) {
                        (held.here, held.forget_at) = (true, None);
                        held.wait_to_dial(now);
                    }
                }
                // A peer that still wants it dials.
                (Some(true), false) => self.drop_carrier(id, Why::Unwanted),
                _ => {}
            }
            self.tend_carrier(id);
        }
    }

    /// The socket and the interface of a route, for its connection; and whether it has one.
    fn tend_carrier(&mut self, id: RouteId) {
        let Some(held) = self.connections.held.get_mut(&id) else { return };
        let Some(known) = self.routes.get(&id) else { return };
        let spec = &known.plan.spec;
        held.carrier.set_socket(self.sockets.at(spec.real_local).first());
        if let Some(interface) = self.world.interface(known.plan.ifindex) {
            held.carrier.set_mtu(payload(interface.mtu, spec.real_remote.ip()));
        }
        held.carrier.set_used(held.used());
        let broken = held.used() && !held.up;
        if std::mem::replace(&mut held.broken, broken) == broken {
            return;
        }
        let reason = Reason::NoConnection;
        self.dirty = true;
        self.input(if broken {
            Input::Fault { route: id, reason }
        } else {
            Input::FaultCleared { route: id, reason }
        });
    }

    fn hold_carrier(&mut self, id: RouteId, now: Time) -> bool {
        let Some(known) = self.routes.get(&id) else { return false };
        let spec = &known.plan.spec;
        let (peer, remote) = (spec.peer, spec.real_remote);
        let here = spec.carrier == route::Carrier::Quic;
        let mtu = self.world.interface(known.plan.ifindex).map_or(0, |interface| interface.mtu);
        let Some(settings) = self.connections.settings(&self.config, peer) else { return false };
        let smaller =
            self.config.peer_of(peer).is_some_and(|peer| self.config.public_key < peer.key);
        let mut held = Held {
            carrier: Arc::new(Carrier::new(settings, remote, payload(mtu, remote.ip()))),
            peer,
            here,
            there: false,
            up: false,
            broken: false,
            smaller,
            dialled_at: None,
            next_dial: now,
            forget_at: None,
            complaint: String::new(),
        };
        held.wait_to_dial(now);
        self.connections.held.insert(id, held);
        true
    }

    /// The route's frames travel in UDP from here on.
    fn drop_carrier(&mut self, id: RouteId, why: Why) {
        let Some(held) = self.connections.held.remove(&id) else { return };
        held.carrier.close(why);
        if held.broken {
            self.input(Input::FaultCleared { route: id, reason: Reason::NoConnection });
        }
        self.tell_limits();
        self.dirty = true;
    }

    fn carrier_changed(&mut self, id: RouteId, now: Time) {
        let Some(held) = self.connections.held.get_mut(&id) else { return };
        if let Some(complaint) = held.carrier.take_complaint()
            && complaint != held.complaint
        {
            tracing::warn!(route = %id, reason = %complaint, "no QUIC connection");
            held.complaint = complaint;
        }
        let unwanted = held.carrier.take_unwanted();
        let up = held.carrier.up();
        if std::mem::replace(&mut held.up, up) != up {
            tracing::info!(route = %id, up, "QUIC connection");
            if up {
                // Only the peer's own key comes this far.
                held.there |= !held.here;
                held.forget_at = None;
                held.complaint.clear();
            } else {
                held.wait_to_dial(now);
                // Whoever wants it dials; until then UDP does no harm.
                held.forget_at = (!held.here).then_some(now + PATIENCE);
            }
        }
        if unwanted {
            held.there = false;
            if !held.here {
                return self.drop_carrier(id, Why::GoingAway);
            }
        }
        self.tend_carrier(id);
        self.tell_limits();
        self.dirty = true;
    }

    /// Sends a frame that is not data on a route whose carrier is QUIC; `None` if it is not.
    pub(super) fn send_carried(&mut self, route: RouteId, frame: &[u8]) -> Option<Outcome> {
        let carrier = self.connections.of(route)?;
        let outcome = carrier.send(frame, frame.len(), usize::MAX, Class::Control);
        if let Some(counters) = self.workers.counters().first() {
            Counters::add(&counters.tx_frames, outcome.sent);
        }
        if let Some((SendFault::Route, _)) = outcome.fault {
            self.send_failed(route);
        }
        Some(outcome)
    }
}

/// UDP payload of an interface, as far as a frame and QUIC's share of it use it.
fn payload(mtu: u32, remote: IpAddr) -> u16 {
    let headers = if remote.is_ipv4() { 28 } else { 48 };
    let most = MAX_FRAME + ADDED;
    (mtu as usize).saturating_sub(headers).clamp(MIN_PAYLOAD, most) as u16
}
