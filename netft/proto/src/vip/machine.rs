//! One floating address on one node. Pure.

use std::{
    collections::{BTreeSet, VecDeque},
    net::IpAddr,
    time::Duration,
};

use crate::{
    time::Time,
    vip::{
        timing::{
            AnnounceSchedule, CONFLICT_RETRY, DEFEND_INTERVAL, MAX_CONFLICTS, ProbeSchedule,
            ProbeStep, RATE_LIMIT_INTERVAL, SmallRandom,
        },
        types::{NeighborKind, NeighborMessage, VipAction, VipGrant, VipInput, VipLink, VipState},
    },
};

/// Pause after an address was put back; doubled by each that follows soon.
const MIN_RESTORE_PAUSE: Duration = Duration::from_millis(50);
const MAX_RESTORE_PAUSE: Duration = Duration::from_secs(5);
/// Without a restoration for that long, the pause starts anew.
const RESTORE_RESET_TIME: Duration = Duration::from_secs(10);
/// Least time between two claims of a host that make a conflict of an address in use. The first may
/// have been on its way before this node was granted the address.
const CONFLICT_CONFIRM_TIME: Duration = Duration::from_millis(200);
/// Pause after an action that the kernel refused.
const REFUSED_RETRY: Duration = Duration::from_secs(2);

/// One floating address, of one or two families, on one node.
#[derive(Debug)]
pub struct VipMachine {
    /// Empty until a server assigned one.
    addrs: Vec<IpAddr>,
    /// Why the last assigned addresses are gone.
    unassigned: Option<String>,
    state: VipState,
    /// `None` until the interfaces were read.
    link: Option<Result<VipLink, String>>,
    health: Result<(), String>,
    grant: Option<VipGrant>,
    /// Why the engine cannot decide well.
    engine_problem: Option<String>,
    phase: Phase,
    /// Conflicts since the address was last held without one.
    conflicts: u32,
    /// As last told to the engine.
    told_able: Option<bool>,
    restore: RestorePause,
    random: SmallRandom,
    actions: VecDeque<VipAction>,
}

#[derive(Debug)]
enum Phase {
    Idle,
    /// Waits for an address that a server assigns.
    Assigning,
    /// Probed for before it is used; `is_recheck`: only to see whether a conflict is over.
    Probing {
        probes: Vec<ProbeSchedule>,
        is_recheck: bool,
    },
    /// Configured and permitted.
    Held(Vec<HeldAddress>),
    /// Waits after a conflict, or after the kernel refused an action.
    Waiting {
        until: Time,
        is_conflict: bool,
    },
}

#[derive(Debug)]
struct HeldAddress {
    addr: IpAddr,
    announce: AnnounceSchedule,
    /// Probes that run beside the use.
    probe: Option<ProbeSchedule>,
    /// The first claim of another host during the probes.
    first_claim: Option<(NeighborMessage, Time)>,
    defended_at: Option<Time>,
    is_missing: bool,
}

#[derive(Debug, Default)]
struct RestorePause {
    last: Option<(Time, Duration)>,
}

impl RestorePause {
    fn next_allowed(&self) -> Time {
        self.last.map_or(Time::ZERO, |(at, pause)| at + pause)
    }

    fn on_restored(&mut self, now: Time) {
        let pause = match self.last {
            Some((at, pause)) if now.since(at) < RESTORE_RESET_TIME => {
                (2 * pause).min(MAX_RESTORE_PAUSE)
            }
            _ => MIN_RESTORE_PAUSE,
        };
        self.last = Some((now, pause));
    }
}

impl VipMachine {
    /// An address that this node does not have; without `addrs` a server assigns one. `seed` for
    /// the random delays of its probes.
    /// `health`: the service behind it is fine, or why that is not known.
    pub fn new(addrs: Vec<IpAddr>, health: Result<(), String>, seed: u64) -> Self {
        Self {
            addrs,
            unassigned: None,
            state: VipState::Unknown,
            link: None,
            health,
            grant: None,
            engine_problem: None,
            phase: Phase::Idle,
            conflicts: 0,
            told_able: None,
            restore: RestorePause::default(),
            random: SmallRandom(seed),
            actions: VecDeque::new(),
        }
    }

