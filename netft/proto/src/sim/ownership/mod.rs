//! Ownership of floating addresses under crashes, pauses, partitions, drifting clocks, lost and
//! late messages, and leases that change: the real decisions over a model of raft.
//!
//! | rule | invariant |
//! |---|---|
//! | 20 | two nodes never both have a lease that their kernels enforce on one address |
//! | 21 | nodes that are a majority and talk have an owner within [`OWNER_BOUND`] |
//! | 22 | the tokens of the leases granted on an address never fall |
//! | 23 | in the end, an address is where its rules want it, stays there, and all nodes know it |
//! | 24 | the owner of a hundred addresses crashes: the next preferred node has all of them in time |
//!
//! A crash loses the process and leaves what the kernel enforces; a pause stops the process only.
//! Every clock has its own origin and rate. No decision reads the wall clock, so its jumps have no
//! place here.

mod bug;
mod draw;
mod node;
mod raft;
mod rules;

use std::{collections::BTreeMap, time::Duration};

pub use crate::sim::ownership::bug::OwnershipBug;
use crate::{
    sim::{
        ownership::{
            node::{Fences, NodeMessage, NodeOutput, Process, node_name},
            raft::Durable,
        },
        rng::SplitMix64,
    },
    time::Time,
    vip::{
        FencingToken,
        ownership::{Failback, LeaseRules, VipPolicy},
    },
};

/// Length of a run.
const RUN_TIME: Duration = Duration::from_secs(20);
/// From then on no fault happens.
const LAST_FAULT_MS: u64 = 16_000;
/// How long a majority that talks may be without an owner.
const OWNER_BOUND: Duration = Duration::from_secs(3);
/// Roles that begin within this time count as one: twice the tolerance of the decisions.
const ROLE_RESOLUTION: Duration = Duration::from_millis(200);
/// Leases that configs get, milliseconds. A run begins with the first one on all nodes.
const LEASES_MS: [u64; 4] = [400, 200, 400, 900];
/// Time in which netft notices that a peer cannot be reached.
const DETECTION_TIME: Duration = Duration::from_millis(150);
/// Addresses of a run with many of them, per thousand runs.
const MANY_VIPS: usize = 24;
const MANY_VIPS_PERMILLE: u16 = 20;
/// The addresses of a takeover, the node that gets them, when their owner crashes, and the bound,
/// which has room for a split vote.
const TAKEOVER_VIPS: usize = 100;
const TAKEOVER_HEIR: usize = 1;
const TAKEOVER_MS: u64 = 2_500;
const TAKEOVER_BOUND: Duration = Duration::from_millis(1_200);
/// The time between two checks of rule 21.
const CHECK_INTERVAL: Duration = Duration::from_millis(100);
/// From then on, at the end of a run, nothing changes any more: the longest failback has passed.
const SETTLED_MS: u64 = 19_000;
/// The most events of one run: one that takes more does not terminate.
const MAX_EVENTS: usize = 2_000_000;

/// The outcome of a run.
#[derive(Clone, Debug, Default)]
pub struct OwnershipReport {
    /// Broken rules, with their moments.
    pub violations: Vec<String>,
    /// Leases granted.
    pub grants: u64,
    /// Changes of an owner that had a lease.
    pub takeovers: u64,
    /// Lines of what happened.
    pub text: Vec<String>,
}

#[derive(Debug)]
enum SimEvent {
    Deliver { from: usize, to: usize, life: u32, message: NodeMessage },
    Wake { node: usize, serial: u64 },
    Reachable { node: usize, peer: usize, is_reachable: bool },
    Fault(Fault),
    Check,
}

#[derive(Clone, Debug)]
enum Fault {
    Crash(usize),
    Restart(usize),
    Pause(usize, Duration),
    /// Nodes of different groups do not reach each other.
    Partition(Vec<u8>),
    Loss(u16),
    Late(u16),
    Able(usize, usize, bool),
    /// The role that an address follows goes to this node.
    Role(usize, usize),
    Move(usize, usize),
    /// A reload of a node's config: the lease of an address, milliseconds.
    Lease(usize, usize, u64),
}

struct VipNode {
    process: Option<Process>,
    durable: Durable,
    /// Number of the process: messages of an earlier one are lost with its sessions.
    life: u32,
    paused_until: Time,
    fences: Fences,
    able: Vec<bool>,
    /// When it was last made able to carry each address.
    able_since: Vec<Time>,
    /// The leases in its config.
    leases: Vec<Duration>,
    origin: u64,
    /// Rate error, parts per billion.
    drift: i64,
    wake_serial: u64,
}

