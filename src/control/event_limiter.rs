//! Rate limit of the events of one cause: a peer, or a kind of this node's own events. Pure.
//!
//! An event that its cause has not had for [`FRESH_AFTER`] passes at once: an orderly start and a
//! failover of many routes are told whole. Repetitions pass at the rate of
//! [`rate_limit`](super::rate_limit); of those held back only the latest is kept, so that the last
//! state is always told. Bounds: [`MAX_SUBJECTS`] subjects for each cause, [`MAX_CAUSES`] causes.

use std::{
    collections::{HashMap, VecDeque},
    mem,
    mem::Discriminant,
    time::Duration,
};

use netft::{Time, packet::token_bucket::TokenBucket};

use super::{
    rate_limit::{CAUSE_INTERVAL, MAX_CAUSES, NOTICE_INTERVAL, cause_bucket},
    schema::{EventDetail, EventSubject},
};

/// Time after which a repeated event counts as new.
const FRESH_AFTER: Duration = Duration::from_secs(10);
/// New events of a cause at once, and the time between two after that: what a peer that makes up
/// routes can reach.
const FRESH_BURST: u64 = 512;
const FRESH_INTERVAL: Duration = Duration::from_millis(500);
/// Subjects that a cause keeps apart.
const MAX_SUBJECTS: usize = 1024;

/// An event that passes, with its time.
pub type TimedEvent = (String, EventDetail);

/// Limits of all causes.
#[derive(Debug, Default)]
pub struct EventLimiter {
    causes: HashMap<CauseKey, EventCause>,
}

/// Cause of events.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum CauseKey {
    Peer(String),
    /// A kind of this node's own events.
    Own(Discriminant<EventDetail>),
}

#[derive(Debug)]
struct EventCause {
    peer: Option<String>,
    repeats: TokenBucket,
    fresh: TokenBucket,
    /// When a subject last had an event, by the state it led to.
    seen: HashMap<(EventSubject, &'static str), Time>,
    held: VecDeque<(EventSubject, TimedEvent)>,
    left_out: u64,
    next_notice: Option<Time>,
}

impl EventCause {
    fn new(peer: Option<String>) -> Self {
        Self {
            peer,
            repeats: cause_bucket(),
            fresh: TokenBucket::with_interval(FRESH_INTERVAL, FRESH_BURST),
            seen: HashMap::new(),
            held: VecDeque::new(),
            left_out: 0,
            next_notice: None,
        }
    }

    fn is_fresh(&mut self, key: (EventSubject, &'static str), now: Time) -> bool {
        if self.seen.len() >= MAX_SUBJECTS {
            self.seen.retain(|_, last| now < *last + FRESH_AFTER);
        }
        if self.seen.len() >= MAX_SUBJECTS && !self.seen.contains_key(&key) {
            return false;
        }
        let last = self.seen.insert(key, now);
        last.is_none_or(|last| now >= last + FRESH_AFTER)
    }

    fn on_event(&mut self, event: TimedEvent, now: Time) -> Option<TimedEvent> {
        let (subject, state) = (event.1.subject(), event.1.state_word());
        let is_fresh = self.is_fresh((subject, state), now);
        let passes = is_fresh && self.fresh.try_take(now, 1)
            || self.held.is_empty() && self.repeats.try_take(now, 1);
        // An older event of the subject must not follow a newer one.
        self.forget_held(subject, now);
        if let EventDetail::RouteRemoved { route, .. } = &event.1 {
            let route = Some(*route);
            let stale: Vec<_> = self.held.iter().map(|(held, _)| *held).collect();
            let stale = stale.into_iter().filter(|(_, of)| *of == route);
            stale.for_each(|held| self.forget_held(held, now));
        }
        if passes {
            return Some(event);
        }
        if self.held.len() >= MAX_SUBJECTS {
            self.count_left_out(now);
        } else {
            self.held.push_back((subject, event));
        }
        None
    }

    fn forget_held(&mut self, subject: EventSubject, now: Time) {
        if let Some(place) = self.held.iter().position(|(held, _)| *held == subject) {
            self.held.remove(place);
            self.count_left_out(now);
        }
    }

    fn count_left_out(&mut self, now: Time) {
        self.left_out += 1;
        self.next_notice.get_or_insert(now + NOTICE_INTERVAL);
    }

    fn poll(&mut self, now: Time, at: &str, passed: &mut Vec<TimedEvent>) {
        while !self.held.is_empty() && self.repeats.try_take(now, 1) {
            passed.extend(self.held.pop_front().map(|(_, event)| event));
        }
        if self.next_notice.is_some_and(|due| now >= due) {
            passed.extend(self.take_notice(at));
        }
    }

    fn take_notice(&mut self, at: &str) -> Option<TimedEvent> {
        self.next_notice.take()?;
        let count = mem::take(&mut self.left_out);
        Some((at.to_owned(), EventDetail::EventsLeftOut { peer: self.peer.clone(), count }))
    }

    fn next_wake(&self, now: Time) -> Option<Time> {
        let held = (!self.held.is_empty()).then(|| now + CAUSE_INTERVAL);
        [held, self.next_notice].into_iter().flatten().min()
    }
}

impl EventLimiter {
    /// Decides on an event: returns it if it passes at once.
    pub fn on_event(&mut self, event: TimedEvent, now: Time) -> Option<TimedEvent> {
        let peer = event.1.peer().map(str::to_owned);
        let cause = match &peer {
            Some(peer) => CauseKey::Peer(peer.clone()),
            None => CauseKey::Own(event.1.subject().0),
        };
        // Peers come from the configuration: this many stand in none.
        if self.causes.len() >= MAX_CAUSES && !self.causes.contains_key(&cause) {
            self.causes.retain(|_, cause| cause.next_wake(now).is_some());
        }
        self.causes.entry(cause).or_insert_with(|| EventCause::new(peer)).on_event(event, now)
    }