    /// Its state.
    pub const fn state(&self) -> &VipState {
        &self.state
    }

    /// Its addresses; none until a server assigned one.
    pub fn addrs(&self) -> &[IpAddr] {
        &self.addrs
    }

    /// This node is to have it, and can.
    pub fn is_granted(&self) -> bool {
        self.grant.is_some() && self.obstacle().is_none()
    }

    /// The lease in force.
    pub const fn grant(&self) -> Option<VipGrant> {
        self.grant
    }

    /// The interface that carries it.
    pub fn link(&self) -> Option<&VipLink> {
        self.link.as_ref()?.as_ref().ok()
    }

    /// The next action to carry out.
    pub fn poll_action(&mut self) -> Option<VipAction> {
        self.actions.pop_front()
    }

    /// The permission that comes before every other action, if one does; of several, the last.
    pub fn take_permit(&mut self) -> Option<Time> {
        let mut permit = None;
        while let Some(VipAction::Permit(until)) = self.actions.front() {
            permit = Some(*until);
            self.actions.pop_front();
        }
        permit
    }

    /// When [`VipInput::Timer`] is due.
    pub fn next_wake(&self) -> Option<Time> {
        let lease = self.grant.map(|grant| grant.until);
        let phase = match &self.phase {
            Phase::Idle | Phase::Assigning => None,
            Phase::Probing { probes, .. } => {
                probes.iter().filter_map(ProbeSchedule::next_due).min()
            }
            Phase::Held(held) => held.iter().filter_map(|one| one.next_due(&self.restore)).min(),
            Phase::Waiting { until, .. } => Some(*until),
        };
        lease.into_iter().chain(phase).min()
    }

    /// Takes an input.
    pub fn on_input(&mut self, now: Time, input: VipInput) {
        // A lease that ended is no lease, however late the timer is. One that its engine renewed
        // goes on, though this process comes late to it: nobody else was given the address.
        let is_renewal = |grant: VipGrant| {
            let known = self.grant.filter(|known| known.token == grant.token);
            known.is_some() && grant.is_proven && now < grant.until
        };
        if !matches!(input, VipInput::Grant(grant) if is_renewal(grant)) {
            self.check_lease(now);
        }
        match input {
            VipInput::Grant(grant) => self.on_grant(now, grant),
            VipInput::Revoke(token, reason) => {
                if self.grant.is_none_or(|grant| grant.token <= token) {
                    self.let_go();
                    self.grant = None;
                    self.actions.push_back(VipAction::Released(token));
                    self.set_state(VipState::Offline(reason));
                }
            }
            VipInput::Link(link) => self.on_link(now, link),
            VipInput::Present(present) => self.on_present(now, &present),
            VipInput::Heard(message) => self.on_heard(now, message),
            VipInput::Health(health) => {
                self.health = health;
                self.on_obstacle_changed(now);
            }
            VipInput::Engine(problem) => {
                self.engine_problem = problem;
                self.on_obstacle_changed(now);
            }
            VipInput::Refused(reason) => {
                self.wait_after(now + REFUSED_RETRY, false, reason);
            }
            VipInput::Assigned(addrs) => self.on_assigned(now, addrs),
            VipInput::Unassigned(reason) => self.on_unassigned(now, reason),
            VipInput::Announce => self.announce_again(now),
            VipInput::Timer => self.on_timer(now),
        }
    }

    fn check_lease(&mut self, now: Time) {
        if self.grant.is_none_or(|grant| now < grant.until) {
            return;
        }
        self.grant = None;
        match self.phase {
            Phase::Held(_) | Phase::Assigning | Phase::Probing { is_recheck: false, .. } => {
                self.let_go();
                self.set_state(VipState::Offline("the lease ended without a renewal".to_owned()));
            }
            Phase::Idle | Phase::Probing { .. } | Phase::Waiting { .. } => {}
        }
    }

