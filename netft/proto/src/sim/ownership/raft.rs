//! A model of raft (Ongaro, "Consensus", 2014, figure 3.1): elections, replication, and the round
//! that confirms a leader. Terms, votes and logs survive a crash; all else does not.

use std::time::Duration;

use crate::{
    sim::rng::SplitMix64,
    time::Time,
    vip::{
        FencingToken,
        ownership::{AckClock, LeaseRules, OwnershipCommand, OwnershipState, VoteAges},
    },
};

/// Interval of a leader's heartbeats.
pub(super) const HEARTBEAT_INTERVAL: Duration = Duration::from_millis(50);
/// Shortest and longest time without a leader before an election, milliseconds.
const ELECTION_MS: (u64, u64) = (150, 250);
/// A follower that heard its leader within this time refuses votes.
const VOTE_REFUSAL: Duration = Duration::from_millis(250);

/// An entry; `None` opens a leader's term.
#[derive(Clone, Debug)]
pub(super) struct LogEntry {
    pub(super) term: u64,
    pub(super) command: Option<OwnershipCommand>,
}

/// Messages of the model.
#[derive(Clone, Debug)]
pub(super) enum RaftMessage {
    VoteRequest { term: u64, last_index: u64, last_term: u64 },
    Vote { term: u64, is_granted: bool, age: Duration },
    Append { term: u64, prev: (u64, u64), entries: Vec<LogEntry>, commit: u64, round: u64 },
    Ack { term: u64, is_accepted: bool, matched: u64, round: u64 },
}

/// Survives a crash.
#[derive(Clone, Debug, Default)]
pub(super) struct Durable {
    term: u64,
    voted_for: Option<usize>,
    log: Vec<LogEntry>,
}

#[derive(Clone, Debug)]
enum Role {
    Follower,
    Candidate { votes: Vec<usize> },
    Leader { next: Vec<u64>, matched: Vec<u64>, rounds: Vec<u64> },
}

/// Message of the model to its node.
#[derive(Debug)]
pub(super) enum RaftEvent {
    Send(usize, RaftMessage),
    /// Leader from here on; the newest acknowledgement of an earlier leader, if known.
    Elected(Option<Time>),
    /// Leader no more.
    Deposed,
}

/// One voter.
#[derive(Debug)]
pub(super) struct RaftNode {
    me: usize,
    voters: usize,
    durable: Durable,
    role: Role,
    pub(super) leader: Option<usize>,
    commit: u64,
    pub(super) applied: u64,
    pub(super) state: OwnershipState,
    leader_heard: Option<Time>,
    deadline: Time,
    /// Number of the newest round that asks the others to acknowledge this leader.
    round: u64,
    ack_clock: AckClock,
    vote_ages: VoteAges,
    rules: LeaseRules,
    pub(super) events: Vec<RaftEvent>,
}

impl RaftNode {
    pub(super) fn start(
        me: usize,
        voters: usize,
        durable: Durable,
        now: Time,
        rng: &mut SplitMix64,
    ) -> Self {
        let mut node = Self {
            me,
            voters,
            durable,
            role: Role::Follower,
            leader: None,
            commit: 0,
            applied: 0,
            state: OwnershipState::default(),
            leader_heard: None,
            deadline: now,
            round: 0,
            ack_clock: AckClock::new(now),
            vote_ages: VoteAges::default(),
            rules: LeaseRules::DEFAULT,
            events: Vec::new(),
        };
        node.reset_deadline(now, rng);
        node
    }

    pub(super) fn durable(&self) -> Durable {
        self.durable.clone()
    }

    pub(super) fn is_leader(&self) -> bool {
        matches!(self.role, Role::Leader { .. })
    }

    pub(super) fn next_wake(&self) -> Time {
        self.deadline
    }

    fn reset_deadline(&mut self, now: Time, rng: &mut SplitMix64) {
        let wait = rng.next_in_range(ELECTION_MS.0, ELECTION_MS.1);
        self.deadline = now + Duration::from_millis(wait);
    }

    fn last(&self) -> (u64, u64) {
        let index = self.durable.log.len() as u64;
        (index, self.durable.log.last().map_or(0, |entry| entry.term))
    }

    fn others(&self) -> impl Iterator<Item = usize> + use<> {
        let me = self.me;
        (0..self.voters).filter(move |node| *node != me)
    }

    pub(super) fn on_timer(&mut self, now: Time, rng: &mut SplitMix64) {
        if now < self.deadline {
            return;
        }
        if self.is_leader() {
            self.start_round(now);
        } else {
            self.start_election(now, rng);
        }
    }

