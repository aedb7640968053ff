//! Drills in the simulator: every kind of fault, its bound, its report, and a real failure in the
//! middle of one.

#![allow(clippy::unwrap_used, missing_docs)]

use std::time::Duration;

use netft_proto::{
    PeerId, RouteId, Time,
    drill::{
        AbortCause, Drill, DrillFault, DrillOrder, DrillOutcome, DrillReport, DrillRoute,
        DrillStep, DrillTarget, plan_drill,
    },
    route::{EventKind, RouteState},
    sim::{FaultAction, Scenario, SimReport, Simulation},
};

const ONE_MS: Duration = Duration::from_millis(1);
/// When drills begin: every route is up.
const DRILL_START: Time = Time::from_millis(2000);
/// When a run must be over.
const DRILL_DEADLINE: Time = Time::from_millis(30_000);

/// Node 0's drill of network 0.
struct DrillRun<'a> {
    scenario: &'a Scenario,
    simulation: Simulation<'a>,
    routes: Vec<DrillRoute>,
    seen_events: usize,
}

impl<'a> DrillRun<'a> {
    fn new(scenario: &'a Scenario) -> Self {
        let route = |network| DrillRoute {
            id: scenario.route_id(0, 1, network),
            peer: PeerId(1),
            local: format!("10.{network}.0.1").parse().unwrap(),
            interface: format!("eth{network}"),
            is_relayed: false,
            state: RouteState::Down,
            is_suspect: false,
        };
        let routes = (0..2).map(route).collect();
        Self { scenario, simulation: Simulation::new(scenario), routes, seen_events: 0 }
    }

    /// Runs until `end`, and passes the events of node 0 to the drill.
    fn run_until(&mut self, end: Time, drill: Option<&mut Drill>) {
        self.simulation.run_until(end);
        let events = &self.simulation.report().events[self.seen_events..];
        self.seen_events += events.len();
        let own: Vec<_> = events.iter().filter(|(node, _)| *node == 0).collect();
        for (_, event) in &own {
            if let EventKind::StateChanged { route, to, .. } = event.kind {
                let found = self.routes.iter_mut().find(|known| known.id == route);
                found.unwrap().state = to;
            }
        }
        if let Some(drill) = drill {
            own.iter().for_each(|(_, event)| drill.on_event(event));
        }
    }

