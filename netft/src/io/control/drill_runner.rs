//! The drill that runs, and the last one: carries out what [`Drill`] decides.

use std::{net::SocketAddr, sync::Arc};

use netft_proto::{
    drill::{AbortCause, Drill, DrillFault, DrillReport, DrillRoute, DrillStep},
    route::{Event, EventKind},
    time::Time,
};

use crate::io::{
    carrier_monitor::CarrierStates,
    control::component::{Action, Actions, Component, Input, View},
    host_state::HostState,
    socket_fault::FaultSwitch,
};

/// A drill under way.
pub(super) struct RunningDrill {
    pub(super) drill: Drill,
    pub(super) switch: Arc<FaultSwitch>,
    /// The local addresses whose sockets have the fault.
    pub(super) locals: Vec<SocketAddr>,
    /// The interfaces that count as without carrier.
    pub(super) masked_interfaces: Vec<u32>,
}

impl RunningDrill {
    /// Ends the fault.
    fn lift(&mut self, view: &View<'_>, actions: &mut Actions) {
        self.switch.lift();
        actions.push(Action::ReleaseHeld);
        let masked = std::mem::take(&mut self.masked_interfaces);
        let carrier_of = |index| view.planner.host_state().interface(index).map(|it| it.carrier);
        let known = masked.into_iter().filter_map(|index| Some((index, carrier_of(index)?)));
        let known: CarrierStates = known.collect();
        if !known.is_empty() {
            actions.push(Action::PollCarriers(known));
        }
    }
}

/// The drill that runs, if any, and the report of the last one.
#[derive(Default)]
pub(crate) struct DrillRunner {
    running: Option<RunningDrill>,
    last: Option<DrillReport>,
}

impl DrillRunner {
    pub(super) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    pub(super) fn begin(&mut self, running: RunningDrill) {
        self.running = Some(running);
    }

    /// The report of the drill that runs, or of the last one.
    pub(super) fn report(&self, now: Time) -> Option<DrillReport> {
        let running = self.running.as_ref();
        let report = running.map(|it| it.drill.report(now, it.switch.dropped()));
        report.or_else(|| self.last.clone())
    }

    /// Passes an event of the engine to the drill that runs.
    pub(super) fn on_event(&mut self, event: &Event) {
        if let Some(running) = &mut self.running {
            running.drill.on_event(event);
        }
    }

    /// Ends the drill at once; its report.
    pub(super) fn cut_short(&mut self, now: Time, cause: AbortCause) -> Option<DrillReport> {
        let mut running = self.running.take()?;
        running.switch.lift();
        running.drill.cut_short(now, cause);
        let report = running.drill.report(now, running.switch.dropped());
        self.last = Some(report.clone());
        Some(report)
    }

    fn is_masked(&self, ifindex: u32) -> bool {
        self.running.as_ref().is_some_and(|it| it.masked_interfaces.contains(&ifindex))
    }

    /// Takes the interfaces that a drill has without carrier out of what the kernel says.
    pub(super) fn mask_carriers(&self, seen: &mut CarrierStates) {
        seen.retain(|(index, _)| !self.is_masked(*index));
    }

    /// Takes the carrier of these interfaces out of what the kernel says.
    pub(super) fn mask_host_state(&self, host_state: &mut HostState) {
        for interface in &mut host_state.interfaces {
            interface.carrier &= !self.is_masked(interface.index);
        }
    }
}

impl Component for DrillRunner {
    fn next_wake(&self) -> Option<Time> {
        self.running.as_ref()?.drill.next_wake()
    }

    fn on_input(&mut self, _: Time, _: &Input<'_>, _: &View<'_>, _: &mut Actions) {}

    fn poll(&mut self, now: Time, view: &View<'_>, actions: &mut Actions) {
        let Some(running) = &mut self.running else { return };
        let is_replaced = |local: &SocketAddr| !view.sockets.has_fault(*local);
        if !running.drill.is_lifted() && running.locals.iter().any(is_replaced) {
            running.drill.abort(now, AbortCause::SocketsReplaced);
            running.lift(view, actions);
        }
        match running.drill.poll(now, &drill_routes(view)) {
            None => {}
            Some(DrillStep::Lift) => {
                let fault = running.drill.order().fault;
                tracing::debug!(%fault, "the drill's fault is lifted");
                running.lift(view, actions);
            }
            Some(DrillStep::Finish) => {
                let report = running.drill.report(now, running.switch.dropped());
                self.running = None;
                self.last = Some(report.clone());
                actions.push(Action::RemoveFaults);
                actions.push(Action::Emit(EventKind::DrillEnded { report: Box::new(report) }));
            }
        }
    }
}

