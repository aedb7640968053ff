//! Two sites with a router between them, far from each other: 50 ms each way, 1 % of loss. No
//! route may go down for it.
//!
//! 20 seconds, or `NETFT_SECONDS`: the figure is
//! `NETFT_SECONDS=300 cargo test --release --test networks distance -- --nocapture`.

use std::{thread, time::Duration};

use crate::common::{NodePair, assert_flow_alive, number_from_env};
use netft_lab::{
    Moment, NetworkLayout,
    daemon::SiteSettings,
    in_namespace_for,
    wire::{ImpairedWire, WireImpairments},
};

const NETWORKS: usize = 2;
/// Thin: loss and distance are the test, not the throughput.
const THIN: u64 = 50_000;

#[test]
fn distance_and_loss_take_no_route_down() {
    let span = Duration::from_secs(number_from_env("NETFT_SECONDS", 20));
    let limit = span * 2 + Duration::from_secs(90);
    in_namespace_for("distance_and_loss_take_no_route_down", limit, || {
        let prepared =
            NodePair::prepared(&[NetworkLayout::Routed; NETWORKS], SiteSettings::default());
        let seed = number_from_env("NETFT_SEED", 1);
        let wires = [0, 1].map(|network| {
            ImpairedWire::insert_at_far_site(&prepared.lab, network, seed + network as u64).unwrap()
        });
        let far = WireImpairments {
            delay: Duration::from_millis(50),
            loss: 0.01,
            ..WireImpairments::default()
        };
        wires.iter().for_each(|wire| wire.set_both_impairments(far));
        let mut pair = prepared.start_and_wait();
        for node in [0, 1] {
            for route in pair.daemon(node).routes().unwrap() {
                assert_eq!((route.delay_ms, route.threshold), (100, 5), "the cross-subnet profile");
            }
        }
        let events = [0, 1].map(|node| pair.events(node));
        let start = Moment::now();
        let flow = pair.transfer(0, Some(THIN), false);
        thread::sleep(span);
        assert_flow_alive(flow);
        let seen = events.iter().flat_map(netft_lab::daemon::EventFollower::events_so_far);
        let changed = |event: &netft_lab::daemon::EventLine| {
            event.is_at_or_after(start.wall) && event.name == "state-changed"
        };
        let changes: Vec<String> =
            seen.filter(changed).map(|event| event.json.to_string()).collect();
        let [mut lost, mut relayed] = [0, 0];
        for wire in &wires {
            for (gone, passed) in [wire.lost_and_relayed(0), wire.lost_and_relayed(1)] {
                (lost, relayed) = (lost + gone, relayed + passed);
            }
        }
        println!(
            "{span:?}: {} changes of state; {lost} frames lost, {relayed} passed",
            changes.len()
        );
        // Heartbeats went over the wires, and some of them were lost.
        assert!(lost > 0 && relayed > span.as_millis() as u64 / 100 * 4, "{lost}, {relayed}");
        netft_lab::scheduling::assert_timely(changes.is_empty(), start.monotonic, || {
            format!("{changes:#?}")
        });
    });
}
