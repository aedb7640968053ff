//! Exchange of rosters between the nodes of a cluster: compares versions whenever a session comes
//! up and at every change, and carries the higher serial over.
//!
//! ```text
//! session up, or own change ──▶ offer(version) ──▶ same
//!                                              ──▶ newer(document)   adopt it
//!                                              ──▶ want              push(document)
//!                                              ──▶ conflict          both report it
//! ```
//!
//! One request per peer is under way; what changes meanwhile is offered after it. A request without
//! an answer is repeated after a pause that doubles up to [`MAX_RETRY_DELAY`].

use std::{
    cmp::Ordering,
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use crate::{
    ids::NodeKey,
    roster::{
        signed::{RosterVersion, SignedRoster},
        topic_message::{RefusalCode, RosterReply, RosterRequest},
    },
    time::Time,
};

/// First pause after a request without an answer.
const MIN_RETRY_DELAY: Duration = Duration::from_secs(1);
/// Longest pause after a request without an answer.
const MAX_RETRY_DELAY: Duration = Duration::from_secs(60);

/// An output of the exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExchangeOutput {
    /// Send a request; its outcome is fed to [`RosterExchange::on_reply`].
    Send {
        /// The peer.
        peer: NodeKey,
        /// Its number.
        number: u64,
        /// The request.
        request: Vec<u8>,
    },
    /// A document with a higher serial came: store it and apply it.
    Adopt {
        /// The document.
        roster: Arc<SignedRoster>,
        /// The peer it came from.
        from: NodeKey,
    },
    /// Something an operator has to know. Once per peer and problem.
    Problem {
        /// The peer.
        peer: NodeKey,
        /// The problem.
        problem: ExchangeProblem,
    },
}

/// A problem with a peer's roster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExchangeProblem {
    /// One serial with two contents: the cluster's key was used in two places at once.
    Conflict {
        /// The version here.
        own: RosterVersion,
        /// The version there.
        other: RosterVersion,
    },
    /// The peer sent a document that is not valid.
    Invalid(String),
    /// The peer is in another cluster.
    OtherCluster,
}

/// Knowledge of one peer's roster, for the status.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerKnowledge {
    /// A session is up.
    pub connected: bool,
    /// The version it is known to have.
    pub version: Option<RosterVersion>,
    /// The problem with it, if there is one.
    pub problem: Option<ExchangeProblem>,
}

#[derive(Debug, Default)]
struct PeerState {
    knowledge: PeerKnowledge,
    /// The request under way, and the version it offers.
    in_flight: Option<(u64, RosterVersion)>,
    /// An offer is due.
    needs_offer: bool,
    retry_at: Option<Time>,
    failures: u32,
}

/// The exchange of one node.
#[derive(Debug, Default)]
pub struct RosterExchange {
    own: Option<Arc<SignedRoster>>,
    peers: BTreeMap<NodeKey, PeerState>,
    /// Number of the last request.
    last_number: u64,
    outputs: VecDeque<ExchangeOutput>,
}

impl RosterExchange {
    /// The exchange of a node with this roster, if it has one. Without one it takes none from a
    /// peer: an operator decides which cluster a node trusts.
    pub fn new(own: Option<Arc<SignedRoster>>) -> Self {
        Self { own, ..Self::default() }
    }

    /// The document in force.
    pub const fn own(&self) -> Option<&Arc<SignedRoster>> {
        self.own.as_ref()
    }

    /// Knowledge of each peer's roster.
    pub fn peers(&self) -> impl Iterator<Item = (&NodeKey, &PeerKnowledge)> {
        self.peers.iter().map(|(key, state)| (key, &state.knowledge))
    }

    /// A document of this node's operator is in force from here on, whatever its serial is.
    pub fn set_own(&mut self, now: Time, roster: Arc<SignedRoster>) {
        self.own = Some(roster);
        self.offer_to_all(now, None);
    }

    /// A session with a peer came up.
    pub fn on_session_up(&mut self, now: Time, peer: NodeKey) {
        let state = self.peers.entry(peer).or_default();
        // A request of the former session got no answer.
        *state = PeerState { needs_offer: true, ..PeerState::default() };
        state.knowledge.connected = true;
        self.drive(now, peer);
    }

