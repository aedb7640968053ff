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
//! Bounds: one open question per route, [`MAX_OPEN`] per peer, one in [`GAP`], each answered
//! within [`PATIENCE`] or forgotten. A question is never larger than the heartbeat that led to it.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use crate::{
    ids::{PeerId, RouteId},
    time::Time,
    wire::challenge::{Challenge, ChallengeMessage},
};

/// How long a question may be answered.
pub const PATIENCE: Duration = Duration::from_secs(2);
/// The shortest time between two questions about one route.
pub const GAP: Duration = Duration::from_millis(10);
/// The most open questions per peer.
pub const MAX_OPEN: usize = 16;

/// An authentic heartbeat request from where no route of its sender leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stray {
    /// Its sender.
    pub peer: PeerId,
    /// The sender's number of the route.
    pub route: u32,
    /// The route here it names, if there is one.
    pub ours: Option<RouteId>,
    /// Its sequence on that route.
    pub sequence: u32,
    /// The address here it came to.
    pub local: SocketAddr,
    /// Where it came from.
    pub from: SocketAddr,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    /// The newest heartbeat from there.
    stray: Stray,
    token: u64,
    since: Time,
    asked: Time,
}

/// The open questions of a node.
#[derive(Debug, Default)]
pub struct Challenges {
    open: BTreeMap<(PeerId, u32), Open>,
}

impl Challenges {
    /// Whether nothing is open: most of the time.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Takes in a heartbeat that strayed; returns what to ask where it came from, if anything.
    /// `token` gives a random number, `None` when there is none.
    pub fn stray(
        &mut self,
        now: Time,
        stray: Stray,
        token: impl FnOnce() -> Option<u64>,
    ) -> Option<Challenge> {
        self.open.retain(|_, open| now.since(open.since) < PATIENCE);
        let key = (stray.peer, stray.route);
        let before = self.open.get(&key).copied();
        let same =
            before.filter(|open| (open.stray.local, open.stray.from) == (stray.local, stray.from));
        if let Some(open) = before
            && (now.since(open.asked) < GAP || !newer(stray.sequence, open.stray.sequence))
        {
            return None;
        }
        let full = || self.open.keys().filter(|(peer, _)| *peer == stray.peer).count() >= MAX_OPEN;
        if before.is_none() && full() {
            return None;
        }
        // The question or its answer was lost: the same again.
        let (token, since) = match same {
            Some(open) => (open.token, open.since),
            None => (token()?, now),
        };
        self.open.insert(key, Open { stray, token, since, asked: now });
        Some(Challenge { message: ChallengeMessage::Question, route: stray.route, token })
    }

    /// Takes in that a heartbeat of `route` (the peer's number) came from where the route leads.
    pub fn heard(&mut self, peer: PeerId, route: u32, sequence: u32) {
        let key = (peer, route);
        if self.open.get(&key).is_some_and(|open| newer(sequence, open.stray.sequence)) {
            self.open.remove(&key);
        }
    }

    /// Takes in an answer of `peer` that came to `local` from `from`; returns the heartbeat whose
    /// address it proves, once.
    pub fn answered(
        &mut self,
        now: Time,
        (peer, local, from): (PeerId, SocketAddr, SocketAddr),
        answer: &Challenge,
    ) -> Option<Stray> {
        let key = (peer, answer.route);
        let open = self.open.get(&key)?;
        let proves = answer.message == ChallengeMessage::Answer
            && answer.token == open.token
            && (open.stray.local, open.stray.from) == (local, from)
            && now.since(open.since) < PATIENCE;
        if !proves {
            return None;
        }
        self.open.remove(&key).map(|open| open.stray)
    }
}

/// Serial arithmetic (RFC 1982).
const fn newer(one: u32, other: u32) -> bool {
    one != other && one.wrapping_sub(other) < 1 << 31
}

#[cfg(test)]
mod tests;
