//! One floating address with its machine, its owner and what happened to it.

use std::{collections::VecDeque, net::IpAddr, sync::Arc, time::Duration};

use netft::{
    Time,
    config::{VipConfig, VipOwnership},
    vip::{FencingToken, VipAction, VipGrant, VipInput, VipMachine},
};
use tokio::{sync::mpsc, task::JoinHandle};

use super::{
    checks::{HealthReport, run_check},
    view::{VipHistoryLine, VipView},
};

/// Lines of history that are kept.
const MAX_HISTORY: usize = 32;
/// Renewals in one lease of an address that the operator gave this node.
const RENEWALS_PER_LEASE: u32 = 4;

/// The operator's wish for an address.
#[derive(Clone, Copy, Debug)]
pub(super) struct ManualWish {
    token: FencingToken,
    /// The next grant is proven: the former owner has let it go.
    is_proven: bool,
    next_renewal: Time,
}

/// The next multiple of `interval`: addresses with the same lease are renewed together.
fn next_in_step(now: Time, interval: Duration) -> Time {
    let step = (interval.as_nanos() as u64).max(1);
    Time::from_nanos((now.as_nanos() / step + 1) * step)
}

/// One floating address.
pub(super) struct VipEntry {
    pub(super) name: Arc<str>,
    pub(super) config: VipConfig,
    pub(super) machine: VipMachine,
    /// Added by a command, not by the config file.
    pub(super) is_runtime: bool,
    /// Index of the interface that was last given the addresses.
    pub(super) configured_on: Option<u32>,
    pub(super) owner: Option<Arc<str>>,
    /// Why it is the owner.
    pub(super) cause: Option<Arc<str>>,
    pub(super) wish: Option<ManualWish>,
    /// Since when the check has passed that it follows.
    pub(super) role_since: Option<Time>,
    since: Time,
    history: VecDeque<(Time, String)>,
    /// Runs as long as the address is known.
    _checker: Option<CheckTask>,
}

/// A running check; ends when dropped.
struct CheckTask(JoinHandle<()>);

impl Drop for CheckTask {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl VipEntry {
    pub(super) fn new(now: Time, config: VipConfig, health: &mpsc::Sender<HealthReport>) -> Self {
        let addrs: Vec<_> = config.addresses.iter().map(|one| one.addr).collect();
        let name: Arc<str> = config.name.as_str().into();
        let checker = config.check.clone().map(|check| {
            CheckTask(tokio::spawn(run_check(Arc::clone(&name), check, health.clone())))
        });
        let healthy = match checker {
            Some(_) => Err("its check has not run yet".to_owned()),
            None => Ok(()),
        };
        Self {
            name,
            machine: VipMachine::new(addrs, healthy, now.as_nanos()),
            is_runtime: false,
            configured_on: None,
            owner: None,
            cause: None,
            wish: None,
            role_since: None,
            since: now,
            history: VecDeque::new(),
            _checker: checker,
            config,
        }
    }

    /// Takes over settings that do not concern who answers now, unless others differ, too.
    pub(super) fn adopt_settings(&mut self, new: &VipConfig) {
        let own = &self.config;
        let kept = VipConfig {
            lease: own.lease,
            preferred: own.preferred.clone(),
            failback: own.failback,
            together_with: own.together_with.clone(),
            apart_from: own.apart_from.clone(),
            hook: own.hook.clone(),
            ..new.clone()
        };
        if kept == *own {
            self.config = new.clone();
        }
    }

    pub(super) fn addrs(&self) -> Vec<IpAddr> {
        self.config.addresses.iter().map(|one| one.addr).collect()
    }

    pub(super) fn input(&mut self, now: Time, input: VipInput) {
        self.machine.on_input(now, input);
    }

    /// Takes in a result of its check.
    pub(super) fn on_health(&mut self, now: Time, health: Result<(), String>) {
        if self.config.follow {
            self.role_since = health.is_ok().then_some(now);
        }
        self.input(now, VipInput::Health(health));
    }

    /// Feeds a refusal in place of the actions that are still to be carried out.
    pub(super) fn refuse(&mut self, now: Time, reason: String) {
        while self.machine.poll_action().is_some() {}
        self.machine.on_input(now, VipInput::Refused(reason));
    }

    pub(super) fn add_history(&mut self, now: Time, what: String) {
        if self.history.len() == MAX_HISTORY {
            self.history.pop_front();
        }
        self.history.push_back((now, what));
    }

    pub(super) fn mark_state_changed(&mut self, now: Time) {
        self.since = now;
    }

