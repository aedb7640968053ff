//! The only I/O: TUN, sockets, packet path, netlink, QUIC control session, driver.

pub mod adapter;
pub(crate) mod arp_settings;
pub(crate) mod carrier_monitor;
pub(crate) mod clock;
pub(crate) mod control;
pub(crate) mod counters;
pub(crate) mod datapath;
pub mod fib;
pub(crate) mod host_state;
pub mod identity;
pub(crate) mod messages;
pub mod netlink;
pub(crate) mod netlink_watcher;
pub(crate) mod overlay_echo;
pub(crate) mod ownership;
pub(crate) mod packet_filter;
pub(crate) mod path;
pub(crate) mod peer_warnings;
pub(crate) mod port_claim;
pub(crate) mod quic;
pub(crate) mod relays;
pub(crate) mod resolver;
pub(crate) mod socket;
pub(crate) mod steering;
pub mod sys;
