use std::time::Duration;

use super::{
    ANSWER_TIMEOUT, ExternalAnswer, ExternalLease, ExternalOrder, START_ANSWER_TIMEOUT, StartAnswer,
};
use crate::{sim::rng::SplitMix64, time::Time};

const LEASE_LENGTH: Duration = Duration::from_secs(10);
const FREE_ANSWER: ExternalAnswer = ExternalAnswer::Free;

fn at(millis: u64) -> Time {
    Time::from_nanos(1_000_000_000 + millis * 1_000_000)
}

fn order(asked: Time) -> ExternalOrder {
    ExternalOrder { asked, lease: LEASE_LENGTH }
}

fn started(asked: Time) -> ExternalLease {
    let mut lease = ExternalLease::default();
    lease.begin_start(asked);
    assert_eq!(
        lease.on_start(asked, order(asked), &[FREE_ANSWER]),
        StartAnswer::Granted(asked + LEASE_LENGTH)
    );
    lease
}

#[test]
fn a_lease_counts_from_before_the_manager_was_asked() {
    let mut lease = started(at(0));
    assert_eq!(lease.on_renewal(at(5_000), order(at(4_000)), &[FREE_ANSWER]), Ok(at(14_000)));
    // An older proof shortens nothing.
    assert_eq!(lease.on_renewal(at(6_000), order(at(1_000)), &[FREE_ANSWER]), Ok(at(14_000)));
    // The kernel ends it late by as much.
    assert!(!lease.is_free(at(14_019)) && lease.is_free(at(14_020)));
    assert!(lease.on_renewal(at(14_000), order(at(13_900)), &[FREE_ANSWER]).is_err());
    lease.begin_start(at(30_000));
    let late = lease.on_start(at(30_000), order(at(20_000)), &[FREE_ANSWER]);
    assert!(matches!(late, StartAnswer::Refused(_)), "{late:?}");
}

/// Seconds until a start that is tried each second is through.
fn seconds_to_start(answer_at: impl Fn(u64) -> ExternalAnswer) -> Option<u64> {
    let mut lease = ExternalLease::default();
    (0..40).find(|second| {
        let now = at(second * 1000);
        lease.begin_start(now);
        let answers = [FREE_ANSWER, answer_at(*second)];
        lease.on_start(now, order(now), &answers) == StartAnswer::Granted(now + LEASE_LENGTH)
    })
}

#[test]
fn a_silent_node_is_waited_for_and_a_busy_one_for_as_long_as_it_is() {
    let (silent, busy) =
        (|| ExternalAnswer::Silent("c".to_owned()), || ExternalAnswer::Busy("c".to_owned()));
    assert_eq!(seconds_to_start(|_| FREE_ANSWER), Some(0));
    assert_eq!(seconds_to_start(|_| silent()), Some(11));
    assert_eq!(seconds_to_start(|second| if second < 5 { busy() } else { silent() }), Some(15));
    assert_eq!(seconds_to_start(|second| if second < 30 { busy() } else { FREE_ANSWER }), Some(30));
    assert_eq!(seconds_to_start(|_| busy()), None);
}

#[test]
fn an_owner_gives_way_to_a_node_that_is_about_to_start_and_late_answers_count_for_nothing() {
    let mut lease = started(at(0));
    let busy = [ExternalAnswer::Busy("b".to_owned())];
    assert!(lease.on_renewal(at(1_000), order(at(900)), &busy).is_err());
    let mut other = ExternalLease::default();
    other.begin_start(at(1_000));
    assert!(!other.is_free(at(5_900)) && other.is_free(at(6_100)));
    let late = other.on_start(at(3_000), order(at(2_900)), &[FREE_ANSWER]);
    assert!(matches!(late, StartAnswer::Wait(_)), "{late:?}");
}

/// The owner is cut off, is back and proves its lease anew while the node that is about to start is
/// paused, and is cut off again.
#[test]
fn a_node_that_was_paused_waits_for_what_an_owner_renewed_meanwhile() {
    let silent = |name: &str| [ExternalAnswer::Silent(name.to_owned())];
    let mut owner = started(at(0));
    let mut next = ExternalLease::default();
    next.begin_start(at(500));
    let waits = next.on_start(at(2_000), order(at(400)), &silent("a"));
    assert!(matches!(waits, StartAnswer::Wait(_)), "{waits:?}");
    assert_eq!(owner.on_renewal(at(5_000), order(at(3_000)), &silent("b")), Ok(at(13_000)));
    let granted_at = (5_200..30_000).step_by(1_000).map(at).find(|now| {
        next.begin_start(*now);
        matches!(next.on_start(*now, order(*now), &silent("a")), StartAnswer::Granted(_))
    });
    assert_eq!(granted_at, Some(at(16_200)), "a lease after it went on");
}

