//! The peers: their sessions, and what the engine was told of them.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use netft_proto::{
    config::Config,
    engine::EngineInput,
    failover::cost::LossCounters,
    ids::PeerId,
    overrides::OperatorOverrides,
    route::{PeerPolicies, SessionEndCause},
    session::Session,
    time::Time,
};

use crate::api::session::{PeerVersion, SessionCause, SessionProblem};

/// The shortest time between two sums of the workers' loss counters: failover costs are reported
/// 1.5 s later.
const LOSS_REPORT_INTERVAL: Duration = Duration::from_millis(20);

/// How long a refusal explains handshakes without an answer.
const REFUSAL_FRESHNESS: Duration = Duration::from_secs(10);

/// A peer, beside what the engine knows of it.
#[derive(Default)]
pub(super) struct PeerEntry {
    /// Every live session; frames under any of them are accepted.
    live: Vec<Arc<Session>>,
    /// The local number of the session to seal with.
    preferred: Option<u32>,
    /// The peer takes fragments, by its last hello. Outlives its sessions: a peer that is
    /// away for a moment does not make packets smaller.
    pub(super) accepts_fragments: bool,
    /// The versions in its last hello.
    pub(super) version: Option<PeerVersion>,
    /// The boot id last reported to the engine, while the peer has a session.
    reported_boot_id: Option<u64>,
    /// The same, with or without a session.
    last_boot_id: Option<u64>,
    /// The peer's adapter state at the last handshake; `None` without a session.
    pub(super) adapter_up: Option<bool>,
    /// Loss counters of the sessions that ended, and the sum last reported to the engine.
    ended_loss: LossCounters,
    reported_loss: LossCounters,
    /// Why the last handshake failed, and when; until a session is up.
    handshake_problem: Option<(Time, SessionProblem)>,
    /// Why the last session ended; until the next one is up.
    pub(super) session_end: Option<SessionEndCause>,
    /// Why its names are not resolved, by name.
    pub(super) name_problems: BTreeMap<String, String>,
    /// The policies of the config, where an operator has changed them since.
    pub(super) configured_policies: Option<PeerPolicies>,
}

/// The outcome of a session's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SessionEnd {
    /// Another session is left.
    OthersLeft,
    /// It was the last one.
    Last,
}

impl PeerEntry {
    /// The session to seal with.
    pub(super) fn preferred_session(&self) -> Option<&Arc<Session>> {
        let number = self.preferred?;
        self.live.iter().find(|session| session.local_id() == number)
    }

    pub(super) fn live_sessions(&self) -> &[Arc<Session>] {
        &self.live
    }

    /// Takes in a new session, which is sealed with at once if `preferred` or if it is the first.
    pub(super) fn add_session(&mut self, session: Arc<Session>, preferred: bool, adapter_up: bool) {
        self.adapter_up = Some(adapter_up);
        self.handshake_problem = None;
        self.session_end = None;
        if preferred || self.preferred.is_none() {
            self.preferred = Some(session.local_id());
        }
        self.accepts_fragments = session.peer_accepts_fragments();
        self.live.push(session);
    }

    /// Notes why a handshake failed. One without an answer explains nothing while a refusal is
    /// fresh: the peer may answer on one network alone. Returns whether its cause is another than
    /// before.
    pub(super) fn note_handshake_problem(&mut self, now: Time, problem: SessionProblem) -> bool {
        let explains = |(at, known): &(Time, SessionProblem)| {
            known.cause != SessionCause::NoAnswer && now.since(*at) < REFUSAL_FRESHNESS
        };
        let is_vague = problem.cause == SessionCause::NoAnswer;
        let known = self.handshake_problem.as_ref();
        let is_new = known.is_none_or(|(_, known)| known.cause != problem.cause);
        let is_kept = !is_vague || !known.is_some_and(explains);
        if is_kept {
            self.handshake_problem = Some((now, problem));
        }
        is_kept && is_new
    }

    /// Why the last handshake failed, while there is no session.
    pub(super) fn handshake_problem(&self) -> Option<&SessionProblem> {
        self.handshake_problem.as_ref().map(|(_, problem)| problem)
    }

