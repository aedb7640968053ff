//! Ownership of floating addresses: never two owners, and always one where a majority talks.
//!
//! `NETFT_SIM_OWNERSHIP=10000` runs more seeds, `NETFT_SEED=42` runs one and prints what happened.

#![allow(missing_docs)]

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
};

use netft_proto::sim::{OwnershipBug, run_ownership_world, run_takeover_world};

fn number_from_env(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().and_then(|text| text.parse().ok())
}

/// F-60, F-61.
#[test]
fn never_two_owners_and_one_where_a_majority_talks() {
    if let Some(seed) = number_from_env("NETFT_SEED") {
        let report = run_ownership_world(seed, None);
        println!("{}", report.text.join("\n"));
        assert!(report.violations.is_empty(), "{:?}", report.violations);
        return;
    }
    let count = number_from_env("NETFT_SIM_OWNERSHIP").unwrap_or(300);
    let [next, grants, takeovers] = [const { AtomicU64::new(0) }; 3];
    let failures = Mutex::new(Vec::new());
    let cores = thread::available_parallelism().map_or(2, usize::from);
    thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Relaxed);
                    if seed >= count {
                        return;
                    }
                    let report = run_ownership_world(seed, None);
                    grants.fetch_add(report.grants, Relaxed);
                    takeovers.fetch_add(report.takeovers, Relaxed);
                    if !report.violations.is_empty() {
                        let line = format!("seed {seed}: {:?}", report.violations);
                        failures.lock().unwrap_or_else(PoisonError::into_inner).push(line);
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap_or_else(PoisonError::into_inner);
    let (grants, takeovers) = (grants.into_inner(), takeovers.into_inner());
    println!("{count} seeds: {grants} leases granted, {takeovers} takeovers");
    assert!(failures.is_empty(), "{} of {count}:\n{}", failures.len(), failures.join("\n"));
    assert!(grants > 50 * count && takeovers > 3 * count, "the worlds are too quiet");
}

fn assert_found(bug: OwnershipBug) {
    let found = (0..200).find_map(|seed| {
        let report = run_ownership_world(seed, Some(bug));
        report.violations.first().cloned().map(|violation| (seed, violation))
    });
    println!("{bug:?}: {found:?}");
    assert!(found.is_some());
}

#[test]
fn a_lease_counted_from_its_arrival_is_found() {
    assert_found(OwnershipBug::FromReceipt);
}

#[test]
fn a_new_leader_that_does_not_wait_is_found() {
    assert_found(OwnershipBug::NewLeaderDoesNotWait);
}

#[test]
fn votes_without_ages_are_found() {
    assert_found(OwnershipBug::VotesTellNoAge);
}

#[test]
fn a_release_that_is_not_awaited_is_found() {
    assert_found(OwnershipBug::ReleaseNotAwaited);
}

#[test]
fn a_grant_without_confirmation_is_found() {
    assert_found(OwnershipBug::NoConfirmation);
}

/// F-96, F-140: whoever leads when the owner is lost.
#[test]
fn a_hundred_addresses_go_to_the_next_preferred_node() {
    for seed in 0..8 {
        let report = run_takeover_world(seed, None);
        let last = report.text.iter().rev().take(12);
        let text: Vec<_> = last.rev().map(String::as_str).collect();
        assert!(report.violations.is_empty(), "seed {seed}: {:?} {text:?}", report.violations);
    }
}

#[test]
fn a_new_leader_that_asks_nobody_is_found() {
    let broken = |seed: &u64| {
        let report = run_takeover_world(*seed, Some(OwnershipBug::PlacesUnheard));
        !report.violations.is_empty()
    };
    let found = (0..40).find(broken);
    println!("{found:?}");
    assert!(found.is_some());
}

#[test]
fn a_reply_that_leaves_out_a_loss_is_found() {
    assert_found(OwnershipBug::LeavesOutLoss);
}

/// F-102.
#[test]
fn a_leader_that_waits_for_its_own_lease_is_found() {
    assert_found(OwnershipBug::OwnLease);
}
