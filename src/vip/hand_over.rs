//! Hand-over of an address by the operator, between two nodes: the owner lets it go, and the other
//! node takes it without probing first.

use std::{collections::BTreeMap, future::Future, sync::Arc, time::Duration};

use netft::{
    Time,
    vip::dhcp::{ClientIdentifier, DhcpLease},
};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::{
    handle::{VipError, VipHandle},
    lease_record::LeaseRecord,
    partners::{Definitions, PartnerBook},
};

const WHAT_DEFINITIONS: &str = "definitions";
const WHAT_LEASE: &str = "lease";
/// Question of a node that is about to take an address.
pub(super) const WHAT_FREE: &str = "free";
/// Longest that a hand-over takes.
pub const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(2);

/// Request to another node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandOverRequest {
    /// Name of the address.
    pub vip: String,
    /// `take`: the sender has let it go. `give`: let it go, for the sender. `free`: say that this
    /// node neither has it nor is about to take it. `definitions`: tell the digests of the
    /// definitions; `vip` is that of all definitions of the sender. `lease`: know the DHCP lease of
    /// the address.
    pub what: String,
    /// The DHCP lease; null: it is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<LeaseRecord>,
}

impl HandOverRequest {
    fn new(vip: &str, what: &str) -> Self {
        Self { vip: vip.to_owned(), what: what.to_owned(), lease: None }
    }
}

/// News of the DHCP lease of an address, for the other nodes.
#[derive(Clone, Debug)]
pub struct LeaseNews {
    /// The address.
    pub vip: Arc<str>,
    /// Its lease; none: it is gone.
    pub lease: Option<(ClientIdentifier, DhcpLease)>,
}

impl LeaseNews {
    /// The message that tells another node. Its times count from `now`, when it leaves.
    pub fn to_message(&self, now: Time) -> Vec<u8> {
        let lease = self
            .lease
            .as_ref()
            .map(|(identifier, lease)| LeaseRecord::new(now, &self.vip, identifier, lease));
        let request = HandOverRequest { lease, ..HandOverRequest::new(&self.vip, WHAT_LEASE) };
        // Texts and numbers are always JSON.
        serde_json::to_vec(&request).unwrap_or_default()
    }

    /// Of this news and those that wait behind it, the last on each address.
    pub fn take_newest(self, waiting: &mut mpsc::Receiver<Self>) -> Vec<Self> {
        let mut newest = BTreeMap::from([(Arc::clone(&self.vip), self)]);
        while let Ok(news) = waiting.try_recv() {
            newest.insert(Arc::clone(&news.vip), news);
        }
        newest.into_values().collect()
    }
}

/// The request for a node's definitions, which tells it the digest of those of this node.
pub fn ask_definitions(own_digest: &str) -> Vec<u8> {
    let request = HandOverRequest::new(own_digest, WHAT_DEFINITIONS);
    // Two texts are always JSON.
    serde_json::to_vec(&request).unwrap_or_default()
}

/// The definitions of an answer; `None` if the node does not tell them.
pub fn read_definitions(answer: &[u8]) -> Option<Definitions> {
    serde_json::from_slice::<HandOverAnswer>(answer).ok()?.definitions
}

/// The answer; `None`: done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct HandOverAnswer {
    error: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    definitions: Option<Definitions>,
}

/// The other nodes.
pub trait VipPeers: Sync {
    /// Names of this node and of its peers.
    fn node_names(&self) -> impl Future<Output = (String, Vec<String>)> + Send;

    /// Sends a request to a node; its answer.
    ///
    /// # Errors
    /// The node is unreachable or does not answer.
    fn ask(
        &self,
        node: &str,
        request: Vec<u8>,
    ) -> impl Future<Output = Result<Vec<u8>, String>> + Send;
}

/// Moves an address to a node; without one, to the first that takes it.
///
/// # Errors
/// No node took it: it stays where it was.
pub async fn move_address(
    handle: &VipHandle,
    peers: &impl VipPeers,
    vip: &str,
    to: Option<&str>,
) -> Result<String, VipError> {
    let (own, others) = peers.node_names().await;
    let view = handle.view(vip).await?;
    if to == Some(own.as_str()) {
        return fetch_address(handle, peers, vip, &own, &others).await;
    }
    if view.state != "online" {
        return Err(VipError::Refused(format!(
            "{vip} is {} on this node: run the command on its owner, or `netft vip move {vip} \
             --to NODE` on the node that shall have it",
            view.state
        )));
    }
    let targets: Vec<_> = match to {
        Some(node) if others.iter().any(|other| other == node) => vec![node.to_owned()],
        Some(node) => return Err(VipError::Refused(format!("there is no node {node:?}"))),
        None => others,
    };
    if targets.is_empty() {
        return Err(VipError::Refused("this node has no peer".to_owned()));
    }
    handle.give(vip, &format!("moved to {}", targets.join(" or "))).await?;
    let mut problems = Vec::new();
    for node in targets {
        match ask_node(peers, &node, vip, "take").await {
            Ok(()) => return Ok(node),
            Err(why) => problems.push(format!("{node}: {why}")),
        }
    }
    handle.take(vip).await?;
    Err(VipError::Refused(format!("{vip} stays on this node: {}", problems.join("; "))))
}

