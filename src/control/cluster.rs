//! Requests of the control socket about the cluster.

use tokio::sync::{mpsc, oneshot};

use super::schema::ClusterStatus;
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
        let stopping = || ExitError::other_error("netftd is stopping");
        let (answer, done) = oneshot::channel();
        let request = ClusterRequest::Import(text, answer);
        self.0.send(request).await.map_err(|_| stopping())?;
        done.await.map_err(|_| stopping())?
    }
}
