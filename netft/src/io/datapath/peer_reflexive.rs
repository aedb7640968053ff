//! What comes from where no route leads: the driver decides whether one should.

use netft_proto::{ids::PeerId, wire::challenge::Challenge};

use crate::io::datapath::{FromWorker, rx::Batch};

impl Batch<'_, '_> {
    /// A heartbeat request of `peer` that came on no route of its own.
    #[cold]
    pub(super) fn strayed(&mut self, peer: PeerId, session_boot_id: u64, plaintext: Vec<u8>) {
        let from = self.from();
        let Some(socket) = self.fib.sockets.get(&self.socket()) else { return };
        let local = socket.local;
        let message = FromWorker::Stray { peer, session_boot_id, local, from, plaintext };
        self.lent.reports.send(message, self.lent.counters);
    }

    /// A challenge of `peer`, or its answer to one.
    #[cold]
    pub(super) fn challenge(&mut self, challenge: Challenge, peer: PeerId) {
        let route = self.route().filter(|(owner, _)| *owner == peer).map(|(_, route)| route);
        let from = self.from();
        let Some(socket) = self.fib.sockets.get(&self.socket()) else { return };
        let local = socket.local;
        let message = FromWorker::Challenge { peer, route, local, from, challenge };
        self.lent.reports.send(message, self.lent.counters);
    }
}
