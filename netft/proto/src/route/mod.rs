//! Decisions about routes. Pure: no clock, socket, thread, file or random source.
//!
//! [`Engine`] takes heartbeats, faults and the time, and returns heartbeats to send, the forwarding
//! table and events. The ground vocabulary is in `state` (states, reasons) and `report` (the peer's
//! view). A route (`peer_route`) is made of `route_fsm` (the derived state), `liveness` (receipt
//! and detection time), `suspicion` (unacknowledged data), `hold_down`, `drain_state`,
//! `route_stats`, `brownout` (path quality), `mtu` and `history`. `select` chooses the route that
//! carries data. How a peer's traffic uses its routes is in [`policy`] and [`balance`]; NAT and
//! address changes are in [`path_validation`].

pub(crate) mod absence;
pub(crate) mod arrival_audit;
pub mod balance;
pub(crate) mod brownout;
pub(crate) mod data_loss;
pub(crate) mod deadline_extension;
pub mod drain;
pub(crate) mod drain_state;
pub(crate) mod early_warning;
pub(crate) mod event;
pub mod false_alarms;
pub(crate) mod forwarding;
pub(crate) mod history;
pub(crate) mod hold_down;
pub(crate) mod liveness;
pub(crate) mod mtu;
pub(crate) mod overlay_echo;
pub(crate) mod params;
pub mod path_validation;
pub(crate) mod peer_route;
pub mod policy;
pub(crate) mod report;
pub(crate) mod route_fsm;
pub(crate) mod route_stats;
pub(crate) mod routes;
pub(crate) mod saved_liveness;
pub(crate) mod select;
pub(crate) mod session_end;
pub(crate) mod spec;
pub(crate) mod state;
pub(crate) mod status;
pub(crate) mod suspicion;

#[cfg(feature = "sim")]
pub use crate::engine::InjectedBug;
pub(crate) use crate::route::params::{DELAY_RANGE, THRESHOLD_RANGE};
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
        absence::{DEFAULT_GONE_AFTER, DEFAULT_UNREACHABLE_AFTER, PeerAbsence},
        drain_state::{DrainStage, DrainStatus},
        event::{Event, EventKind, NetworkChange},
        forwarding::PeerForwarding,
        mtu::{PMTU_RAISE_TIMER, PathMtuStatus},
        overlay_echo::{EchoNews, EchoOutcome, OverlayEcho},
        params::{
            Attributes, Delay, ParamError, Priority, RouteClass, Threshold, Timing, Transport,
        },
        policy::{PeerChange, PeerPolicies, Policy, TrafficClass},
        session_end::{SessionCloser, SessionEndCause},
        spec::{RouteChange, RouteSpec},
        state::{Reason, RouteState},
        status::{HeartbeatCounters, HoldDownStatus, PeerStatus, RouteQuality, RouteStatus},
    },
};