    /// Events that were held back and may pass, and counts of those left out; `at` is `now` on the
    /// wall clock.
    pub fn poll(&mut self, now: Time, at: &str) -> Vec<TimedEvent> {
        let mut passed = Vec::new();
        self.causes.values_mut().for_each(|cause| cause.poll(now, at, &mut passed));
        passed
    }

    /// Everything that is held back, at the end.
    pub fn drain_held(&mut self, at: &str) -> Vec<TimedEvent> {
        let mut passed = Vec::new();
        for cause in self.causes.values_mut() {
            passed.extend(cause.held.drain(..).map(|(_, event)| event));
            passed.extend(cause.take_notice(at));
        }
        passed
    }

    /// When [`poll`](Self::poll) is due; `None` while nothing is held back.
    pub fn next_wake(&self, now: Time) -> Option<Time> {
        self.causes.values().filter_map(|cause| cause.next_wake(now)).min()
    }
}

#[cfg(test)]
mod tests {
    use netft::route::RouteState;

    use super::*;

    fn change(route: u32, to: RouteState, number: u64) -> TimedEvent {
        let detail = EventDetail::StateChanged {
            route,
            peer: "b".to_owned(),
            from: RouteState::Init,
            to,
            reason: String::new(),
            last_heard_ms_ago: Some(number),
            history: Vec::new(),
        };
        (String::new(), detail)
    }

    fn number(event: &TimedEvent) -> Option<u64> {
        match event.1 {
            EventDetail::StateChanged { last_heard_ms_ago, .. } => last_heard_ms_ago,
            _ => None,
        }
    }

    fn count(event: &TimedEvent) -> u64 {
        match event.1 {
            EventDetail::EventsLeftOut { count, .. } => count,
            _ => 0,
        }
    }

    #[test]
    fn a_peer_that_floods_gets_ten_events_a_second_and_its_last_state_is_told() {
        let mut limiter = EventLimiter::default();
        let (mut passed, mut left_out, mut fed) = (Vec::new(), 0, 0);
        for ms in 0..30_000u64 {
            let now = Time::from_millis(ms + 1);
            let mut out = limiter.poll(now, "");
            // Two routes, 3,500 changes a second for 20 seconds.
            for n in 0..(3 + ms % 2) * u64::from(ms < 20_000) {
                let to = if n % 2 == 0 { RouteState::Up } else { RouteState::Down };
                fed += 1;
                out.extend(limiter.on_event(change((ms % 2) as u32, to, fed), now));
            }
            left_out += out.iter().map(count).sum::<u64>();
            passed.extend(out.into_iter().map(|event| (ms, event)));
        }
        let events: Vec<_> = passed.iter().filter(|(_, event)| number(event).is_some()).collect();
        assert_eq!(events.len() as u64 + left_out, fed);
        for start in (0..20_000).step_by(5000) {
            let window = start..start + 5000;
            let lines = passed.iter().filter(|(ms, _)| window.contains(ms)).count();
            assert!(lines <= 50, "{lines} in {window:?}");
        }
        let last = events.iter().filter_map(|(_, event)| number(event)).max();
        assert_eq!(last, Some(fed));
        let mut newest = HashMap::new();
        for (_, event) in &events {
            let before = newest.insert(event.1.subject(), number(event));
            assert!(before < Some(number(event)), "an older event follows a newer one");
        }
    }

    #[test]
    fn a_start_with_many_routes_is_told_whole_and_at_once() {
        let mut limiter = EventLimiter::default();
        let states = [RouteState::Init, RouteState::Up, RouteState::Down];
        for to in states {
            for route in 0..128 {
                let now = Time::from_millis(5);
                assert!(limiter.on_event(change(route, to, 0), now).is_some(), "{route}");
            }
        }
        assert_eq!(limiter.next_wake(Time::from_millis(5)), None);
    }

    #[test]
    fn held_events_of_a_removed_route_are_dropped_and_counted() {
        let mut limiter = EventLimiter::default();
        let now = Time::from_millis(5);
        for n in 0..100 {
            limiter.on_event(change(1, RouteState::Up, n), now);
        }
        assert!(limiter.next_wake(now).is_some());
        let fields = crate::control::schema::RouteFields {
            real_local: ([10, 1, 0, 1], 3343).into(),
            real_remote: ([10, 1, 0, 2], 3343).into(),
            virtual_local: [169, 254, 1, 1].into(),
            virtual_remote: [169, 254, 1, 2].into(),
            delay_ms: 30,
            threshold: 5,
            priority: 1,
            attributes: 0,
        };
        let removed = EventDetail::RouteRemoved { route: 1, peer: "b".to_owned(), fields };
        assert!(limiter.on_event((String::new(), removed), now).is_some());
        assert_eq!(limiter.poll(now + CAUSE_INTERVAL, ""), []);
        let end = limiter.drain_held("");
        assert_eq!(end.iter().map(count).sum::<u64>(), 79);
    }
}
