//! The last events, for readers that come late or read slowly.
//!
//! Bounds: [`KEPT`] events; the oldest goes when a new one comes, and a reader who missed some is
//! told how many.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

use tokio::sync::watch;

use super::schema::{Event, What};

/// Events kept.
pub const KEPT: usize = 1024;

/// The last events.
#[derive(Debug)]
pub struct Journal {
    events: Mutex<VecDeque<Event>>,
    latest: watch::Sender<u64>,
}

impl Default for Journal {
    fn default() -> Self {
        Self { events: Mutex::default(), latest: watch::Sender::new(0) }
    }
}

impl Journal {
    /// Adds an event that happened at the wall-clock time `at`.
    pub fn push(&self, at: String, what: What) {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        if events.len() == KEPT {
            events.pop_front();
        }
        let seq = *self.latest.borrow() + 1;
        events.push_back(Event { seq, at, what });
        // Under the lock, so that numbers and places agree.
        self.latest.send_replace(seq);
    }

    /// The events after number `after`; where some of them are gone, the first says how many.
    pub fn after(&self, after: u64) -> Vec<Event> {
        let events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(oldest) = events.front() else { return Vec::new() };
        let mut found = Vec::new();
        if after > 0 && oldest.seq - 1 > after {
            let count = oldest.seq - after - 1;
            let what = What::EventsLost { count };
            found.push(Event { seq: oldest.seq - 1, at: oldest.at.clone(), what });
        }
        found.extend(events.iter().filter(|event| event.seq > after).cloned());
        found
    }

    /// The number of the newest event, and a way to wait for the next.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.latest.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(journal: &Journal, count: u64) {
        for length_ms in 1..=count {
            journal.push(String::new(), What::Stalled { length_ms });
        }
    }

    #[test]
    fn the_oldest_go_first_and_a_late_reader_is_told() {
        let journal = Journal::default();
        assert_eq!(journal.after(0), []);
        fill(&journal, 1500);
        let all = journal.after(0);
        assert_eq!((all.len(), all[0].seq, all[KEPT - 1].seq), (KEPT, 477, 1500));
        assert_eq!(journal.after(1499).len(), 1);
        assert_eq!(journal.after(1500), []);
        assert_eq!(journal.after(u64::MAX), []);
        let late = journal.after(400);
        assert_eq!(late[0].what, What::EventsLost { count: 76 });
        assert_eq!((late[0].seq, late[1].seq), (476, 477));
        assert_eq!(journal.after(476)[0].seq, 477);
    }
}
