//! One error type per operation.

use std::{io, net::SocketAddr};

use netft_proto::{
    config::{ConfigError, RestartRequired},
    ids::{PeerId, RouteId},
    overrides::MAX_OVERRIDES,
    route::policy::ClassError,
};

use crate::io::{
    adapter::types::{LockError, TunOpenError as TunError},
    netlink::NetlinkError,
    port_claim::ClaimError,
    quic::StartError,
};

/// Why an adapter could not be opened. Nothing is left behind.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// A setting is out of its range.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Another daemon runs, or the runtime directory is not usable.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// Another node uses the port.
    #[error(transparent)]
    Port(#[from] ClaimError),
    /// The TUN device could not be opened.
    #[error(transparent)]
    Tun(#[from] TunError),
    /// The kernel refused to configure the adapter.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// The control sessions could not be set up.
    #[error(transparent)]
    Quic(#[from] StartError),
    /// The kernel refused something the packet path needs.
    #[error("cannot {what}: {source}")]
    System {
        /// The attempt.
        what: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// Why another config was refused. Nothing changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReconfigureError {
    /// A setting is out of its range.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Something in it cannot change while the node runs.
    #[error("{}\nrestart netftd to apply it; nothing changed", lines(.0))]
    RestartRequired(Vec<RestartRequired>),
    /// The keys do not fit each other.
    #[error(transparent)]
    Keys(#[from] StartError),
    /// The kernel does not tell about its interfaces.
    #[error("cannot list the interfaces; nothing changed")]
    Interfaces,
    /// Every number a peer can have was used in this process.
    #[error("65,536 peers have come and gone: restart netftd; nothing changed")]
    Peers,
    /// The adapter is closed.
    #[error("the adapter is closed")]
    Closed,
}

fn lines(fixed: &[RestartRequired]) -> String {
    fixed.iter().map(RestartRequired::to_string).collect::<Vec<_>>().join("\n")
}

/// Why a route could not be added, changed or removed. Nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RouteError {
    /// No route has this number.
    #[error("there is no route {0}: `netft routes` lists them")]
    Unknown(RouteId),
    /// No peer has this number.
    #[error("there is no peer {0}")]
    UnknownPeer(PeerId),
    /// No local address leads there.
    #[error("no new route leads to {0}: no local address reaches it")]
    NoLocalAddress(SocketAddr),
    /// The adapter is closed.
    #[error("the adapter is closed")]
    Closed,
    /// The overrides fill their table.
    #[error(
        "{MAX_OVERRIDES} routes and interfaces have overrides already: end some with `netft \
         undrain`"
    )]
    TooManyOverrides,
    /// There is such a route.
    #[error(
        "route {0} is this one: change it, or remove it first to add it with another transport"
    )]
    Exists(RouteId),
}

/// Why a peer could not be changed. Nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// No peer has this number.
    #[error("there is no peer {0}")]
    Unknown(PeerId),
    /// Its classes cannot be used.
    #[error(transparent)]
    Classes(#[from] ClassError),
    /// The adapter is closed.
    #[error("the adapter is closed")]
    Closed,
}
