//! A route as the packet path uses it.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use netft_proto::{ids::RouteId, loss_detection::UsablePath};

use crate::io::{counters::RouteCounters, quic::transport::QuicTransport, socket::UdpSocket};

/// A route as the packet path sees it.
pub struct Path {
    /// The route.
    pub route: RouteId,
    /// The socket bound to its local end.
    pub socket: Arc<UdpSocket>,
    /// The remote end.
    pub remote: SocketAddr,
    /// The largest UDP payload the route carries, bytes.
    pub max_datagram: usize,
    /// Its round-trip time by its heartbeats, when the table was made.
    pub rtt: Option<Duration>,
    /// What was sent here.
    pub counters: Arc<RouteCounters>,
    /// The QUIC connection that carries the frames; `None`: they travel in UDP as they are.
    pub transport: Option<Arc<QuicTransport>>,
}

impl Path {
    /// The route, as the resend ring sees it.
    #[inline]
    pub fn route_rtt(&self) -> UsablePath {
        UsablePath { route: self.route, rtt: self.rtt }
    }
}
