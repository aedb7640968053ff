//! Another config for a running node: checked whole, then applied whole.

use std::{net::IpAddr, sync::Arc, time::Duration};

use netft_proto::{
    config,
    config::{Config, ConfigChange, RestartRequired},
};
use tokio::{
    sync::oneshot,
    time::{sleep, timeout},
};

use crate::{
    adapter::Adapter,
    api::error::ReconfigureError,
    io::{
        host_state::HostState,
        messages::{DriverRequest, NewConfig},
        netlink::Netlink,
        quic::session::manager::SESSION_CLOSE_DELAY,
    },
};

/// Longest wait for the kernel's routes to new peers: the adapter may be gone at this moment.
const KERNEL_ROUTES_TIMEOUT: Duration = Duration::from_secs(1);

impl Adapter {
    /// Goes over to another config: networks, timings, hold, history, rekey, peers with their
    /// addresses, routes and policies. Peers and routes that are the same in both configs keep
    /// their numbers, sessions and sockets, and lose no packet. Returns what changed: settings,
    /// then routes.
    ///
    /// A peer whose name or virtual address changed is another peer: its session starts anew.
    /// Routes added or removed by hand are as the new config says; a value or policies changed by
    /// hand stay until the config changes them. Await it to its end: a future dropped in between
    /// leaves the change half made.
    ///
    /// # Errors
    /// See [`ReconfigureError`]; nothing changed then.
    pub async fn reconfigure(&self, config: Config) -> Result<Vec<ConfigChange>, ReconfigureError> {
        self.apply_config(config, config::diff_configs).await
    }

    /// As [`reconfigure`](Self::reconfigure), with a key of this node that its cluster replaced:
    /// handshakes prove it from here on, and sessions are renewed with it. What is in flight stays.
    ///
    /// # Errors
    /// See [`ReconfigureError`]; nothing changed then.
    pub async fn replace_key(&self, config: Config) -> Result<Vec<ConfigChange>, ReconfigureError> {
        self.apply_config(config, config::diff_rotated_configs).await
    }

    async fn apply_config(
        &self,
        config: Config,
        diff: ConfigDiff,
    ) -> Result<Vec<ConfigChange>, ReconfigureError> {
        let mut next = self.next_peer.lock().await;
        let CheckedConfig { mut changes, config, host_state, next_peer } =
            self.check_config(config, *next, diff).await?;
        if changes.is_empty() {
            return Ok(changes);
        }
        let config = Arc::new(config);
        self.manager.remove_absent_peers(&config).await;
        // The CONNECTION_CLOSE frames leave before the routes that carry them go.
        sleep(SESSION_CLOSE_DELAY).await;
        // The netlink watcher reads with the new config from here on, so that it drops no source.
        self.config.send_replace(config.clone());
        let new = NewConfig { config: (*config).clone(), host_state, apply: true };
        changes.extend(self.request_reconfigure(new).await?);
        *next = next_peer;
        self.await_kernel_routes(&config).await;
        self.manager.add_new_peers(&config)?;
        Ok(changes)
    }

    /// Waits until the kernel leads every peer's address to the adapter: a session before that
    /// would bring a peer up whose packets it cannot send. IPv6 may be disabled, and its routes are
    /// set with those of IPv4.
    async fn await_kernel_routes(&self, config: &Config) {
        if !config.adapter.backend.has_device() {
            return;
        }
        let addrs: Vec<_> = config.peers.iter().map(|peer| IpAddr::from(peer.addrs.v4)).collect();
        let mut routed = self.routed.clone();
        let is_routed = routed.wait_for(|routed| addrs.iter().all(|addr| routed.contains(addr)));
        if timeout(KERNEL_ROUTES_TIMEOUT, is_routed).await.is_err() {
            tracing::debug!("the kernel lacks routes to new peers");
        }
    }

    /// Returns the changes that [`reconfigure`](Self::reconfigure) would make; changes nothing.
    ///
    /// # Errors
    /// As [`reconfigure`](Self::reconfigure).
    pub async fn preview_reconfigure(
        &self,
        config: Config,
    ) -> Result<Vec<ConfigChange>, ReconfigureError> {
        let next = self.next_peer.lock().await;
        let CheckedConfig { mut changes, config, host_state, .. } =
            self.check_config(config, *next, config::diff_configs).await?;
        changes.extend(
            self.request_reconfigure(NewConfig { config, host_state, apply: false }).await?,
        );
        Ok(changes)
    }

    async fn check_config(
        &self,
        mut config: Config,
        next: u32,
        diff: ConfigDiff,
    ) -> Result<CheckedConfig, ReconfigureError> {
        config.check_settings()?;
        let running = self.config();
        let changes = diff(&running, &config).map_err(ReconfigureError::RestartRequired)?;
        self.manager.check_config(&config)?;
        let next_peer = config.reassign_ids(&running, next).ok_or(ReconfigureError::Peers)?;
        let netlink = Netlink::open().map_err(|_| ReconfigureError::Interfaces)?;
        let advertisements = self.advertisements.borrow().clone();
        let resolved = self.resolved.borrow().clone();
        let inputs = (&advertisements, &resolved);
        let host_state = HostState::read_kernel(&netlink, &config, inputs, &[]).await;
        let host_state = host_state.ok_or(ReconfigureError::Interfaces)?;
        Ok(CheckedConfig { changes, config, host_state, next_peer })
    }

    async fn request_reconfigure(
        &self,
        new: NewConfig,
    ) -> Result<Vec<ConfigChange>, ReconfigureError> {
        let (answer, done) = oneshot::channel();
        let request = DriverRequest::Reconfigure(Box::new(new), answer);
        self.send_request(request).await.ok_or(ReconfigureError::Closed)?;
        done.await.map_err(|_| ReconfigureError::Closed)
    }
}

/// Comparison of two configs; its error is what needs a restart.
type ConfigDiff = fn(&Config, &Config) -> Result<Vec<ConfigChange>, Vec<RestartRequired>>;

/// A config that can be applied.
struct CheckedConfig {
    changes: Vec<ConfigChange>,
    config: Config,
    host_state: HostState,
    next_peer: u32,
}
