//! When a peer's new address is believed. Pure.
//!
//! A heartbeat that comes from another address than its route leads to has *strayed*: a NAT gave
//! the peer another mapping, or somebody sends a copy. It is authentic and nobody has seen it
//! before, but where it came from is not sealed. So the address is asked: a random token goes
//! there, and only when it comes back from there, sealed by the peer on the route that strayed, is
//! the address adopted (reliability S-09, F-27; RFC 9000 section 8.2).
//!
//! Somebody between the two nodes can take a heartbeat out, send it from elsewhere and carry the
//! question and its answer along. As long as the peer is also heard where the route leads, with
//! anything newer, that gains nothing: it closes the question (the case of RFC 9000 section
//! 9.3.3). Who stops everything that comes from there could drop it as well.
//!
//! Bounds: one open question per route, [`MAX_PENDING_CHALLENGES`] per peer, one in
//! [`MIN_CHALLENGE_INTERVAL`], each answered within [`CHALLENGE_TIMEOUT`] or forgotten. A question
//! is never larger than the heartbeat that led to it.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use crate::{
    ids::{PeerId, RouteId},
    time::Time,
    wire::challenge::{Challenge, ChallengeMessage},
};

/// How long a question may be answered.
pub const CHALLENGE_TIMEOUT: Duration = Duration::from_secs(2);
/// The shortest time between two questions about one route.
pub const MIN_CHALLENGE_INTERVAL: Duration = Duration::from_millis(10);
/// The most open questions per peer.
pub const MAX_PENDING_CHALLENGES: usize = 16;

/// An authentic heartbeat request from where no route of its sender leads.
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
    /// The address here it came to.
    pub local: SocketAddr,
    /// Where it came from.
    pub from: SocketAddr,
}

#[derive(Clone, Copy, Debug)]
struct PendingChallenge {
    /// The newest heartbeat from there.
    candidate: PeerReflexive,
    token: u64,
    started_at: Time,
    last_sent_at: Time,
}

/// The open questions of a node.
#[derive(Debug, Default)]
pub struct PathValidator {
    pending: BTreeMap<(PeerId, u32), PendingChallenge>,
}

impl PathValidator {
    /// Whether nothing is open: most of the time.
    pub fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// Takes in a heartbeat that strayed; returns what to ask where it came from, if anything.
    /// `token` gives a random number, `None` when there is none.
    pub fn on_peer_reflexive(
        &mut self,
        now: Time,
        stray: PeerReflexive,
        token: impl FnOnce() -> Option<u64>,
    ) -> Option<Challenge> {
        self.pending.retain(|_, open| now.since(open.started_at) < CHALLENGE_TIMEOUT);
        let key = (stray.peer, stray.remote_route);
        let before = self.pending.get(&key).copied();
        let same = before.filter(|open| {
            (open.candidate.local, open.candidate.from) == (stray.local, stray.from)
        });
        if let Some(open) = before
            && (now.since(open.last_sent_at) < MIN_CHALLENGE_INTERVAL
                || !is_newer_serial(stray.sequence, open.candidate.sequence))
        {
            return None;
        }
        let full = || {
            self.pending.keys().filter(|(peer, _)| *peer == stray.peer).count()
                >= MAX_PENDING_CHALLENGES
        };
        if before.is_none() && full() {
            return None;
        }
        // The question or its answer was lost: the same again.
        let (token, since) = match same {
            Some(open) => (open.token, open.started_at),
            None => (token()?, now),
        };
        self.pending.insert(
            key,
            PendingChallenge { candidate: stray, token, started_at: since, last_sent_at: now },
        );
        Some(Challenge { message: ChallengeMessage::Challenge, route: stray.remote_route, token })
    }

    /// Takes in that a heartbeat of `route` (the peer's number) came from where the route leads.
    pub fn on_configured_path_heartbeat(&mut self, peer: PeerId, route: u32, sequence: u32) {
        let key = (peer, route);
        if self
            .pending
            .get(&key)
            .is_some_and(|open| is_newer_serial(sequence, open.candidate.sequence))
        {
            self.pending.remove(&key);
        }
    }

    /// Takes in an answer of `peer` that came to `local` from `from`; returns the heartbeat whose
    /// address it proves, once.
    pub fn on_challenge_response(
        &mut self,
        now: Time,
        (peer, local, from): (PeerId, SocketAddr, SocketAddr),
        answer: &Challenge,
    ) -> Option<PeerReflexive> {
        let key = (peer, answer.route);
        let open = self.pending.get(&key)?;
        let proves = answer.message == ChallengeMessage::Response
            && answer.token == open.token
            && (open.candidate.local, open.candidate.from) == (local, from)
            && now.since(open.started_at) < CHALLENGE_TIMEOUT;
        if !proves {
            return None;
        }
        self.pending.remove(&key).map(|open| open.candidate)
    }
}

/// Serial arithmetic (RFC 1982).
const fn is_newer_serial(one: u32, other: u32) -> bool {
    one != other && one.wrapping_sub(other) < 1 << 31
}

#[cfg(test)]
mod tests;
