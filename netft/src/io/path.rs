//! A path: one route as the packet path uses it.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use netft_proto::{ids::RouteId, loss_detection::UsablePath};

use crate::io::{counters::RouteCounters, quic::transport::QuicTransport, socket::UdpSocket};

/// One route with its socket, limits, counters and transport.
pub struct Path {
    /// The route.
    pub route: RouteId,
    /// The socket bound to its local end.
    pub socket: Arc<UdpSocket>,
    /// The remote end.
    pub remote: SocketAddr,
    /// The largest UDP payload the route carries, bytes.
    pub max_datagram: usize,
    /// Frames are sent one by one: segmented sends vanish on the route.
    pub plain_sends: bool,
    /// Its round-trip time by heartbeats, as of the time the table was built.
    pub rtt: Option<Duration>,
    /// Epoch of the evidence of its losses, as of the same time.
    pub loss_epoch: u32,
    /// Counters of the data sent on it.
    pub counters: Arc<RouteCounters>,
    /// The QUIC connection that carries the frames; `None`: each is one UDP datagram.
    pub transport: Option<Arc<QuicTransport>>,
}

impl Path {
    /// The route as loss detection takes it.
    #[inline]
    pub fn route_rtt(&self) -> UsablePath {
        UsablePath { route: self.route, rtt: self.rtt, loss_epoch: self.loss_epoch }
    }
}
