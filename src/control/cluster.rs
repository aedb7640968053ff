//! Requests of the control socket about the cluster.

use tokio::sync::{mpsc, oneshot};

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