    fn on_grant(&mut self, now: Time, grant: VipGrant) {
        let is_stale = self.grant.is_some_and(|known| grant.token < known.token);
        if is_stale || grant.until <= now {
            return;
        }
        self.grant = Some(grant);
        match self.phase {
            Phase::Held(_) => self.actions.push_back(VipAction::Permit(grant.until)),
            Phase::Idle => self.begin(now),
            Phase::Assigning => {}
            // Probes under way, and the operator's wish, go on.
            Phase::Probing { .. } | Phase::Waiting { .. } => self.refuse_if_proven(),
        }
    }

    /// Gives a lease back to an engine that must find another node for it.
    fn refuse_if_proven(&mut self) {
        if let Some(grant) = self.grant.filter(|grant| grant.is_proven) {
            self.grant = None;
            self.actions.push_back(VipAction::Released(grant.token));
        }
    }

    /// Why this node cannot carry the address.
    fn obstacle(&self) -> Option<&str> {
        match (&self.link, &self.health) {
            (None, _) => Some("the interfaces were not read yet"),
            (Some(Err(reason)), _) | (_, Err(reason)) => Some(reason),
            (Some(Ok(_)), Ok(())) => None,
        }
    }

    /// Takes the address, if this node was granted it and can carry it.
    fn begin(&mut self, now: Time) {
        let Some(grant) = self.grant else { return };
        if let Some(reason) = self.obstacle() {
            let reason = reason.to_owned();
            self.refuse_if_proven();
            self.set_state(VipState::Failed(reason));
            return;
        }
        if self.addrs.is_empty() {
            self.phase = Phase::Assigning;
            self.set_state(match &self.unassigned {
                Some(reason) => VipState::Failed(reason.clone()),
                None => VipState::Starting,
            });
        } else if grant.is_proven {
            self.hold(now, grant, true);
        } else {
            self.start_probes(now, false);
            self.set_state(VipState::Starting);
        }
    }

    fn start_probes(&mut self, now: Time, is_recheck: bool) {
        let random = &mut self.random;
        let probes = self
            .addrs
            .iter()
            .map(|addr| ProbeSchedule::new(now, *addr, false, random.next_number()));
        self.phase = Phase::Probing { probes: probes.collect(), is_recheck };
    }

    /// Permits, configures and announces the addresses, in this order: whoever is told of the
    /// address finds it.
    fn hold(&mut self, now: Time, grant: VipGrant, is_probed: bool) {
        self.actions.push_back(VipAction::Permit(grant.until));
        self.actions.extend(self.addrs.iter().map(|addr| VipAction::AddAddress(*addr)));
        let random = &mut self.random;
        let held = self.addrs.iter().map(|addr| HeldAddress {
            addr: *addr,
            announce: AnnounceSchedule::new(now),
            probe: is_probed.then(|| ProbeSchedule::new(now, *addr, true, random.next_number())),
            first_claim: None,
            defended_at: None,
            is_missing: false,
        });
        self.phase = Phase::Held(held.collect());
        self.set_state(VipState::Online);
        self.on_timer(now);
    }

    /// Stops answering, whatever the phase.
    fn let_go(&mut self) {
        if let Phase::Held(_) = self.phase {
            self.actions.push_back(VipAction::Forbid);
            self.remove_all();
        }
        self.phase = Phase::Idle;
    }

    fn remove_all(&mut self) {
        self.actions.extend(self.addrs.iter().map(|addr| VipAction::RemoveAddress(*addr)));
    }

    /// Lets the address go, and tries again later.
    fn wait_after(&mut self, until: Time, is_conflict: bool, reason: String) {
        self.let_go();
        self.phase = Phase::Waiting { until, is_conflict };
        self.refuse_if_proven();
        self.set_state(VipState::Failed(reason));
        self.tell_able();
    }