    /// Takes up the operator's wish; `is_proven`: nobody else can have the address.
    pub(super) fn want(&mut self, now: Time, token: FencingToken, is_proven: bool) {
        self.wish = Some(ManualWish { token, is_proven, next_renewal: now });
        self.renew_if_due(now);
    }

    /// Ends the operator's wish, and an engine's lease, whose token this one must not fall behind.
    pub(super) fn unwant(&mut self, now: Time, token: FencingToken, reason: &str) {
        self.wish = None;
        let token = self.machine.grant().map_or(token, |grant| token.max(grant.token));
        self.input(now, VipInput::Revoke(token, reason.to_owned()));
    }

    /// Renews the lease of an address that the operator gave this node.
    pub(super) fn renew_if_due(&mut self, now: Time) {
        let (lease, ownership) = (self.config.lease, self.config.ownership);
        let Some(wish) = self.wish.as_mut().filter(|wish| now >= wish.next_renewal) else { return };
        if ownership != VipOwnership::Manual {
            return;
        }
        wish.next_renewal = next_in_step(now, lease / RENEWALS_PER_LEASE);
        let is_proven = std::mem::take(&mut wish.is_proven);
        let grant = VipGrant { token: wish.token, until: now + lease, is_proven };
        self.input(now, VipInput::Grant(grant));
    }

    /// When it has something to do by itself.
    pub(super) fn next_wake(&self) -> Option<Time> {
        let renewal = self.wish.map(|wish| wish.next_renewal);
        self.machine.next_wake().into_iter().chain(renewal).min()
    }

    /// The next action of its machine.
    pub(super) fn poll_action(&mut self) -> Option<VipAction> {
        self.machine.poll_action()
    }

    /// It as the API shows it.
    pub(super) fn to_view(&self, now: Time, fence: &str, node: &str) -> VipView {
        let millis = |length: Duration| length.as_millis() as u64;
        let (state, grant) = (self.machine.state(), self.machine.grant());
        let owner = match (&self.owner, state.as_str()) {
            (_, "online") => Some(node.to_owned()),
            (owner, _) => owner.as_ref().map(|owner| owner.to_string()),
        };
        VipView {
            name: self.config.name.clone(),
            addresses: self.config.addresses.iter().map(|one| one.addr.to_string()).collect(),
            state: state.as_str().to_owned(),
            reason: state.reason().map(str::to_owned),
            state_ms: millis(now.since(self.since)),
            interface: self.machine.link().map(|link| link.name.clone()),
            owner,
            cause: self.cause.as_ref().map(|cause| cause.to_string()),
            ownership: self.config.ownership.as_str().to_owned(),
            token: grant.map(|grant| grant.token.to_string()),
            lease_ms: millis(self.config.lease),
            lease_left_ms: grant.map(|grant| millis(grant.until.since(now))),
            fence: fence.to_owned(),
            wanted: self.wish.is_some(),
            history: self
                .history
                .iter()
                .map(|(at, what)| VipHistoryLine {
                    ago_ms: millis(now.since(*at)),
                    what: what.clone(),
                })
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use netft::{
        config::VipAddress,
        vip::{MacAddress, VipLink},
    };

    use super::*;

    #[test]
    fn an_address_that_an_engine_granted_is_let_go_by_the_operator() {
        let address = VipAddress { addr: [10, 1, 0, 80].into(), prefix_len: None };
        let config =
            VipConfig { ownership: VipOwnership::Raft, ..VipConfig::new("web", vec![address]) };
        let time = Time::from_nanos(1);
        let mut entry = VipEntry::new(time, config, &mpsc::channel(1).0);
        let link = VipLink { index: 2, name: "eth0".to_owned(), mac: MacAddress([2; 6]) };
        entry.input(time, VipInput::Link(Ok(link)));
        let granted = FencingToken { term: 3, index: 7 };
        let until = time + Duration::from_millis(400);
        entry.input(time, VipInput::Grant(VipGrant { token: granted, until, is_proven: true }));
        assert_eq!(entry.machine.state().as_str(), "online");
        // The service counts its own decisions, which are behind those of an engine.
        entry.unwant(time, FencingToken { term: 0, index: 1 }, "it was removed");
        assert_eq!(entry.machine.grant(), None);
        let actions: Vec<_> = std::iter::from_fn(|| entry.poll_action()).collect();
        assert!(actions.contains(&VipAction::Forbid), "{actions:?}");
        assert!(actions.contains(&VipAction::Released(granted)), "{actions:?}");
    }
}
