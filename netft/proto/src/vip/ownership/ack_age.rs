//! How long ago an earlier leader can have confirmed its leadership.
//!
//! A leader grants a lease after a majority has acknowledged it since the request. The majority
//! that elects the next leader shares a node with that one, and this node stops acknowledging the
//! earlier leader when it votes. So no lease of an earlier leader was asked for after the newest
//! acknowledgement in the next leader's majority, which each vote tells.

use std::time::Duration;

use crate::{time::Time, vip::ownership::lease::LeaseRules};

/// A node's own memory of when it last acknowledged a leader, itself included.
#[derive(Clone, Copy, Debug)]
pub struct AckClock {
    last: Time,
    /// Acknowledgements under way: their moment is not known yet.
    in_progress: u32,
}

impl AckClock {
    /// The memory of a process that starts: its former process may have acknowledged until now.
    pub fn new(now: Time) -> Self {
        Self { last: now, in_progress: 0 }
    }

    /// An acknowledgement begins.
    pub fn begin_ack(&mut self) {
        self.in_progress += 1;
    }

    /// It is given, or will not be.
    pub fn end_ack(&mut self, now: Time) {
        self.in_progress = self.in_progress.saturating_sub(1);
        self.last = self.last.max(now);
    }

    /// The last one that is known to be given.
    pub const fn last_ack(&self) -> Time {
        self.last
    }

    /// Time since the last one, for a vote that was just given.
    pub fn age(&self, now: Time) -> Duration {
        if self.in_progress > 0 { Duration::ZERO } else { now.since(self.last) }
    }
}

/// The ages that the votes of one term told.
#[derive(Clone, Debug, Default)]
pub struct VoteAges {
    term: u64,
    voters: Vec<u64>,
    newest: Option<Time>,
}

impl VoteAges {
    /// Adds the vote of `voter`, heard at `now`.
    pub fn add_vote(
        &mut self,
        term: u64,
        voter: u64,
        now: Time,
        age: Duration,
        rules: &LeaseRules,
    ) {
        if term < self.term {
            return;
        }
        if term > self.term {
            *self = Self { term, ..Self::default() };
        }
        let moment = rules.latest_moment(now, age);
        self.newest = Some(self.newest.map_or(moment, |newest| newest.max(moment)));
        if !self.voters.contains(&voter) {
            self.voters.push(voter);
        }
    }

    /// The newest acknowledgement of an earlier leader, if the votes of `term` that were heard are
    /// a majority of `voters`.
    pub fn newest_ack(&self, term: u64, voters: usize) -> Option<Time> {
        (self.term == term && self.voters.len() > voters / 2).then_some(self.newest).flatten()
    }
}
