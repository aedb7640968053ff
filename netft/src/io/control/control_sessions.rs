//! The control sessions with the peers, and this run of the node as they present it.

use std::{sync::Arc, time::Duration};

use netft_proto::{config::Config, ids::PeerId, time::Time};

use crate::{
    api::snapshot::NodeInfo,
    io::{clock, host_state::HostState, quic::session::manager::SessionManager},
};

/// This run of the node towards its peers.
pub(super) struct ControlSessions {
    pub(super) manager: Arc<SessionManager>,
    boot_id: u64,
    started_at: Time,
    is_closing: bool,
}

impl ControlSessions {
    pub(super) fn new(manager: Arc<SessionManager>, boot_id: u64) -> Self {
        Self { manager, boot_id, started_at: clock::now(), is_closing: false }
    }

    /// The boot id, as the peers know it.
    pub(super) const fn boot_id(&self) -> u64 {
        self.boot_id
    }

    /// The node closes: the end of its sessions is no event.
    pub(super) fn begin_closing(&mut self) {
        self.is_closing = true;
    }

    pub(super) fn is_closing(&self) -> bool {
        self.is_closing
    }

    /// Agrees on a fresh session with a peer; the present one serves until then.
    pub(super) fn renew(&self, peer: PeerId) {
        self.manager.renew_session(peer);
    }

    /// Takes in whether the adapter is up, for the next hellos.
    pub(super) fn set_adapter_state(&self, config: &Config, host_state: &HostState) {
        let mut interfaces = host_state.interfaces.iter();
        let adapter = interfaces.find(|interface| interface.name == config.adapter.name);
        self.manager.set_adapter_up(adapter.is_some_and(|adapter| adapter.up));
    }

    /// This node, as an operator sees it.
    pub(super) fn node_info(&self, config: &Config, now: Time) -> NodeInfo {
        let uptime: Duration = now.since(self.started_at);
        NodeInfo {
            name: config.name.clone(),
            key: config.public_key,
            boot_id: self.boot_id,
            uptime,
        }
    }
}
