//! netft's protocol and decisions, sans I/O: wire format, sessions, routes, loss detection,
//! failover, topology.
//!
//! No clock, socket, thread, file or source of randomness: every input carries its time, and no
//! dependency could do I/O. A driver feeds inputs, calls timers when they are due and carries out
//! the outputs, as with quinn-proto or str0m.
//!
//! # Engine
//!
//! [`engine::Engine`] holds the routes to all peers: it schedules heartbeats, detects failures and
//! decides which route carries data.
//!
//! ```
//! use std::time::Duration;
//!
//! use netft_proto::{
//!     PeerId, RouteId, Time,
//!     engine::{Engine, EngineConfig, EngineInput, EngineOutput},
//!     route::{Attributes, Priority, RouteSpec, Timing, Transport},
//! };
//!
//! let hold = Duration::from_secs(1);
//! let mut engine = Engine::new(EngineConfig { hold, history: 10, seed: 7, mtu_raise: hold });
//! let (peer, id) = (PeerId(1), RouteId(1));
//! let spec = RouteSpec {
//!     peer,
//!     real_local: "10.1.0.1:3343".parse()?,
//!     real_remote: "10.1.0.2:3343".parse()?,
//!     virtual_local: "169.254.3.1".parse()?,
//!     virtual_remote: "169.254.3.2".parse()?,
//!     timing: Timing::WINDOWS_PROFILE,
//!     priority: Priority(10),
//!     attributes: Attributes(Attributes::SAME_SUBNET),
//!     transport: Transport::Udp,
//! };
//! for input in [
//!     EngineInput::AddPeer(peer),
//!     EngineInput::AddRoute { id, spec },
//!     EngineInput::SessionUp { peer, boot_id: 1 },
//! ] {
//!     engine.on_input(Time::ZERO, input).expect("the route is new");
//! }
//! let wake = engine.next_wake().expect("the first heartbeat is scheduled");
//! engine.on_timer(wake);
//! let mut sent_on = Vec::new();
//! while let Some(output) = engine.poll_output() {
//!     if let EngineOutput::Send { route, heartbeat, .. } = output {
//!         sent_on.push(route);
//!         assert_eq!(heartbeat.sent_at, wake.as_nanos());
//!     }
//! }
//! assert_eq!(sent_on, [id]);
//! # Ok::<(), std::net::AddrParseError>(())
//! ```
//!
//! # Simulator
//!
//! With the feature `sim`, `sim::run_scenario` runs a cluster of real engines on a virtual clock,
//! injects faults and checks sixteen invariants after every step. One seed gives one run.
//!
//! ```
//! # #[cfg(feature = "sim")] {
//! use netft_proto::sim::{Scenario, run_scenario};
//!
//! let scenario = Scenario::random(42);
//! let report = run_scenario(&scenario);
//! assert!(report.violations.is_empty(), "{}", report.failure_text(&scenario));
//! assert_eq!(report.trace_hash, run_scenario(&Scenario::random(42)).trace_hash);
//! # }
//! ```

pub mod cadence;
pub mod config;
pub mod drill;
pub mod engine;
pub mod failover;
#[doc(hidden)]
pub mod fuzzing;
pub mod handover;
pub mod ids;
pub mod loss_detection;
pub mod overrides;
pub mod packet;
pub mod roster;
pub mod route;
#[cfg(feature = "serde")]
mod serialize;
pub mod session;
#[cfg(feature = "sim")]
pub mod sim;
pub mod time;
pub mod topology;
pub mod vip;
pub mod wire;

pub use ids::{NodeKey, PeerId, RouteId};
pub use time::Time;
