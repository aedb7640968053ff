#![allow(clippy::unwrap_used)]

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Barrier, atomic::AtomicU32},
    thread,
};

use proptest::{collection::vec, prelude::*};

use super::*;

/// Counters the ring answers for in one lap.
const RING: u64 = SLOT_COUNT as u64 * SLOT_BITS;

/// Reference model of the window: every counter once, refused when a later lap took its
/// slot over.
#[derive(Default)]
struct Model {
    accepted: HashSet<u64>,
    newest_block: BTreeMap<u64, u64>,
}

impl Model {
    fn accept(&mut self, counter: u64) -> bool {
        if counter >= 1 << 48 {
            return false;
        }
        let block = counter / 32;
        let newest = self.newest_block.entry(block % 4096).or_insert(block);
        if block < *newest {
            return false;
        }
        *newest = block;
        self.accepted.insert(counter)
    }
}

/// `seen` must foretell `accept`, and both must agree with the expectation.
fn check(window: &ReplayWindow, counter: u64, expected: bool) {
    assert_eq!(window.is_replayed(counter), !expected, "seen {counter:#x}");
    assert_eq!(window.accept(counter), expected, "accept {counter:#x}");
    assert!(window.is_replayed(counter), "seen after {counter:#x}");
    assert!(!window.accept(counter), "accepted twice {counter:#x}");
}

proptest! {
    /// S-02: inside the window the ring is nothing but a set.
    #[test]
    fn inside_the_window_it_is_a_set(
        start in 0..COUNTER_LIMIT / 2,
        steps in vec((0..4096u64, 0..=REPLAY_WINDOW), 1..2000),
    ) {
        let window = ReplayWindow::new();
        let mut set = HashSet::new();
        let mut newest = start;
        for (ahead, behind) in steps {
            let counter = (newest + ahead).saturating_sub(behind);
            prop_assert_eq!(window.is_replayed(counter), set.contains(&counter));
            prop_assert_eq!(window.accept(counter), set.insert(counter), "{}", counter);
            newest = newest.max(counter);
        }
    }

    #[test]
    fn with_jumps_of_any_size_it_is_the_model(
        steps in vec((0..48u32, any::<u64>(), any::<bool>()), 1..1000),
    ) {
        let window = ReplayWindow::new();
        let mut model = Model::default();
        let mut at = 0u64;
        for (bits, jump, forward) in steps {
            let jump = jump & ((1 << bits) - 1);
            at = if forward { at.saturating_add(jump) } else { at.saturating_sub(jump) };
            let expected = model.accept(at);
            prop_assert_eq!(window.is_replayed(at), !expected);
            prop_assert_eq!(window.accept(at), expected, "{}", at);
        }
    }

    /// Few counters, so that nearly every step is a repetition or a takeover.
    #[test]
    fn crowded_slots_follow_the_model(steps in vec((0..6u64, 0..3u64, 0..40u64), 1..500)) {
        let window = ReplayWindow::new();
        let mut model = Model::default();
        for (lap, slot, offset) in steps {
            let counter = lap * RING + slot * SLOT_BITS + offset;
            prop_assert_eq!(window.accept(counter), model.accept(counter), "{}", counter);
        }
    }
}

