//! Resolver of the peers' host names: one task in the caller's runtime and one thread per lookup,
//! because the system's resolver blocks without a limit. At most
//! [`MAX_PENDING_LOOKUPS`](netft_proto::topology::names::MAX_PENDING_LOOKUPS) lookups are under
//! way. Without names it sleeps.

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, SocketAddr, ToSocketAddrs},
    sync::Arc,
    time::Duration,
};

use netft_proto::{
    config::{Config, HostName},
    ids::PeerId,
    route::EventKind,
    topology::{
        ResolvedAddresses,
        names::{NameCache, PeerHostName},
    },
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
    time::sleep,
};

use crate::io::{clock, fib::SharedFib, messages::DriverMessage};

/// Interval of the check for due lookups: a peer became unreachable, or a refresh is due.
const NAME_POLL_INTERVAL: Duration = Duration::from_millis(250);

/// Resolver task.
pub(crate) struct NameResolver {
    /// The configuration, and its changes.
    pub config: watch::Receiver<Arc<Config>>,
    /// Forwarding table, for the reachability of the peers.
    pub fib: SharedFib,
    pub driver: mpsc::Sender<DriverMessage>,
    /// To the netlink watcher, which plans routes with it.
    pub resolved: watch::Sender<ResolvedAddresses>,
}

impl NameResolver {
    /// Runs until it is aborted or the configuration sender is dropped.
    pub(crate) async fn run(mut self) {
        let mut names = NameCache::default();
        let mut lookups = JoinSet::new();
        let mut is_config_new = true;
        let mut failed = BTreeSet::new();
        loop {
            let now = clock::now();
            if is_config_new
                && names.set_names(now, configured_names(&self.config.borrow_and_update()))
            {
                self.resolved.send_replace(names.resolved_addresses());
            }
            is_config_new = false;
            {
                let fib = self.fib.load();
                names.update_reachability(now, |peer| {
                    let entry = fib.peers.iter().find(|entry| entry.peer == peer);
                    entry.is_none_or(|entry| entry.active.is_none())
                });
            }
            for key in names.take_due_lookups(now) {
                lookups.spawn(spawn_lookup(key));
            }
            tokio::select! {
                changed = self.config.changed() => match changed {
                    Ok(()) => is_config_new = true,
                    Err(_) => return,
                },
                Some(found) = lookups.join_next() => {
                    if let Ok((key, answer)) = found
                        && !self.apply_lookup((&mut names, &mut failed), key, answer).await
                    {
                        return;
                    }
                }
                () = sleep(NAME_POLL_INTERVAL), if !names.is_empty() => {}
            }
        }
    }

    /// Applies the result of a lookup. Returns whether the driver is still running.
    async fn apply_lookup(
        &self,
        (names, failed): (&mut NameCache, &mut BTreeSet<(PeerId, String)>),
        key: PeerHostName,
        answer: Result<Vec<IpAddr>, String>,
    ) -> bool {
        let subject = (key.0, key.1.host.clone());
        let is_over = answer.is_ok() && failed.remove(&subject);
        let news = names.on_lookup_result(clock::now(), &key, answer);
        if news.changed {
            tracing::debug!(peer = %key.0, name = key.1.host, "addresses of a name changed");
            self.resolved.send_replace(names.resolved_addresses());
        }
        let (peer, name) = subject.clone();
        let message = match news.failure {
            Some(reason) => {
                failed.insert(subject);
                DriverMessage::Event(EventKind::NameFailed { peer, name, reason })
            }
            None if is_over => DriverMessage::NameResolved { peer, name },
            None => return true,
        };
        self.driver.send(message).await.is_ok()
    }
}

fn configured_names(config: &Config) -> Vec<PeerHostName> {
    let named = config.peers.iter().flat_map(|peer| {
        let names = peer.names.iter().filter(|name| name.link_local().is_none());
        names.map(|name| (peer.id, name.clone()))
    });
    named.collect()
}

async fn spawn_lookup(key: PeerHostName) -> (PeerHostName, Result<Vec<IpAddr>, String>) {
    let (answer, found) = oneshot::channel();
    let name = key.1.clone();
    // A thread of its own: a blocked lookup must not delay the end of the runtime.
    let started = std::thread::Builder::new().name("netft-resolver".into()).spawn(move || {
        // The task may have ended.
        let _ = answer.send(resolve_name(&name));
    });
    let found = match started {
        Ok(_) => found.await.map_err(|_| "the resolver failed".to_owned()),
        Err(error) => Err(error.to_string()),
    };
    let found = found.and_then(|found| found.map_err(|error| error.to_string()));
    (key, found)
}

/// Resolves through the system, as other programs on the host do.
fn resolve_name(name: &HostName) -> io::Result<Vec<IpAddr>> {
    Ok((name.host.as_str(), name.port)
        .to_socket_addrs()?
        .map(|addr: SocketAddr| addr.ip())
        .collect())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use netft_proto::config::PrivateKey;

    use super::*;
    use crate::io::identity;

    #[tokio::test]
    async fn a_name_that_resolves_again_ends_its_problem_once() {
        let key = identity::generate_key().unwrap();
        let public = identity::public_key(&key).unwrap();
        let config = Config::new("n1", PrivateKey(key.0.to_vec().into()), public);
        let (driver, mut messages) = mpsc::channel(8);
        let resolver = NameResolver {
            config: watch::channel(Arc::new(config)).1,
            fib: SharedFib::default(),
            driver,
            resolved: watch::channel(ResolvedAddresses::new()).0,
        };
        let name = HostName { host: "b.example".to_owned(), port: 3343 };
        let key = (PeerId(0), name);
        let (mut names, mut failed) = (NameCache::default(), BTreeSet::new());
        names.set_names(clock::now(), vec![key.clone()]);
        let found = || Ok(vec!["192.0.2.1".parse().unwrap()]);
        for answer in [found(), Err("no such name".to_owned()), found(), found()] {
            names.take_due_lookups(clock::now());
            let parts = (&mut names, &mut failed);
            assert!(resolver.apply_lookup(parts, key.clone(), answer).await);
        }
        drop(resolver);
        let mut told = Vec::new();
        while let Some(message) = messages.recv().await {
            told.push(match message {
                DriverMessage::Event(EventKind::NameFailed { .. }) => "failed",
                DriverMessage::NameResolved { peer: PeerId(0), .. } => "resolved",
                _ => "other",
            });
        }
        assert_eq!(told, ["failed", "resolved"]);
    }
}
