//! Path validation of a peer's new address (RFC 9000 section 8.2). Pure.
//!
//! A heartbeat from another address than its route leads to is *peer-reflexive* (RFC 8445): a NAT
//! gave the peer another mapping, or an attacker sends a copy. It is authentic and not a replay,
//! but its source address is not sealed. So a challenge with a random token is sent to that
//! address, and the address is adopted only when the token returns from there, sealed by the peer
//! on the same route (reliability S-09, F-27).
//!
//! An on-path attacker can capture a heartbeat, send it from elsewhere and relay the challenge and
//! its response. As long as a newer heartbeat of the peer also arrives from the configured address,
//! that gains nothing: it cancels the challenge (RFC 9000 section 9.3.3). An attacker who
//! suppresses those could drop all traffic anyway.
//!
//! Bounds: one pending challenge per route, [`MAX_PENDING_CHALLENGES`] per peer, one in
//! [`MIN_CHALLENGE_INTERVAL`], each valid for [`CHALLENGE_TIMEOUT`]. A challenge is never larger
//! than the heartbeat that caused it (no amplification).

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use crate::{
    ids::{PeerId, RouteId},
    time::Time,
    wire::challenge::{Challenge, ChallengeMessage},
};

/// How long a challenge may be answered.
pub const CHALLENGE_TIMEOUT: Duration = Duration::from_secs(2);
/// The shortest time between two challenges of one route.
pub const MIN_CHALLENGE_INTERVAL: Duration = Duration::from_millis(10);
/// The most pending challenges per peer.
pub const MAX_PENDING_CHALLENGES: usize = 16;

/// An authentic heartbeat request from an address that no route of its sender leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerReflexive {
    /// Its sender.
    pub peer: PeerId,
    /// The sender's number of the route.
    pub remote_route: u32,
    /// The route here it names, if there is one.
    pub local_route: Option<RouteId>,
    /// Its sequence on that route.
    pub sequence: u32,
    /// The local address it arrived at.
    pub local: SocketAddr,
    /// Its source address.
    pub from: SocketAddr,
}

#[derive(Clone, Copy, Debug)]
struct PendingChallenge {
    /// The newest heartbeat from the address.
    candidate: PeerReflexive,
    token: u64,
    started_at: Time,
    last_sent_at: Time,
}

/// The pending challenges of a node.
#[derive(Debug, Default)]
pub struct PathValidator {
    pending: BTreeMap<(PeerId, u32), PendingChallenge>,
}

impl PathValidator {
    /// Returns whether no challenge is pending, as most of the time.
    pub fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// Applies a peer-reflexive heartbeat; returns the challenge to send to its source, if any.
    /// `token` generates a random number, or `None` on failure.
    pub fn on_peer_reflexive(
        &mut self,
        now: Time,
        reflexive: PeerReflexive,
        token: impl FnOnce() -> Option<u64>,
    ) -> Option<Challenge> {
        self.pending.retain(|_, pending| now.since(pending.started_at) < CHALLENGE_TIMEOUT);
        let key = (reflexive.peer, reflexive.remote_route);
        let before = self.pending.get(&key).copied();
        let same = before.filter(|pending| {
            (pending.candidate.local, pending.candidate.from) == (reflexive.local, reflexive.from)
        });
        if let Some(pending) = before
            && (now.since(pending.last_sent_at) < MIN_CHALLENGE_INTERVAL
                || !is_newer_serial(reflexive.sequence, pending.candidate.sequence))
        {
            return None;
        }
        let full = || {
            self.pending.keys().filter(|(peer, _)| *peer == reflexive.peer).count()
                >= MAX_PENDING_CHALLENGES
        };
        if before.is_none() && full() {
            return None;
        }
        // The challenge or its response was lost: repeat the same token.
        let (token, since) = match same {
            Some(pending) => (pending.token, pending.started_at),
            None => (token()?, now),
        };
        self.pending.insert(
            key,
            PendingChallenge { candidate: reflexive, token, started_at: since, last_sent_at: now },
        );
        Some(Challenge {
            message: ChallengeMessage::Challenge,
            route: reflexive.remote_route,
            token,
        })
    }

    /// Cancels the challenge of `route` (the peer's number) when a newer heartbeat arrives from the
    /// configured address.
    pub fn on_configured_path_heartbeat(&mut self, peer: PeerId, route: u32, sequence: u32) {
        let key = (peer, route);
        if self
            .pending
            .get(&key)
            .is_some_and(|pending| is_newer_serial(sequence, pending.candidate.sequence))
        {
            self.pending.remove(&key);
        }
    }

    /// Applies a response of `peer` that arrived at `local` from `from`; returns the heartbeat
    /// whose source address it proves, once.
    pub fn on_challenge_response(
        &mut self,
        now: Time,
        (peer, local, from): (PeerId, SocketAddr, SocketAddr),
        answer: &Challenge,
    ) -> Option<PeerReflexive> {
        let key = (peer, answer.route);
        let pending = self.pending.get(&key)?;
        let proves = answer.message == ChallengeMessage::Response
            && answer.token == pending.token
            && (pending.candidate.local, pending.candidate.from) == (local, from)
            && now.since(pending.started_at) < CHALLENGE_TIMEOUT;
        if !proves {
            return None;
        }
        self.pending.remove(&key).map(|pending| pending.candidate)
    }
}

/// Serial arithmetic (RFC 1982).
const fn is_newer_serial(one: u32, other: u32) -> bool {
    one != other && one.wrapping_sub(other) < 1 << 31
}

#[cfg(test)]
mod tests;
