#![allow(clippy::unwrap_used)]

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::route::Policy;

const HOUR: Duration = Duration::from_secs(3600);

fn ends(number: u8) -> OrderedRoute {
    let addr = |node: u8| SocketAddr::from(([10, number, 0, node], 3343));
    OrderedRoute { peer: "b".to_owned(), local: addr(1), remote: addr(2) }
}

fn limit(now: Time, lasts: Duration) -> Option<TimeLimit> {
    Some(TimeLimit::new(now, 0, lasts))
}

#[test]
fn a_route_that_comes_later_gets_what_was_ordered_for_it() {
    let mut orders = StandingOrders::default();
    let change = RouteChange { priority: Some(Priority(7)), ..RouteChange::default() };
    orders.change_route(&ends(1), &change).unwrap();
    let down = RouteChange { admin_down: Some(true), ..RouteChange::default() };
    orders.change_route(&ends(1), &down).unwrap();
    orders.drain_interface("eth1", None, &[]).unwrap();
    let expected = RouteChange { drain: Some(true), admin_down: Some(true), ..change };
    assert_eq!(orders.initial_change(&ends(1), "eth1"), expected);
    assert_eq!(orders.initial_change(&ends(2), "eth0"), RouteChange::default());
    let up = RouteChange { admin_down: Some(false), ..RouteChange::default() };
    orders.change_route(&ends(1), &up).unwrap();
    orders.forget_values(&ends(1), true, true);
    orders.use_interface("eth1", &[]);
    assert!(orders.is_empty(), "{orders:?}");
}

#[test]
fn the_order_for_a_route_goes_before_that_for_its_interface() {
    let mut orders = StandingOrders::default();
    let over = [ends(1), ends(2)];
    orders.drain_interface("eth0", None, &over).unwrap();
    orders.use_route(&ends(1), "eth0").unwrap();
    assert!(!orders.is_drained(&ends(1), "eth0") && orders.is_drained(&ends(2), "eth0"));
    orders.drain_interface("eth0", None, &over).unwrap();
    assert!(orders.is_drained(&ends(1), "eth0"), "all of them, as ordered last");
    orders.drain_route(&ends(2), None).unwrap();
    orders.use_interface("eth0", &over);
    assert!(orders.is_empty(), "both routes are in use again: {orders:?}");
    // Without a drained interface there is nothing to make an exception from.
    orders.use_route(&ends(1), "eth0").unwrap();
    assert!(orders.is_empty());
}

#[test]
fn a_limit_ends_its_order_alone_and_a_repetition_does_not_extend_it() {
    let mut orders = StandingOrders::default();
    let start = Time::from_millis(1000);
    orders.drain_interface("eth0", limit(start, HOUR), &[]).unwrap();
    orders.drain_route(&ends(1), limit(start, 2 * HOUR)).unwrap();
    orders.drain_route(&ends(2), None).unwrap();
    let repeated = start + Duration::from_secs(1);
    orders.drain_interface("eth0", limit(repeated, HOUR), &[]).unwrap();
    assert_eq!(orders.next_end(), Some(start + HOUR));
    assert!(!orders.end_due(start + (HOUR - Duration::from_millis(1))));
    assert!(orders.end_due(start + HOUR));
    assert!(orders.for_interface("eth0").is_none() && orders.is_drained(&ends(1), "eth0"));
    orders.drain_route(&ends(1), limit(start, 3 * HOUR)).unwrap();
    assert!(!orders.end_due(start + 2 * HOUR), "another limit replaces it");
    orders.drain_route(&ends(1), None).unwrap();
    assert_eq!(orders.next_end(), None);
    assert!(!orders.end_due(start + 100 * HOUR) && orders.is_drained(&ends(2), ""));
}

#[test]
fn the_number_of_orders_is_bounded() {
    let mut orders = StandingOrders::default();
    for number in 0..MAX_ORDERS {
        orders.drain_interface(&format!("eth{number}"), None, &[]).unwrap();
    }
    let before = orders.clone();
    assert_eq!(orders.drain_interface("eth", None, &[]), Err(TooManyOrders));
    assert_eq!(orders.drain_route(&ends(1), None), Err(TooManyOrders));
    assert_eq!(orders, before);
    orders.drain_interface("eth0", limit(Time::ZERO, HOUR), &[]).unwrap();
    orders.use_interface("eth1", &[]);
    orders.drain_route(&ends(1), None).unwrap();
}

#[test]
fn policies_of_the_config_are_no_order() {
    let mut orders = StandingOrders::default();
    let (plain, balance) = (PeerPolicies::default(), PeerPolicies::new(Policy::Balance));
    let order = |policies: &PeerPolicies| PolicyOrder {
        peer: "b".to_owned(),
        policies: policies.clone(),
        configured: plain.clone(),
    };
    orders.set_policies(order(&balance));
    orders.set_policies(order(&PeerPolicies::new(Policy::Duplicate)));
    assert_eq!(orders.peers.len(), 1);
    orders.set_policies(order(&plain));
    assert!(orders.is_empty());
}

proptest! {
    /// Whatever the wall clock did between two runs: an order ends, no later than its time after
    /// the start, and not at all only if it was not over.
    #[test]
    fn a_limit_survives_a_restart_within_its_bounds(
        ordered: u64,
        seconds in 0u64..100 * 24 * 3600,
        restarted: u64,
    ) {
        let given = TimeLimit::new(Time::ZERO, ordered, Duration::from_secs(seconds));
        prop_assert!((MIN_LIMIT..=MAX_LIMIT).contains(&given.lasts));
        let rest = TimeLimit::resume(restarted, given.wall_end_ms, given.lasts);
        prop_assert_eq!(rest.is_some(), restarted < given.wall_end_ms);
        let mut orders = StandingOrders::default();
        orders.drain_route(&ends(1), rest).unwrap();
        let now = Time::from_millis(77);
        orders.start_at(now);
        if let Some(end) = orders.next_end() {
            prop_assert!(end > now && end.since(now) <= given.lasts);
            if restarted >= ordered && given.wall_end_ms < u64::MAX {
                let rest = Duration::from_millis(given.wall_end_ms - restarted);
                prop_assert_eq!(end.since(now), rest);
            }
        }
    }
}