impl VipNode {
    fn local(&self, real: Time) -> Time {
        let error = i128::from(real.as_nanos()) * i128::from(self.drift) / 1_000_000_000;
        let nanos = i128::from(self.origin) + i128::from(real.as_nanos()) + error;
        Time::from_nanos(nanos as u64)
    }

    fn real(&self, local: Time) -> Time {
        let since = i128::from(local.as_nanos()) - i128::from(self.origin);
        let nanos = since.max(0) * 1_000_000_000 / (1_000_000_000 + i128::from(self.drift));
        Time::from_nanos(nanos as u64 + 1)
    }
}

struct OwnershipWorld {
    now: Time,
    rng: SplitMix64,
    nodes: Vec<VipNode>,
    policies: Vec<VipPolicy>,
    bug: Option<OwnershipBug>,
    events: BTreeMap<(Time, u64), SimEvent>,
    serial: u64,
    groups: Vec<u8>,
    loss: u16,
    late: u16,
    /// Since when the conditions of rule 21 hold, and since when an address has no owner in spite
    /// of them.
    calm_since: Time,
    ownerless_since: Vec<Time>,
    newest_token: BTreeMap<String, FencingToken>,
    report: OwnershipReport,
}

/// Runs the world of `seed`, with a bug planted or none.
pub fn run_ownership_world(seed: u64, bug: Option<OwnershipBug>) -> OwnershipReport {
    let mut world = OwnershipWorld::new(seed, bug);
    world.draw_faults();
    world.push(Time::ZERO, SimEvent::Check);
    world.run_until(Time::ZERO + RUN_TIME);
    world.check_placements();
    world.report
}

/// Three nodes of which the first owns a hundred addresses and crashes. Nothing else goes wrong.
pub fn run_takeover_world(seed: u64, bug: Option<OwnershipBug>) -> OwnershipReport {
    let mut world = OwnershipWorld::new(seed, bug);
    let lease = Duration::from_millis(LEASES_MS[0]);
    let preferred = vec![node_name(0), node_name(TAKEOVER_HEIR)];
    let policy = |vip: usize| VipPolicy {
        preferred: preferred.clone(),
        ..VipPolicy::new(&format!("v{vip}"), lease)
    };
    world.policies = (0..TAKEOVER_VIPS).map(policy).collect();
    world.ownerless_since = vec![Time::ZERO; TAKEOVER_VIPS];
    world.nodes.truncate(3);
    world.groups.truncate(3);
    world.late = 0;
    for node in &mut world.nodes {
        node.able = vec![true; TAKEOVER_VIPS];
        node.able_since = vec![Time::ZERO; TAKEOVER_VIPS];
        node.leases = vec![lease; TAKEOVER_VIPS];
    }
    let crash = Time::from_millis(TAKEOVER_MS);
    world.push(crash, SimEvent::Fault(Fault::Crash(0)));
    world.run_until(crash + TAKEOVER_BOUND);
    world.check_takeover();
    world.report
}

impl OwnershipWorld {
    /// Starts every node, and lets time pass until then or until a rule is broken.
    fn run_until(&mut self, end: Time) {
        for node in 0..self.nodes.len() {
            self.start_process(node);
        }
        for _ in 0..MAX_EVENTS {
            let Some(((at, _), event)) = self.events.pop_first() else { return };
            self.now = at;
            if self.now >= end || !self.report.violations.is_empty() {
                return;
            }
            self.on_event(event);
        }
        self.violate("the run does not end".to_owned());
    }

