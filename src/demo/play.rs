//! The run itself: build, start, break, repair, measure.

use std::{
    thread,
    time::{Duration, Instant, SystemTime},
};

use netft_lab::{
    Lab, LabError, Moment,
    daemon::{ADAPTER, Daemon, Event, Events, Programs, Route, Settings, Site},
    probe::Probe,
    transfer::Transfer,
};

use super::{
    show::Narrator,
    story::{Fault, Kind, Lane, Story},
};
use crate::control::why;

/// Networks between the two nodes.
const NETWORKS: usize = 3;
/// The pace of the TCP flow, bytes per second: leaves a small machine time for everything else.
const RATE: u64 = 15_000_000;
/// Undisturbed time before the first fault.
const CALM: Duration = Duration::from_millis(700);
/// How long a fault stays after traffic has left the route.
const BROKEN: Duration = Duration::from_millis(800);
/// How long a good route must stay good before data returns to it, milliseconds.
const HOLD: &str = "[failover]\nhold = 500\n";
/// A move or a return that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(6);

/// Everything that runs while routes break.
struct Stage<'a> {
    lab: &'a Lab,
    daemons: [Daemon; 2],
    events: [Events; 2],
    probes: [Probe; 2],
    transfer: Transfer,
    start: Moment,
    /// The number of the route on each network, by node.
    ids: [Vec<u64>; 2],
}

/// Runs the demo and tells what happened.
///
/// # Errors
/// When the system refuses, a daemon does not come up, or a fault moves nothing.
pub(super) fn play(narrator: &Narrator, programs: Programs) -> Result<Story, LabError> {
    let lab = Lab::new(2, NETWORKS)?;
    narrator.networks(&lab);
    let settings = Settings { common: HOLD, ..Settings::default() };
    let site = Site::new(&lab, programs, settings)?;
    let mut daemons = [site.start(&lab, 0)?, site.start(&lab, 1)?];
    let mut tables = Vec::new();
    for daemon in &mut daemons {
        tables.push(daemon.wait_ready(NETWORKS)?);
    }
    narrator.adapter(&lab, &site)?;
    let ids = [by_network(&lab, 0, &tables[0])?, by_network(&lab, 1, &tables[1])?];
    let mut stage = Stage::open(&lab, &site, daemons, ids)?;
    let mut story = stage.prologue(&tables[0]);
    narrator.curtain(RATE);
    thread::sleep(CALM);
    for kind in Kind::ALL {
        let fault = stage.act(kind, narrator)?;
        story.faults.push(fault);
    }
    stage.close(&mut story);
    narrator.epilogue(&story);
    Ok(story)
}

/// The number of the route on each network.
fn by_network(lab: &Lab, node: usize, table: &[Route]) -> Result<Vec<u64>, LabError> {
    let find =
        |network| {
            let here = |route: &&Route| {
                route.local().and_then(|local| lab.network_of(node, local)) == Some(network)
            };
            table.iter().find(here).map(|route| route.id).ok_or_else(|| {
                LabError::Daemon(format!("no route on network {network} in {table:#?}"))
            })
        };
    (0..lab.networks()).map(find).collect()
}

impl<'a> Stage<'a> {
    fn open(
        lab: &'a Lab,
        site: &Site,
        daemons: [Daemon; 2],
        ids: [Vec<u64>; 2],
    ) -> Result<Self, LabError> {
        let events = [site.events(lab, 0)?, site.events(lab, 1)?];
        let (a, b) = (lab.node(0), lab.node(1));
        let at = |node| (site.addrs(node).v4, 0).into();
        let start = Moment::now();
        let probes = [Probe::start((a, at(0)), (b, at(1)))?, Probe::start((b, at(1)), (a, at(0)))?];
        let transfer = Transfer::start((a, at(0)), (b, at(1)), Some(RATE))?;
        Ok(Self { lab, daemons, events, probes, transfer, start, ids })
    }

