//! What comes from where no route leads: the driver decides whether one should.

use netft_proto::{
    ids::PeerId,
    wire::{challenge::Challenge, heartbeat::Heartbeat},
};

use crate::io::datapath::{report::FromWorker, rx::RxBatch};

impl RxBatch<'_, '_> {
    /// A heartbeat request of `peer` that came on no route of its own.
    #[cold]
    pub(super) fn report_peer_reflexive(
        &mut self,
        peer: PeerId,
        session_boot_id: u64,
        heartbeat: Heartbeat,
    ) {
        let from = self.source_addr();
        let Some(socket) = self.fib.sockets.get(&self.socket()) else { return };
        let local = socket.local;
        let message = FromWorker::PeerReflexive { peer, session_boot_id, local, from, heartbeat };
        self.context.driver_queue.send(message, self.context.counters);
    }

    /// A challenge of `peer`, or its answer to one.
    #[cold]
    pub(super) fn report_challenge(&mut self, challenge: Challenge, peer: PeerId) {
        let route =
            self.look_up_route().filter(|(owner, _)| *owner == peer).map(|(_, route)| route);
        let from = self.source_addr();
        let Some(socket) = self.fib.sockets.get(&self.socket()) else { return };
        let local = socket.local;
        let message = FromWorker::Challenge { peer, route, local, from, challenge };
        self.context.driver_queue.send(message, self.context.counters);
    }
}
