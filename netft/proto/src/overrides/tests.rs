#![allow(clippy::unwrap_used)]

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::route::Policy;

const ONE_HOUR: Duration = Duration::from_secs(3600);

fn ends(number: u8) -> NamedRoute {
    let addr = |node: u8| SocketAddr::from(([10, number, 0, node], 3343));
    NamedRoute { peer: "b".to_owned(), local: addr(1), remote: addr(2) }
}

fn limit(now: Time, lasts: Duration) -> Option<TimeLimit> {
    Some(TimeLimit::new(now, 0, lasts))
}

#[test]
fn a_route_that_comes_later_gets_its_overrides() {
    let mut overrides = OperatorOverrides::default();
    let change = RouteChange { priority: Some(Priority(7)), ..RouteChange::default() };
    overrides.change_route(&ends(1), &change).unwrap();
    let down = RouteChange { admin_down: Some(true), ..RouteChange::default() };
    overrides.change_route(&ends(1), &down).unwrap();
    overrides.drain_interface("eth1", None, &[]).unwrap();
    let expected = RouteChange { drain: Some(true), admin_down: Some(true), ..change };
    assert_eq!(overrides.initial_change(&ends(1), "eth1"), expected);
    assert_eq!(overrides.initial_change(&ends(2), "eth0"), RouteChange::default());
    let up = RouteChange { admin_down: Some(false), ..RouteChange::default() };
    overrides.change_route(&ends(1), &up).unwrap();
    overrides.forget_values(&ends(1), true, true);
    overrides.use_interface("eth1", &[]);
    assert!(overrides.is_empty(), "{overrides:?}");
}

#[test]
fn the_override_for_a_route_goes_before_that_for_its_interface() {
    let mut overrides = OperatorOverrides::default();
    let over = [ends(1), ends(2)];
    overrides.drain_interface("eth0", None, &over).unwrap();
    overrides.use_route(&ends(1), "eth0").unwrap();
    assert!(!overrides.is_drained(&ends(1), "eth0") && overrides.is_drained(&ends(2), "eth0"));
    overrides.drain_interface("eth0", None, &over).unwrap();
    assert!(overrides.is_drained(&ends(1), "eth0"), "all of them, the last change counts");
    overrides.drain_route(&ends(2), None).unwrap();
    overrides.use_interface("eth0", &over);
    assert!(overrides.is_empty(), "both routes are in use again: {overrides:?}");
    // Without a drained interface there is nothing to make an exception from.
    overrides.use_route(&ends(1), "eth0").unwrap();
    assert!(overrides.is_empty());
}

#[test]
fn a_limit_ends_its_override_alone_and_a_repetition_does_not_extend_it() {
    let mut overrides = OperatorOverrides::default();
    let start = Time::from_millis(1000);
    overrides.drain_interface("eth0", limit(start, ONE_HOUR), &[]).unwrap();
    overrides.drain_route(&ends(1), limit(start, 2 * ONE_HOUR)).unwrap();
    overrides.drain_route(&ends(2), None).unwrap();
    let repeated = start + Duration::from_secs(1);
    overrides.drain_interface("eth0", limit(repeated, ONE_HOUR), &[]).unwrap();
    assert_eq!(overrides.next_end(), Some(start + ONE_HOUR));
    assert!(!overrides.end_due(start + (ONE_HOUR - Duration::from_millis(1))));
    assert!(overrides.end_due(start + ONE_HOUR));
    assert!(overrides.for_interface("eth0").is_none() && overrides.is_drained(&ends(1), "eth0"));
    overrides.drain_route(&ends(1), limit(start, 3 * ONE_HOUR)).unwrap();
    assert!(!overrides.end_due(start + 2 * ONE_HOUR), "another limit replaces it");
    overrides.drain_route(&ends(1), None).unwrap();
    assert_eq!(overrides.next_end(), None);
    assert!(!overrides.end_due(start + 100 * ONE_HOUR) && overrides.is_drained(&ends(2), ""));
}

#[test]
fn the_number_of_overrides_is_bounded() {
    let mut overrides = OperatorOverrides::default();
    for number in 0..MAX_OVERRIDES {
        overrides.drain_interface(&format!("eth{number}"), None, &[]).unwrap();
    }
    let before = overrides.clone();
    assert_eq!(overrides.drain_interface("eth", None, &[]), Err(TooManyOverrides));
    assert_eq!(overrides.drain_route(&ends(1), None), Err(TooManyOverrides));
    assert_eq!(overrides, before);
    overrides.drain_interface("eth0", limit(Time::ZERO, ONE_HOUR), &[]).unwrap();
    overrides.use_interface("eth1", &[]);
    overrides.drain_route(&ends(1), None).unwrap();
}

#[test]
fn policies_of_the_config_are_no_override() {
    let mut overrides = OperatorOverrides::default();
    let (plain, balance) = (PeerPolicies::default(), PeerPolicies::new(Policy::Balance));
    let one = |policies: &PeerPolicies| PolicyOverride {
        peer: "b".to_owned(),
        policies: policies.clone(),
        configured: plain.clone(),
    };
    overrides.set_policies(one(&balance));
    overrides.set_policies(one(&PeerPolicies::new(Policy::Duplicate)));
    assert_eq!(overrides.peers.len(), 1);
    overrides.set_policies(one(&plain));
    assert!(overrides.is_empty());
}

proptest! {
    /// Whatever the wall clock did between two runs: an override is dropped if its end has passed,
    /// and ends no later than its time after the start otherwise.
    #[test]
    fn a_limit_survives_a_restart_within_its_bounds(
        given_at: u64,
        seconds in 0u64..100 * 24 * 3600,
        restarted: u64,
    ) {
        let given = TimeLimit::new(Time::ZERO, given_at, Duration::from_secs(seconds));
        prop_assert!((MIN_LIMIT..=MAX_LIMIT).contains(&given.lasts));
        let rest = TimeLimit::resume(restarted, given.wall_end_ms, given.lasts);
        prop_assert_eq!(rest.is_some(), restarted < given.wall_end_ms);
        let mut overrides = OperatorOverrides::default();
        overrides.drain_route(&ends(1), rest).unwrap();
        let now = Time::from_millis(77);
        overrides.start_at(now);
        if let Some(end) = overrides.next_end() {
            prop_assert!(end > now && end.since(now) <= given.lasts);
            if restarted >= given_at && given.wall_end_ms < u64::MAX {
                let rest = Duration::from_millis(given.wall_end_ms - restarted);
                prop_assert_eq!(end.since(now), rest);
            }
        }
    }
}