    /// The last session with a peer ended.
    pub fn on_session_down(&mut self, peer: NodeKey) {
        if let Some(state) = self.peers.get_mut(&peer) {
            state.knowledge.connected = false;
            state.in_flight = None;
        }
    }

    /// A peer is no peer of this node.
    pub fn forget_peer(&mut self, peer: NodeKey) {
        self.peers.remove(&peer);
    }

    /// Answers a request of a peer.
    pub fn on_request(&mut self, now: Time, peer: NodeKey, request: &[u8]) -> Vec<u8> {
        let Ok(request) = RosterRequest::decode(request) else {
            return RosterReply::Refused(RefusalCode::Malformed).encode();
        };
        let Some(own) = self.own.clone() else {
            return RosterReply::Refused(RefusalCode::NoCluster).encode();
        };
        match request {
            RosterRequest::Offer(id, _) if id != own.roster().id => {
                self.report(peer, ExchangeProblem::OtherCluster);
                RosterReply::Refused(RefusalCode::OtherCluster).encode()
            }
            RosterRequest::Offer(_, version) => self.compare(now, peer, &own, version),
            // It concerns the node's files: whoever keeps them answers.
            RosterRequest::PrepareKey => RosterReply::Refused(RefusalCode::Malformed).encode(),
            RosterRequest::Push(text) => match SignedRoster::verify(text, &own.roster().id) {
                Ok(pushed) => self.consider(now, peer, &own, pushed),
                Err(refusal) => {
                    self.report(peer, ExchangeProblem::Invalid(refusal.to_string()));
                    RosterReply::Refused(RefusalCode::Invalid).encode()
                }
            },
        }
    }

    /// The outcome of a request: the reply, or `None` when none came.
    pub fn on_reply(&mut self, now: Time, peer: NodeKey, number: u64, reply: Option<&[u8]>) {
        let Some(state) = self.peers.get_mut(&peer) else { return };
        // A reply of a former session says nothing of what was offered since.
        let is_current = |(current, _): &mut (u64, RosterVersion)| *current == number;
        let Some((_, offered)) = state.in_flight.take_if(is_current) else { return };
        let Some(reply) = reply.and_then(|reply| RosterReply::decode(reply).ok()) else {
            let delay = MIN_RETRY_DELAY.saturating_mul(1 << state.failures.min(6));
            state.failures += 1;
            state.needs_offer = true;
            state.retry_at = Some(now + delay.min(MAX_RETRY_DELAY));
            return;
        };
        state.failures = 0;
        let Some(own) = self.own.clone() else { return };
        match reply {
            RosterReply::Same => self.note_agreed(peer, offered),
            RosterReply::Want => {
                let request = RosterRequest::Push(own.text().as_bytes()).encode();
                return self.send_request(peer, own.version(), request);
            }
            RosterReply::Newer(text) => match SignedRoster::verify(text, &own.roster().id) {
                Ok(newer) => drop(self.consider(now, peer, &own, newer)),
                Err(refusal) => {
                    self.report(peer, ExchangeProblem::Invalid(refusal.to_string()));
                }
            },
            RosterReply::Conflict(other) => {
                drop(self.compare(now, peer, &own, other));
            }
            RosterReply::Refused(RefusalCode::OtherCluster) => {
                self.report(peer, ExchangeProblem::OtherCluster);
            }
            // The peer reports the reason on its side, or has no cluster yet.
            RosterReply::Refused(_) | RosterReply::NextKey(_) => {}
        }
        self.drive(now, peer);
    }

    /// The next time [`on_timer`](Self::on_timer) has something to do.
    pub fn next_wake(&self) -> Option<Time> {
        let due = self.peers.values().filter(|state| state.is_waiting());
        due.filter_map(|state| state.retry_at).min()
    }

    /// Sends what is due.
    pub fn on_timer(&mut self, now: Time) {
        let peers: Vec<_> = self.peers.keys().copied().collect();
        peers.into_iter().for_each(|peer| self.drive(now, peer));
    }

