//! Peers that are heard on no route although there is a session: they may have started again where
//! they cannot dial, behind a NAT or without an address of this node. So this node does.

use std::{collections::BTreeMap, time::Duration};

use netft_proto::{ids::PeerId, time::Time};

use crate::io::control::driver::Driver;

/// How often to look; the driver wakes up for heartbeats anyway.
const LOOK: Duration = Duration::from_millis(250);
/// How long a peer with a session must be out of reach before it is dialled.
const PATIENCE: Duration = Duration::from_secs(1);
/// When it is asked for again, if the fresh session changed nothing.
const AGAIN: Duration = Duration::from_secs(10);

/// Since when peers with a session are out of reach, or were dialled for it.
#[derive(Default)]
pub(super) struct Silence {
    due: Time,
    /// When each is dialled next.
    dial_at: BTreeMap<PeerId, Time>,
}

impl Driver {
    /// Looks at every peer, every [`LOOK`].
    pub(super) fn mind_silence(&mut self, now: Time) {
        if now < self.silence.due {
            return;
        }
        self.silence.due = now + LOOK;
        let silent = self.engine.peers().into_iter().filter(|one| one.session && !one.reachable);
        let silent: Vec<_> = silent.map(|one| one.peer).collect();
        self.silence.dial_at.retain(|peer, _| silent.contains(peer));
        for peer in silent {
            let dial_at = self.silence.dial_at.entry(peer).or_insert(now + PATIENCE);
            if *dial_at <= now {
                *dial_at = now + AGAIN;
                // It goes on until a handshake succeeds; the present session serves until then.
                self.manager.renew(peer);
            }
        }
    }
}
