//! Looks up the names of peers, away from the driver: one task in the caller's runtime, and a
//! thread per lookup, because the system's resolver blocks for as long as it likes. At most
//! [`MAX_PENDING`](netft_proto::topology::names::MAX_PENDING) are under way. Without names it sleeps.

use std::{
    io,
    net::{IpAddr, SocketAddr, ToSocketAddrs},
    sync::Arc,
    time::Duration,
};

use netft_proto::{
    config::{Config, HostName},
    route::EventKind,
    topology::{
        Resolved,
        names::{Key, Names},
    },
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
    time::sleep,
};

use crate::io::{clock, control::Message, fib::SharedFib};

/// How often to look whether a name is due: a peer is lost, or its time has come.
const LOOK: Duration = Duration::from_millis(250);

/// What the resolver is given.
pub(crate) struct Resolver {
    /// The config, and that it changed.
    pub config: watch::Receiver<Arc<Config>>,
    /// Which peers are reached.
    pub fib: SharedFib,
    pub driver: mpsc::Sender<Message>,
    /// To the keeper, which plans with it.
    pub resolved: watch::Sender<Resolved>,
}

impl Resolver {
    /// Runs until it is aborted or the config is gone.
    pub(crate) async fn run(mut self) {
        let mut names = Names::default();
        let mut lookups = JoinSet::new();
        let mut fresh = true;
        loop {
            let now = clock::now();
            if fresh && names.follow(now, wanted(&self.config.borrow_and_update())) {
                self.resolved.send_replace(names.resolved());
            }
            fresh = false;
            {
                let fib = self.fib.load();
                names.unreached(now, |peer| {
                    let entry = fib.peers.iter().find(|entry| entry.peer == peer);
                    entry.is_none_or(|entry| entry.active.is_none())
                });
            }
            for key in names.due(now) {
                lookups.spawn(look_up(key));
            }
            tokio::select! {
                changed = self.config.changed() => match changed {
                    Ok(()) => fresh = true,
                    Err(_) => return,
                },
                Some(found) = lookups.join_next() => {
                    if let Ok((key, answer)) = found
                        && !self.take(&mut names, &key, answer).await
                    {
                        return;
                    }
                }
                () = sleep(LOOK), if !names.is_empty() => {}
            }
        }
    }

    /// Takes in an answer. Returns whether the driver is still there.
    async fn take(
        &self,
        names: &mut Names,
        key: &Key,
        answer: Result<Vec<IpAddr>, String>,
    ) -> bool {
        let news = names.answer(clock::now(), key, answer);
        if news.changed {
            self.resolved.send_replace(names.resolved());
        }
        let Some(reason) = news.failed else { return true };
        let event = EventKind::NameFailed { peer: key.0, name: key.1.host.clone(), reason };
        self.driver.send(Message::Event(event)).await.is_ok()
    }
}

fn wanted(config: &Config) -> Vec<Key> {
    let peers = config.peers.iter();
    peers.flat_map(|peer| peer.names.iter().map(|name| (peer.id, name.clone()))).collect()
}

async fn look_up(key: Key) -> (Key, Result<Vec<IpAddr>, String>) {
    let (answer, found) = oneshot::channel();
    let name = key.1.clone();
    // A thread of its own: one that hangs must not hold up the end of the runtime.
    let started = std::thread::Builder::new().name("netft-resolver".into()).spawn(move || {
        // Whoever asked may have gone.
        let _ = answer.send(ask(&name));
    });
    let found = match started {
        Ok(_) => found.await.map_err(|_| "the resolver failed".to_owned()),
        Err(error) => Err(error.to_string()),
    };
    let found = found.and_then(|found| found.map_err(|error| error.to_string()));
    (key, found)
}

/// Asks the system, as every program here would.
fn ask(name: &HostName) -> io::Result<Vec<IpAddr>> {
    Ok((name.host.as_str(), name.port)
        .to_socket_addrs()?
        .map(|addr: SocketAddr| addr.ip())
        .collect())
}
