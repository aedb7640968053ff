//! Commands to the address service, and their sender.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

use netft::config::{Config, VipConfig};
use tokio::sync::{mpsc, oneshot};

use super::{agent_order::ExternalStep, lease_record::LeaseRecord, view::VipView};

/// A command that was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VipError {
    /// No floating address has this name.
    #[error("there is no floating address {0:?}: `netft vip list` shows them")]
    Unknown(String),
    /// The reason.
    #[error("{0}")]
    Refused(String),
    /// The service is gone.
    #[error("netftd is stopping")]
    Closed,
}

/// Channel of the answer to a command.
pub type VipReply = oneshot::Sender<Result<(), VipError>>;

/// A command to the service.
#[derive(Debug)]
pub enum VipCommand {
    /// Every address, by name.
    List(oneshot::Sender<Vec<VipView>>),
    /// The operator wants it on this node: it is probed for, then taken.
    Online(String, VipReply),
    /// The operator does not want it on this node.
    Offline(String, VipReply),
    /// It is taken at once: its former owner has let it go.
    Take(String, VipReply),
    /// It is let go if this node has it; answered once the kernel is silent. The reason.
    Give(String, String, VipReply),
    /// A step of an order of a cluster manager's agent; what came of it.
    External(String, ExternalStep, oneshot::Sender<Result<String, VipError>>),
    /// It is announced again.
    Announce(String, VipReply),
    /// It is added until netftd stops.
    Add(Box<VipConfig>, VipReply),
    /// An address that was added so is removed.
    Remove(String, VipReply),
    /// Another node told the DHCP lease of an address; none: it is gone.
    LearnLease(String, Option<LeaseRecord>),
    /// The addresses of the config file, and the physical ones of the peers.
    Configure(Vec<VipConfig>, BTreeSet<IpAddr>),
    /// Neighbors may have heard another owner: everything is announced again.
    AnnounceAll,
    /// Every address is let go, and the fence removed.
    Stop(oneshot::Sender<()>),
}

/// Physical addresses of the peers that a config names.
pub fn peer_addrs_of(config: &Config) -> BTreeSet<IpAddr> {
    let addresses = config.peers.iter().flat_map(|peer| &peer.addresses);
    addresses.map(SocketAddr::ip).collect()
}

/// Sender of commands.
#[derive(Clone, Debug)]
pub struct VipHandle(pub(super) mpsc::Sender<VipCommand>);

impl VipHandle {
    async fn command(&self, command: impl FnOnce(VipReply) -> VipCommand) -> Result<(), VipError> {
        let (reply, done) = oneshot::channel();
        self.0.send(command(reply)).await.map_err(|_| VipError::Closed)?;
        done.await.map_err(|_| VipError::Closed)?
    }

    /// Every address, by name; empty once the service is gone.
    pub async fn list(&self) -> Vec<VipView> {
        let (reply, views) = oneshot::channel();
        match self.0.send(VipCommand::List(reply)).await {
            Ok(()) => views.await.unwrap_or_default(),
            Err(_) => Vec::new(),
        }
    }

    /// One address.
    ///
    /// # Errors
    /// [`VipError::Unknown`].
    pub async fn view(&self, name: &str) -> Result<VipView, VipError> {
        let views = self.list().await;
        let found = views.into_iter().find(|view| view.name == name);
        found.ok_or_else(|| VipError::Unknown(name.to_owned()))
    }

    /// Takes an address after probes, as the operator wants it.
    ///
    /// # Errors
    /// See [`VipError`].
    pub async fn set_online(&self, name: &str) -> Result<(), VipError> {
        self.command(|reply| VipCommand::Online(name.to_owned(), reply)).await
    }

    /// Lets an address go, as the operator wants it.
    ///
    /// # Errors
    /// See [`VipError`].
    pub async fn set_offline(&self, name: &str) -> Result<(), VipError> {
        self.command(|reply| VipCommand::Offline(name.to_owned(), reply)).await
    }

    /// Takes an address that its former owner has let go.
    ///
    /// # Errors
    /// See [`VipError`].
    pub async fn take(&self, name: &str) -> Result<(), VipError> {
        self.command(|reply| VipCommand::Take(name.to_owned(), reply)).await
    }

    /// Lets an address go for another node; returns once this node's kernel is silent.
    ///
    /// # Errors
    /// See [`VipError`]; this node does not have it.
    pub async fn give(&self, name: &str, reason: &str) -> Result<(), VipError> {
        let reason = reason.to_owned();
        self.command(|reply| VipCommand::Give(name.to_owned(), reason, reply)).await
    }

    /// Carries out a step of an order of a cluster manager's agent; what came of it.
    ///
    /// # Errors
    /// See [`VipError`]: the order is void.
    pub(super) async fn take_external(
        &self,
        name: &str,
        step: ExternalStep,
    ) -> Result<String, VipError> {
        let (reply, done) = oneshot::channel();
        let command = VipCommand::External(name.to_owned(), step, reply);
        self.0.send(command).await.map_err(|_| VipError::Closed)?;
        done.await.map_err(|_| VipError::Closed)?
    }

    /// Succeeds if this node neither has an address nor is about to take it.
    ///
    /// # Errors
    /// It has, or is.
    pub async fn require_free(&self, name: &str) -> Result<(), VipError> {
        match self.take_external(name, ExternalStep::Query).await {
            Ok(_) | Err(VipError::Unknown(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Announces an address again.
    ///
    /// # Errors
    /// See [`VipError`]; this node does not have it.
    pub async fn announce(&self, name: &str) -> Result<(), VipError> {
        self.command(|reply| VipCommand::Announce(name.to_owned(), reply)).await
    }

    /// Adds an address until netftd stops.
    ///
    /// # Errors
    /// See [`VipError`]: another one has its name or address.
    pub async fn add(&self, config: VipConfig) -> Result<(), VipError> {
        self.command(|reply| VipCommand::Add(Box::new(config), reply)).await
    }

    /// Removes an address that was added by [`add`](Self::add).
    ///
    /// # Errors
    /// See [`VipError`]: the config file names it.
    pub async fn remove(&self, name: &str) -> Result<(), VipError> {
        self.command(|reply| VipCommand::Remove(name.to_owned(), reply)).await
    }

    /// Applies the addresses of a config file.
    pub async fn configure(&self, config: &Config) {
        let command = VipCommand::Configure(config.floating.vips.clone(), peer_addrs_of(config));
        let _ = self.0.send(command).await;
    }

    /// Takes in the DHCP lease of an address that another node has.
    pub async fn learn_lease(&self, name: &str, record: Option<LeaseRecord>) {
        let _ = self.0.send(VipCommand::LearnLease(name.to_owned(), record)).await;
    }

    /// Announces everything again.
    pub async fn announce_all(&self) {
        let _ = self.0.send(VipCommand::AnnounceAll).await;
    }

    /// Lets every address go and removes the fence.
    pub async fn stop(&self) {
        let (reply, done) = oneshot::channel();
        if self.0.send(VipCommand::Stop(reply)).await.is_ok() {
            let _ = done.await;
        }
    }
}
