//! Multicast and broadcast: a copy to every reachable peer.
//!
//! Sessions are per peer, so the packet is sealed once for each. The rate over all workers is
//! limited by the config's `multicast`.

use netft_proto::{
    packet::{gso::GsoPlan, ip::InnerHeaders, multicast, virtio_net::VnetHdr},
    route::policy::PacketFields,
    wire::DropReason,
};

use crate::io::{
    clock,
    datapath::{tx, tx::TxTurn},
};

impl TxTurn<'_> {
    /// Sends a packet whose destination is no peer's to all of them, if it is multicast or
    /// broadcast.
    ///
    /// # Errors
    /// [`DropReason::NoPeer`] when it is neither; otherwise the reason why no peer got it.
    #[cold]
    pub(super) fn send_multicast(
        &mut self,
        hdr: &VnetHdr,
        packet: &[u8],
        inner: &InnerHeaders,
        traffic: impl Fn() -> PacketFields,
    ) -> Result<(), DropReason> {
        let fib = self.fib;
        let Some(rate) = fib
            .multicast_limit
            .as_ref()
            .filter(|_| multicast::is_forwarded_to_peers(inner, packet))
        else {
            return Err(DropReason::NoPeer);
        };
        // The peers would drop it.
        if !fib.local_addrs.is_some_and(|local| local.contains(inner.src)) {
            return Err(DropReason::InnerSource);
        }
        let reached = || fib.peers.iter().filter(|entry| entry.active.is_some());
        if reached().next().is_none() {
            return Err(DropReason::NoRoute);
        }
        let packets = GsoPlan::new_unlimited(hdr, packet, inner)?.packet_count();
        if !rate.try_take(clock::now(), packets as u64) {
            return Err(DropReason::MulticastRate);
        }
        let mut outcome = Err(DropReason::NoRoute);
        for entry in reached() {
            let sent = tx::target_for_peer(entry, self.queue_id, &traffic).and_then(|mut to| {
                let Self { batch, context, scratch, .. } = self;
                let packed =
                    tx::pack_frames(batch, &mut to, context, (hdr, packet, inner), scratch);
                batch.flush(&mut to, context);
                packed
            });
            // Success if one peer got it: the others have no route for a packet of this size.
            outcome = outcome.or(sent);
        }
        outcome
    }
}
