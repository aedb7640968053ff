//! Requests of the control socket about the cluster.

use tokio::sync::{mpsc, oneshot};

use netft::api::session::{PeerVersion, WireVersions};

use super::schema::{ClusterStatus, InviteAnswer, InviteOrder, NextKeyAnswer};
use crate::exit::ExitError;

/// Requests on their way to the cluster service; beyond it the client waits.
const REQUEST_QUEUE_LEN: usize = 8;

/// A request, with the channel of its answer.
#[derive(Debug)]
pub enum ClusterRequest {
    /// The roster in force, and the peers' rosters.
    Status(oneshot::Sender<ClusterStatus>),
    /// Go over to this signed roster.
    Import(String, oneshot::Sender<Result<ClusterStatus, ExitError>>),
    /// Have a node store the key that will replace its own.
    NextKey(String, oneshot::Sender<Result<NextKeyAnswer, ExitError>>),
    /// Open an invite.
    Invite(InviteOrder, oneshot::Sender<Result<InviteAnswer, ExitError>>),
}

/// The cluster service as the control socket sees it.
#[derive(Clone, Debug)]
pub struct ClusterHandle(mpsc::Sender<ClusterRequest>);

impl ClusterHandle {
    /// A handle, and the receiver of its requests.
    pub fn new() -> (Self, mpsc::Receiver<ClusterRequest>) {
        let (sender, receiver) = mpsc::channel(REQUEST_QUEUE_LEN);
        (Self(sender), receiver)
    }

    /// The status; `None` while the daemon stops.
    pub async fn status(&self) -> Option<ClusterStatus> {
        let (answer, status) = oneshot::channel();
        self.0.send(ClusterRequest::Status(answer)).await.ok()?;
        status.await.ok()
    }

    /// Goes over to a signed roster.
    ///
    /// # Errors
    /// It is not valid, not newer than the one in force, or contradicts the config.
    pub async fn import_roster(&self, text: String) -> Result<ClusterStatus, ExitError> {
        let (answer, done) = oneshot::channel();
        self.0.send(ClusterRequest::Import(text, answer)).await.map_err(|_| stopping())?;
        done.await.map_err(|_| stopping())?
    }

    /// Has a node store the key that will replace its own.
    ///
    /// # Errors
    /// The node is unknown, or gives no answer.
    pub async fn prepare_next_key(&self, node: String) -> Result<NextKeyAnswer, ExitError> {
        let (answer, done) = oneshot::channel();
        self.0.send(ClusterRequest::NextKey(node, answer)).await.map_err(|_| stopping())?;
        done.await.map_err(|_| stopping())?
    }

    /// Opens an invite.
    ///
    /// # Errors
    /// This node cannot let nodes in, or the order is out of its bounds.
    pub async fn open_invite(&self, order: InviteOrder) -> Result<InviteAnswer, ExitError> {
        let (answer, done) = oneshot::channel();
        self.0.send(ClusterRequest::Invite(order, answer)).await.map_err(|_| stopping())?;
        done.await.map_err(|_| stopping())?
    }
}

fn stopping() -> ExitError {
    ExitError::other_error("netftd is stopping")
}

/// Adds the versions of the nodes, and what all of them speak. `version_of`: the version of a peer,
/// if it is known.
pub fn add_versions(status: &mut ClusterStatus, version_of: impl Fn(&str) -> Option<PeerVersion>) {
    let own = || PeerVersion {
        wire: WireVersions::OWN_RANGE,
        release: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let mut common = Some(WireVersions::OWN_RANGE);
    for node in &mut status.nodes {
        let known = if node.this_node { Some(own()) } else { version_of(&node.name) };
        match known {
            Some(PeerVersion { wire, release }) => {
                common = common.and_then(|common| common.shared_with(wire));
                node.wire_versions = Some([wire.lowest, wire.highest]);
                node.release = Some(release);
            }
            None => status.wire_unknown.push(node.name.clone()),
        }
    }
    status.wire_version = common.map(|common| common.highest);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::schema::ClusterNodeView;

    #[test]
    fn a_cluster_speaks_what_all_its_nodes_speak() {
        let node = |name: &str, this_node| ClusterNodeView {
            name: name.to_owned(),
            this_node,
            ..ClusterNodeView::default()
        };
        let status = ClusterStatus {
            nodes: vec![node("a", true), node("b", false)],
            ..ClusterStatus::default()
        };
        let mut unknown = status.clone();
        add_versions(&mut unknown, |_| None);
        assert_eq!(unknown.wire_version, Some(WireVersions::OWN_RANGE.highest));
        assert_eq!(unknown.wire_unknown, ["b"]);
        let speaks = |lowest, highest| {
            let mut status = status.clone();
            let wire = WireVersions { lowest, highest };
            add_versions(&mut status, |_| Some(PeerVersion { wire, release: "9".to_owned() }));
            assert_eq!(status.nodes[1].wire_versions, Some([lowest, highest]));
            status.wire_version
        };
        assert_eq!((speaks(1, 9), speaks(8, 9)), (Some(WireVersions::OWN_RANGE.highest), None));
    }
}