/// The daemon notes by itself that it runs, so that the agent's pauses between tries are none.
#[test]
fn slow_tries_of_a_node_that_runs_are_one_wait() {
    let silent = [ExternalAnswer::Silent("a".to_owned())];
    let mut lease = ExternalLease::default();
    let granted_at = (0..30_000).step_by(100).map(at).find(|now| {
        if lease.next_wake().is_some_and(|wake| wake <= *now) {
            lease.note_running(*now);
        }
        if !now.since(at(0)).as_millis().is_multiple_of(4_000) {
            return false;
        }
        lease.begin_start(*now);
        matches!(lease.on_start(*now, order(*now), &silent), StartAnswer::Granted(_))
    });
    assert_eq!(granted_at, Some(at(12_000)));
    assert_eq!(lease.next_wake(), None);
}

/// A node of the simulation. Times are real milliseconds.
struct SimNode {
    /// Parts per million by which its clock is wrong.
    drift: i64,
    lease: ExternalLease,
    /// Its process does not run until then.
    paused_until: u64,
    /// The manager has the address started here: its agent renews.
    is_active: bool,
    /// The kernel answers until then.
    permitted_until: u64,
    order: Option<SimOrder>,
}

/// An order of the agent on its way.
#[derive(Clone)]
struct SimOrder {
    asked: u64,
    /// When the daemon gets it; later, when it asks the others.
    due: u64,
    is_start: bool,
    answers: Option<(u64, Vec<Option<ExternalAnswer>>)>,
}

impl SimNode {
    fn clock(&self, real: u64) -> Time {
        let nanos = (real + 1_000) as i64 * (1_000_000 + self.drift);
        Time::from_nanos(nanos as u64)
    }

    /// The moment of a time of its clock.
    fn real(&self, time: Time) -> u64 {
        (time.as_nanos() as i64 / (1_000_000 + self.drift)) as u64 - 1_000
    }

    fn runs(&self, real: u64) -> bool {
        real >= self.paused_until
    }
}

struct Simulation {
    random: SplitMix64,
    nodes: Vec<SimNode>,
    /// The node that reaches no other.
    alone: Option<usize>,
    /// Where the manager has the address, and when it gives the next order.
    placed: Option<usize>,
    place_at: u64,
    grants: u32,
}

const STEP_MS: u64 = 50;

impl Simulation {
    fn new(seed: u64) -> Self {
        let mut random = SplitMix64::new(seed);
        let nodes = (0..3).map(|_| SimNode {
            drift: random.next_below(2_000) as i64 - 1_000,
            lease: ExternalLease::default(),
            paused_until: 0,
            is_active: false,
            permitted_until: 0,
            order: None,
        });
        let nodes = nodes.collect();
        Self { random, nodes, alone: None, placed: None, place_at: 0, grants: 0 }
    }

    fn chance(&mut self, one_in: u64) -> bool {
        self.random.next_below(one_in) == 0
    }

    fn run_step(&mut self, now: u64) {
        self.break_things(now);
        self.manage(now);
        for node in 0..self.nodes.len() {
            let one = &mut self.nodes[node];
            let time = one.clock(now);
            if one.runs(now) && one.lease.next_wake().is_some_and(|wake| wake <= time) {
                one.lease.note_running(time);
            }
            self.run_agent(node, now);
            self.run_daemon(node, now);
        }
        let owners = self.nodes.iter().filter(|node| now < node.permitted_until).count();
        assert!(owners <= 1, "two nodes answer at {now}");
    }

    fn break_things(&mut self, now: u64) {
        let node = self.random.next_below(3) as usize;
        if self.chance(200) {
            self.alone = match self.alone {
                Some(_) => None,
                None => Some(node),
            };
            // The manager hears of it, and takes a lost owner for gone.
            self.place_at = now + self.random.next_below(1_000);
            if self.alone.is_some() && self.alone == self.placed {
                self.placed = None;
            }
        }
        if self.chance(200) {
            let until = now + self.random.next_below(15_000);
            let node = &mut self.nodes[node];
            node.paused_until = node.paused_until.max(until);
        }
        if self.chance(800) {
            // It dies, and its kernel answers on until the next process replaces the fence.
            let restart = now + self.random.next_below(3_000);
            let node = &mut self.nodes[node];
            let restart = restart.max(node.paused_until);
            node.paused_until = restart;
            node.lease = ExternalLease::default();
            node.order = None;
            if restart < node.permitted_until {
                node.permitted_until = restart;
            }
        }
    }

