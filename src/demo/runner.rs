//! The run: build, start, inject faults, repair, measure.

use std::{
    thread,
    time::{Duration, Instant, SystemTime},
};

use netft_lab::{
    Lab, LabError, Moment,
    daemon::{
        ADAPTER_NAME, Daemon, EventFollower, EventLine, ProgramPaths, RouteRow, Site, SiteSettings,
    },
    probe::DatagramProbe,
    transfer::Transfer,
};

use super::{
    demo_run::{DemoRun, FaultKind, FaultRecord, RouteTimeline},
    narrator::Narrator,
};
use crate::control::why;

/// Networks between the two nodes.
const NETWORK_COUNT: usize = 3;
/// Rate of the TCP flow, bytes per second: low enough for a small machine.
const TCP_RATE: u64 = 15_000_000;
/// Undisturbed time before the first fault.
const UNDISTURBED_TIME: Duration = Duration::from_millis(700);
/// Length of a fault after traffic has left the route.
const FAULT_DURATION: Duration = Duration::from_millis(800);
/// Hold-down in the configuration of both nodes, 500 ms.
const HOLD_CONFIG: &str = "[failover]\nhold = 500\n";
/// Time limit for a failover and for the failback.
const FAILOVER_TIMEOUT: Duration = Duration::from_secs(6);

/// Everything that runs during the faults.
struct RunningDemo<'a> {
    lab: &'a Lab,
    daemons: [Daemon; 2],
    events: [EventFollower; 2],
    probes: [DatagramProbe; 2],
    transfer: Transfer,
    start: Moment,
    /// Route number on each network, by node.
    route_ids: [Vec<u64>; 2],
}

/// Runs the demo and records it.
///
/// # Errors
/// The system refuses, a daemon does not come up, or a fault causes no failover.
pub(super) fn run_and_record(
    narrator: &Narrator,
    programs: ProgramPaths,
) -> Result<DemoRun, LabError> {
    let lab = Lab::new(2, NETWORK_COUNT)?;
    narrator.print_networks(&lab);
    let settings = SiteSettings { common: HOLD_CONFIG, ..SiteSettings::default() };
    let site = Site::new(&lab, programs, settings)?;
    let mut daemons = [site.start_daemon(&lab, 0)?, site.start_daemon(&lab, 1)?];
    let mut tables = Vec::new();
    for daemon in &mut daemons {
        tables.push(daemon.wait_ready(NETWORK_COUNT)?);
    }
    narrator.print_adapter(&lab, &site)?;
    let ids =
        [route_ids_by_network(&lab, 0, &tables[0])?, route_ids_by_network(&lab, 1, &tables[1])?];
    let mut demo = RunningDemo::start_traffic(&lab, &site, daemons, ids)?;
    let mut run = demo.initial_run(&tables[0]);
    narrator.print_introduction(TCP_RATE);
    thread::sleep(UNDISTURBED_TIME);
    for kind in FaultKind::ALL {
        let fault = demo.inject_fault(kind, narrator)?;
        run.faults.push(fault);
    }
    demo.finish_into(&mut run);
    narrator.print_summary(&run);
    Ok(run)
}

/// The number of the route on each network.
fn route_ids_by_network(lab: &Lab, node: usize, table: &[RouteRow]) -> Result<Vec<u64>, LabError> {
    let find =
        |network| {
            let here = |route: &&RouteRow| {
                route.local_address().and_then(|local| lab.network_of(node, local)) == Some(network)
            };
            table.iter().find(here).map(|route| route.id).ok_or_else(|| {
                LabError::Daemon(format!("no route on network {network} in {table:#?}"))
            })
        };
    (0..lab.network_count()).map(find).collect()
}

impl<'a> RunningDemo<'a> {
    fn start_traffic(
        lab: &'a Lab,
        site: &Site,
        daemons: [Daemon; 2],
        ids: [Vec<u64>; 2],
    ) -> Result<Self, LabError> {
        let events = [site.follow_events(lab, 0)?, site.follow_events(lab, 1)?];
        let (a, b) = (lab.node_netns(0), lab.node_netns(1));
        let at = |node| (site.virtual_addrs(node).v4, 0).into();
        let start = Moment::now();
        let probes = [
            DatagramProbe::start((a, at(0)), (b, at(1)))?,
            DatagramProbe::start((b, at(1)), (a, at(0)))?,
        ];
        let transfer = Transfer::start((a, at(0)), (b, at(1)), Some(TCP_RATE))?;
        Ok(Self { lab, daemons, events, probes, transfer, start, route_ids: ids })
    }

