//! Hand-over of the adapter to a successor process, and its take-over: the two sides of
//! `netft upgrade`. The decisions are those of `netft_proto::handover`.

pub(super) mod predecessor;
pub(super) mod successor;

use std::{io, os::fd::OwnedFd, time::Duration};

use netft::api::handover::HandoverSocket;
use tokio::time::sleep;

/// Environment variable that makes a started process a successor: the adapter's name. Its standard
/// input is the socket then.
const HANDOVER_ENV: &str = "NETFT_HANDOVER";

/// Interval of the polls for a packet. A hand-over has three packets.
const PACKET_POLL_INTERVAL: Duration = Duration::from_millis(1);

/// The next packet of the other process; `None` once it is gone.
async fn receive_packet(socket: &HandoverSocket) -> io::Result<Option<(Vec<u8>, Vec<OwnedFd>)>> {
    loop {
        match socket.receive_packet() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                sleep(PACKET_POLL_INTERVAL).await;
            }
            received => return received,
        }
    }
}
