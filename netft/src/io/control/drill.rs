//! The order of a drill: refused as a whole, or carried out at the sockets of its routes.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
};

use netft_proto::{
    config::Config,
    drill::{AbortCause, Drill, DrillOrder, DrillRefusal, plan_drill},
    route::EventKind,
};

use crate::{
    api::drill::{DrillError, DrillStatus},
    io::{
        carrier_monitor::CarrierStates,
        clock,
        control::{
            drill_runner::{RunningDrill, drill_routes, interfaces_without_carrier},
            driver::Driver,
        },
        socket_fault::FaultSwitch,
    },
};

/// Begins a drill.
///
/// # Errors
/// [`DrillError`] when the order is refused; nothing changed then.
pub(super) fn start_drill(
    driver: &mut Driver,
    order: DrillOrder,
) -> Result<DrillStatus, DrillError> {
    let routes = drill_routes(&driver.view());
    let is_running = driver.components.drill.is_running();
    let planned = plan_drill(&order, &routes, is_running)
        .map_err(|refusal| name_refusal(refusal, &driver.config))?;
    let mut ends = BTreeMap::<SocketAddr, BTreeSet<SocketAddr>>::new();
    for spec in planned.iter().filter_map(|id| driver.engine.route_spec(*id)) {
        ends.entry(spec.real_local).or_default().insert(spec.real_remote);
    }
    let counters = driver.workers.counters().first().cloned().unwrap_or_default();
    let switch = Arc::new(FaultSwitch::new(order.fault, counters));
    let injected = driver.sockets.inject_fault(&ends, &switch, &driver.workers);
    injected.map_err(|error| DrillError::Sockets(error.to_string()))?;
    let now = clock::now();
    tracing::debug!(drilled = %order.target, fault = %order.fault, ?planned, "drill begins");
    driver.emit_event(EventKind::DrillStarted { order: order.clone(), routes: planned.clone() });
    let drill = Drill::begin(now, order, &planned, &routes);
    let masked_interfaces = interfaces_without_carrier(&driver.view(), &drill);
    let lost: CarrierStates = masked_interfaces.iter().map(|index| (*index, false)).collect();
    let locals = ends.into_keys().collect();
    driver.components.drill.begin(RunningDrill { drill, switch, locals, masked_interfaces });
    if !lost.is_empty() && driver.planner.set_carriers(&lost) {
        driver.sync_sockets();
    }
    driver.publisher.mark_dirty("a drill began");
    drill_status(driver).ok_or_else(|| DrillError::Sockets("no drill runs".to_owned()))
}

/// The drill that runs, or the last one.
pub(super) fn drill_status(driver: &Driver) -> Option<DrillStatus> {
    let report = driver.components.drill.report(clock::now())?;
    Some(DrillStatus { report, objective: driver.config.failover.objective })
}

/// Undoes a drill before another process takes the sockets over.
pub(super) fn end_for_successor(driver: &mut Driver) {
    let ended = driver.components.drill.cut_short(clock::now(), AbortCause::HandOver);
    let Some(report) = ended else { return };
    driver.sockets.release_held();
    driver.sockets.remove_faults(&driver.workers);
    driver.publisher.mark_dirty("a drill is over");
    driver.emit_event(EventKind::DrillEnded { report: Box::new(report) });
}

fn name_refusal(refusal: DrillRefusal, config: &Config) -> DrillError {
    match refusal {
        DrillRefusal::CutsOff(peer) => {
            let config = config.peer_of(peer);
            let peer = config.map_or_else(|| peer.to_string(), |peer| peer.name.clone());
            DrillError::CutsOff { peer }
        }
        refusal => DrillError::Refused(refusal),
    }
}