/// The order of WireGuard's replay counter test, with this window's size and limit.
#[test]
fn the_cases_of_wireguard_hold() {
    let window = ReplayWindow::new();
    let too_far = REPLAY_WINDOW + SLOT_BITS;
    let cases = [
        (0, true),
        (0, false),
        (1, true),
        (1, false),
        (9, true),
        (8, true),
        (7, true),
        (7, false),
        (REPLAY_WINDOW, true),
        (REPLAY_WINDOW - 1, true),
        (REPLAY_WINDOW - 1, false),
        (REPLAY_WINDOW - 2, true),
        (2, true),
        (2, false),
        (too_far + 16, true),
        (3, false),
        (too_far + 16, false),
        (too_far * 4, true),
        (too_far * 4 - REPLAY_WINDOW, true),
        (10, false),
        (too_far * 4 - too_far, false),
        (too_far * 4 - (REPLAY_WINDOW + 1), false),
        (too_far * 4 - (REPLAY_WINDOW - 1), true),
        (0, false),
        (COUNTER_LIMIT, false),
        (COUNTER_LIMIT - 1, true),
        (COUNTER_LIMIT, false),
        (COUNTER_LIMIT - 1, false),
        (COUNTER_LIMIT - 2, true),
        (COUNTER_LIMIT + 1, false),
        (COUNTER_LIMIT + 2, false),
        (COUNTER_LIMIT - 2, false),
        (COUNTER_LIMIT - 3, true),
        (1 << 63, false),
        (u64::MAX, false),
        (0, false),
    ];
    for (counter, expected) in cases {
        assert_eq!(window.is_replayed(counter), !expected, "seen {counter:#x}");
        assert_eq!(window.accept(counter), expected, "accept {counter:#x}");
    }
}

#[test]
fn the_guaranteed_window_is_exact_at_every_alignment() {
    const { assert!(REPLAY_WINDOW >= 65_536) }
    for offset in 0..SLOT_BITS {
        let newest = 5 * RING + offset;
        let window = ReplayWindow::new();
        check(&window, newest, true);
        check(&window, newest - REPLAY_WINDOW, true);
    }
    // One more than guaranteed is refused when the newest counter opens its block.
    let window = ReplayWindow::new();
    check(&window, 5 * RING, true);
    check(&window, 5 * RING - REPLAY_WINDOW - 1, false);
    check(&window, 4 * RING, false);
}

/// W-09: the edges of a lap, near both ends of the counter space.
#[test]
fn around_every_lap_edge_each_counter_is_accepted_once_in_any_order() {
    let last = COUNTER_LIMIT / RING;
    for lap in [1, 2, 3, 7, 1 << 15, 1 << 16, 1 << 30, last - 1, last] {
        let edge = lap * RING;
        let around: Vec<u64> = (edge - 1000..edge + 1000).collect();
        let (forward, backward) = (ReplayWindow::new(), ReplayWindow::new());
        for counter in &around {
            check(&forward, *counter, *counter < COUNTER_LIMIT);
        }
        for counter in around.iter().rev() {
            check(&backward, *counter, *counter < COUNTER_LIMIT);
        }
        for counter in around {
            assert!(!forward.accept(counter) && !backward.accept(counter), "{counter:#x}");
        }
    }
}

#[test]
fn after_a_far_jump_everything_old_is_refused() {
    let window = ReplayWindow::new();
    for counter in 0..1000 {
        check(&window, counter, true);
    }
    // Taking over the slots of the old counters, and nothing else.
    for block in 0..32 {
        check(&window, (1 << 47) + block * SLOT_BITS, true);
    }
    for counter in 0..1000 {
        check(&window, counter, false);
    }
}

/// The order in which a slot's neighbours are taken, which a wrong slot or lap boundary breaks.
fn edges_hold(mut accept: impl FnMut(u64) -> bool) -> bool {
    for edge in [32, 64, RING - 32, RING, RING + 32, 2 * RING] {
        for counter in [edge, edge - 1, edge + 1] {
            if !accept(counter) || accept(counter) {
                return false;
            }
        }
    }
    // 3 × RING takes over slot 0 alone: 2 × RING + 32 is in slot 1.
    let untouched = [2 * RING + 32, 3 * RING, 2 * RING + 33, 2 * RING + 63];
    let taken_over = [2 * RING + 2, 2 * RING + 31, 0, 31];
    untouched.map(&mut accept) == [true; 4] && taken_over.map(accept) == [false; 4]
}

