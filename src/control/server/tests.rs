//! A follower of events.

#![allow(clippy::unwrap_used)]

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use futures_util::StreamExt;

use super::*;
use crate::control::schema::{EventDetail, EventView};

/// The next event is pushed at the moment a follower has read the previous one and is about to
/// wait: a follower that subscribes after it reads would miss it.
#[test]
fn a_follower_misses_no_event() {
    const EVENTS: u64 = 5000;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build();
    let runtime = runtime.unwrap();
    let journal = Arc::new(EventJournal::default());
    let read = Arc::new(AtomicU64::new(0));
    let place = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
    let (following, seen) = (event_stream(Arc::clone(&journal), 0, place), Arc::clone(&read));
    let follower = runtime.spawn(async move {
        let mut following = Box::pin(following);
        while seen.load(SeqCst) < EVENTS {
            let lines = following.next().await.unwrap().unwrap();
            for line in lines.lines() {
                let event: VersionedBody<EventView> = serde_json::from_str(line).unwrap();
                assert_eq!(event.body.seq, seen.fetch_add(1, SeqCst) + 1);
            }
        }
    });
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    for number in 0..EVENTS {
        while read.load(SeqCst) < number {
            let late = follower.is_finished() || std::time::Instant::now() > deadline;
            assert!(!late, "event {} was missed", read.load(SeqCst) + 1);
            std::thread::yield_now();
        }
        journal.push(String::new(), EventDetail::Stalled { length_ms: number });
    }
    runtime.block_on(follower).unwrap();
}