    /// The cipher of the frames to the peer.
    pub(super) fn cipher(&self) -> Option<&'static str> {
        self.preferred_session().map(|session| session.cipher().as_str())
    }

    /// Seals with a session from here on. Returns its boot id, if it is live.
    pub(super) fn prefer_session(&mut self, local_id: u32) -> Option<u64> {
        self.preferred = Some(local_id);
        self.preferred_session().map(|session| session.boot_id())
    }

    pub(super) fn remove_session(&mut self, local_id: u32, cause: SessionEndCause) -> SessionEnd {
        for over in self.live.extract_if(.., |one| one.local_id() == local_id) {
            self.ended_loss = add_loss_counters(self.ended_loss, &over);
        }
        if self.preferred == Some(local_id) {
            self.preferred = self.live.last().map(|session| session.local_id());
        }
        if self.preferred.is_some() {
            return SessionEnd::OthersLeft;
        }
        self.adapter_up = None;
        self.reported_boot_id = None;
        self.session_end = Some(cause);
        SessionEnd::Last
    }

    /// Notes the boot id the engine is told. Returns whether the peer was restarted since the last
    /// one.
    pub(super) fn record_boot_id(&mut self, boot_id: u64) -> bool {
        self.reported_boot_id = Some(boot_id);
        let before = self.last_boot_id.replace(boot_id);
        before.is_some_and(|before| before != boot_id)
    }

    /// True if a frame under a session with this boot id is from a run of the peer that ended
    /// before the one that the engine knows began. It may have waited in a queue meanwhile. A run
    /// that the engine does not know yet is none: its session was agreed later.
    pub(super) fn is_previous_boot(&self, boot_id: u64) -> bool {
        let newest = |boot| self.live.iter().rposition(|session| session.boot_id() == boot);
        self.reported_boot_id
            .is_some_and(|reported| boot_id != reported && newest(boot_id) <= newest(reported))
    }

    /// Loss counters of all sessions.
    fn total_loss(&self) -> LossCounters {
        self.live.iter().fold(self.ended_loss, |sum, session| add_loss_counters(sum, session))
    }
}

fn add_loss_counters(sum: LossCounters, session: &Session) -> LossCounters {
    let (duplicated, lost) = session.loss_counts();
    LossCounters { duplicated: sum.duplicated + duplicated, lost: sum.lost + lost }
}

/// The configured peers.
#[derive(Default)]
pub(super) struct PeerTable {
    entries: BTreeMap<PeerId, PeerEntry>,
    loss_reported_at: Time,
}

impl PeerTable {
    pub(super) fn add(&mut self, peer: PeerId) {
        self.entries.insert(peer, PeerEntry::default());
    }

    pub(super) fn get(&self, peer: PeerId) -> Option<&PeerEntry> {
        self.entries.get(&peer)
    }

    pub(super) fn get_mut(&mut self, peer: PeerId) -> Option<&mut PeerEntry> {
        self.entries.get_mut(&peer)
    }

