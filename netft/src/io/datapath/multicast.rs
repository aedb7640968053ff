//! Multicast and broadcast: a copy to every peer that a route leads to.
//!
//! There is one packet on the adapter and a session per peer, so it is sealed once for each. How
//! many a second, this node decides (`Config::multicast`), over all workers.

use netft_proto::{
    packet::{gso::GsoPlan, ip::InnerHeaders, multicast, virtio_net::VnetHdr},
    route::policy::PacketFields,
    wire::DropReason,
};

use crate::io::{
    clock,
    datapath::{rx::RxBatch, tx, tx::TxTurn},
};

impl TxTurn<'_> {
    /// Sends a packet that belongs to no peer to all of them, if it is for all of them.
    ///
    /// # Errors
    /// [`DropReason::NoPeer`] when it is not; otherwise why it went to nobody.
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
        // The peers would refuse it.
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
                let Self { batch: out, context, scratch, .. } = self;
                let packed = tx::pack_frames(out, &mut to, context, (hdr, packet, inner), scratch);
                out.flush(&mut to, context);
                packed
            });
            // One that got it is enough: the others were not up, or carry no packet of this size.
            outcome = outcome.or(sent);
        }
        outcome
    }
}

impl RxBatch<'_, '_> {
    /// Whether a packet of a peer, which begins with `head`, is for this node: to one of its
    /// addresses, or to everybody.
    #[inline]
    pub(super) fn is_for_us(&self, inner: &InnerHeaders, head: &[u8]) -> bool {
        self.fib.local_addrs.is_some_and(|local| local.contains(inner.dst))
            || self.is_for_all(inner, head)
    }

    #[cold]
    fn is_for_all(&self, inner: &InnerHeaders, head: &[u8]) -> bool {
        self.fib.multicast_limit.is_some() && multicast::is_forwarded_to_peers(inner, head)
    }
}
