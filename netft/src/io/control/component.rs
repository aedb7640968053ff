//! The parts of the driver that keep state of their own: each takes inputs and deadlines, and
//! answers with actions. None of them does I/O or changes anything but itself.
//!
//! ```text
//! Input ──▶ on_input ─┐
//!                     ├─▶ Actions ──▶ the driver carries them out, in order
//! time  ──▶ poll ─────┘
//! ```

use std::net::SocketAddr;

use netft_proto::{
    config::Config,
    engine::{Engine, EngineInput},
    ids::{PeerId, RouteId},
    route::{EchoOutcome, EventKind},
    time::Time,
    topology::PlannedRoute,
    wire::{DropReason, challenge::Challenge, heartbeat::Heartbeat},
};

use crate::io::{
    carrier_monitor::CarrierStates,
    control::{
        peer_table::PeerTable, route_planner::RouteReplanner, route_table::RouteTable,
        sockets::Sockets,
    },
};

/// One part of the driver.
pub(super) trait Component {
    /// When [`poll`](Self::poll) has something to do, if ever.
    fn next_wake(&self) -> Option<Time>;

    /// Takes in an input. Inputs that concern other components are ignored.
    fn on_input(&mut self, now: Time, input: &Input<'_>, view: &View<'_>, actions: &mut Actions);

    /// Takes the actions that are due. Called after every wake-up of the driver.
    fn poll(&mut self, now: Time, view: &View<'_>, actions: &mut Actions);
}

/// The node's state, read-only.
pub(super) struct View<'a> {
    pub(super) config: &'a Config,
    pub(super) engine: &'a Engine,
    pub(super) planner: &'a RouteReplanner,
    pub(super) routes: &'a RouteTable,
    pub(super) peers: &'a PeerTable,
    pub(super) sockets: &'a Sockets,
    /// The forwarding table is about to be built anew: something it depends on changed.
    pub(super) table_dirty: bool,
}

/// An input to the components.
pub(super) enum Input<'a> {
    /// The engine accepted a heartbeat request from where its route leads. The route is the
    /// peer's number of it.
    RequestAccepted { peer: PeerId, remote_route: u32, sequence: u32 },
    /// An authentic heartbeat request came from where no route of its sender leads.
    PeerReflexive { peer: PeerId, local: SocketAddr, from: SocketAddr, heartbeat: &'a Heartbeat },
    /// An authentic challenge, or an answer to one, came; on `route`, if it came on one.
    Challenge {
        peer: PeerId,
        route: Option<RouteId>,
        local: SocketAddr,
        from: SocketAddr,
        challenge: Challenge,
    },
    /// A peer sent over a relay this node has no route over.
    RelayedPeer { via: PeerId, peer: PeerId },
    /// The state of a route's QUIC connection changed.
    ConnectionChanged(RouteId),
    /// The far end of a route asks for a QUIC connection there; nothing is proven yet.
    ConnectionRequested(RouteId),
    /// A session with another run of the peer replaced that with the former one.
    PeerRestarted(PeerId),
    /// A route leads to another address of its peer.
    RemoteLearned(RouteId),
    /// Routes were added, removed or planned differently.
    RoutesChanged,
    /// Data on a route stays unacknowledged.
    RouteSuspect,
    /// Segmented sends vanish on a route, and single datagrams arrive.
    SegmentsVanish(RouteId),
    /// The kernel refused to send on a route.
    SendFailed(RouteId),
    /// The state of a route changed.
    RouteStateChanged,
    /// Another program changed nftables rules of this node.
    RulesetChanged,
    /// A peer repeated its advertisement, or sent another.
    PeerAdvertised(PeerId),
    /// An echo through the adapter ended.
    EchoDone { peer: PeerId, outcome: EchoOutcome },
}

/// An order to the driver.
#[derive(Debug)]
pub(super) enum Action {
    /// Feed the engine.
    Engine(EngineInput),
    /// Report an event.
    Emit(EventKind),
    /// Publish a new forwarding table, for this reason.
    RebuildTable(&'static str),
    /// Agree on a fresh session with a peer.
    RenewSession(PeerId),
    /// Send a challenge, or the answer to one.
    SendChallenge { peer: PeerId, local: SocketAddr, to: SocketAddr, challenge: Challenge },
    /// Count a dropped frame.
    CountDrop(DropReason),
    /// Have the carrier monitor compare the carriers with these.
    PollCarriers(CarrierStates),
    /// Send what a drill's lifted fault holds, and take in the rest.
    ReleaseHeld,
    /// Take the fault of a drill away.
    RemoveFaults,
    /// Open the sockets that did not open, and report faults.
    SyncSockets,
    /// Report to the engine what each route's interface and transport take.
    UpdateFrameLimits,
    /// Send an echo through the adapter; answered with [`Input::EchoDone`].
    SendEcho(PeerId),
    /// Send the peers this node's advertisement again.
    RepeatAdvertisement,
    /// Add a route to an address that the peer proved and nobody listed.
    AddLearnedRoute(PlannedRoute),
    /// Try other pairs of cards, or end what is tried in vain.
    UpdateTrials,
    /// Lead a route to the address that its peer proved.
    LearnRemote { route: RouteId, remote: SocketAddr },
    /// Remove a route, with the sockets that nothing else uses.
    RemoveRoute(RouteId),
    /// Add a route to `peer` over the relay `via`, with sockets on the loopback interface.
    OpenRelay { via: PeerId, peer: PeerId },
    /// Remove a route over a relay, with the sockets at these addresses.
    CloseRelay { route: RouteId, sockets: [SocketAddr; 2] },
}

/// Actions, in the order they are to be carried out.
#[derive(Debug, Default)]
pub(super) struct Actions(Vec<Action>);

impl Actions {
    pub(super) fn push(&mut self, action: Action) {
        self.0.push(action);
    }

    pub(super) fn feed_engine(&mut self, input: EngineInput) {
        self.push(Action::Engine(input));
    }

    pub(super) fn into_actions(self) -> Vec<Action> {
        self.0
    }
}
