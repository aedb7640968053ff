//! Routed worlds: routes form where packets get through, and stay.
//!
//! `NETFT_SIM_ROUTED` worlds are run, `NETFT_SIM_SEED` is the first.

#![allow(missing_docs)]

use netft_proto::sim::{RoutedBug, run_routed_world};

fn number_from_env(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// F-48, F-49.
#[test]
fn routes_form_where_packets_get_through_and_stay() {
    let first = number_from_env("NETFT_SIM_SEED", 0);
    let count = number_from_env("NETFT_SIM_ROUTED", 200);
    let mut up = 0;
    for seed in first..first + count {
        let report = run_routed_world(seed, None);
        assert!(
            report.violations.is_empty(),
            "seed {seed}: {:?}\n{}",
            report.violations,
            report.world
        );
        up += report.up_routes;
    }
    assert!(up > 0, "no world connects anything");
    println!("{count} worlds, {up} routes up at the end");
}

fn assert_found(bug: RoutedBug) {
    let mut seeds = 0..200;
    let found = seeds.find(|seed| !run_routed_world(*seed, Some(bug)).violations.is_empty());
    println!("{bug:?}: found by seed {found:?}");
    assert!(found.is_some());
}

#[test]
fn an_order_that_decides_is_found() {
    assert_found(RoutedBug::RankDecides);
}

#[test]
fn a_pair_that_is_not_adopted_is_found() {
    assert_found(RoutedBug::NoLearning);
}

#[test]
fn an_order_that_removes_is_found() {
    assert_found(RoutedBug::OrderRemoves);
}
