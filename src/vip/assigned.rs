//! The DHCP lease of one floating address on this node.

use netft::{
    Time,
    vip::{
        VipLink,
        dhcp::{ClientIdentifier, DhcpClient, DhcpInput, DhcpLease, DhcpState},
    },
};

use super::{lease_record::to_hex, view::DhcpView};

/// The lease of one floating address.
#[derive(Debug)]
pub(super) struct AssignedAddress {
    pub(super) client: DhcpClient,
    pub(super) identifier: ClientIdentifier,
    /// The last lease that this node, or another one, told.
    pub(super) remembered: Option<DhcpLease>,
    /// The interface that the client runs on.
    pub(super) link: Option<VipLink>,
    pub(super) problem: Option<String>,
    /// The address is being removed for good: the client neither starts nor stops.
    is_ending: bool,
}

impl AssignedAddress {
    pub(super) const fn new(
        seed: u64,
        identifier: ClientIdentifier,
        remembered: Option<DhcpLease>,
    ) -> Self {
        Self {
            client: DhcpClient::new(seed),
            identifier,
            remembered,
            link: None,
            problem: None,
            is_ending: false,
        }
    }

    pub(super) fn next_wake(&self) -> Option<Time> {
        let is_running = self.client.state() != DhcpState::Stopped;
        let end = self.remembered.and_then(|lease| lease.expires).filter(|_| !is_running);
        self.client.next_wake().into_iter().chain(end).min()
    }

    pub(super) fn has_action(&self) -> bool {
        self.client.has_action()
    }

    /// Another host has the address.
    pub(super) fn on_conflict(&mut self, now: Time) {
        self.client.on_input(now, DhcpInput::Conflict);
    }

    /// The address is about to be removed for good: the client keeps its lease until it is
    /// released.
    pub(super) fn begin_release(&mut self) {
        self.is_ending = true;
    }

    /// The address was let go: forgets the lease, and gives it back if this node used it. True if
    /// it did.
    pub(super) fn finish_release(&mut self, now: Time) -> bool {
        self.remembered = None;
        let is_used = self.client.lease().is_some();
        if is_used {
            self.client.on_input(now, DhcpInput::Release);
        }
        is_used
    }

    pub(super) const fn is_ending(&self) -> bool {
        self.is_ending
    }

    pub(super) fn to_view(&self, now: Time) -> DhcpView {
        let until = |at: Option<Time>| at.map(|at| at.since(now).as_millis() as u64);
        let lease = self.client.lease().or(self.remembered.as_ref());
        let lease = lease.filter(|lease| lease.is_running(now));
        let ignored = self.client.ignored().iter();
        DhcpView {
            state: self.client.state().as_str().to_owned(),
            client_id: to_hex(&self.identifier),
            server: lease.map(|lease| lease.server.to_string()),
            obtained_ms: lease.map(|lease| now.since(lease.obtained).as_millis() as u64),
            renew_ms: until(lease.and_then(|lease| lease.renew_at)),
            rebind_ms: until(lease.and_then(|lease| lease.rebind_at)),
            expires_ms: until(lease.and_then(|lease| lease.expires)),
            problem: self.problem.clone(),
            ignored: ignored.map(|(reason, count)| (reason.as_str().to_owned(), *count)).collect(),
        }
    }
}
