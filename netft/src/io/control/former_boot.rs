//! Which run of a peer a heartbeat comes from: one of a former run says nothing about this one.

use crate::io::control::driver::PeerEntry;

impl PeerEntry {
    /// Whether a heartbeat under a session with this boot id is from a run of the peer that was
    /// over when the one the engine knows began. It may have waited in a queue meanwhile. A run
    /// the engine is not told of yet is none: its session was agreed later.
    pub(super) fn is_previous_boot(&self, boot_id: u64) -> bool {
        let newest = |boot| self.live.iter().rposition(|session| session.boot_id() == boot);
        self.reported_boot_id
            .is_some_and(|reported| boot_id != reported && newest(boot_id) <= newest(reported))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use netft_proto::{
        ids::{NodeKey, PeerId, virtual_addrs::VirtualAddrs},
        session::{Cipher, Session, SessionParams},
    };

    use super::*;

    fn sessions(boots: &[u64], told: Option<u64>) -> PeerEntry {
        let session = |(local, boot_id): (u32, &u64)| {
            Arc::new(Session::new(SessionParams {
                peer: PeerId(0),
                peer_addrs: VirtualAddrs::derive_from_key(&NodeKey([1; 32])),
                local_id: local,
                remote_id: 2,
                boot_id: *boot_id,
                cipher: Cipher::Aes256Gcm,
                tx_secret: [1; 32],
                rx_secret: [2; 32],
            }))
        };
        let live = (1..).zip(boots).map(session).collect();
        PeerEntry { live, reported_boot_id: told, ..PeerEntry::default() }
    }

    #[test]
    fn a_run_that_is_over_is_told_from_this_one_and_from_the_next() {
        assert!(!sessions(&[7], Some(7)).is_previous_boot(7));
        assert!(!sessions(&[7, 7], Some(7)).is_previous_boot(7));
        assert!(sessions(&[7], Some(7)).is_previous_boot(6), "its sessions are gone");
        assert!(sessions(&[6, 7], Some(7)).is_previous_boot(6), "its sessions are about to go");
        assert!(!sessions(&[6, 7], Some(6)).is_previous_boot(7), "the engine will hear of it");
        assert!(!sessions(&[7], Some(6)).is_previous_boot(7));
        assert!(!sessions(&[], None).is_previous_boot(7), "the engine refuses it itself");
    }
}