    /// Runs a drill to its end. `meanwhile` is called after every millisecond.
    fn run_drill(
        mut self,
        fault: DrillFault,
        mut meanwhile: impl FnMut(&mut Simulation<'a>),
    ) -> (DrillReport, SimReport) {
        self.run_until(DRILL_START, None);
        let order = DrillOrder {
            target: DrillTarget::Network("10.0.0.0/24".parse().unwrap()),
            fault,
            length: Duration::from_secs(2),
        };
        let planned = plan_drill(&order, &self.routes, false).unwrap();
        assert_eq!(planned, [self.scenario.route_id(0, 1, 0)]);
        let mut drill = Drill::begin(DRILL_START, order, &planned, &self.routes);
        for action in injected(fault) {
            self.simulation.apply_fault(action);
        }
        let mut now = DRILL_START;
        while now < DRILL_DEADLINE {
            now = now + ONE_MS;
            self.run_until(now, Some(&mut drill));
            meanwhile(&mut self.simulation);
            match drill.poll(now, &self.routes) {
                None => {}
                Some(DrillStep::Lift) => {
                    self.simulation.apply_fault(FaultAction::Heal { network: 0 });
                }
                Some(DrillStep::Finish) => break,
            }
        }
        (drill.report(now, 0), self.simulation.into_report())
    }
}

/// A drill's fault at the sockets of node 0, as the network would do it.
fn injected(fault: DrillFault) -> Vec<FaultAction> {
    let network = 0;
    let both = |make: fn(usize, usize) -> FaultAction| vec![make(0, 1), make(1, 0)];
    match fault {
        DrillFault::Blackhole => vec![FaultAction::Cut { network }],
        DrillFault::OneWay => vec![FaultAction::CutOneWay { network, from: 0, to: 1 }],
        DrillFault::Loss(_) => {
            both(|from, to| FaultAction::Loss { network: 0, from, to, permille: 50 })
        }
        DrillFault::Carrier => vec![FaultAction::CarrierLost { network, node: 0 }],
        DrillFault::Delay(by) => vec![FaultAction::ExtraDelay { network, by }],
    }
}

fn scenario(seed: u64) -> Scenario {
    Scenario::new(seed).data_every(ONE_MS).run_for(DRILL_DEADLINE.since(Time::ZERO))
}

/// Packets lost in both directions.
fn lost_packets(report: &SimReport) -> usize {
    // Those that left at the end may still be under way.
    let span = DRILL_START..Time::ZERO + report.virtual_time.saturating_sub(500 * ONE_MS);
    let both = [(0, 1), (1, 0)].into_iter();
    let packets = both.flat_map(|pair| report.packets_between(pair, span.clone()));
    packets.filter(|packet| packet.arrived_at.is_none()).count()
}

#[test]
fn each_kind_of_fault_is_bounded_undone_and_reported() {
    for seed in 1..=2 {
        for fault in [
            DrillFault::Blackhole,
            DrillFault::OneWay,
            DrillFault::Carrier,
            DrillFault::Loss(5),
            DrillFault::Delay(20 * ONE_MS),
        ] {
            let scenario = scenario(seed);
            let (drill, report) = DrillRun::new(&scenario).run_drill(fault, |_| {});
            let context = format!("seed {seed}, {fault}: {drill:?}");
            assert!(report.violations.is_empty(), "{}", report.failure_text(&scenario));
            assert_eq!(drill.outcome, DrillOutcome::Completed, "{context}");
            assert!(drill.is_recovered(), "{context}");
            assert_eq!(drill.lasted, Duration::from_secs(2), "{context}");
            if fault.is_total() {
                // 30 ms × 5 and a round trip; data or the carrier shows it sooner.
                assert!(drill.detection().unwrap() <= 190 * ONE_MS, "{context}");
                assert_eq!(drill.cost.lost, 0, "{context}");
            }
            // Heartbeats alone judge partial loss: a lone hole is left to the application.
            if !matches!(fault, DrillFault::Loss(_)) {
                assert_eq!(lost_packets(&report), 0, "{context}");
            }
        }
    }
}

#[test]
fn a_failure_of_the_other_network_ends_the_drill_before_its_time() {
    for seed in 1..=2 {
        let scenario = scenario(seed);
        let mut is_cut = false;
        let run = DrillRun::new(&scenario);
        let (drill, report) = run.run_drill(DrillFault::Blackhole, |simulation| {
            if !is_cut && simulation.now() >= DRILL_START + 500 * ONE_MS {
                simulation.apply_fault(FaultAction::Cut { network: 1 });
                is_cut = true;
            }
        });
        assert!(report.violations.is_empty(), "{}", report.failure_text(&scenario));
        let cause = AbortCause::PeerAtRisk(PeerId(1));
        assert_eq!(drill.outcome, DrillOutcome::Aborted(cause), "seed {seed}: {drill:?}");
        assert!(drill.lasted < Duration::from_secs(1), "seed {seed}: {drill:?}");
        assert!(drill.is_recovered(), "the drilled network carries the peer: {drill:?}");
    }
}

#[test]
fn the_only_network_is_never_drilled() {
    let order = DrillOrder {
        target: DrillTarget::Route(RouteId(1)),
        fault: DrillFault::OneWay,
        length: Duration::from_secs(2),
    };
    let scenario = scenario(1);
    let mut run = DrillRun::new(&scenario);
    run.run_until(DRILL_START, None);
    run.routes.truncate(1);
    let order = DrillOrder { target: DrillTarget::Route(run.routes[0].id), ..order };
    assert!(plan_drill(&order, &run.routes, false).is_err());
}