    fn on_assigned(&mut self, now: Time, addrs: Vec<IpAddr>) {
        if self.addrs == addrs {
            return;
        }
        self.let_go();
        self.addrs = addrs;
        (self.unassigned, self.conflicts) = (None, 0);
        self.on_obstacle_changed(now);
    }

    fn on_unassigned(&mut self, now: Time, reason: String) {
        self.let_go();
        self.addrs.clear();
        self.unassigned = Some(reason);
        self.on_obstacle_changed(now);
    }

    fn on_link(&mut self, now: Time, link: Result<VipLink, String>) {
        if self.link.as_ref() == Some(&link) {
            return;
        }
        // The old interface loses the address before the new one gets it.
        self.let_go();
        self.link = Some(link);
        self.on_obstacle_changed(now);
    }

    fn on_obstacle_changed(&mut self, now: Time) {
        self.tell_able();
        match (self.obstacle().map(str::to_owned), &self.phase) {
            (Some(reason), _) => {
                self.let_go();
                let is_wanted = self.grant.is_some();
                self.refuse_if_proven();
                self.set_state(match is_wanted {
                    true => VipState::Failed(reason),
                    false => VipState::Offline(reason),
                });
            }
            (None, Phase::Idle) if self.grant.is_some() => self.begin(now),
            (None, Phase::Idle) => {
                let reason = "this node was not given it";
                let problem = self.engine_problem.as_ref();
                self.set_state(VipState::Offline(match problem {
                    Some(problem) => format!("{reason}; {problem}"),
                    None => reason.to_owned(),
                }));
            }
            (None, _) => {}
        }
    }

    /// Tells the engine whether this node can carry the address, if that changed.
    fn tell_able(&mut self) {
        let obstacle = match &self.phase {
            Phase::Waiting { .. } | Phase::Probing { is_recheck: true, .. } => {
                self.state.reason().or(Some("it is probed for"))
            }
            Phase::Idle | Phase::Assigning | Phase::Probing { .. } | Phase::Held(_) => {
                self.obstacle()
            }
        };
        let able = obstacle.map_or(Ok(()), |reason| Err(reason.to_owned()));
        if self.told_able != Some(able.is_ok()) {
            self.told_able = Some(able.is_ok());
            self.actions.push_back(VipAction::Able(able));
        }
    }

    fn on_present(&mut self, now: Time, present: &BTreeSet<IpAddr>) {
        let Phase::Held(held) = &mut self.phase else {
            // Left by a crash.
            let leftover = self.addrs.iter().filter(|addr| present.contains(addr));
            self.actions.extend(leftover.map(|addr| VipAction::RemoveAddress(*addr)));
            return;
        };
        for one in held {
            one.is_missing = !present.contains(&one.addr);
        }
        self.restore_missing(now);
    }

    fn restore_missing(&mut self, now: Time) {
        let Phase::Held(held) = &mut self.phase else { return };
        if now < self.restore.next_allowed() {
            return;
        }
        let mut is_any = false;
        for one in held.iter_mut().filter(|one| one.is_missing) {
            one.is_missing = false;
            one.announce = AnnounceSchedule::new(now);
            is_any = true;
            self.actions.push_back(VipAction::AddAddress(one.addr));
            self.actions.push_back(VipAction::Restored(one.addr));
        }
        if is_any {
            self.restore.on_restored(now);
            self.send_due(now);
        }
    }

    fn on_heard(&mut self, now: Time, message: NeighborMessage) {
        if self.link().is_some_and(|link| link.mac == message.mac) {
            return;
        }
        let is_ours = self.addrs.contains(&message.addr);
        let is_conflict = match &mut self.phase {
            // RFC 5227 section 2.1.1: another host's probe is a conflict, too.
            Phase::Probing { .. } => is_ours,
            Phase::Held(held) => {
                let one = held.iter_mut().find(|one| one.addr == message.addr);
                one.is_some_and(|one| one.on_claim(now, message, &mut self.actions))
            }
            Phase::Idle | Phase::Assigning | Phase::Waiting { .. } => false,
        };
        if is_conflict {
            self.conflicts += 1;
            let pause =
                if self.conflicts > MAX_CONFLICTS { RATE_LIMIT_INTERVAL } else { CONFLICT_RETRY };
            let NeighborMessage { addr, mac, .. } = message;
            let reason = format!("another host uses {addr}: its hardware address is {mac}");
            self.wait_after(now + pause, true, reason);
            self.actions.push_back(VipAction::Conflict(addr));
        }
    }