    /// Record at the start, from the route table.
    fn initial_run(&self, table: &[RouteRow]) -> DemoRun {
        let row = |id: &u64| table.iter().find(|route| route.id == *id);
        let timeline = |id: &u64| RouteTimeline {
            label: row(id).map(address_label).unwrap_or_default(),
            states: vec![(Duration::ZERO, row(id).map(|r| r.state.clone()).unwrap_or_default())],
        };
        let active =
            self.route_ids[0].iter().position(|id| row(id).is_some_and(|route| route.active));
        DemoRun {
            adapter: ADAPTER_NAME.to_owned(),
            timelines: self.route_ids[0].iter().map(timeline).collect(),
            active: vec![(Duration::ZERO, active)],
            ..DemoRun::default()
        }
    }

    /// Breaks the active route, waits for the failover, repairs it, waits for the failback.
    fn inject_fault(
        &mut self,
        kind: FaultKind,
        narrator: &Narrator,
    ) -> Result<FaultRecord, LabError> {
        let table = self.daemons[0].routes()?;
        let active = table.iter().find(|route| route.active).map(|route| route.id);
        let network = self.route_ids[0]
            .iter()
            .position(|id| Some(*id) == active)
            .ok_or_else(|| LabError::Daemon(format!("no active route before {}", kind.name())))?;
        let broken = match kind {
            FaultKind::BlackHole => self.lab.black_hole(network)?,
            FaultKind::CarrierLoss => self.lab.cut_carrier(network, 0)?,
            FaultKind::OneWayLoss => self.lab.drop_one_way(network, 0, 1)?,
        };
        narrator.print_fault(self.since_start(broken.wall), kind, network);
        let left = self.wait_until_moved(0, network, broken.wall)?;
        thread::sleep(FAULT_DURATION);
        let detected = self.first_detection(network, broken.wall);
        let last = (0..2).filter_map(|node| self.first_move_off(node, network, broken.wall)).max();
        self.print_events(narrator, network, broken);
        let healed = self.lab.heal_network(network)?;
        narrator.print_repair(self.since_start(healed.wall));
        let back = self.wait_for_failback(network, healed.wall);
        thread::sleep(UNDISTURBED_TIME);
        let end = Instant::now();
        let mut fault = FaultRecord {
            kind,
            network,
            start: self.since_start(broken.wall),
            detected_after: time_between(broken.wall, detected),
            moved_after: time_between(broken.wall, last),
            healed_at: self.since_start(healed.wall),
            failed_back_at: back.map(|at| self.since_start(at)),
            probes_sent: 0,
            probes_lost: 0,
            longest_stall: self.transfer.longest_stall(broken.monotonic, end),
        };
        // The latest probes may still be in flight.
        let measured_until = end - UNDISTURBED_TIME / 2;
        for probe in &self.probes {
            let report = probe.log_so_far().report_between(broken.monotonic, measured_until);
            fault.probes_sent += report.sent;
            fault.probes_lost += report.lost;
        }
        narrator.print_fault_result(&fault, self.explain_event(left.seq).as_ref());
        Ok(fault)
    }

    /// The first node's explanation of one of its events.
    fn explain_event(&self, seq: u64) -> Option<why::EventExplanation> {
        let run = self.daemons[0].get_json(&format!("/v1/why?event={seq}")).ok()?;
        serde_json::from_value(run).ok()
    }

    /// Prints the nodes' events between the fault and its repair.
    fn print_events(&self, narrator: &Narrator, network: usize, broken: Moment) {
        let mut lines: Vec<(EventLine, usize)> = Vec::new();
        for node in 0..2 {
            let ours = |event: &EventLine| {
                event.is_at_or_after(broken.wall) && self.is_against_route(node, network, event)
            };
            lines.extend(
                self.events[node].events_so_far().into_iter().filter(ours).map(|e| (e, node)),
            );
        }
        lines.sort_by_key(|(event, _)| event.at);
        for (event, node) in lines {
            let to = event.u64_field("to").and_then(|id| self.network_of_route(node, id));
            narrator.print_event(
                self.since_start(event.at),
                time_between(broken.wall, Some(event.at)),
                node,
                &event,
                to,
            );
        }
    }

