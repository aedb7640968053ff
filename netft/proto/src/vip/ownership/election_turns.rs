//! When a voter begins an election because netft cannot reach the leader.
//!
//! Two candidates of one moment split the votes, and each new attempt ends the one before. So the
//! voters take turns: a round has a slot for each, and the slots double from round to round, until
//! one is longer than an election takes on a slow disk or a busy processor. A voter that gave its
//! vote lets that candidate finish first.

use std::time::Duration;

use crate::time::Time;

/// Length of a slot in the first round.
const FIRST_SLOT: Duration = Duration::from_millis(40);
/// Rounds after which slots stay as long as they are.
const MAX_DOUBLINGS: u32 = 5;
/// Time after which raft's own timers go on alone.
const ELECTION_EFFORT: Duration = Duration::from_secs(4);

/// The turns of one voter.
#[derive(Clone, Copy, Debug, Default)]
pub struct ElectionTurns(Option<Effort>);

#[derive(Clone, Copy, Debug)]
struct Effort {
    until: Time,
    /// Beginning of the round.
    begin: Time,
    round: u32,
    /// Place of this voter among those that take part, and their number.
    turn: u32,
    voters: u32,
    next: Time,
}

impl Effort {
    fn slot(&self) -> Duration {
        FIRST_SLOT * (1 << self.round.min(MAX_DOUBLINGS))
    }
}

impl ElectionTurns {
    /// The leader is lost. The voters refuse votes until `refused_until`, because they heard it;
    /// this one is number `turn` of the `voters` that netft reaches.
    pub fn on_leader_lost(&mut self, now: Time, refused_until: Time, turn: u32, voters: u32) {
        let begin = now.max(refused_until);
        let next = begin + FIRST_SLOT * turn;
        let until = begin + ELECTION_EFFORT;
        self.0 = Some(Effort { until, begin, round: 0, turn, voters: voters.max(1), next });
    }

    /// This voter gave its vote to another candidate.
    pub fn on_vote_given(&mut self, now: Time) {
        if let Some(effort) = &mut self.0 {
            effort.next = effort.next.max(now + effort.slot() * (effort.turn + 2));
        }
    }

    /// A voter that this candidate asked has a longer log: it can be elected, and this one cannot.
    pub fn on_log_behind(&mut self, now: Time) {
        if let Some(effort) = &mut self.0 {
            effort.turn += effort.voters;
            effort.next = effort.next.max(now + effort.slot() * effort.turn);
        }
    }

    /// There is a leader, or this node may not elect one.
    pub fn end(&mut self) {
        self.0 = None;
    }

    /// It takes turns; raft's own timers must not interfere.
    pub const fn is_active(&self) -> bool {
        self.0.is_some()
    }

    /// When to ask again.
    pub fn next_wake(&self) -> Option<Time> {
        self.0.map(|effort| effort.next.min(effort.until))
    }

    /// True if this voter begins an election now.
    pub fn take_turn(&mut self, now: Time) -> bool {
        let Some(effort) = &mut self.0 else { return false };
        if now >= effort.until {
            self.0 = None;
            return false;
        }
        if now < effort.next {
            return false;
        }
        // A voter that is late begins its next round from here.
        let slot = effort.slot();
        effort.begin = (effort.begin + slot * effort.voters).max(now + slot);
        effort.round += 1;
        effort.next = effort.begin + effort.slot() * effort.turn;
        true
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[derive(Clone, Copy, Debug)]
    enum Message {
        Ask { from: usize, term: u64, log: u64 },
        Vote { term: u64 },
        Refused,
    }

    #[derive(Clone, Copy, Debug, Default)]
    struct Voter {
        turns: ElectionTurns,
        term: u64,
        votes: usize,
        log: u64,
    }

    /// Elections among voters whose messages and disks take `delay` together; returns the terms
    /// that were used, and when one won. The first `behind` voters lack an entry.
    fn elect_leader(voters: usize, behind: usize, delay: Duration) -> (u64, Time) {
        let mut nodes = vec![Voter::default(); voters];
        for (turn, node) in (0..).zip(&mut nodes) {
            node.turns.on_leader_lost(Time::ZERO, Time::ZERO, turn, voters as u32);
            node.log = u64::from(turn as usize >= behind);
        }
        let mut messages = BTreeMap::<(Time, usize), (usize, Message)>::new();
        let mut count = 0;
        loop {
            let wake = nodes.iter().filter_map(|node| node.turns.next_wake()).min();
            let arrival = messages.first_key_value().map(|((at, _), _)| *at);
            let now = wake.into_iter().chain(arrival).min().expect("nobody won");
            let mut send = |to: usize, message: Message| {
                count += 1;
                messages.insert((now + delay, count), (to, message));
            };
            for (me, node) in nodes.iter_mut().enumerate() {
                if node.turns.take_turn(now) {
                    (node.term, node.votes) = (node.term + 1, 1);
                    for to in (0..voters).filter(|to| *to != me) {
                        send(to, Message::Ask { from: me, term: node.term, log: node.log });
                    }
                }
            }
            let Some(entry) = messages.first_entry().filter(|entry| entry.key().0 <= now) else {
                continue;
            };
            let (to, message) = entry.remove();
            let node = &mut nodes[to];
            match message {
                Message::Ask { from, log, .. } if log < node.log => {
                    count += 1;
                    messages.insert((now + delay, count), (from, Message::Refused));
                }
                Message::Refused => node.turns.on_log_behind(now),
                Message::Ask { from, term, .. } if term > node.term => {
                    (node.term, node.votes) = (term, 0);
                    node.turns.on_vote_given(now);
                    count += 1;
                    messages.insert((now + delay, count), (from, Message::Vote { term }));
                }
                Message::Vote { term } if term == node.term && node.votes > 0 => {
                    node.votes += 1;
                    if node.votes > voters / 2 {
                        return (term, now);
                    }
                }
                Message::Ask { .. } | Message::Vote { .. } => {}
            }
        }
    }

    /// F-103.
    #[test]
    fn few_terms_are_used_however_long_an_election_takes() {
        for voters in [2, 3, 5, 7] {
            for (delay, terms, bound) in [(1, 1, 10), (15, 1, 40), (60, 4, 600), (200, 8, 2500)] {
                let (used, won) = elect_leader(voters, 0, Duration::from_millis(delay));
                let what = format!("{voters} voters, {delay} ms: {used} terms, won at {won}");
                println!("{what}");
                assert!(used <= terms && won <= Time::from_millis(bound), "{what}");
            }
        }
    }

    #[test]
    fn a_voter_whose_log_is_behind_gives_way() {
        for (voters, behind) in [(3, 1), (5, 1), (5, 2), (7, 3)] {
            let (used, won) = elect_leader(voters, behind, Duration::from_millis(5));
            let what = format!("{behind} of {voters} behind: {used} terms, won at {won}");
            println!("{what}");
            assert!(used <= 3 && won <= Time::from_millis(700), "{what}");
        }
    }

    #[test]
    fn votes_are_not_asked_for_while_they_are_refused() {
        let at = Time::from_millis;
        let mut turns = ElectionTurns::default();
        turns.on_leader_lost(at(1_000), at(1_200), 1, 3);
        assert_eq!(turns.next_wake(), Some(at(1_240)));
        assert!(!turns.take_turn(at(1_239)));
        assert!(turns.take_turn(at(1_240)));
        assert!(!turns.take_turn(at(1_240)), "once");
        assert!(!turns.take_turn(at(9_000)), "raft's timers go on");
        assert!(!turns.is_active());
    }
}