/// The routes as a drill sees them.
pub(super) fn drill_routes(view: &View<'_>) -> Vec<DrillRoute> {
    let statuses = view.engine.route_statuses();
    let routes = statuses.iter().filter_map(|status| {
        let entry = view.routes.get(status.id)?;
        Some(DrillRoute {
            id: status.id,
            peer: status.spec.peer,
            local: status.spec.real_local.ip(),
            interface: entry.plan.ifname.clone(),
            is_relayed: entry.is_relayed(),
            state: status.state,
            is_suspect: status.suspect,
        })
    });
    routes.collect()
}

/// The interfaces that lose their carrier with these routes.
pub(super) fn interfaces_without_carrier(view: &View<'_>, drill: &Drill) -> Vec<u32> {
    if drill.order().fault != DrillFault::Carrier {
        return Vec::new();
    }
    let entries = drill.route_ids().filter_map(|id| view.routes.get(id));
    let mut indexes: Vec<_> = entries.map(|entry| entry.plan.ifindex).collect();
    indexes.sort_unstable();
    indexes.dedup();
    indexes
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::Duration;

    use netft_proto::{
        drill::{DrillOrder, DrillOutcome, DrillTarget},
        ids::{PeerId, RouteId},
    };

    use super::*;
    use crate::io::control::test_node::{TestNode, due_actions};

    /// A drill of the route of a node without sockets.
    fn running(node: &TestNode, id: RouteId, fault: DrillFault) -> RunningDrill {
        let (target, length) = (DrillTarget::Route(id), Duration::from_secs(2));
        let order = DrillOrder { target, fault, length };
        let drill = Drill::begin(Time::ZERO, order, &[id], &drill_routes(&node.view()));
        let masked_interfaces = interfaces_without_carrier(&node.view(), &drill);
        let switch = Arc::new(FaultSwitch::new(fault, Arc::default()));
        RunningDrill { drill, switch, locals: Vec::new(), masked_interfaces }
    }

    #[test]
    fn a_carrier_is_masked_until_the_fault_is_lifted_and_then_asked_for() {
        let mut node = TestNode::new(1);
        let id = node.add_route(PeerId(0));
        let mut runner = DrillRunner::default();
        runner.begin(running(&node, id, DrillFault::Carrier));
        let mut seen: CarrierStates = vec![(2, true), (3, true)];
        runner.mask_carriers(&mut seen);
        assert_eq!(seen, [(3, true)]);
        let mut host_state = node.planner.host_state().clone();
        runner.mask_host_state(&mut host_state);
        assert!(!host_state.interface(2).unwrap().carrier);
        let lifted = due_actions(&mut runner, Time::from_millis(2000), &node);
        assert!(
            matches!(&lifted[..], [Action::ReleaseHeld, Action::PollCarriers(_)]),
            "{lifted:?}"
        );
        let mut seen: CarrierStates = vec![(2, true)];
        runner.mask_carriers(&mut seen);
        assert_eq!(seen, [(2, true)]);
        let end = runner.next_wake().unwrap();
        let ended = due_actions(&mut runner, end, &node);
        assert!(
            matches!(
                &ended[..],
                [Action::RemoveFaults, Action::Emit(EventKind::DrillEnded { .. })]
            ),
            "{ended:?}"
        );
        assert!(!runner.is_running() && runner.next_wake().is_none());
        assert_eq!(runner.report(end).unwrap().outcome, DrillOutcome::Completed);
    }

    #[test]
    fn a_drill_whose_sockets_are_gone_is_ended() {
        let mut node = TestNode::new(1);
        let id = node.add_route(PeerId(0));
        let mut runner = DrillRunner::default();
        let mut drill = running(&node, id, DrillFault::OneWay);
        drill.locals.push("10.1.0.1:3343".parse().unwrap());
        runner.begin(drill);
        let actions = due_actions(&mut runner, Time::from_millis(10), &node);
        assert!(matches!(&actions[..], [Action::ReleaseHeld]), "{actions:?}");
        let cause = AbortCause::HandOver;
        let report = runner.cut_short(Time::from_millis(20), cause).unwrap();
        assert_eq!(report.outcome, DrillOutcome::Aborted(AbortCause::SocketsReplaced));
    }
}
