//! One floating address with its machine, its owner and what happened to it.

use std::{collections::VecDeque, net::IpAddr, sync::Arc, time::Duration};

use netft::{
    Time,
    config::{VipConfig, VipOwnership},
    vip::{FencingToken, VipAction, VipGrant, VipInput, VipMachine},
};
use tokio::{sync::mpsc, task::JoinHandle};

use super::{
    agent_order::ExternalEntry,
    assigned::AssignedAddress,
    checks::{HealthReport, run_check},
    view::{VipHistoryLine, VipLeaseView, VipView},
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
    /// Lease of an address that a DHCP server assigns.
    pub(super) dhcp: Option<AssignedAddress>,
    /// Index of the interface that was last given the addresses.
    pub(super) configured_on: Option<u32>,
    pub(super) owner: Option<Arc<str>>,
    /// Why it is the owner.
    pub(super) cause: Option<Arc<str>>,
    pub(super) wish: Option<ManualWish>,
    pub(super) external: ExternalEntry,
    /// Since when the check has passed that it follows.
    pub(super) role_since: Option<Time>,
    since: Time,
    /// Length of the last lease that an engine granted.
    pub(super) granted_lease: Option<Duration>,
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
    pub(super) fn new(
        now: Time,
        config: VipConfig,
        dhcp: Option<AssignedAddress>,
        health: &mpsc::Sender<HealthReport>,
    ) -> Self {
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
            dhcp,
            configured_on: None,
            owner: None,
            cause: None,
            wish: None,
            external: ExternalEntry::default(),
            role_since: None,
            since: now,
            granted_lease: None,
            history: VecDeque::new(),
            _checker: checker,
            config,
        }
    }

    /// Takes over settings that do not concern who answers now, unless others differ, too.
    ///
    /// An address that a server assigned stays where the new settings name it: its client ends, and
    /// the server keeps the lease until its end.
    pub(super) fn adopt_settings(&mut self, now: Time, new: &VipConfig) {
        let own = &self.config;
        let named = new.addresses.iter().map(|one| one.addr);
        let is_fixed =
            own.is_dhcp() && !new.is_dhcp() && named.eq(self.machine.addrs().iter().copied());
        let kept = VipConfig {
            addresses: match is_fixed {
                true => own.addresses.clone(),
                false => new.addresses.clone(),
            },
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
            if is_fixed && self.dhcp.take().is_some() {
                self.add_history(now, "fixed: DHCP does not renew its lease".to_owned());
            }
        }
    }

    pub(super) fn addrs(&self) -> Vec<IpAddr> {
        self.machine.addrs().to_vec()
    }

    /// Its addresses as one text; `dhcp` until a server assigned one.
    pub(super) fn describe_addresses(&self) -> String {
        match self.machine.addrs() {
            [addr] => addr.to_string(),
            _ => self.config.describe_addresses(),
        }
    }

    /// Actions of its DHCP client wait to be carried out.
    pub(super) fn has_dhcp_action(&self) -> bool {
        self.dhcp.as_ref().is_some_and(AssignedAddress::has_action)
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
        let dhcp = self.dhcp.as_ref().and_then(AssignedAddress::next_wake);
        let external = self.external.lease.next_wake();
        self.machine.next_wake().into_iter().chain(renewal).chain(dhcp).chain(external).min()
    }

    /// The next action of its machine.
    pub(super) fn poll_action(&mut self) -> Option<VipAction> {
        self.machine.poll_action()
    }

    /// Length of the lease in force: an engine may grant another one than the config's.
    fn lease_length(&self) -> Duration {
        let granted = self.granted_lease.filter(|_| self.machine.grant().is_some());
        granted.unwrap_or(self.config.lease)
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
            addresses: self.machine.addrs().iter().map(ToString::to_string).collect(),
            state: state.as_str().to_owned(),
            reason: state.reason().map(str::to_owned),
            state_ms: millis(now.since(self.since)),
            interface: self.machine.link().map(|link| link.name.clone()),
            owner,
            cause: self.cause.as_ref().map(|cause| cause.to_string()),
            ownership: self.config.ownership.as_str().to_owned(),
            token: grant.map(|grant| grant.token.to_string()),
            lease: VipLeaseView {
                lease_ms: millis(self.lease_length()),
                lease_left_ms: grant.map(|grant| millis(grant.until.since(now))),
            },
            dhcp: self.dhcp.as_ref().map(|one| one.to_view(now)),
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
        let mut entry = VipEntry::new(time, config, None, &mpsc::channel(1).0);
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

    #[test]
    fn an_assigned_address_is_fixed_by_its_own_address_only() {
        let named = |text: &str| VipAddress { addr: text.parse().unwrap(), prefix_len: None };
        let config = |addresses: Vec<VipAddress>| VipConfig {
            interface: Some("eth0".to_owned()),
            ..VipConfig::new("web", addresses)
        };
        let time = Time::from_nanos(1);
        let dhcp = AssignedAddress::new(1, [7; 23], None);
        let mut entry = VipEntry::new(time, config(Vec::new()), Some(dhcp), &mpsc::channel(1).0);
        // The server has not assigned one yet.
        let shorter = VipConfig { lease: Duration::from_secs(1), ..config(Vec::new()) };
        entry.adopt_settings(time, &shorter);
        assert!(entry.config == shorter && entry.dhcp.is_some(), "it still asks");
        entry.input(time, VipInput::Assigned(vec!["10.1.0.80".parse().unwrap()]));
        let other = config(vec![named("10.1.0.81")]);
        entry.adopt_settings(time, &other);
        assert!(entry.config != other && entry.dhcp.is_some(), "another address");
        let same = config(vec![named("10.1.0.80")]);
        entry.adopt_settings(time, &same);
        assert!(entry.config == same && entry.dhcp.is_none());
        assert_eq!(entry.addrs(), [named("10.1.0.80").addr]);
    }
}