    /// Waits until a node's data has left the network.
    fn wait_until_moved(
        &self,
        node: usize,
        network: usize,
        since: SystemTime,
    ) -> Result<EventLine, LabError> {
        let id = self.route_ids[node][network];
        self.events[node].wait_for("a move to another route", since, FAILOVER_TIMEOUT, |event| {
            event.name == "moved" && event.u64_field("from") == Some(id)
        })
    }

    fn first_move_off(&self, node: usize, network: usize, since: SystemTime) -> Option<SystemTime> {
        let id = Some(self.route_ids[node][network]);
        let seen = self.events[node].events_so_far().into_iter();
        seen.filter(|event| event.is_at_or_after(since) && event.name == "moved")
            .find(|event| event.u64_field("from") == id)
            .map(|event| event.at)
    }

    /// Time of the first event about the failed route, at either node.
    fn first_detection(&self, network: usize, since: SystemTime) -> Option<SystemTime> {
        let first = |node: usize| {
            let seen = self.events[node].events_so_far().into_iter();
            seen.filter(|event| {
                event.is_at_or_after(since) && self.is_against_route(node, network, event)
            })
            .map(|event| event.at)
            .min()
        };
        first(0).into_iter().chain(first(1)).min()
    }

    /// True for events about the failure of the route.
    fn is_against_route(&self, node: usize, network: usize, event: &EventLine) -> bool {
        let id = Some(self.route_ids[node][network]);
        match event.name.as_str() {
            "state-changed" => {
                event.u64_field("route") == id && event.str_field("to") != Some("up")
            }
            "moved" => event.u64_field("from") == id,
            _ => false,
        }
    }

    /// Waits until both nodes' data is back on the network and its routes are up; `None` on
    /// timeout.
    fn wait_for_failback(&mut self, network: usize, since: SystemTime) -> Option<SystemTime> {
        let mut last = None;
        for node in 0..2 {
            let id = self.route_ids[node][network];
            let is_back = |routes: &[RouteRow]| {
                routes.iter().any(|r| r.id == id && r.active && r.state == "up")
            };
            self.daemons[node].wait_for("the way back", FAILOVER_TIMEOUT, is_back).ok()?;
            let seen = self.events[node].events_so_far().into_iter().rev();
            let event = seen
                .filter(|event| event.is_at_or_after(since) && event.name == "moved")
                .find(|event| event.u64_field("to") == Some(id));
            last = last.max(event.map(|event| event.at));
        }
        Some(last.unwrap_or_else(SystemTime::now))
    }

    /// Stops everything and adds the totals.
    fn finish_into(self, run: &mut DemoRun) {
        // The chart ends here; the rest waits for late probes.
        run.length = self.start.monotonic.elapsed();
        let outcome = self.transfer.finish();
        let logs = self.probes.map(DatagramProbe::finish);
        run.probes = logs.iter().map(|log| log.full_report().sent).sum();
        run.bytes = outcome.bytes;
        run.resets = outcome.resets;
        run.hash_equal = outcome.hash_equal;
        let since = |at: Instant| at.saturating_duration_since(self.start.monotonic);
        run.reads = outcome.reads.iter().map(|(at, bytes)| (since(*at), *bytes)).collect();
        run.losses = logs.map(|log| log.lost_send_times().into_iter().map(since).collect());
        for event in self.events[0].events_so_far() {
            let Ok(at) = event.at.duration_since(self.start.wall) else { continue };
            let network_at = |key| {
                let id = event.u64_field(key)?;
                self.route_ids[0].iter().position(|other| *other == id)
            };
            match event.name.as_str() {
                "moved" => run.active.push((at, network_at("to"))),
                "state-changed" => {
                    if let (Some(network), Some(state)) =
                        (network_at("route"), event.str_field("to"))
                    {
                        run.timelines[network].states.push((at, state.to_owned()));
                    }
                }
                _ => {}
            }
        }
    }

    fn network_of_route(&self, node: usize, id: u64) -> Option<usize> {
        self.route_ids[node].iter().position(|other| *other == id)
    }

    fn since_start(&self, at: SystemTime) -> Duration {
        at.duration_since(self.start.wall).unwrap_or_default()
    }
}

fn address_label(route: &RouteRow) -> String {
    let bare = |text: &str| {
        text.parse::<std::net::SocketAddr>().map_or(text.to_owned(), |a| a.ip().to_string())
    };
    format!("{} → {}", bare(&route.real_local), bare(&route.real_remote))
}

fn time_between(from: SystemTime, to: Option<SystemTime>) -> Duration {
    to.and_then(|to| to.duration_since(from).ok()).unwrap_or_default()
}
