//! When the way through the adapter is tried with an echo, and when its silence is told.
//!
//! Routes up say that frames arrive. Whether the peer's kernel takes the packets in them is another
//! question: a firewall may pass the port and drop everything on the adapter. Pure.

use std::time::Duration;

use crate::time::Time;

/// From a usable route, or a change of a firewall, to the echo: routes settle, and changes come in
/// several steps.
const SETTLE_TIME: Duration = Duration::from_secs(2);
/// Time between two echoes that are answered. One is two packets.
const ANSWERED_INTERVAL: Duration = Duration::from_secs(60);
/// Time between two echoes while none is answered.
const SILENT_INTERVAL: Duration = Duration::from_secs(10);
/// From an unanswered echo to the one that confirms it.
const CONFIRM_DELAY: Duration = Duration::from_secs(1);
/// Unanswered echoes in a row that are told: a route may have failed under the first.
const SILENCE_LIMIT: u32 = 2;

/// Outcome of an echo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EchoOutcome {
    /// Something came back from the peer's address.
    Answered,
    /// Nothing came back.
    Silent,
    /// This node's own firewall refused to send.
    NotSent,
    /// The echo could not be made.
    Failed,
}

/// Change of what is known about the way through the adapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EchoNews {
    /// Nothing comes back, by this outcome.
    Lost(EchoOutcome),
    /// Answers come again.
    Answered,
}

/// The echoes to one peer.
#[derive(Clone, Debug, Default)]
pub struct OverlayEcho {
    /// The next echo; `None` while the peer is not reachable.
    next: Option<Time>,
    is_in_flight: bool,
    unanswered: u32,
    lost: Option<EchoOutcome>,
}

impl OverlayEcho {
    /// The outcome by which the way through the adapter is lost, while it is.
    pub const fn lost(&self) -> Option<EchoOutcome> {
        self.lost
    }

    /// When [`update`](Self::update) has something to do.
    pub fn next_wake(&self) -> Option<Time> {
        self.next.filter(|_| !self.is_in_flight)
    }

    /// Takes in whether a route to the peer is usable. Returns true when an echo is due, which is
    /// in flight from then on.
    pub fn update(&mut self, now: Time, is_reachable: bool) -> bool {
        if !is_reachable {
            // The routes say what is wrong.
            *self = Self { is_in_flight: self.is_in_flight, ..Self::default() };
            return false;
        }
        let due = *self.next.get_or_insert(now + SETTLE_TIME);
        let is_due = !self.is_in_flight && due <= now;
        self.is_in_flight |= is_due;
        is_due
    }

    /// A firewall changed here or at the peer: the next echo is soon.
    pub fn on_firewall_changed(&mut self, now: Time) {
        let soon = now + SETTLE_TIME;
        self.next = self.next.map(|at| at.min(soon));
    }

    /// Takes in the outcome of the echo in flight.
    pub fn on_outcome(&mut self, now: Time, outcome: EchoOutcome) -> Option<EchoNews> {
        self.is_in_flight = false;
        // The peer became unreachable meanwhile.
        self.next?;
        match outcome {
            EchoOutcome::Answered => {
                self.next = Some(now + ANSWERED_INTERVAL);
                self.unanswered = 0;
                self.lost.take().map(|_| EchoNews::Answered)
            }
            EchoOutcome::Failed => {
                self.next = Some(now + ANSWERED_INTERVAL);
                None
            }
            EchoOutcome::Silent | EchoOutcome::NotSent => {
                self.unanswered += 1;
                let is_told = self.unanswered >= SILENCE_LIMIT;
                self.next = Some(now + if is_told { SILENT_INTERVAL } else { CONFIRM_DELAY });
                let is_news = is_told && self.lost.is_none();
                if is_told {
                    self.lost = Some(outcome);
                }
                is_news.then_some(EchoNews::Lost(outcome))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the echoes of a peer from `start` for `seconds`. Returns when each was sent, and the
    /// news, in seconds.
    fn run(
        echo: &mut OverlayEcho,
        (start, seconds): (u64, u64),
        outcome: impl Fn(u64) -> EchoOutcome,
    ) -> (Vec<u64>, Vec<(u64, EchoNews)>) {
        let (mut sent, mut news) = (Vec::new(), Vec::new());
        for second in start..start + seconds {
            let now = Time::from_millis(second * 1000);
            if echo.update(now, true) {
                sent.push(second);
                assert_eq!(echo.next_wake(), None, "one at a time");
                news.extend(echo.on_outcome(now, outcome(second)).map(|news| (second, news)));
            }
        }
        (sent, news)
    }

    #[test]
    fn an_answered_echo_is_repeated_once_a_minute() {
        let mut echo = OverlayEcho::default();
        let (sent, news) = run(&mut echo, (0, 200), |_| EchoOutcome::Answered);
        assert_eq!((sent, news), (vec![2, 62, 122, 182], vec![]));
    }

    #[test]
    fn silence_is_confirmed_told_once_and_over_with_the_first_answer() {
        let mut echo = OverlayEcho::default();
        let outcome = |second| match second {
            60..100 => EchoOutcome::Silent,
            _ => EchoOutcome::Answered,
        };
        let (sent, news) = run(&mut echo, (0, 200), outcome);
        assert_eq!(sent, [2, 62, 63, 73, 83, 93, 103, 163]);
        let lost = EchoNews::Lost(EchoOutcome::Silent);
        assert_eq!(news, [(63, lost), (103, EchoNews::Answered)]);
        assert_eq!(echo.lost(), None);
        // A single one that is lost is not told.
        let mut echo = OverlayEcho::default();
        let once = |second| if second == 2 { EchoOutcome::Silent } else { EchoOutcome::Answered };
        assert_eq!(run(&mut echo, (0, 100), once).1, []);
    }

    #[test]
    fn a_changed_firewall_is_tried_soon() {
        let mut echo = OverlayEcho::default();
        run(&mut echo, (0, 10), |_| EchoOutcome::Answered);
        echo.on_firewall_changed(Time::from_millis(10_000));
        let (sent, _) = run(&mut echo, (10, 10), |_| EchoOutcome::Silent);
        assert_eq!(sent, [12, 13]);
        // Without a route there is nothing to try.
        let mut echo = OverlayEcho::default();
        echo.on_firewall_changed(Time::ZERO);
        assert_eq!(echo.next_wake(), None);
    }

    #[test]
    fn a_peer_that_is_not_reachable_is_not_blamed() {
        let mut echo = OverlayEcho::default();
        let start = Time::from_millis(2000);
        echo.update(Time::ZERO, true);
        assert!(echo.update(start, true));
        assert!(!echo.update(start, false));
        assert_eq!(echo.on_outcome(start, EchoOutcome::Silent), None);
        let (sent, news) = run(&mut echo, (10, 5), |_| EchoOutcome::Silent);
        assert_eq!(sent, [12, 13]);
        assert_eq!(news.len(), 1);
        assert_eq!(echo.lost(), Some(EchoOutcome::Silent));
        echo.update(Time::from_millis(20_000), false);
        assert_eq!((echo.lost(), echo.next_wake()), (None, None));
    }

    #[test]
    fn an_echo_that_cannot_be_made_says_nothing() {
        let mut echo = OverlayEcho::default();
        let (sent, news) = run(&mut echo, (0, 100), |_| EchoOutcome::Failed);
        assert_eq!((sent, news), (vec![2, 62], vec![]));
    }
}