    fn announce_again(&mut self, now: Time) {
        if let Phase::Held(held) = &mut self.phase {
            held.iter_mut().for_each(|one| one.announce = AnnounceSchedule::new(now));
            self.send_due(now);
        }
    }

    fn on_timer(&mut self, now: Time) {
        match &mut self.phase {
            Phase::Idle | Phase::Assigning => {}
            Phase::Probing { probes, .. } => {
                let mut is_done = true;
                for probe in probes {
                    let step = probe.take_step(now);
                    is_done &= step == ProbeStep::Done;
                    if step == ProbeStep::Send {
                        self.actions.push_back(VipAction::Probe(probe.addr));
                    }
                }
                if is_done {
                    self.on_probes_done(now);
                }
            }
            Phase::Held(_) => {
                self.send_due(now);
                self.restore_missing(now);
            }
            Phase::Waiting { until, .. } if now < *until => {}
            Phase::Waiting { is_conflict: true, .. } => self.start_probes(now, true),
            Phase::Waiting { is_conflict: false, .. } => {
                self.phase = Phase::Idle;
                self.on_obstacle_changed(now);
            }
        }
    }

    fn on_probes_done(&mut self, now: Time) {
        self.conflicts = 0;
        self.phase = Phase::Idle;
        self.tell_able();
        match self.grant {
            Some(grant) => self.hold(now, grant, false),
            None => self.on_obstacle_changed(now),
        }
    }

    /// Sends the announcements and probes that are due.
    fn send_due(&mut self, now: Time) {
        let Phase::Held(held) = &mut self.phase else { return };
        for one in held {
            if one.announce.take_due(now) {
                self.actions.push_back(VipAction::Announce(one.addr));
            }
            match one.probe.as_mut().map(|probe| probe.take_step(now)) {
                Some(ProbeStep::Send) => self.actions.push_back(VipAction::Probe(one.addr)),
                Some(ProbeStep::Done) => {
                    self.conflicts = 0;
                    (one.probe, one.first_claim) = (None, None);
                }
                Some(ProbeStep::Wait) | None => {}
            }
        }
    }

    fn set_state(&mut self, state: VipState) {
        if self.state != state {
            self.state = state.clone();
            self.actions.push_back(VipAction::Report(state));
        }
    }
}

impl HeldAddress {
    fn next_due(&self, restore: &RestorePause) -> Option<Time> {
        let restore = self.is_missing.then(|| restore.next_allowed());
        let probe = self.probe.and_then(|probe| probe.next_due());
        restore.into_iter().chain(probe).chain(self.announce.next_due()).min()
    }

    /// Takes a message of another host; true if it is a conflict that ends the use.
    fn on_claim(
        &mut self,
        now: Time,
        message: NeighborMessage,
        actions: &mut VecDeque<VipAction>,
    ) -> bool {
        // The kernel answers probes.
        if message.kind == NeighborKind::Probe {
            return false;
        }
        if self.probe.is_some() {
            match self.first_claim {
                Some((first, at)) if first.mac == message.mac => {
                    if now.since(at) >= CONFLICT_CONFIRM_TIME {
                        return true;
                    }
                }
                _ => self.first_claim = Some((message, now)),
            }
        }
        // RFC 5227 section 2.4 (c): an address that must not be given up is defended at most once
        // per interval, so that two defenders do not answer each other for ever.
        if self.defended_at.is_none_or(|at| now.since(at) >= DEFEND_INTERVAL) {
            self.defended_at = Some(now);
            actions.push_back(VipAction::Defend(message));
        }
        false
    }
}