    /// The story as it begins: every route as the table has it.
    fn prologue(&self, table: &[Route]) -> Story {
        let row = |id: &u64| table.iter().find(|route| route.id == *id);
        let lane = |id: &u64| Lane {
            label: row(id).map(label).unwrap_or_default(),
            states: vec![(Duration::ZERO, row(id).map(|r| r.state.clone()).unwrap_or_default())],
        };
        let active = self.ids[0].iter().position(|id| row(id).is_some_and(|route| route.active));
        Story {
            adapter: ADAPTER.to_owned(),
            lanes: self.ids[0].iter().map(lane).collect(),
            active: vec![(Duration::ZERO, active)],
            ..Story::default()
        }
    }

    /// Breaks the active route, watches traffic leave it, repairs it, watches traffic return.
    fn act(&mut self, kind: Kind, narrator: &Narrator) -> Result<Fault, LabError> {
        let table = self.daemons[0].routes()?;
        let active = table.iter().find(|route| route.active).map(|route| route.id);
        let lane = self.ids[0]
            .iter()
            .position(|id| Some(*id) == active)
            .ok_or_else(|| LabError::Daemon(format!("no active route before {}", kind.name())))?;
        let broken = match kind {
            Kind::BlackHole => self.lab.black_hole(lane)?,
            Kind::CarrierLoss => self.lab.cut_carrier(lane, 0)?,
            Kind::OneWayLoss => self.lab.one_way(lane, 0, 1)?,
        };
        narrator.broken(self.since(broken.wall), kind, lane);
        let left = self.moved(0, lane, broken.wall)?;
        thread::sleep(BROKEN);
        let detected = self.detected(lane, broken.wall);
        let last = (0..2).filter_map(|node| self.moved_already(node, lane, broken.wall)).max();
        self.narrate(narrator, lane, broken);
        let healed = self.lab.heal(lane)?;
        narrator.healed(self.since(healed.wall));
        let back = self.back(lane, healed.wall);
        thread::sleep(CALM);
        let end = Instant::now();
        let mut fault = Fault {
            kind,
            lane,
            start: self.since(broken.wall),
            detected: length(broken.wall, detected),
            moved: length(broken.wall, last),
            healed: self.since(healed.wall),
            back: back.map(|at| self.since(at)),
            probes_sent: 0,
            probes_lost: 0,
            stall: self.transfer.stall(broken.monotonic, end),
        };
        // The youngest probes may still be under way.
        let settled = end - CALM / 2;
        for probe in &self.probes {
            let report = probe.log().between(broken.monotonic, settled);
            fault.probes_sent += report.sent;
            fault.probes_lost += report.lost;
        }
        narrator.after(&fault, self.why(left.seq).as_ref());
        Ok(fault)
    }

    /// The first node's story of one of its events.
    fn why(&self, seq: u64) -> Option<why::Story> {
        let story = self.daemons[0].get(&format!("/v1/why?event={seq}")).ok()?;
        serde_json::from_value(story).ok()
    }

    /// Prints what the nodes said between the fault and its repair.
    fn narrate(&self, narrator: &Narrator, lane: usize, broken: Moment) {
        let mut lines: Vec<(Event, usize)> = Vec::new();
        for node in 0..2 {
            let ours = |event: &Event| event.since(broken.wall) && self.blames(node, lane, event);
            lines.extend(self.events[node].seen().into_iter().filter(ours).map(|e| (e, node)));
        }
        lines.sort_by_key(|(event, _)| event.at);
        for (event, node) in lines {
            let to = event.number("to").and_then(|id| self.lane_of(node, id));
            narrator.event(
                self.since(event.at),
                length(broken.wall, Some(event.at)),
                node,
                &event,
                to,
            );
        }
    }

    /// Waits until a node's data has left the lane.
    fn moved(&self, node: usize, lane: usize, since: SystemTime) -> Result<Event, LabError> {
        let id = self.ids[node][lane];
        self.events[node].wait_for("a move to another route", since, PATIENCE, |event| {
            event.name == "moved" && event.number("from") == Some(id)
        })
    }