/// Has the owner, whoever it is, let the address go, and takes it.
async fn fetch_address(
    handle: &VipHandle,
    peers: &impl VipPeers,
    vip: &str,
    own: &str,
    others: &[String],
) -> Result<String, VipError> {
    let mut problems = Vec::new();
    for node in others {
        match ask_node(peers, node, vip, "give").await {
            Ok(()) => {
                handle.take(vip).await?;
                return Ok(own.to_owned());
            }
            Err(why) => problems.push(format!("{node}: {why}")),
        }
    }
    Err(VipError::Refused(format!(
        "no node let {vip} go ({}); `netft vip online {vip}` probes for it and takes it",
        problems.join("; ")
    )))
}

async fn ask_node(peers: &impl VipPeers, node: &str, vip: &str, what: &str) -> Result<(), String> {
    query_node(peers, node, vip, what).await?
}

/// The answer of a node to a request: its refusal, if it refuses.
///
/// # Errors
/// It gave no answer.
pub(super) async fn query_node(
    peers: &impl VipPeers,
    node: &str,
    vip: &str,
    what: &str,
) -> Result<Result<(), String>, String> {
    let request = HandOverRequest::new(vip, what);
    let bytes = serde_json::to_vec(&request).map_err(|error| error.to_string())?;
    let answer = match tokio::time::timeout(HAND_OVER_TIMEOUT, peers.ask(node, bytes)).await {
        Ok(answer) => answer?,
        Err(_) => return Err("no answer".to_owned()),
    };
    let answer: HandOverAnswer =
        serde_json::from_slice(&answer).map_err(|_| "malformed answer".to_owned())?;
    Ok(answer.error.map_or(Ok(()), Err))
}

/// Answer to a request of an authenticated peer.
pub struct AnsweredHandOver {
    /// The answer.
    pub answer: Vec<u8>,
    /// The peer's definitions are news: they should be compared.
    pub is_news: bool,
}

/// Answers a request of an authenticated peer; `None` if it is malformed.
pub async fn answer_hand_over(
    handle: &VipHandle,
    book: &PartnerBook,
    peer: &str,
    request: &[u8],
) -> Option<AnsweredHandOver> {
    let request: HandOverRequest = serde_json::from_slice(request).ok()?;
    if request.what == WHAT_DEFINITIONS {
        let definitions = Some(book.definitions());
        let answer = serde_json::to_vec(&HandOverAnswer { error: None, definitions }).ok()?;
        return Some(AnsweredHandOver { answer, is_news: book.on_told(peer, &request.vip) });
    }
    if request.what == WHAT_LEASE {
        handle.learn_lease(&request.vip, request.lease).await;
        let answer = serde_json::to_vec(&HandOverAnswer { error: None, definitions: None }).ok()?;
        return Some(AnsweredHandOver { answer, is_news: false });
    }
    if request.what != WHAT_FREE {
        tracing::info!(peer, vip = request.vip, "a peer hands over a floating address");
    }
    let done = match request.what.as_str() {
        "take" => handle.take(&request.vip).await,
        WHAT_FREE => handle.require_free(&request.vip).await,
        "give" => handle.give(&request.vip, "moved to the node that asked for it").await,
        _ => return None,
    };
    let error = done.err().map(|error| error.to_string());
    let answer = serde_json::to_vec(&HandOverAnswer { error, definitions: None }).ok()?;
    Some(AnsweredHandOver { answer, is_news: false })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::net::Ipv4Addr;

    use super::*;

    fn news(vip: &str, expires: u64) -> LeaseNews {
        let lease = DhcpLease {
            addr: Ipv4Addr::new(10, 1, 0, 80),
            server: Ipv4Addr::new(10, 1, 0, 1),
            server_mac: None,
            obtained: Time::from_millis(40_000),
            renew_at: None,
            rebind_at: None,
            expires: Some(Time::from_millis(expires)),
        };
        LeaseNews { vip: vip.into(), lease: Some(([7; 23], lease)) }
    }

    #[test]
    fn news_that_waited_are_told_with_the_times_of_when_they_leave() {
        let (sender, mut receiver) = mpsc::channel(8);
        for news in [news("web", 700_000), news("db", 900_000), news("web", 800_000)] {
            sender.try_send(news).unwrap();
        }
        let first = receiver.try_recv().unwrap();
        let newest = first.take_newest(&mut receiver);
        let sent = Time::from_millis(500_000);
        let ends: Vec<_> = newest
            .iter()
            .map(|news| {
                let request: HandOverRequest =
                    serde_json::from_slice(&news.to_message(sent)).unwrap();
                let (_, lease) = request.lease.unwrap().to_lease(sent).unwrap();
                (request.vip, lease.expires.unwrap().as_millis())
            })
            .collect();
        assert_eq!(ends, [("db".to_owned(), 900_000), ("web".to_owned(), 800_000)]);
    }
}
