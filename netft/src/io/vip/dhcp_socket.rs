//! DHCP messages of floating addresses on one interface.

use std::{io, io::Read};

use netft_proto::vip::{
    MacAddress,
    dhcp::{ClientIdentifier, DhcpReply, DhcpRequest},
};
use socket2::Socket;
use tokio::io::unix::AsyncFd;

use super::{
    dhcp_packet::{CLIENT_PORT, dhcp_frame, read_dhcp_frame},
    neighbor_filter::udp_filter,
};
use crate::io::sys::packet::{open_packet_socket, register_socket};

/// Longest frame that is read: what a client without option 57 is sent is shorter (RFC 2131
/// section 2, 576 bytes).
const MAX_FRAME_LEN: usize = 1514;

/// A packet socket for the DHCP messages that come in by one interface.
pub struct DhcpSocket {
    socket: AsyncFd<Socket>,
    mac: MacAddress,
}

impl DhcpSocket {
    /// Opens the socket.
    ///
    /// # Errors
    /// Of the kernel: no such interface, no `CAP_NET_RAW`.
    pub fn open(ifindex: u32, mac: MacAddress) -> io::Result<Self> {
        let filter = udp_filter(CLIENT_PORT);
        let socket = open_packet_socket(ifindex, libc::ETH_P_IP as u16, &filter)?;
        Ok(Self { socket: register_socket(socket)?, mac })
    }

    /// Sends a message.
    ///
    /// # Errors
    /// Of the kernel: the interface is down.
    pub fn send(&self, request: &DhcpRequest, identifier: &ClientIdentifier) -> io::Result<()> {
        let frame = dhcp_frame(request, self.mac, identifier);
        self.socket.get_ref().send(&frame).map(drop)
    }

    /// Waits for the next message of a server to this host. Cancel-safe.
    ///
    /// # Errors
    /// Of the kernel: the interface is gone or down.
    pub async fn receive(&self) -> io::Result<DhcpReply> {
        let mut frame = [0; MAX_FRAME_LEN];
        loop {
            // A flood of frames for other hosts must not keep a thread of the runtime.
            tokio::task::coop::consume_budget().await;
            let mut guard = self.socket.readable().await?;
            match guard.try_io(|socket| socket.get_ref().read(&mut frame)) {
                Ok(Ok(len)) => {
                    let reply = frame.get(..len).and_then(|bytes| read_dhcp_frame(bytes, self.mac));
                    if let Some(reply) = reply {
                        return Ok(reply);
                    }
                }
                Ok(Err(error)) => return Err(error),
                Err(_) => {}
            }
        }
    }
}