    /// A peer is unreachable over all routes: if it is the leader, an election begins.
    pub(super) fn on_unreachable(&mut self, now: Time, peer: usize, rng: &mut SplitMix64) {
        if self.leader == Some(peer) && !self.is_leader() {
            self.start_election(now, rng);
        }
    }

    fn start_election(&mut self, now: Time, rng: &mut SplitMix64) {
        self.durable.term += 1;
        self.durable.voted_for = Some(self.me);
        self.leader = None;
        self.leader_heard = None;
        self.role = Role::Candidate { votes: vec![self.me] };
        self.add_vote_age(now, self.me, self.ack_clock.age(now));
        self.reset_deadline(now, rng);
        let (last_index, last_term) = self.last();
        for peer in self.others() {
            let term = self.durable.term;
            let ask = RaftMessage::VoteRequest { term, last_index, last_term };
            self.events.push(RaftEvent::Send(peer, ask));
        }
        self.count_votes(now);
    }

    fn add_vote_age(&mut self, now: Time, voter: usize, age: Duration) {
        self.vote_ages.add_vote(self.durable.term, voter as u64, now, age, &self.rules);
    }

    fn count_votes(&mut self, now: Time) {
        let Role::Candidate { votes } = &self.role else { return };
        if votes.len() <= self.voters / 2 {
            return;
        }
        let next = vec![self.last().0 + 1; self.voters];
        self.role =
            Role::Leader { next, matched: vec![0; self.voters], rounds: vec![0; self.voters] };
        self.leader = Some(self.me);
        self.durable.log.push(LogEntry { term: self.durable.term, command: None });
        let ack = self.vote_ages.newest_ack(self.durable.term, self.voters);
        self.events.push(RaftEvent::Elected(ack));
        self.start_round(now);
    }

    /// Sends every follower what it lacks; a majority of its answers confirms this leader. Returns
    /// the round's number.
    pub(super) fn start_round(&mut self, now: Time) -> u64 {
        self.round += 1;
        self.deadline = now + HEARTBEAT_INTERVAL;
        for peer in self.others() {
            self.send_append(peer);
        }
        self.advance_commit();
        self.round
    }

    fn send_append(&mut self, peer: usize) {
        let Role::Leader { next, .. } = &self.role else { return };
        let start = next[peer].max(1);
        let prev_index = start - 1;
        let log = &self.durable.log;
        let prev_term = prev_index.checked_sub(1).map_or(0, |at| log[at as usize].term);
        let entries = log[prev_index as usize..].to_vec();
        let (term, commit, round) = (self.durable.term, self.commit, self.round);
        let append =
            RaftMessage::Append { term, prev: (prev_index, prev_term), entries, commit, round };
        self.events.push(RaftEvent::Send(peer, append));
    }

    /// True once a majority, this node included, has acknowledged the round or a later one, and
    /// the term's first entry is committed: then the state is complete.
    pub(super) fn is_confirmed(&self, round: u64) -> bool {
        let Role::Leader { rounds, .. } = &self.role else { return false };
        let acks = rounds.iter().filter(|acked| **acked >= round).count();
        let committed_term =
            self.commit.checked_sub(1).map(|at| self.durable.log[at as usize].term);
        acks + 1 > self.voters / 2 && committed_term == Some(self.durable.term)
    }

    /// This leader vouches for a lease: it acknowledges itself.
    pub(super) fn acknowledge_self(&mut self, now: Time) {
        self.ack_clock.end_ack(now);
    }

    pub(super) fn propose(&mut self, now: Time, command: OwnershipCommand) {
        if self.is_leader() {
            self.durable.log.push(LogEntry { term: self.durable.term, command: Some(command) });
            self.start_round(now);
        }
    }

    fn step_down(&mut self, term: u64) {
        if term > self.durable.term {
            self.durable.term = term;
            self.durable.voted_for = None;
        }
        if self.is_leader() {
            self.events.push(RaftEvent::Deposed);
        }
        self.role = Role::Follower;
    }

