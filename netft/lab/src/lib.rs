//! Nodes, networks and faults in network namespaces, for the kernel tests and the demo.
//!
//! The lab needs no root, no external program (but `nft` for NAT) and no firewall. The process
//! re-executes itself as root of its own user namespace ([`enter_namespaces()`]), builds nodes and
//! networks through rtnetlink ([`Lab`]), injects and heals faults ([`Lab::black_hole`] and the
//! methods beside it, [`wire::ImpairedWire`]), measures loss and interruption as an application
//! sees them ([`probe`], [`transfer`], [`owner_probe`]), judges times by the machine's delays
//! ([`scheduling`]) and runs daemons inside ([`daemon::Daemon`]). Nothing outside these namespaces
//! is touched.

mod build;
pub mod capture;
pub mod checksums;
pub mod daemon;
mod enter;
mod error;
mod fault;
pub mod flood;
mod kernel;
mod moment;
mod nat;
mod netns;
pub mod owner_probe;
pub mod probe;
pub mod scheduling;
mod scratch;
mod sys;
pub mod transfer;
mod wan;
pub mod wire;

pub use build::{Lab, NetworkLayout};
pub use enter::{EnterOutcome, enter_namespaces, in_namespace, in_namespace_for};
pub use error::LabError;
pub use kernel::KernelCounters;
pub use moment::Moment;
pub use netns::{Netns, interface_index};
pub use scratch::ScratchDir;
