//! Ownership of the floating addresses: what the engine that decides and the address service say
//! to each other. Both channels are bounded; the sender waits.

pub mod clock;
pub mod etcd;
pub mod raft;

use std::{sync::Arc, time::Duration};

use netft::{
    Time,
    config::VipOwnership,
    vip::{FencingToken, ownership::HolderUpdate},
};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

/// Messages on their way between an engine and the address service; beyond it the sender waits.
pub const OWNERSHIP_QUEUE_LEN: usize = 1024;
/// Timeout of the address service, which is never busy for long.
const UPDATE_TIMEOUT: Duration = Duration::from_secs(1);

/// From the engine to the address service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OwnershipUpdate {
    /// This node may answer for the addresses until `until`, by its own clock; also each renewal.
    Granted {
        /// Names of the addresses, with the decisions.
        leases: Vec<(Arc<str>, FencingToken)>,
        /// End of the leases.
        until: Time,
        /// Their length, from the request.
        lease: Duration,
    },
    /// Let the address go at once, then send [`OwnershipRequest::Released`].
    Revoked {
        /// Name of the address.
        vip: Arc<str>,
        /// The decision.
        token: FencingToken,
    },
    /// The owner of the address as far as this node knows.
    Owner {
        /// Name of the address.
        vip: Arc<str>,
        /// Its owner; `None`: nobody.
        owner: Option<Arc<str>>,
        /// The decision.
        token: FencingToken,
        /// Why.
        reason: Arc<str>,
    },
    /// A thing that concerns every address with this engine, for those who ask why.
    Notice {
        /// The engine.
        engine: VipOwnership,
        /// Description.
        what: Arc<str>,
    },
    /// Why this node does not vote with this engine though it should; `None`: it votes.
    Problem {
        /// The engine.
        engine: VipOwnership,
        /// The reason.
        problem: Option<Arc<str>>,
    },
}

impl OwnershipUpdate {
    /// Decisions of the engine, which are also logged. Leases that end together are one update,
    /// and one change of the fence.
    fn from_holder(updates: Vec<HolderUpdate>) -> Vec<Self> {
        let mut joined = Vec::new();
        for update in updates {
            match update {
                HolderUpdate::Granted { vip, token, until, lease } => {
                    let (now, until_ns) = (clock::now().as_nanos(), until.as_nanos());
                    tracing::debug!(vip, %token, now, until_ns, "ownership: granted");
                    match joined.last_mut() {
                        Some(Self::Granted { leases, until: end, lease: length })
                            if (*end, *length) == (until, lease) =>
                        {
                            leases.push((vip.into(), token));
                        }
                        _ => {
                            let leases = vec![(vip.into(), token)];
                            joined.push(Self::Granted { leases, until, lease });
                        }
                    }
                }
                HolderUpdate::Revoked { vip, token } => {
                    tracing::info!(vip, %token, "ownership: revoked");
                    joined.push(Self::Revoked { vip: vip.into(), token });
                }
                HolderUpdate::Owner { vip, owner, token, reason } => {
                    tracing::info!(vip, ?owner, %token, "ownership: decided because {reason}");
                    let (vip, reason) = (vip.into(), reason.into());
                    joined.push(Self::Owner { vip, owner: owner.map(Into::into), token, reason });
                }
            }
        }
        joined
    }
}

/// Sends an update to the address service; without an answer in time it is lost.
async fn send_update(updates: &mpsc::Sender<OwnershipUpdate>, update: OwnershipUpdate) {
    if timeout(UPDATE_TIMEOUT, updates.send(update)).await.is_err() {
        // The lease ends by itself, in the kernel.
        tracing::error!("ownership: the address service does not respond");
    }
}

/// From the address service to the engine.
#[derive(Debug)]
pub enum OwnershipRequest {
    /// This node can, or cannot, carry the address: its check passes, its network is there, no
    /// other host uses it.
    Able {
        /// Name of the address.
        vip: Arc<str>,
        /// It can.
        is_able: bool,
        /// Why it cannot.
        reason: Option<String>,
        /// Since when the check has passed that the address follows; `None`: it follows none.
        role_since: Option<Time>,
    },
    /// The address is let go: this node's kernel does not answer for it.
    Released {
        /// Name of the address.
        vip: Arc<str>,
        /// The decision that revoked it.
        token: FencingToken,
    },
    /// Hand the address over to a node; `None`: to any other that can carry it.
    Move {
        /// Name of the address.
        vip: Arc<str>,
        /// The new owner.
        to: Option<Arc<str>>,
        /// Answered once the new owner has it.
        reply: oneshot::Sender<Result<(), String>>,
    },
}