    pub(super) fn contains(&self, peer: PeerId) -> bool {
        self.entries.contains_key(&peer)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (PeerId, &PeerEntry)> {
        self.entries.iter().map(|(peer, entry)| (*peer, entry))
    }

    /// The session to seal frames to a peer with.
    pub(super) fn preferred_session(&self, peer: PeerId) -> Option<&Arc<Session>> {
        self.entries.get(&peer)?.preferred_session()
    }

    /// As a session with a peer whose adapter is up.
    #[cfg(test)]
    pub(super) fn note_adapter_up(&mut self, peer: PeerId) {
        self.entries.entry(peer).or_default().adapter_up = Some(true);
    }

    /// Removes the peers that `config` does not know. Returns them.
    pub(super) fn remove_absent(&mut self, config: &Config) -> Vec<PeerId> {
        let gone: Vec<_> =
            self.entries.keys().copied().filter(|peer| config.peer_of(*peer).is_none()).collect();
        for peer in &gone {
            self.entries.remove(peer);
        }
        gone
    }

    /// The loss counters that changed, no more often than every [`LOSS_REPORT_INTERVAL`].
    pub(super) fn take_changed_loss(&mut self, now: Time) -> Vec<EngineInput> {
        if now.since(self.loss_reported_at) < LOSS_REPORT_INTERVAL {
            return Vec::new();
        }
        self.loss_reported_at = now;
        let mut changed = Vec::new();
        for (peer, entry) in &mut self.entries {
            let counters = entry.total_loss();
            if std::mem::replace(&mut entry.reported_loss, counters) != counters {
                changed.push(EngineInput::LossCounters { peer: *peer, counters });
            }
        }
        changed
    }

    /// Puts an operator's policies into `config`, where it still says what it did when they were
    /// set.
    pub(super) fn apply_policy_overrides(
        &mut self,
        overrides: &OperatorOverrides,
        config: &mut Config,
    ) {
        for changed in &overrides.peers {
            let named = config.peers.iter_mut().find(|peer| peer.name == changed.peer);
            let Some(peer) = named.filter(|peer| peer.policies == changed.configured) else {
                continue;
            };
            let configured = std::mem::replace(&mut peer.policies, changed.policies.clone());
            if let Some(entry) = self.entries.get_mut(&peer.id) {
                entry.configured_policies = Some(configured);
            }
        }
    }

    /// Takes policies changed by hand over to `next`, where it says what `running`'s config did:
    /// an operator's change of a peer stays until the config changes the same.
    pub(super) fn carry_over_policies(&mut self, running: &Config, next: &mut Config) {
        for old in &running.peers {
            let (Some(new), Some(entry)) =
                (next.peer_of_mut(old.id), self.entries.get_mut(&old.id))
            else {
                continue;
            };
            match &entry.configured_policies {
                Some(configured) if *configured == new.policies => {
                    new.policies.clone_from(&old.policies);
                }
                _ => entry.configured_policies = None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use netft_proto::{
        ids::{NodeKey, virtual_addrs::VirtualAddrs},
        session::{Cipher, SessionParams},
    };

    use super::*;

    fn session(local_id: u32, boot_id: u64) -> Arc<Session> {
        Arc::new(Session::new(SessionParams {
            peer: PeerId(0),
            peer_addrs: VirtualAddrs::derive_from_key(&NodeKey([1; 32])),
            local_id,
            remote_id: 2,
            boot_id,
            cipher: Cipher::Aes256Gcm,
            tx_secret: [1; 32],
            rx_secret: [2; 32],
        }))
    }

    fn entry(boots: &[u64], reported: Option<u64>) -> PeerEntry {
        let live = (1..).zip(boots).map(|(id, boot_id)| session(id, *boot_id)).collect();
        PeerEntry { live, reported_boot_id: reported, ..PeerEntry::default() }
    }

    #[test]
    fn a_run_that_is_over_is_told_from_this_one_and_from_the_next() {
        assert!(!entry(&[7], Some(7)).is_previous_boot(7));
        assert!(!entry(&[7, 7], Some(7)).is_previous_boot(7));
        assert!(entry(&[7], Some(7)).is_previous_boot(6), "its sessions are gone");
        assert!(entry(&[6, 7], Some(7)).is_previous_boot(6), "its sessions are about to go");
        assert!(!entry(&[6, 7], Some(6)).is_previous_boot(7), "the engine will hear of it");
        assert!(!entry(&[7], Some(6)).is_previous_boot(7));
        assert!(!entry(&[], None).is_previous_boot(7), "the engine refuses it itself");
    }

    #[test]
    fn a_session_that_ends_gives_way_to_the_newest_left() {
        let mut peer = PeerEntry::default();
        peer.add_session(session(1, 7), false, true);
        peer.add_session(session(2, 7), false, true);
        assert_eq!(peer.preferred_session().unwrap().local_id(), 1);
        assert_eq!(peer.prefer_session(2), Some(7));
        assert!(!peer.record_boot_id(7));
        assert_eq!(peer.remove_session(2, SessionEndCause::Replaced), SessionEnd::OthersLeft);
        assert_eq!(peer.preferred_session().unwrap().local_id(), 1);
        assert_eq!(peer.session_end, None);
        assert_eq!(peer.remove_session(1, SessionEndCause::PeerStopped), SessionEnd::Last);
        assert_eq!(peer.session_end, Some(SessionEndCause::PeerStopped));
        assert_eq!((peer.adapter_up, peer.reported_boot_id), (None, None));
        assert!(peer.record_boot_id(8), "the former boot id outlives its sessions");
    }

    #[test]
    fn t_03_a_refusal_explains_more_than_silence() {
        let mut peer = PeerEntry::default();
        let problem = |cause| SessionProblem::new(cause, "");
        let cause = |peer: &PeerEntry| peer.handshake_problem().map(|problem| problem.cause);
        peer.note_handshake_problem(Time::from_millis(1), problem(SessionCause::NoAnswer));
        assert_eq!(cause(&peer), Some(SessionCause::NoAnswer));
        peer.note_handshake_problem(Time::from_millis(2), problem(SessionCause::KeyRefused));
        peer.note_handshake_problem(Time::from_millis(3), problem(SessionCause::NoAnswer));
        assert_eq!(cause(&peer), Some(SessionCause::KeyRefused));
        peer.note_handshake_problem(Time::from_millis(4), problem(SessionCause::WrongKey));
        assert_eq!(cause(&peer), Some(SessionCause::WrongKey));
        let later = Time::from_millis(5) + REFUSAL_FRESHNESS;
        peer.note_handshake_problem(later, problem(SessionCause::NoAnswer));
        assert_eq!(cause(&peer), Some(SessionCause::NoAnswer));
        peer.add_session(session(1, 7), true, true);
        assert_eq!(cause(&peer), None);
    }

    #[test]
    fn loss_counters_are_reported_when_they_change() {
        let mut peers = PeerTable::default();
        peers.add(PeerId(0));
        assert!(peers.take_changed_loss(Time::from_millis(20)).is_empty());
        let loss = LossCounters { duplicated: 1, lost: 2 };
        peers.get_mut(PeerId(0)).unwrap().ended_loss = loss;
        assert!(peers.take_changed_loss(Time::from_millis(39)).is_empty());
        let changed = peers.take_changed_loss(Time::from_millis(40));
        let [EngineInput::LossCounters { counters, .. }] = changed[..] else {
            panic!("{changed:?}")
        };
        assert_eq!(counters, loss);
        assert!(peers.take_changed_loss(Time::from_millis(60)).is_empty());
    }
}