    /// The manager in the part of the cluster that has quorum.
    fn manage(&mut self, now: u64) {
        if now < self.place_at {
            return;
        }
        self.place_at = now + 1_000;
        for node in 0..self.nodes.len() {
            let is_wrong = self.nodes[node].is_active && self.placed != Some(node);
            if self.alone != Some(node) && is_wrong && self.nodes[node].runs(now) {
                self.stop(node);
            }
        }
        let placed = self.placed;
        match placed {
            None => {
                let node = self.random.next_below(3) as usize;
                if self.alone != Some(node) {
                    self.placed = Some(node);
                    self.nodes[node].is_active = true;
                }
            }
            // A move: the owner confirms the stop first.
            Some(node) if self.nodes[node].runs(now) && self.chance(10) => {
                self.stop(node);
                self.placed = None;
            }
            Some(_) => {}
        }
    }

    fn stop(&mut self, node: usize) {
        let node = &mut self.nodes[node];
        node.is_active = false;
        node.lease.on_stop();
        node.permitted_until = 0;
    }

    /// The agent asks the manager, which answers while the node is in the part with quorum, and
    /// gives the order some time later, even after a stop.
    fn run_agent(&mut self, node: usize, now: u64) {
        let delay = match self.random.next_below(10) {
            0 => self.random.next_below(20_000),
            _ => self.random.next_below(300),
        };
        let is_due = self.nodes[node].order.is_none() && self.nodes[node].is_active;
        if is_due && self.alone != Some(node) && self.chance(20) {
            let is_placed = self.placed == Some(node);
            let node = &mut self.nodes[node];
            // Its monitor never starts what is not running.
            let is_start = is_placed && node.lease.is_free(node.clock(now));
            let order = SimOrder { asked: now, due: now + delay, is_start, answers: None };
            node.order = Some(order);
        }
    }

    fn run_daemon(&mut self, node: usize, now: u64) {
        let time = self.nodes[node].clock(now);
        let Some(mut order) = self.nodes[node].order.clone() else { return };
        if now < order.due || !self.nodes[node].runs(now) {
            return;
        }
        let (asked_at, answers) = match &mut order.answers {
            None => {
                if order.is_start {
                    self.nodes[node].lease.begin_start(time);
                }
                order.answers.insert((now, vec![None; 3]))
            }
            Some(answers) => answers,
        };
        for (other, answer) in answers.iter_mut().enumerate().filter(|(other, _)| *other != node) {
            let is_reached = self.alone != Some(node) && self.alone != Some(other);
            let other_node = &self.nodes[other];
            if answer.is_none()
                && is_reached
                && other_node.runs(now)
                && self.random.next_below(3) == 0
            {
                *answer = Some(match other_node.lease.is_free(other_node.clock(now)) {
                    true => ExternalAnswer::Free,
                    false => ExternalAnswer::Busy("other".to_owned()),
                });
            }
        }
        let timeout = if order.is_start { START_ANSWER_TIMEOUT } else { ANSWER_TIMEOUT };
        let is_complete = answers.iter().flatten().count() == 2;
        if !is_complete && now < *asked_at + timeout.as_millis() as u64 {
            self.nodes[node].order = Some(order);
            return;
        }
        let silent = || ExternalAnswer::Silent("other".to_owned());
        let answers = answers.iter().enumerate().filter(|(other, _)| *other != node);
        let answers: Vec<_> =
            answers.map(|(_, answer)| answer.clone().unwrap_or_else(silent)).collect();
        let late = self.random.next_below(20);
        let node = &mut self.nodes[node];
        node.order = None;
        let asked = ExternalOrder { asked: node.clock(order.asked), lease: LEASE_LENGTH };
        let until = match order.is_start {
            true => match node.lease.on_start(time, asked, &answers) {
                StartAnswer::Granted(until) => Some(until),
                StartAnswer::Wait(_) | StartAnswer::Refused(_) => None,
            },
            false => node.lease.on_renewal(time, asked, &answers).ok(),
        };
        if let Some(until) = until {
            self.grants += 1;
            node.permitted_until = node.real(until) + late;
        }
    }
}

/// F-72: an agent that is paused between its proof and its order, daemons that are stopped and
/// killed, nodes that are cut off, moves, clocks that drift.
#[test]
fn f_72_no_two_nodes_answer_by_the_word_of_a_cluster_manager() {
    let seeds = std::env::var("NETFT_SIM_SEEDS").ok().and_then(|text| text.parse().ok());
    let (seeds, mut grants) = (seeds.unwrap_or(400), 0);
    for seed in 0..seeds {
        let mut simulation = Simulation::new(seed);
        for step in 0..4_000 {
            simulation.run_step(step * STEP_MS);
        }
        grants += u64::from(simulation.grants);
    }
    assert!(grants > 10 * seeds, "{grants} leases in {seeds} runs");
}
