//! Whose turn it is to ask. Pure.
//!
//! A request and its reply prove both directions to both ends: each hears the other. While a route
//! is steady one end asks at a time and the other answers, so a heartbeat goes each way once per
//! delay and not twice, at half the cost. The ends take turns, because only who asks learns the
//! round trip. An end that is not asked in time asks itself, and whatever is amiss, both ask every
//! delay.

use std::time::Duration;

/// Heartbeats in a row that have to arrive in time before one end may leave it to the other.
const STEADY: u8 = 32;
/// Requests of one end until it is the other's turn.
const TURN: u8 = 2;

/// What one end of a route keeps of it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Turns {
    /// Heartbeats in a row that came in time.
    steady: u8,
    /// The peer's requests since this end's last.
    asked: u8,
    /// The next request has news, or is wanted for another reason.
    hurried: bool,
}

impl Turns {
    /// A heartbeat came, `gap` after the one before.
    pub(super) fn heard(&mut self, gap: Option<Duration>, delay: Duration) {
        let in_time = gap.is_some_and(|gap| gap * 2 <= delay * 3);
        self.steady = if in_time { self.steady.saturating_add(1) } else { 0 };
    }

    /// Something is amiss.
    pub(super) fn upset(&mut self) {
        self.steady = 0;
    }

    /// The next request must not wait.
    pub(super) fn hurry(&mut self) {
        self.hurried = true;
    }

    /// This end asks.
    pub(super) fn ask(&mut self) {
        (self.asked, self.hurried) = (0, false);
    }

    /// The peer asked and has its answer: whose turn is next; `None` when this end asks as planned.
    pub(super) fn asked(&mut self) -> Option<Turn> {
        self.asked = self.asked.saturating_add(1);
        if !self.may_wait() {
            return None;
        }
        Some(if self.asked == TURN { Turn::Own } else { Turn::Peers })
    }

    /// Whether this end leaves it to the peer.
    pub(super) fn waits(&self) -> bool {
        self.asked > 0 && self.may_wait()
    }

    fn may_wait(&self) -> bool {
        !self.hurried && self.steady >= STEADY && self.asked <= TURN
    }
}

/// Who asks next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// The peer, 75–100 % of the delay after its last request; this end when that is overdue.
    Peers,
    /// This end, before the peer would.
    Own,
}

#[cfg(test)]
mod tests {
    use super::*;

    const DELAY: Duration = Duration::from_millis(100);

    fn steady() -> Turns {
        let mut turns = Turns::default();
        (0..STEADY).for_each(|_| turns.heard(Some(DELAY), DELAY));
        turns
    }

    #[test]
    fn on_a_steady_route_the_ends_take_turns() {
        let mut turns = steady();
        for _ in 0..3 {
            assert_eq!([turns.asked(), turns.asked()], [Some(Turn::Peers), Some(Turn::Own)]);
            // It asks in time, or at its own pace if the peer goes on regardless.
            assert_eq!(turns.asked(), None);
            turns.ask();
        }
    }

    #[test]
    fn whatever_is_amiss_both_ends_ask() {
        let late = Some(DELAY * 3 / 2 + Duration::from_nanos(1));
        let cases: [fn(&mut Turns, Option<Duration>); 4] = [
            |turns, late| turns.heard(late, DELAY),
            |turns, _| turns.heard(None, DELAY),
            |turns, _| turns.upset(),
            |turns, _| turns.hurry(),
        ];
        for amiss in cases {
            let mut turns = steady();
            amiss(&mut turns, late);
            turns.heard(Some(DELAY), DELAY);
            assert_eq!(turns.asked(), None);
        }
        let mut turns = steady();
        turns.hurry();
        turns.ask();
        assert!(turns.asked().is_some(), "the news is out");
    }
}