    /// The next output.
    pub fn poll_output(&mut self) -> Option<ExchangeOutput> {
        self.outputs.pop_front()
    }

    /// Compares the version that a peer has with the one here.
    fn compare(
        &mut self,
        now: Time,
        peer: NodeKey,
        own: &SignedRoster,
        other: RosterVersion,
    ) -> Vec<u8> {
        match other.compare(&own.version()) {
            Some(Ordering::Greater) => {
                self.note_agreed(peer, other);
                RosterReply::Want.encode()
            }
            Some(Ordering::Equal) => {
                self.note_agreed(peer, other);
                RosterReply::Same.encode()
            }
            Some(Ordering::Less) => {
                self.note_agreed(peer, other);
                // The reply may be lost: what the peer has then is offered for.
                if let Some(state) = self.peers.get_mut(&peer) {
                    state.needs_offer = true;
                }
                self.drive(now, peer);
                RosterReply::Newer(own.text().as_bytes()).encode()
            }
            None => {
                let own = own.version();
                self.report(peer, ExchangeProblem::Conflict { own, other });
                RosterReply::Conflict(own).encode()
            }
        }
    }

    /// Adopts a valid document if its serial is higher than that here.
    fn consider(
        &mut self,
        now: Time,
        peer: NodeKey,
        own: &SignedRoster,
        document: SignedRoster,
    ) -> Vec<u8> {
        let version = document.version();
        if version.compare(&own.version()) != Some(Ordering::Greater) {
            return self.compare(now, peer, own, version);
        }
        let roster = Arc::new(document);
        self.own = Some(roster.clone());
        self.note_agreed(peer, version);
        self.outputs.push_back(ExchangeOutput::Adopt { roster, from: peer });
        self.offer_to_all(now, Some(peer));
        RosterReply::Same.encode()
    }

    fn offer_to_all(&mut self, now: Time, except: Option<NodeKey>) {
        let peers: Vec<_> =
            self.peers.keys().copied().filter(|peer| Some(*peer) != except).collect();
        for peer in peers {
            if let Some(state) = self.peers.get_mut(&peer) {
                state.needs_offer = true;
                state.retry_at = None;
            }
            self.drive(now, peer);
        }
    }

    /// The peer has this version, and no problem with it.
    fn note_agreed(&mut self, peer: NodeKey, version: RosterVersion) {
        if let Some(state) = self.peers.get_mut(&peer) {
            state.knowledge.version = Some(version);
            state.knowledge.problem = None;
        }
    }

    fn report(&mut self, peer: NodeKey, problem: ExchangeProblem) {
        let Some(state) = self.peers.get_mut(&peer) else { return };
        if state.knowledge.problem.as_ref() != Some(&problem) {
            state.knowledge.problem = Some(problem.clone());
            self.outputs.push_back(ExchangeOutput::Problem { peer, problem });
        }
    }

    /// Offers this node's version to a peer, if that is due.
    fn drive(&mut self, now: Time, peer: NodeKey) {
        let Some(own) = &self.own else { return };
        let Some(state) = self.peers.get_mut(&peer) else { return };
        if !state.is_waiting() || state.retry_at.is_some_and(|at| at > now) {
            return;
        }
        state.needs_offer = false;
        state.retry_at = None;
        let version = own.version();
        if state.knowledge.version == Some(version) {
            return;
        }
        let request = RosterRequest::Offer(own.roster().id, version).encode();
        self.send_request(peer, version, request);
    }

    fn send_request(&mut self, peer: NodeKey, offered: RosterVersion, request: Vec<u8>) {
        let Some(state) = self.peers.get_mut(&peer) else { return };
        self.last_number += 1;
        let number = self.last_number;
        state.in_flight = Some((number, offered));
        self.outputs.push_back(ExchangeOutput::Send { peer, number, request });
    }
}

impl PeerState {
    /// True if an offer is due and nothing else is under way.
    const fn is_waiting(&self) -> bool {
        self.knowledge.connected && self.needs_offer && self.in_flight.is_none()
    }
}
