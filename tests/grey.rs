//! Faults that heartbeats do not suffer, in a real kernel. Each is judged against a control in the
//! same run: the same flow before the fault, or on a clean network.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::{
    thread,
    time::{Duration, Instant},
};

use common::{
    NodePair, TEST_RATE, TEST_TIMEOUT, assert_before, assert_flow_alive, number_from_env,
};
use netft_lab::{
    Moment,
    daemon::SiteSettings,
    in_namespace, in_namespace_for, scheduling,
    transfer::Transfer,
    wire::{DataImpairments, ImpairedWire, WireImpairments},
};

/// How long a flow is measured.
const MEASURED: Duration = Duration::from_millis(1500);

/// A pair whose network 0 is a wire. `whole`: segmented sends pass it whole, or are lost whole.
fn wired(networks: usize, whole: bool) -> (NodePair, ImpairedWire) {
    let pair = NodePair::prepared_for(networks, SiteSettings::default());
    let insert = if whole { ImpairedWire::insert_whole } else { ImpairedWire::insert };
    let wire = insert(&pair.lab, 0, number_from_env("NETFT_SEED", 1)).unwrap();
    (pair.start_and_wait(), wire)
}

fn harm_data(wire: &ImpairedWire, from: usize, data: DataImpairments) {
    wire.set_impairments(from, WireImpairments { data, ..WireImpairments::default() });
}

/// Bytes that a flow delivers in [`MEASURED`].
fn delivered(flow: &Transfer) -> u64 {
    let before = flow.bytes_received();
    thread::sleep(MEASURED);
    flow.bytes_received() - before
}

#[test]
fn f_50_segmented_sends_that_vanish_are_replaced_by_plain_ones() {
    in_namespace("f_50_segmented_sends_that_vanish_are_replaced_by_plain_ones", || {
        let (mut pair, wire) = wired(1, true);
        let events = pair.events(0);
        let flow = pair.transfer(0, Some(TEST_RATE), false);
        thread::sleep(MEASURED / 3);
        let control = delivered(&flow);
        let start = Moment::now();
        harm_data(&wire, 0, DataImpairments { segmented: true, ..DataImpairments::default() });
        let event = events
            .wait_for("plain sends", start.wall, TEST_TIMEOUT, |event| {
                event.name == "segmented-sends"
            })
            .unwrap();
        assert_eq!(event.bool_field("plain"), Some(true));
        thread::sleep(MEASURED / 3);
        let after = delivered(&flow);
        println!("{after} bytes with plain sends, {control} in the control");
        scheduling::assert_timely(after as f64 >= 0.8 * control as f64, start.monotonic, || {
            format!("{after} of {control} bytes")
        });
        let routes = pair.daemon(0).get_json("/v1/routes").unwrap();
        assert_eq!(routes["routes"][0]["plain_sends"], true, "{routes}");
        assert_flow_alive(flow);
    });
}

/// One direction of one of three networks harms data and spares heartbeats. The flow leaves it for
/// a clean one, where it is as fast as before the harm.
fn assert_data_leaves(name: &str, data: DataImpairments) {
    let (mut pair, wire) = wired(3, false);
    pair.wait_active(0, 0);
    let events = pair.events(0);
    let flow = pair.transfer(0, Some(TEST_RATE), false);
    thread::sleep(MEASURED / 3);
    let (control, start) = (delivered(&flow), Moment::now());
    harm_data(&wire, 0, data);
    let moved = events.wait_for("a move", start.wall, TEST_TIMEOUT, |event| event.name == "moved");
    let moved = moved.unwrap();
    assert_eq!(moved.str_field("reason"), Some("data loss"), "{name}: {moved:?}");
    thread::sleep(MEASURED / 3);
    let then = delivered(&flow);
    let (lost, relayed) = wire.lost_and_relayed(0);
    let after = moved.at.duration_since(start.wall).unwrap_or_default();
    println!("{name}: moved after {after:?}, {lost} of {} frames lost", lost + relayed);
    println!("{name}: {then} bytes, {control} in the control");
    scheduling::assert_timely(then as f64 >= 0.8 * control as f64, start.monotonic, || {
        format!("{name}: {then} of {control} bytes")
    });
    assert_ne!(pair.active(0).0, 0, "{name}: data is elsewhere");
    assert_eq!(pair.active(1).0, 0, "{name}: the other direction is clean");
    assert_flow_alive(flow);
}

#[test]
fn f_40_data_leaves_one_of_three_networks_that_loses_it() {
    in_namespace("f_40_data_leaves_one_of_three_networks_that_loses_it", || {
        assert_data_leaves("loss", DataImpairments { loss: 0.1, ..DataImpairments::default() });
    });
}

/// The bursts are as long as a probe timeout: what they take is sent again on another network.
#[test]
fn f_40_data_leaves_one_of_three_networks_that_loses_bursts_of_it() {
    in_namespace("f_40_data_leaves_one_of_three_networks_that_loses_bursts_of_it", || {
        let burst = Some((Duration::from_millis(50), Duration::from_millis(12)));
        assert_data_leaves("bursts", DataImpairments { burst, ..DataImpairments::default() });
    });
}

