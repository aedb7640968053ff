//! Peers that are heard on no route although there is a session: they may have started again where
//! they cannot dial, behind a NAT or without an address of this node. So this node does.

use std::{collections::BTreeMap, time::Duration};

use netft_proto::{ids::PeerId, time::Time};

use crate::io::control::driver::Driver;

/// How often to look; the driver wakes up for heartbeats anyway.
const SILENCE_CHECK_INTERVAL: Duration = Duration::from_millis(250);
/// How long a peer with a session must be out of reach before it is dialled.
const PEER_SILENCE_BEFORE_REDIAL: Duration = Duration::from_secs(1);
/// When it is asked for again, if the fresh session changed nothing.
const REDIAL_INTERVAL: Duration = Duration::from_secs(10);

/// Since when peers with a session are out of reach, or were dialled for it.
#[derive(Default)]
pub(super) struct RedialState {
    next_check: Time,
    /// When each is dialled next.
    dial_at: BTreeMap<PeerId, Time>,
}

impl Driver {
    /// Looks at every peer, every [`SILENCE_CHECK_INTERVAL`].
    pub(super) fn poll_redial(&mut self, now: Time) {
        if now < self.redial.next_check {
            return;
        }
        self.redial.next_check = now + SILENCE_CHECK_INTERVAL;
        let silent =
            self.engine.peer_statuses().into_iter().filter(|one| one.session && !one.reachable);
        let silent: Vec<_> = silent.map(|one| one.peer).collect();
        self.redial.dial_at.retain(|peer, _| silent.contains(peer));
        for peer in silent {
            let dial_at =
                self.redial.dial_at.entry(peer).or_insert(now + PEER_SILENCE_BEFORE_REDIAL);
            if *dial_at <= now {
                *dial_at = now + REDIAL_INTERVAL;
                // It goes on until a handshake succeeds; the present session serves until then.
                self.manager.renew_session(peer);
            }
        }
    }
}
