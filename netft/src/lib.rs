//! netft: a virtual network adapter that outlives the networks under it.
//!
//! A node is an [`Adapter`]: a TUN device, UDP sockets on every network, sessions with the peers
//! and a driver that moves data to another route when one fails. Programs use it through [`api`]
//! (snapshots, events, errors, the machine) and [`config`]. Decisions and formats are in
//! [`netft_proto`], which does no I/O; this crate is the I/O around them.
//!
//! ```no_run
//! use netft::{
//!     Adapter,
//!     api::host::identity,
//!     config::{Config, PeerConfig},
//! };
//!
//! # async fn run_node() -> Result<(), Box<dyn std::error::Error>> {
//! let key = identity::read_key_file("/etc/netft/key".as_ref())?;
//! let peer_key = "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=".parse()?;
//! let peer = PeerConfig::new("b", peer_key).with_address("10.1.0.2:3343".parse()?);
//! let config = Config::builder("a", key).with_peer(peer).build()?;
//!
//! // Creates the device: needs CAP_NET_ADMIN and CAP_NET_RAW.
//! let adapter = Adapter::open(config).await?;
//! let mut events = adapter.events();
//! while let Some(event) = events.next().await {
//!     match event {
//!         Ok(event) => println!("{} {:?}", event.at, event.kind),
//!         Err(missed) => eprintln!("{missed}"),
//!     }
//!     let snapshot = adapter.snapshot().await.ok_or("the adapter closed")?;
//!     println!("{} routes", snapshot.routes.len());
//! }
//! adapter.close().await;
//! # Ok(())
//! # }
//! ```

pub mod adapter;
pub mod api;
mod io;

pub use adapter::Adapter;
pub use netft_proto::{
    NodeKey, PeerId, RouteId, Time, config, drill, engine, failover, ids, loss_detection,
    overrides, packet, roster, route, session, time, topology, vip, wire,
};

/// The examples of the README compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadmeExamples;

/// Parts of the I/O for the kernel tests and benches of this workspace; no part of the API.
#[doc(hidden)]
pub mod test_support {
    pub use crate::io::{adapter, fib, netlink, sys};
}
