//! The context of the receive stages: the worker's parts, and the source of the batch.

use std::net::SocketAddr;

use netft_proto::ids::{PeerId, RouteId};

use crate::io::{
    counters::Counters,
    datapath::{acks::AckSender, driver_queue::DriverQueue, report::WorkerIo},
    fib::{Fib, FibRoute},
    socket::{SocketId, TunQueue},
};

/// The parts of a worker that receiving needs.
pub(super) struct RxContext<'a> {
    pub(super) fib: &'a Fib,
    pub(super) io: &'a WorkerIo,
    pub(super) queue: Option<&'a TunQueue>,
    pub(super) counters: &'a Counters,
    pub(super) driver_queue: &'a mut DriverQueue,
    pub(super) acks: &'a mut AckSender,
}

/// The source of a batch of datagrams.
pub(super) struct RxSource<'a> {
    /// The socket they arrived on.
    pub(super) socket: SocketId,
    /// The remote address.
    pub(super) from: SocketAddr,
    /// The route of `socket` and `from`, looked up at most once.
    route: Option<Option<&'a FibRoute>>,
}

impl<'a> RxSource<'a> {
    pub(super) fn new(socket: SocketId, from: SocketAddr) -> Self {
        Self { socket, from, route: None }
    }

    /// The route that the datagrams arrived on.
    pub(super) fn look_up_route(&mut self, fib: &'a Fib) -> Option<&'a FibRoute> {
        let key = (self.socket, self.from);
        *self.route.get_or_insert_with(|| fib.routes.get(&key))
    }

    /// The route, if it is one of `peer`.
    pub(super) fn route_of_peer(&mut self, fib: &'a Fib, peer: PeerId) -> Option<RouteId> {
        let found = self.look_up_route(fib)?;
        (found.peer == peer).then_some(found.route)
    }

    /// The local address of the socket; `None` once the driver has closed it.
    pub(super) fn local_addr(&self, fib: &Fib) -> Option<SocketAddr> {
        fib.sockets.get(&self.socket).map(|socket| socket.local)
    }
}
