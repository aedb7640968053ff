//! Decisions about routes. Pure: no clock, socket, thread, file or random source.
//!
//! [`Engine`] is the door: it takes heartbeats, faults and the time, and says what to send, which
//! table the packet path should read, and what happened. Behind it one file per question: is a
//! route up (`machine`), which one carries data (`select`), when may data return (`hold`), which
//! one should be left empty (`drain`), how good is a route (`quality`), how large a datagram it
//! carries (`mtu`), is another one clearly better (`brownout`), why data moved (`cause`) and what
//! that cost (`cost`, `stall`). How a peer's traffic uses its routes is in [`policy`] and
//! [`balance`]; requests without news are answered without it (`answer`). Beside it, one per peer
//! and worker: what is in flight, and where it goes again ([`crate::loss_detection`]).

pub mod balance;
pub(crate) mod brownout;
pub mod drain;
pub(crate) mod event;
pub(crate) mod history;
pub(crate) mod hold_down;
pub(crate) mod mtu;
pub(crate) mod params;
pub mod path_validation;
pub mod policy;
pub(crate) mod route_fsm;
pub(crate) mod route_stats;
pub(crate) mod routes;
pub(crate) mod select;
pub(crate) mod spec;
pub(crate) mod status;
pub(crate) mod table;

#[cfg(feature = "sim")]
pub use crate::engine::InjectedBug;
pub use crate::{
    cadence::reply_template::ReplyTemplate,
    engine::{Engine, EngineConfig, EngineInput, EngineOutput},
    failover::{
        cost::{FailoverCost, LossCounters},
        report::{
            FailoverReport, MAX_CANDIDATES, PreviousRoute, RemoteReportSummary, RouteCandidate,
            SelectionOutcome,
        },
    },
    route::{
        drain::{DrainStage, DrainStatus},
        event::{Event, EventKind, Reason},
        mtu::PMTU_RAISE_TIMER,
        params::{
            Attributes, Delay, ParamError, Priority, RouteClass, Threshold, Timing, Transport,
        },
        policy::{PeerChange, PeerPolicies, Policy, TrafficClass},
        spec::{RouteChange, RouteSpec},
        status::{PathMtuStatus, PeerStatus, RouteState, RouteStatus},
        table::{ForwardingTable, PeerForwarding},
    },
};
