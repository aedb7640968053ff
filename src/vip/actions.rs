//! What the machines decided, carried out.

use std::{collections::BTreeMap, sync::Arc};

use netft::{
    Time,
    api::vip::now,
    config::{VipFence, VipOwnership},
    route::EventKind,
    vip::{VipAction, VipState},
};
use tokio::sync::mpsc;

use super::{
    agent_order::OWNERSHIP_LOG,
    command::run_command,
    entry::VipEntry,
    service::{VipReport, VipService},
    view::VipView,
};
use crate::ownership::OwnershipRequest;

impl VipService {
    /// Carries out what the machines decided, in order. Permissions are set together.
    pub(super) async fn carry_out(&mut self) {
        loop {
            if self.dhcp.drive(now(), &mut self.entries) {
                // Whoever is permitted or probed for is in the fence and in the filters.
                self.set_fenced().await;
                self.sync_neighbor_sockets();
            }
            self.carry_out_decided().await;
            if !self.entries.values().any(VipEntry::has_dhcp_action) {
                return;
            }
        }
    }

    async fn carry_out_decided(&mut self) {
        let mut permits = BTreeMap::<Time, Vec<Arc<str>>>::new();
        for (name, entry) in &mut self.entries {
            if let Some(until) = entry.machine.take_permit() {
                permits.entry(until).or_default().push(Arc::clone(name));
            }
        }
        for (until, names) in permits {
            self.permit(until, &names).await;
        }
        let names: Vec<_> = self.entries.keys().cloned().collect();
        for name in &names {
            while let Some(action) = self.entries.get_mut(name).and_then(VipEntry::poll_action) {
                self.carry_out_one(name, action).await;
            }
        }
    }

    /// Lets addresses answer until then. Where the kernel refuses, the machines decide anew.
    async fn permit(&mut self, until: Time, names: &[Arc<str>]) {
        let entries = names.iter().filter_map(|name| self.entries.get(name));
        let addrs: Vec<_> = entries.flat_map(VipEntry::addrs).collect();
        let Err(reason) = self.kernel.permit(&addrs, until).await else { return };
        for name in names {
            if let Some(entry) = self.entries.get_mut(name) {
                entry.refuse(now(), reason.clone());
            }
        }
    }

    async fn carry_out_one(&mut self, name: &Arc<str>, action: VipAction) {
        let time = now();
        let Some(entry) = self.entries.get_mut(name) else { return };
        let index = entry.machine.link().map(|link| link.index);
        // No chain of the kernel sees what netftd sends itself: a process that was stopped since
        // the decision must not announce an address whose lease has ended.
        let is_claim = matches!(action, VipAction::Announce(_) | VipAction::Defend(_));
        if is_claim && entry.machine.grant().is_none_or(|grant| grant.until <= time) {
            return;
        }
        match action {
            VipAction::Permit(until) => self.permit(until, std::slice::from_ref(name)).await,
            VipAction::Forbid => self.kernel.forbid(&entry.addrs()).await,
            VipAction::AddAddress(addr) => {
                let Some(index) = index else { return };
                entry.configured_on = Some(index);
                let is_source = entry.config.source;
                if let Err(error) = self.kernel.interfaces.add(index, addr, is_source).await {
                    entry.refuse(time, error.to_string());
                }
            }
            VipAction::RemoveAddress(addr) => {
                let Some(index) = entry.configured_on.or(index) else { return };
                if let Err(error) = self.kernel.interfaces.remove(index, addr).await {
                    tracing::warn!(vip = %name, %error, "cannot remove a floating address");
                }
            }
            VipAction::Probe(addr) => {
                let sent = index.map(|index| self.kernel.send_probe(index, addr));
                if let Some(Err(error)) = sent {
                    // Without probes nobody would know of a conflict.
                    entry.refuse(time, format!("cannot probe for {addr}: {error}"));
                }
            }
            VipAction::Announce(addr) => {
                let sent = index.map(|index| self.kernel.announce(index, addr));
                tracing::debug!(vip = %name, %addr, ?sent, "announced");
            }
            VipAction::Defend(message) => {
                let sent = index.map(|index| self.kernel.announce(index, message.addr));
                let what = format!("{} claims {}: announced in defence", message.mac, message.addr);
                tracing::debug!(vip = %name, ?sent, what);
                entry.add_history(time, what.clone());
                self.report(EventKind::VipNotice { vip: name.to_string(), what });
            }
            VipAction::Restored(addr) => {
                let what = format!("another program removed {addr}: it was put back");
                entry.add_history(time, what.clone());
                self.report(EventKind::VipNotice { vip: name.to_string(), what });
            }
            VipAction::Conflict(_) => {
                if let Some(one) = entry.dhcp.as_mut() {
                    one.on_conflict(time);
                }
            }
            VipAction::Released(token) => {
                entry.add_history(time, format!("let go by decision {token}"));
                if entry.config.ownership == VipOwnership::External {
                    let (vip, now) = (name, time.as_nanos());
                    tracing::debug!(target: OWNERSHIP_LOG, %vip, %token, now, "ownership: let go");
                }
                if entry.config.ownership.has_engine() {
                    let vip = Arc::clone(name);
                    self.tell_engine(OwnershipRequest::Released { vip, token });
                }
            }
            VipAction::Able(able) => {
                if entry.config.ownership.has_engine() {
                    let (vip, is_able) = (Arc::clone(name), able.is_ok());
                    let (reason, role_since) = (able.err(), entry.role_since);
                    self.tell_engine(OwnershipRequest::Able { vip, is_able, reason, role_since });
                }
            }
            VipAction::Report(state) => self.report_state(name, state),
        }
    }

    fn report_state(&mut self, name: &Arc<str>, state: VipState) {
        let time = now();
        let Some(entry) = self.entries.get_mut(name) else { return };
        entry.mark_state_changed(time);
        let reason = state.reason().unwrap_or_default().to_owned();
        let token = entry.machine.grant().map(|grant| format!(" by decision {}", grant.token));
        let why = if reason.is_empty() { token.unwrap_or_default() } else { format!(": {reason}") };
        entry.add_history(time, format!("{}{why}", state.as_str()));
        let addresses = entry.describe_addresses();
        if let Some(hook) = entry.config.hook.clone() {
            let interface = entry.machine.link().map(|link| link.name.clone());
            let environment = [
                ("NETFT_VIP", name.to_string()),
                ("NETFT_STATE", state.as_str().to_owned()),
                ("NETFT_ADDRESS", addresses.clone()),
                ("NETFT_INTERFACE", interface.unwrap_or_default()),
                ("NETFT_REASON", reason),
            ];
            let vip = Arc::clone(name);
            tokio::spawn(async move {
                match run_command(&hook.command, &environment, hook.timeout).await {
                    Ok(output) => tracing::info!(%vip, output, "hook done"),
                    Err(error) => tracing::warn!(%vip, error, "hook failed"),
                }
            });
        }
        self.report(EventKind::VipChanged { vip: name.to_string(), addresses, state });
    }

    pub(super) fn report(&self, event: EventKind) {
        if let Err(mpsc::error::TrySendError::Full(report)) =
            self.reports.try_send(VipReport::Event(event))
        {
            tracing::warn!(?report, "an event of a floating address is lost");
        }
    }

    pub(super) fn to_view(&self, entry: &VipEntry) -> VipView {
        let fence = match (&self.kernel.fence_error, entry.config.fence) {
            (Some(error), VipFence::Nftables) => error,
            (_, fence) => fence.as_str(),
        };
        entry.to_view(now(), fence, &self.node)
    }
}
