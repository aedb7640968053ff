//! Questions to peers and from them, and fresh looks at the paths.

use netft_proto::{ids::PeerId, time::Time};
use tokio::sync::{mpsc, oneshot};

use crate::{
    adapter::Adapter,
    io::{
        messages::DriverRequest,
        quic::{PeerQuery, QueryError},
    },
};

impl Adapter {
    /// Asks a peer a question of at most 256 bytes on its control session; what it means is up to
    /// the two programs. Takes at most 4 s. A peer answers one question a second.
    ///
    /// # Errors
    /// See [`QueryError`].
    pub async fn query_peer(&self, peer: PeerId, question: Vec<u8>) -> Result<Vec<u8>, QueryError> {
        self.manager.query_peer(peer, question).await
    }

    /// What the peers ask, 16 waiting at most; `None` the second time. Questions are refused once
    /// the receiver is dropped, and get no answer before it is taken.
    pub fn peer_queries(&self) -> Option<mpsc::Receiver<PeerQuery>> {
        self.manager.take_queries()
    }

    /// Has the path MTU of every route probed anew, each with its next heartbeat, and returns the
    /// moment: a snapshot tells what was proven since then. `None` after the adapter closed.
    pub async fn reprobe_path_mtu(&self) -> Option<Time> {
        let (answer, moment) = oneshot::channel();
        self.send_request(DriverRequest::Recheck(answer)).await?;
        moment.await.ok()
    }
}
