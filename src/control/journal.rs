//! Ring of recent events, for late and slow readers. It may begin with those of an earlier run.
//!
//! Bounds: [`JOURNAL_CAPACITY`] events; a new one replaces the oldest, and a reader that missed
//! some gets their number.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

use tokio::sync::watch;

use super::schema::{EventDetail, EventView};

/// Events kept.
pub const JOURNAL_CAPACITY: usize = 1024;

/// The recent events.
#[derive(Debug)]
pub struct EventJournal {
    events: Mutex<VecDeque<EventView>>,
    latest: watch::Sender<u64>,
}

impl Default for EventJournal {
    fn default() -> Self {
        Self { events: Mutex::default(), latest: watch::Sender::new(0) }
    }
}

impl EventJournal {
    /// A journal that goes on after the events of an earlier process, oldest first.
    pub fn with_history(mut history: Vec<EventView>) -> Self {
        let surplus = history.len().saturating_sub(JOURNAL_CAPACITY);
        history.drain(..surplus);
        let latest = history.last().map_or(0, |event| event.seq);
        Self { events: Mutex::new(history.into()), latest: watch::Sender::new(latest) }
    }

    /// Adds an event that happened at the wall-clock time `at`.
    pub fn push(&self, at: String, what: EventDetail) {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        if events.len() == JOURNAL_CAPACITY {
            events.pop_front();
        }
        let seq = *self.latest.borrow() + 1;
        events.push_back(EventView { seq, at, detail: what });
        // Under the lock, so that numbers and places agree.
        self.latest.send_replace(seq);
    }

    /// The events after number `after`; if some were discarded, the first one says how many.
    pub fn events_after(&self, after: u64) -> Vec<EventView> {
        let events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(oldest) = events.front() else { return Vec::new() };
        let mut found = Vec::new();
        if after > 0 && oldest.seq - 1 > after {
            let count = oldest.seq - after - 1;
            let what = EventDetail::EventsLost { count };
            found.push(EventView { seq: oldest.seq - 1, at: oldest.at.clone(), detail: what });
        }
        found.extend(events.iter().filter(|event| event.seq > after).cloned());
        found
    }

    /// The events of this run.
    pub fn run_events(&self) -> Vec<EventView> {
        let mut events = self.events_after(0);
        let is_start = |event: &EventView| matches!(event.detail, EventDetail::Restarted { .. });
        match events.iter().rposition(is_start) {
            Some(start) => events.split_off(start),
            None => events,
        }
    }

    /// The number of the newest event, and a way to wait for the next.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.latest.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(journal: &EventJournal, count: u64) {
        for length_ms in 1..=count {
            journal.push(String::new(), EventDetail::Stalled { length_ms });
        }
    }

    #[test]
    fn the_oldest_go_first_and_a_late_reader_is_told() {
        let journal = EventJournal::default();
        assert_eq!(journal.events_after(0), []);
        fill(&journal, 1500);
        let all = journal.events_after(0);
        assert_eq!(
            (all.len(), all[0].seq, all[JOURNAL_CAPACITY - 1].seq),
            (JOURNAL_CAPACITY, 477, 1500)
        );
        assert_eq!(journal.events_after(1499).len(), 1);
        assert_eq!(journal.events_after(1500), []);
        assert_eq!(journal.events_after(u64::MAX), []);
        let late = journal.events_after(400);
        assert_eq!(late[0].detail, EventDetail::EventsLost { count: 76 });
        assert_eq!((late[0].seq, late[1].seq), (476, 477));
        assert_eq!(journal.events_after(476)[0].seq, 477);
    }

    #[test]
    fn the_events_of_an_earlier_run_stay_before_those_of_this_one() {
        let former = EventJournal::default();
        fill(&former, 1500);
        let journal = EventJournal::with_history(former.events_after(0));
        assert_eq!(*journal.subscribe().borrow(), 1500);
        assert_eq!(journal.run_events().len(), JOURNAL_CAPACITY, "a successor goes on");
        journal.push(String::new(), EventDetail::Restarted { version: "1".to_owned() });
        fill(&journal, 2);
        let all = journal.events_after(0);
        assert_eq!((all.len(), all[JOURNAL_CAPACITY - 1].seq), (JOURNAL_CAPACITY, 1503));
        let run = journal.run_events();
        assert_eq!((run.len(), run[0].seq), (3, 1501));
        assert_eq!(EventJournal::with_history(Vec::new()).events_after(0), []);
    }
}