    fn new(seed: u64, bug: Option<OwnershipBug>) -> Self {
        let mut rng = SplitMix64::new(seed);
        let count = rng.pick_one(&[3, 3, 3, 5]);
        let drift_ppb = i64::from(LeaseRules::DEFAULT.drift_ppm) * 1000;
        let vips = match rng.chance_permille(MANY_VIPS_PERMILLE) {
            true => MANY_VIPS,
            false => rng.next_in_range(1, 3) as usize,
        };
        let policies = (0..vips)
            .map(|vip| {
                let mut policy =
                    VipPolicy::new(&format!("v{vip}"), Duration::from_millis(LEASES_MS[0]));
                if rng.chance_permille(500) {
                    policy.preferred = vec![node_name(rng.next_below(count) as usize)];
                    let second = node_name(rng.next_below(count) as usize);
                    if rng.chance_permille(500) && policy.preferred != [second.as_str()] {
                        policy.preferred.push(second);
                    }
                    let holds = [None, Some(0), Some(500)];
                    policy.failback = rng.pick_one(&holds).map_or(Failback::Never, |hold| {
                        Failback::After(Duration::from_millis(hold))
                    });
                }
                policy.follow = rng.chance_permille(150);
                if vip == 1 && rng.chance_permille(300) {
                    let other = vec!["v0".to_owned()];
                    if rng.chance_permille(500) {
                        policy.together_with = other;
                    } else {
                        policy.apart_from = other;
                    }
                }
                policy
            })
            .collect();
        let nodes = (0..count)
            .map(|_| VipNode {
                process: None,
                durable: Durable::default(),
                life: 0,
                paused_until: Time::ZERO,
                fences: Fences::new(),
                able: vec![true; vips],
                able_since: vec![Time::ZERO; vips],
                leases: vec![Duration::from_millis(LEASES_MS[0]); vips],
                origin: rng.next_in_range(2_000_000_000, 1 << 50),
                drift: rng.next_in_range(0, 2 * drift_ppb as u64) as i64 - drift_ppb,
                wake_serial: 0,
            })
            .collect();
        Self {
            now: Time::ZERO,
            rng,
            nodes,
            policies,
            bug,
            events: BTreeMap::new(),
            serial: 0,
            groups: vec![0; count as usize],
            loss: 0,
            late: 10,
            calm_since: Time::ZERO,
            ownerless_since: vec![Time::ZERO; vips],
            newest_token: BTreeMap::new(),
            report: OwnershipReport::default(),
        }
    }

    fn push(&mut self, at: Time, event: SimEvent) {
        self.serial += 1;
        let key = (at.max(self.now), self.serial);
        self.events.insert(key, event);
    }

    fn note(&mut self, line: String) {
        let line = format!("{} {line}", self.now);
        self.report.text.push(line);
    }

    fn violate(&mut self, what: String) {
        let line = format!("{} {what}", self.now);
        self.report.violations.push(line);
    }

    fn start_process(&mut self, index: usize) {
        let voters = self.nodes.len();
        let node = &mut self.nodes[index];
        node.life += 1;
        let now = node.local(self.now);
        node.able_since.fill(self.now);
        let durable = node.durable.clone();
        let clock = (now, &mut self.rng);
        let mut policies = self.policies.clone();
        for (policy, lease) in policies.iter_mut().zip(&node.leases) {
            policy.lease = *lease;
        }
        let mut process = Process::start(index, voters, durable, &policies, self.bug, clock);
        for (policy, is_able) in self.policies.iter().zip(&node.able) {
            process.set_able(now, &policy.name, *is_able);
        }
        node.process = Some(process);
        self.run_process(index);
    }

    fn is_paused(&self, node: usize) -> bool {
        self.now < self.nodes[node].paused_until
    }

    fn is_connected(&self, a: usize, b: usize) -> bool {
        self.groups[a] == self.groups[b]
    }

    fn on_event(&mut self, event: SimEvent) {
        match event {
            SimEvent::Deliver { from, to, life, message } => {
                if self.nodes[to].life != life || self.nodes[to].process.is_none() {
                    return;
                }
                if self.is_paused(to) {
                    let resumed = self.nodes[to].paused_until;
                    return self.push(resumed, SimEvent::Deliver { from, to, life, message });
                }
                self.with_process(to, |process, now, rng| {
                    process.on_message(now, from, message, rng);
                });
            }
            SimEvent::Wake { node, serial } => {
                if self.nodes[node].wake_serial == serial {
                    if self.is_paused(node) {
                        let resumed = self.nodes[node].paused_until;
                        return self.push(resumed, SimEvent::Wake { node, serial });
                    }
                    self.run_process(node);
                }
            }
            SimEvent::Reachable { node, peer, is_reachable } => {
                if !self.is_paused(node) && self.is_heard(peer, node) == is_reachable {
                    self.with_process(node, |process, now, rng| {
                        process.on_reachable(now, peer, is_reachable, rng);
                    });
                }
            }
            SimEvent::Fault(fault) => self.on_fault(fault),
            SimEvent::Check => {
                self.check_owners();
                self.push(self.now + CHECK_INTERVAL, SimEvent::Check);
            }
        }
    }

    /// netft at `node` hears `peer`.
    fn is_heard(&self, peer: usize, node: usize) -> bool {
        let runs = self.nodes[peer].process.is_some() && !self.is_paused(peer);
        runs && self.is_connected(peer, node)
    }