/// The check above is worth something: it fails for rings that are off by one anywhere.
#[test]
fn the_edge_check_catches_a_ring_that_is_off_by_one() {
    let ring = |shift: u64, width: u64, slots: u64| {
        let mut words = BTreeMap::new();
        move |counter: u64| {
            let block = (counter + shift) / width;
            let lap = block / slots;
            let bit = 1u64 << ((counter + shift) % width).min(63);
            let word = words.entry(block % slots).or_insert((0, 0));
            if lap < word.0 || (lap == word.0 && word.1 & bit != 0) {
                return false;
            }
            *word = (lap, if lap == word.0 { word.1 | bit } else { bit });
            true
        }
    };
    assert!(edges_hold(ring(0, 32, 4096)), "a right ring passes");
    for (shift, width, slots) in
        [(1, 32, 4096), (31, 32, 4096), (0, 31, 4096), (0, 33, 4096), (0, 32, 4095), (0, 32, 4097)]
    {
        assert!(!edges_hold(ring(shift, width, slots)), "{shift} {width} {slots}");
    }

    let window = ReplayWindow::new();
    assert!(edges_hold(|counter| window.accept(counter)));
}

#[test]
fn two_threads_with_the_same_counters_accept_each_exactly_once() {
    const CHUNK: u64 = 20_000;
    const CHUNKS: u64 = 20;
    let window = ReplayWindow::new();
    let barrier = Barrier::new(2);
    let wins: Vec<AtomicU32> = (0..CHUNK * CHUNKS).map(|_| AtomicU32::new(0)).collect();
    let work = |reverse: bool| {
        for chunk in 0..CHUNKS {
            // Both stay inside the window, so none may be lost either.
            barrier.wait();
            for step in 0..CHUNK {
                let step = if reverse && chunk % 2 == 1 { CHUNK - 1 - step } else { step };
                let counter = chunk * CHUNK + step;
                if !window.is_replayed(counter) && window.accept(counter) {
                    wins[counter as usize].fetch_add(1, Relaxed);
                }
            }
        }
    };
    thread::scope(|scope| {
        scope.spawn(|| work(false));
        scope.spawn(|| work(true));
    });
    for (counter, wins) in wins.iter().enumerate() {
        assert_eq!(wins.load(Relaxed), 1, "counter {counter}");
    }
}

/// Threads that race for one slot in different laps: whatever wins, nothing wins twice.
#[test]
fn threads_that_take_over_each_others_slots_accept_nothing_twice() {
    const LAPS: u64 = 2000;
    let window = ReplayWindow::new();
    let wins: Vec<AtomicU32> = (0..LAPS * SLOT_BITS).map(|_| AtomicU32::new(0)).collect();
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for (index, wins) in wins.iter().enumerate() {
                    let (lap, bit) = (index as u64 / SLOT_BITS, index as u64 % SLOT_BITS);
                    if window.accept(lap * RING + bit) {
                        wins.fetch_add(1, Relaxed);
                    }
                }
            });
        }
    });
    assert!(wins.iter().all(|wins| wins.load(Relaxed) <= 1));
    // The last lap is never taken over, so all of it was accepted.
    let last = &wins[((LAPS - 1) * SLOT_BITS) as usize..];
    assert!(last.iter().all(|wins| wins.load(Relaxed) == 1));
}

/// The ranges of an acknowledgement are those the window accepted.
#[test]
fn the_ranges_are_what_was_accepted_newest_first() {
    let window = ReplayWindow::new();
    assert!(window.accepted_ranges(0, 8).is_empty());
    let mut taken = Vec::new();
    for counter in (0..3000).chain(3001..3033).chain([3040, 3041]).chain(3100..9500) {
        assert!(window.accept(counter));
        taken.push(counter);
    }
    let ranges = window.accepted_ranges(9499, 8);
    let run = |first, last| AckRange { first, last };
    let floor = (9499 / SLOT_BITS + 1) * SLOT_BITS - ACK_SPAN;
    let expected = [run(3100, 9499), run(3040, 3041), run(3001, 3032), run(floor, 2999)];
    assert_eq!(ranges, expected);
    assert_eq!(window.accepted_ranges(9499, 2), expected[..2]);
    assert_eq!(
        window.accepted_ranges(3020, 1),
        [run(3001, 3020)],
        "nothing above the requested counter"
    );
    assert!(ranges.iter().all(|run| (run.first..=run.last).all(|c| taken.contains(&c))));
}
