//! Messages to and from the neighbors on one interface about floating addresses.

use std::{io, io::Read, net::IpAddr};

use netft_proto::vip::{MacAddress, NeighborMessage};
use socket2::Socket;
use tokio::io::unix::AsyncFd;

use super::{
    frames::{announcement_frames, probe_frame, probe_group, read_frame},
    neighbor_filter::{arp_filter, ndp_filter},
};
use crate::io::sys::packet::{join_multicast, open_packet_socket, register_socket};

/// Longest frame that is read; neighbor messages are shorter.
const MAX_FRAME_LEN: usize = 1514;

/// Packet sockets on one interface, one per family that its floating addresses have. Only messages
/// about these addresses are received.
pub struct NeighborSocket {
    arp: Option<AsyncFd<Socket>>,
    ndp: Option<AsyncFd<Socket>>,
    mac: MacAddress,
}

impl NeighborSocket {
    /// Opens the sockets.
    ///
    /// # Errors
    /// Of the kernel: no such interface, no `CAP_NET_RAW`.
    pub fn open(ifindex: u32, mac: MacAddress, addrs: &[IpAddr]) -> io::Result<Self> {
        let mut arp = None;
        if addrs.iter().any(IpAddr::is_ipv4) {
            let socket = open_packet_socket(ifindex, libc::ETH_P_ARP as u16, &arp_filter(addrs))?;
            arp = Some(register_socket(socket)?);
        }
        let mut ndp = None;
        if addrs.iter().any(IpAddr::is_ipv6) {
            let socket = open_packet_socket(ifindex, libc::ETH_P_IPV6 as u16, &ndp_filter(addrs))?;
            for group in addrs.iter().copied().filter_map(probe_group) {
                join_multicast(&socket, ifindex, group)?;
            }
            ndp = Some(register_socket(socket)?);
        }
        Ok(Self { arp, ndp, mac })
    }

    fn of_family(&self, addr: IpAddr) -> io::Result<&AsyncFd<Socket>> {
        let socket = if addr.is_ipv4() { &self.arp } else { &self.ndp };
        socket.as_ref().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Asks whether anybody has an address.
    ///
    /// # Errors
    /// Of the kernel: the interface is down.
    pub fn send_probe(&self, addr: IpAddr) -> io::Result<()> {
        let frame = probe_frame(self.mac, addr);
        self.of_family(addr)?.get_ref().send(&frame).map(drop)
    }

    /// Announces an address.
    ///
    /// # Errors
    /// Of the kernel: the interface is down.
    pub fn send_announcement(&self, addr: IpAddr) -> io::Result<()> {
        for frame in announcement_frames(self.mac, addr) {
            self.of_family(addr)?.get_ref().send(&frame)?;
        }
        Ok(())
    }

    /// Waits for the next message. Cancel-safe.
    ///
    /// # Errors
    /// Of the kernel: the interface is gone or down.
    pub async fn receive(&self) -> io::Result<NeighborMessage> {
        loop {
            let frame = tokio::select! {
                frame = read_next(self.arp.as_ref()) => frame?,
                frame = read_next(self.ndp.as_ref()) => frame?,
            };
            if let Some(message) = read_frame(&frame) {
                return Ok(message);
            }
        }
    }
}

async fn read_next(socket: Option<&AsyncFd<Socket>>) -> io::Result<Vec<u8>> {
    let Some(socket) = socket else { return std::future::pending().await };
    loop {
        let mut guard = socket.readable().await?;
        let mut frame = vec![0; MAX_FRAME_LEN];
        match guard.try_io(|socket| socket.get_ref().read(&mut frame)) {
            Ok(Ok(len)) => {
                frame.truncate(len);
                return Ok(frame);
            }
            Ok(Err(error)) => return Err(error),
            Err(_) => {}
        }
    }
}