    fn on_fault(&mut self, fault: Fault) {
        // What a stopped process would learn of its service it learns when it goes on.
        if let Fault::Able(index, ..) | Fault::Role(_, index) | Fault::Lease(index, ..) = fault
            && self.is_paused(index)
        {
            let resumed = self.nodes[index].paused_until;
            return self.push(resumed, SimEvent::Fault(fault));
        }
        self.note(format!("{fault:?}"));
        self.calm_since = self.now;
        match fault {
            Fault::Crash(index) => {
                let node = &mut self.nodes[index];
                if let Some(process) = node.process.take() {
                    node.durable = process.raft.durable();
                }
            }
            Fault::Restart(index) => {
                if self.nodes[index].process.is_none() {
                    self.start_process(index);
                }
            }
            Fault::Pause(index, length) => {
                let until = self.now + length;
                let node = &mut self.nodes[index];
                node.paused_until = node.paused_until.max(until);
            }
            Fault::Partition(groups) => self.groups = groups,
            Fault::Loss(permille) => self.loss = permille,
            Fault::Late(permille) => self.late = permille,
            Fault::Able(index, vip, is_able) => self.set_able(index, vip, is_able),
            Fault::Role(vip, to) => {
                self.set_able(to, vip, false);
                self.set_able(to, vip, true);
            }
            Fault::Lease(index, vip, millis) => {
                let lease = Duration::from_millis(millis);
                self.nodes[index].leases[vip] = lease;
                self.with_process(index, |process, _, _| process.set_lease(vip, lease));
            }
            Fault::Move(vip, to) => {
                let name = self.policies[vip].name.clone();
                for index in 0..self.nodes.len() {
                    if !self.is_paused(index) {
                        self.with_process(index, |process, now, _| {
                            process.request_move(now, &name, &node_name(to));
                        });
                    }
                }
            }
        }
        self.tell_reachability();
    }

    fn set_able(&mut self, index: usize, vip: usize, is_able: bool) {
        let now = self.now;
        let node = &mut self.nodes[index];
        node.able[vip] = is_able;
        if is_able {
            node.able_since[vip] = now;
        }
        let name = self.policies[vip].name.clone();
        self.with_process(index, |process, now, _| process.set_able(now, &name, is_able));
    }

    /// netft notices within its detection time who can be reached.
    fn tell_reachability(&mut self) {
        let count = self.nodes.len();
        for (node, peer) in (0..count).flat_map(|a| (0..count).map(move |b| (a, b))) {
            if node != peer {
                let is_reachable = self.is_heard(peer, node);
                let at = self.now + DETECTION_TIME;
                self.push(at, SimEvent::Reachable { node, peer, is_reachable });
                let resumed = self.nodes[peer].paused_until;
                if resumed > self.now {
                    let event = SimEvent::Reachable { node, peer, is_reachable: true };
                    self.push(resumed + Duration::from_millis(30), event);
                }
            }
        }
    }

    fn with_process(
        &mut self,
        index: usize,
        act: impl FnOnce(&mut Process, Time, &mut SplitMix64),
    ) {
        let node = &mut self.nodes[index];
        let now = node.local(self.now);
        if let Some(process) = &mut node.process {
            act(process, now, &mut self.rng);
            self.run_process(index);
        }
    }

    fn run_process(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        let now = node.local(self.now);
        let Some(process) = &mut node.process else { return };
        process.run(now, &mut self.rng);
        let outputs = std::mem::take(&mut process.outputs);
        let wake = process.next_wake(now);
        node.wake_serial += 1;
        let serial = node.wake_serial;
        let at = node.real(wake).max(self.now + Duration::from_micros(10));
        self.push(at, SimEvent::Wake { node: index, serial });
        for output in outputs {
            self.on_output(index, output);
        }
    }

    fn on_output(&mut self, index: usize, output: NodeOutput) {
        match output {
            NodeOutput::Send(to, message) => self.send(index, to, message),
            NodeOutput::Fence { vip, token, until } => self.set_fence(index, vip, token, until),
            NodeOutput::Unfence { vip } => {
                self.nodes[index].fences.remove(&vip);
                self.note(format!("n{index} lets {vip} go"));
            }
        }
    }

    fn send(&mut self, from: usize, to: usize, message: NodeMessage) {
        if !self.is_connected(from, to) || self.rng.chance_permille(self.loss) {
            return;
        }
        let mut delay = Duration::from_micros(self.rng.next_in_range(80, 3_000));
        // Reports of an owner that are late one after the other look like its silence.
        let is_settling = self.now >= Time::from_millis(LAST_FAULT_MS);
        if self.rng.chance_permille(self.late) && !is_settling {
            delay += self.rng.duration_up_to(Duration::from_millis(900));
        }
        let life = self.nodes[to].life;
        self.push(self.now + delay, SimEvent::Deliver { from, to, life, message });
    }
}