/// Full-size frames come 20 ms late, small ones do not: no loss, no move, no route down.
#[test]
fn f_09_a_network_that_delays_full_size_frames_only_is_no_failure() {
    in_namespace("f_09_a_network_that_delays_full_size_frames_only_is_no_failure", || {
        let (mut pair, wire) = wired(2, false);
        pair.wait_active(0, 0);
        let events = pair.events(0);
        let flow = pair.transfer(0, Some(TEST_RATE), false);
        thread::sleep(MEASURED / 3);
        let (control, start) = (delivered(&flow), Moment::now());
        let delay = Duration::from_millis(20);
        harm_data(&wire, 0, DataImpairments { delay, ..DataImpairments::default() });
        thread::sleep(MEASURED / 3);
        let then = delivered(&flow);
        println!("{then} bytes with the delay, {control} in the control");
        let changed = events
            .events_so_far()
            .into_iter()
            .filter(|event| event.is_at_or_after(start.wall) && event.name == "state-changed");
        let changed = changed.count();
        scheduling::assert_timely(changed == 0, start.monotonic, || {
            format!("{changed} changes of state")
        });
        scheduling::assert_timely(then as f64 >= 0.8 * control as f64, start.monotonic, || {
            format!("{then} of {control} bytes")
        });
        assert_flow_alive(flow);
    });
}

/// The stall of a flow when the active network dies, and `others` with it.
fn stall_of(networks: usize, dying: usize) -> Duration {
    let mut pair = NodePair::start_with(networks, SiteSettings::default());
    pair.wait_active(0, 0);
    let flow = pair.transfer(0, Some(TEST_RATE), false);
    thread::sleep(MEASURED / 3);
    let start = Instant::now();
    for network in 0..dying {
        pair.lab.black_hole(network).unwrap();
    }
    thread::sleep(MEASURED / 3);
    let stall = flow.longest_stall(start, Instant::now());
    assert_flow_alive(flow);
    stall
}

/// The control is one network that dies alone. Without the second retransmission the stall of two
/// is a detection time (150 ms) longer.
#[test]
fn f_39_two_of_three_networks_die_together() {
    in_namespace_for("f_39_two_of_three_networks_die_together", Duration::from_secs(120), || {
        let start = Instant::now();
        let shortest = |dying| (0..3).map(|_| stall_of(3, dying)).min().unwrap();
        let (control, two) = (shortest(1), shortest(2));
        println!("stall: {control:?} when one dies, {two:?} when two do");
        let most = control + Duration::from_millis(60);
        scheduling::assert_timely(two <= most, start, || format!("{two:?}, {control:?}"));
    });
}

/// What node 0 says of its peer without a session: the cause and the text, once the cause is
/// `cause` and the text contains `part`, and the findings of `netft validate`.
fn await_session_problem(pair: &mut NodePair, cause: &str, part: &str) -> String {
    let deadline = Instant::now() + TEST_TIMEOUT;
    loop {
        // The control socket may not be there yet.
        let peers = pair.daemon(0).get_json("/v1/peers").unwrap_or_default();
        let text = |key: &str| peers["peers"][0][key].as_str().unwrap_or_default().to_owned();
        if text("session_cause") == cause && text("session_reason").contains(part) {
            break;
        }
        assert_before(deadline, || format!("no {cause}, {part:?}: {peers:#}"));
        thread::sleep(MEASURED / 20);
    }
    let mut command = pair.site.operator_command(&pair.lab, 0).unwrap();
    command.args(["validate", "--config"]).arg(pair.site.config_path(0));
    String::from_utf8_lossy(&command.output().unwrap().stdout).into_owned()
}

#[test]
fn f_52_a_network_too_small_for_a_handshake_is_named() {
    in_namespace("f_52_a_network_too_small_for_a_handshake_is_named", || {
        let mut pair = NodePair::prepared_for(1, SiteSettings::default());
        pair.lab.set_mtu(0, 1200).unwrap();
        [0, 1].into_iter().for_each(|node| pair.start(node));
        let reason = "eth0 has an MTU of 1200 bytes, and a session needs 1228";
        let findings = await_session_problem(&mut pair, "small-mtu", reason);
        assert!(findings.contains("small-mtu") && findings.contains("raise the MTU"), "{findings}");
        let log = pair.daemon(0).log_text();
        assert_eq!(log.matches(reason).count(), 1, "{log}");
        pair.lab.set_mtu(0, 1500).unwrap();
        (0..2).for_each(|node| drop(pair.wait_routes_up(node)));
    });
}

#[test]
fn f_52_a_path_too_small_for_a_handshake_is_asked_about() {
    in_namespace("f_52_a_path_too_small_for_a_handshake_is_asked_about", || {
        let mut pair = NodePair::prepared_for(1, SiteSettings::default());
        pair.lab.make_mtu_black_hole(0, 1200).unwrap();
        [0, 1].into_iter().for_each(|node| pair.start(node));
        let findings = await_session_problem(&mut pair, "no-answer", "1,228 bytes");
        assert!(findings.contains("ping -M do -s 1200"), "{findings}");
    });
}