    pub(super) fn on_message(
        &mut self,
        now: Time,
        from: usize,
        message: RaftMessage,
        rng: &mut SplitMix64,
    ) {
        match message {
            RaftMessage::VoteRequest { term, last_index, last_term } => {
                self.on_vote_request(now, from, term, (last_term, last_index), rng);
            }
            RaftMessage::Vote { term, is_granted, age } => {
                if term > self.durable.term {
                    self.step_down(term);
                    self.leader = None;
                } else if is_granted && term == self.durable.term {
                    self.add_vote_age(now, from, age);
                    if let Role::Candidate { votes } = &mut self.role
                        && !votes.contains(&from)
                    {
                        votes.push(from);
                    }
                    self.count_votes(now);
                }
            }
            RaftMessage::Append { term, prev, entries, commit, round } => {
                let accepted = self.on_append(now, from, term, (prev, entries, commit), rng);
                let (is_accepted, matched) = accepted.map_or((false, 0), |index| (true, index));
                let ack = RaftMessage::Ack { term: self.durable.term, is_accepted, matched, round };
                self.events.push(RaftEvent::Send(from, ack));
            }
            RaftMessage::Ack { term, is_accepted, matched, round } => {
                self.on_ack(from, term, is_accepted, matched, round);
            }
        }
    }

    fn on_vote_request(
        &mut self,
        now: Time,
        from: usize,
        term: u64,
        last: (u64, u64),
        rng: &mut SplitMix64,
    ) {
        let is_led = self.leader_heard.is_some_and(|heard| now < heard + VOTE_REFUSAL);
        if is_led {
            return;
        }
        if term > self.durable.term {
            self.step_down(term);
            self.leader = None;
        }
        let (own_index, own_term) = self.last();
        let is_free = self.durable.voted_for.is_none_or(|voted| voted == from);
        let is_granted = term == self.durable.term && is_free && last >= (own_term, own_index);
        if is_granted {
            self.durable.voted_for = Some(from);
            self.reset_deadline(now, rng);
        }
        let age = self.ack_clock.age(now);
        let vote = RaftMessage::Vote { term: self.durable.term, is_granted, age };
        self.events.push(RaftEvent::Send(from, vote));
    }

    /// Returns the index up to which the log matches the leader's; `None` refuses.
    fn on_append(
        &mut self,
        now: Time,
        from: usize,
        term: u64,
        (prev, entries, commit): ((u64, u64), Vec<LogEntry>, u64),
        rng: &mut SplitMix64,
    ) -> Option<u64> {
        if term < self.durable.term {
            return None;
        }
        if term > self.durable.term || !matches!(self.role, Role::Follower) {
            self.step_down(term);
        }
        self.leader = Some(from);
        self.leader_heard = Some(now);
        self.reset_deadline(now, rng);
        self.ack_clock.begin_ack();
        self.ack_clock.end_ack(now);
        let log = &mut self.durable.log;
        let prev_term = match prev.0.checked_sub(1) {
            None => Some(0),
            Some(at) => log.get(at as usize).map(|entry| entry.term),
        };
        if prev_term != Some(prev.1) {
            return Some(0);
        }
        let matched = prev.0 + entries.len() as u64;
        for (place, entry) in (prev.0 as usize..).zip(entries) {
            if log.get(place).is_some_and(|own| own.term != entry.term) {
                log.truncate(place);
            }
            if place == log.len() {
                log.push(entry);
            }
        }
        self.commit = self.commit.max(commit.min(matched));
        self.apply_committed();
        Some(matched)
    }

    fn on_ack(&mut self, from: usize, term: u64, is_accepted: bool, index: u64, acked: u64) {
        if term > self.durable.term {
            self.step_down(term);
            self.leader = None;
            return;
        }
        let Role::Leader { next, matched, rounds } = &mut self.role else { return };
        if term < self.durable.term || !is_accepted {
            return;
        }
        rounds[from] = rounds[from].max(acked);
        if index == 0 && next[from] > 1 {
            // The logs differ before: from the start, which is short enough here.
            next[from] = 1;
            self.send_append(from);
            return;
        }
        matched[from] = matched[from].max(index);
        next[from] = next[from].max(index + 1);
        self.advance_commit();
    }

    fn advance_commit(&mut self) {
        let Role::Leader { matched, .. } = &self.role else { return };
        let mut indexes = matched.clone();
        indexes[self.me] = self.durable.log.len() as u64;
        indexes.sort_unstable_by(|a, b| b.cmp(a));
        let common = indexes[self.voters / 2];
        let is_own_term = common
            .checked_sub(1)
            .is_some_and(|at| self.durable.log[at as usize].term == self.durable.term);
        if common > self.commit && is_own_term {
            self.commit = common;
            self.apply_committed();
        }
    }

    fn apply_committed(&mut self) {
        while self.applied < self.commit {
            let entry = &self.durable.log[self.applied as usize];
            self.applied += 1;
            if let Some(command) = &entry.command {
                let token = FencingToken { term: entry.term, index: self.applied };
                self.state.apply_command(token, command);
            }
        }
    }
}