    fn moved_already(&self, node: usize, lane: usize, since: SystemTime) -> Option<SystemTime> {
        let id = Some(self.ids[node][lane]);
        let seen = self.events[node].seen().into_iter();
        seen.filter(|event| event.since(since) && event.name == "moved")
            .find(|event| event.number("from") == id)
            .map(|event| event.at)
    }

    /// When either node first held something against the lane.
    fn detected(&self, lane: usize, since: SystemTime) -> Option<SystemTime> {
        let first = |node: usize| {
            let seen = self.events[node].seen().into_iter();
            seen.filter(|event| event.since(since) && self.blames(node, lane, event))
                .map(|event| event.at)
                .min()
        };
        first(0).into_iter().chain(first(1)).min()
    }

    /// Whether an event holds something against the lane.
    fn blames(&self, node: usize, lane: usize, event: &Event) -> bool {
        let id = Some(self.ids[node][lane]);
        match event.name.as_str() {
            "state-changed" => event.number("route") == id && event.text("to") != Some("up"),
            "moved" => event.number("from") == id,
            _ => false,
        }
    }

    /// Waits until both nodes' data is back on the lane, and the lane is whole; `None` when that
    /// does not happen.
    fn back(&mut self, lane: usize, since: SystemTime) -> Option<SystemTime> {
        let mut last = None;
        for node in 0..2 {
            let id = self.ids[node][lane];
            let home =
                |routes: &[Route]| routes.iter().any(|r| r.id == id && r.active && r.state == "up");
            self.daemons[node].wait_for("the way back", PATIENCE, home).ok()?;
            let seen = self.events[node].seen().into_iter().rev();
            let event = seen
                .filter(|event| event.since(since) && event.name == "moved")
                .find(|event| event.number("to") == Some(id));
            last = last.max(event.map(|event| event.at));
        }
        Some(last.unwrap_or_else(SystemTime::now))
    }

    /// Ends everything and fills in what only the end tells.
    fn close(self, story: &mut Story) {
        // The picture ends here: what follows is waiting for stragglers.
        story.length = self.start.monotonic.elapsed();
        let outcome = self.transfer.finish();
        let logs = self.probes.map(Probe::finish);
        story.probes = logs.iter().map(|log| log.report().sent).sum();
        story.bytes = outcome.bytes;
        story.resets = outcome.resets;
        story.hash_equal = outcome.hash_equal;
        let since = |at: Instant| at.saturating_duration_since(self.start.monotonic);
        story.reads = outcome.reads.iter().map(|(at, bytes)| (since(*at), *bytes)).collect();
        story.losses = logs.map(|log| log.losses().into_iter().map(since).collect());
        for event in self.events[0].seen() {
            let Ok(at) = event.at.duration_since(self.start.wall) else { continue };
            let lane_at = |key| {
                let id = event.number(key)?;
                self.ids[0].iter().position(|other| *other == id)
            };
            match event.name.as_str() {
                "moved" => story.active.push((at, lane_at("to"))),
                "state-changed" => {
                    if let (Some(lane), Some(state)) = (lane_at("route"), event.text("to")) {
                        story.lanes[lane].states.push((at, state.to_owned()));
                    }
                }
                _ => {}
            }
        }
    }

    fn lane_of(&self, node: usize, id: u64) -> Option<usize> {
        self.ids[node].iter().position(|other| *other == id)
    }

    fn since(&self, at: SystemTime) -> Duration {
        at.duration_since(self.start.wall).unwrap_or_default()
    }
}

fn label(route: &Route) -> String {
    let bare = |text: &str| {
        text.parse::<std::net::SocketAddr>().map_or(text.to_owned(), |a| a.ip().to_string())
    };
    format!("{} → {}", bare(&route.real_local), bare(&route.real_remote))
}

fn length(from: SystemTime, to: Option<SystemTime>) -> Duration {
    to.and_then(|to| to.duration_since(from).ok()).unwrap_or_default()
}
