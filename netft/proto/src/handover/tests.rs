#![allow(clippy::unwrap_used)]

use std::{
    collections::{HashSet, VecDeque},
    time::Duration,
};

use proptest::prelude::*;

use super::*;
use crate::{session::COUNTER_RESERVE, time::Time};

const READY_TIMEOUT: Duration = Duration::from_secs(10);

const TAKE_MESSAGE: PredecessorMessage =
    PredecessorMessage::Take { version: HANDOVER_VERSION, queues: 1, sockets: 1 };

/// The counters of one session key, and those of the key that a fresh process agrees on.
#[derive(Default)]
struct Counters {
    /// Number of the predecessor's key.
    old_key: u32,
    old_next: u64,
    /// The predecessor's counter as the successor got it.
    saved: Option<u64>,
    new_next: Option<u64>,
    used: HashSet<(u32, u64)>,
}

impl Counters {
    fn send_old(&mut self) {
        assert!(self.used.insert((self.old_key, self.old_next)), "a counter is used twice");
        self.old_next += 1;
    }

    /// The successor seals under the former key, after the reserve.
    fn send_new(&mut self) {
        let Some(saved) = self.saved else { return };
        let next = self.new_next.get_or_insert(saved + COUNTER_RESERVE);
        assert!(self.used.insert((0, *next)), "a counter is used twice");
        *next += 1;
    }
}

/// Both processes, what is on its way between them, and who reads the queues.
struct Both {
    now: Time,
    old: Option<Predecessor>,
    new: Option<Successor>,
    to_old: VecDeque<SuccessorMessage>,
    to_new: VecDeque<PredecessorMessage>,
    /// I/O that was requested and is not done.
    freezing: bool,
    opening: bool,
    old_serves: bool,
    new_serves: bool,
    new_end_unseen: bool,
    /// Version that the successor claims.
    version: u16,
    finished: bool,
    counters: Counters,
}

impl Both {
    fn start(version: u16) -> Self {
        let now = Time::from_millis(1);
        Self {
            now,
            old: Some(Predecessor::new(now, READY_TIMEOUT)),
            new: Some(Successor::new()),
            to_old: VecDeque::new(),
            to_new: VecDeque::new(),
            freezing: false,
            opening: false,
            old_serves: true,
            new_serves: false,
            new_end_unseen: false,
            version,
            finished: false,
            counters: Counters::default(),
        }
    }

    fn end_new(&mut self) {
        self.new_end_unseen |= self.new.take().is_some();
        (self.new_serves, self.opening) = (false, false);
    }

    fn tell_old(&mut self, input: PredecessorInput) {
        let Some(old) = &mut self.old else { return };
        match old.on_input(self.now, input) {
            None => {}
            Some(PredecessorAction::Freeze) => self.freezing = true,
            Some(PredecessorAction::SendTake) => {
                assert!(!self.old_serves, "two processes would read the queues");
                self.to_new.push_back(TAKE_MESSAGE);
            }
            Some(PredecessorAction::StopSuccessor) => self.end_new(),
            Some(PredecessorAction::Serve { reason, was_frozen }) => {
                assert!(!reason.is_empty());
                assert!(self.new.is_none(), "the successor may still read the queues");
                assert_eq!(was_frozen, !self.old_serves);
                if was_frozen {
                    // A fresh process, with sessions of its own.
                    (self.counters.old_key, self.counters.old_next) = (1, 0);
                }
                (self.old_serves, self.finished) = (true, true);
            }
            Some(PredecessorAction::Exit) => {
                self.old = None;
                self.finished = true;
            }
        }
    }

    fn tell_new(&mut self, input: SuccessorInput) {
        let Some(new) = &mut self.new else { return };
        match new.on_input(input) {
            None => {}
            Some(SuccessorAction::Send(SuccessorMessage::Ready { .. })) => {
                self.to_old.push_back(SuccessorMessage::Ready { version: self.version });
            }
            Some(SuccessorAction::Send(message)) => {
                self.new_serves |= message == SuccessorMessage::Serving;
                self.to_old.push_back(message);
            }
            Some(SuccessorAction::Open) => {
                assert!(!self.old_serves);
                self.opening = true;
            }
            Some(SuccessorAction::Exit(message)) => {
                self.to_old.extend(message);
                self.end_new();
            }
        }
    }

