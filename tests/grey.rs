//! Faults that heartbeats do not suffer, in a real kernel. Each is judged against a control in the
//! same run: the same flow before the fault, or on a clean network.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::{thread, time::Duration};

use common::{NodePair, TEST_RATE, TEST_TIMEOUT, assert_flow_alive, number_from_env};
use netft_lab::{
    Moment,
    daemon::SiteSettings,
    in_namespace,
    transfer::Transfer,
    wire::{DataImpairments, ImpairedWire, WireImpairments},
};

/// How long a flow is measured.
const MEASURED: Duration = Duration::from_millis(1500);

/// A pair whose network 0 is a wire that leaves segmented sends whole.
fn wired(networks: usize) -> (NodePair, ImpairedWire) {
    let pair = NodePair::prepared_for(networks, SiteSettings::default());
    let wire = ImpairedWire::insert_whole(&pair.lab, 0, number_from_env("NETFT_SEED", 1)).unwrap();
    (pair.start_and_wait(), wire)
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
        let (mut pair, wire) = wired(1);
        let events = pair.events(0);
        let flow = pair.transfer(0, Some(TEST_RATE), false);
        thread::sleep(MEASURED / 3);
        let control = delivered(&flow);
        let start = Moment::now();
        wire.set_both_impairments(WireImpairments {
            data: DataImpairments { segmented: true, ..DataImpairments::default() },
            ..WireImpairments::default()
        });
        let event = events
            .wait_for("plain sends", start.wall, TEST_TIMEOUT, |event| {
                event.name == "segmented-sends"
            })
            .unwrap();
        assert_eq!(event.bool_field("plain"), Some(true));
        thread::sleep(MEASURED / 3);
        let after = delivered(&flow);
        println!("{after} bytes with plain sends, {control} in the control");
        assert!(after as f64 >= 0.8 * control as f64, "{after} of {control} bytes");
        let routes = pair.daemon(0).get_json("/v1/routes").unwrap();
        assert_eq!(routes["routes"][0]["plain_sends"], true, "{routes}");
        assert_flow_alive(flow);
    });
}
