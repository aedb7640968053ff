//! Another config for a running node: checked whole, then applied whole.

use std::{sync::Arc, time::Duration};

use netft_proto::{
    config,
    config::{Change, Config},
};
use tokio::{sync::oneshot, time::sleep};

use crate::{
    adapter::Adapter,
    api::error::ReconfigureError,
    io::{
        control::{NewConfig, Request},
        netlink::Netlink,
        netlink_watcher::World,
    },
};

/// How long the QUIC tasks get to send what ends a session.
const FAREWELL: Duration = Duration::from_millis(20);

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
    pub async fn reconfigure(&self, config: Config) -> Result<Vec<Change>, ReconfigureError> {
        let mut next = self.next_peer.lock().await;
        let Checked { mut changes, config, world, next_peer } = self.check(config, *next).await?;
        if changes.is_empty() {
            return Ok(changes);
        }
        let config = Arc::new(config);
        self.manager.part(&config).await;
        // The farewells leave before the routes that carry them.
        sleep(FAREWELL).await;
        // The keeper looks with the new config from here on, so that it takes no source away.
        self.config.send_replace(config.clone());
        let new = NewConfig { config: (*config).clone(), world, apply: true };
        changes.extend(self.tell(new).await?);
        *next = next_peer;
        self.manager.meet(&config)?;
        Ok(changes)
    }

    /// What [`reconfigure`](Self::reconfigure) would change; changes nothing.
    ///
    /// # Errors
    /// As [`reconfigure`](Self::reconfigure).
    pub async fn preview(&self, config: Config) -> Result<Vec<Change>, ReconfigureError> {
        let next = self.next_peer.lock().await;
        let Checked { mut changes, config, world, .. } = self.check(config, *next).await?;
        changes.extend(self.tell(NewConfig { config, world, apply: false }).await?);
        Ok(changes)
    }

    async fn check(&self, mut config: Config, next: u32) -> Result<Checked, ReconfigureError> {
        let running = self.config();
        let changes = config::diff(&running, &config).map_err(ReconfigureError::Fixed)?;
        self.manager.check(&config)?;
        let next_peer = config.renumber(&running, next).ok_or(ReconfigureError::Peers)?;
        let netlink = Netlink::open().map_err(|_| ReconfigureError::Interfaces)?;
        let offers = self.offers.borrow().clone();
        let resolved = self.resolved.borrow().clone();
        let world = World::look(&netlink, &config, (&offers, &resolved), &[]).await;
        let world = world.ok_or(ReconfigureError::Interfaces)?;
        Ok(Checked { changes, config, world, next_peer })
    }

    async fn tell(&self, new: NewConfig) -> Result<Vec<Change>, ReconfigureError> {
        let (answer, done) = oneshot::channel();
        let request = Request::Reconfigure(Box::new(new), answer);
        self.send(request).await.ok_or(ReconfigureError::Closed)?;
        done.await.map_err(|_| ReconfigureError::Closed)
    }
}

/// A config that can be applied.
struct Checked {
    changes: Vec<Change>,
    config: Config,
    world: World,
    next_peer: u32,
}