    /// One of the things that can happen next.
    fn step(&mut self, choice: u8) {
        match choice {
            0 => self.tell_new(SuccessorInput::Prepared),
            1 => {
                if let Some(message) = self.to_old.pop_front() {
                    self.tell_old(PredecessorInput::Message(message));
                }
            }
            2 => {
                if let Some(message) = self.to_new.pop_front() {
                    self.tell_new(SuccessorInput::Message(message));
                }
            }
            3 if self.freezing => {
                (self.freezing, self.old_serves) = (false, false);
                self.counters.saved = Some(self.counters.old_next);
                self.tell_old(PredecessorInput::Frozen);
            }
            4 if self.opening => {
                self.opening = false;
                self.tell_new(SuccessorInput::Opened);
            }
            // What was sent before the end is read before it.
            5 if self.new_end_unseen && self.to_old.is_empty() => {
                self.new_end_unseen = false;
                self.tell_old(PredecessorInput::SuccessorGone);
            }
            6 => {
                let wake = self.old.as_ref().and_then(Predecessor::next_wake);
                self.now = self.now.max(wake.unwrap_or(self.now));
                self.tell_old(PredecessorInput::Timer);
            }
            7 => self.end_new(),
            8 => self.tell_new(SuccessorInput::Failed("no memory".to_owned())),
            9 => self.tell_old(PredecessorInput::Unknown),
            10 if self.old.is_some() && self.old_serves => self.counters.send_old(),
            // A frame that was on its way to the kernel when the counters were read.
            11 if self.counters.saved.is_some() && !self.old_serves => {
                let racing = self.counters.old_next - self.counters.saved.unwrap();
                if racing < COUNTER_RESERVE {
                    self.counters.send_old();
                }
            }
            12 if self.new.is_some() && (self.opening || self.new_serves) => {
                self.counters.send_new();
            }
            _ => {}
        }
        assert!(!(self.old_serves && self.new_serves && self.old.is_some()), "two serve");
    }

    /// Lets everything come to its end in order, without further faults.
    fn settle(&mut self) {
        for _ in 0..50 {
            for choice in [1, 2, 3, 4, 5] {
                self.step(choice);
            }
            if !self.finished && self.to_old.is_empty() && self.to_new.is_empty() {
                self.step(0);
                self.step(1);
                self.step(6);
            }
        }
        let serving = usize::from(self.old.is_some() && self.old_serves)
            + usize::from(self.new.is_some() && self.new_serves);
        assert!(self.finished && serving == 1, "{serving} serve");
    }
}

#[test]
fn the_undisturbed_hand_over_moves_the_adapter() {
    let mut both = Both::start(HANDOVER_VERSION);
    for step in [0, 1, 3, 2, 4, 1] {
        assert!(!both.finished);
        both.step(step);
    }
    assert!(both.finished && both.old.is_none() && both.new_serves);
}

#[test]
fn nothing_of_the_predecessor_changes_before_the_successor_is_ready() {
    for faults in [&[7, 5][..], &[8, 1, 5], &[9, 5], &[6, 5]] {
        let mut both = Both::start(HANDOVER_VERSION);
        for step in faults {
            both.step(*step);
            assert!(both.old_serves && !both.freezing);
        }
        assert!(both.finished, "{faults:?}");
    }
    let mut both = Both::start(HANDOVER_VERSION + 1);
    both.step(0);
    both.step(1);
    assert!(both.old_serves && !both.freezing && both.new.is_none(), "an unknown version");
    both.settle();
}

#[test]
fn packets_that_are_no_messages_are_told_apart() {
    for bytes in
        [&b""[..], b"ready", b"ready x", b"ready 70000", b"serving now", b"\xff", b"take 1"]
    {
        assert_eq!(SuccessorMessage::decode(bytes), Err(UnknownMessage), "{bytes:?}");
    }
    let later = SuccessorMessage::decode(b"ready 2 with more");
    assert_eq!(later, Ok(SuccessorMessage::Ready { version: 2 }));
    let long = SuccessorMessage::Refused { reason: "ä".repeat(MAX_MESSAGE_LEN) }.encode();
    assert!(long.len() <= MAX_MESSAGE_LEN && SuccessorMessage::decode(&long).is_ok());
    let take = PredecessorMessage::Take { version: 7, queues: 4, sockets: 300 };
    assert_eq!(PredecessorMessage::decode(&take.encode()), Ok(take));
    let former = PredecessorMessage::Take { version: 1, queues: 0, sockets: 0 };
    assert_eq!(PredecessorMessage::decode(b"take 1"), Ok(former), "refused for its version");
    assert_eq!(PredecessorMessage::decode(b"serving"), Err(UnknownMessage));
}

proptest! {
    /// Whatever happens in whatever order: never two processes serve, in the end exactly one, and
    /// no frame has the key and the counter of another.
    #[test]
    fn a_hand_over_cut_anywhere_leaves_exactly_one_serving(
        steps in prop::collection::vec(0u8..13, 0..60),
        version in prop::sample::select(vec![HANDOVER_VERSION, HANDOVER_VERSION + 1]),
    ) {
        let mut both = Both::start(version);
        for step in steps {
            both.step(step);
            if both.finished && both.old.is_none() {
                // The predecessor has ended: the hand-over is over.
                return Ok(());
            }
        }
        both.settle();
    }
}
