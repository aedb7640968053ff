//! Echoes through the adapter: from this node's virtual IPv4 address to a peer's.
//!
//! An ICMP echo is sent first. A host that drops ICMP and takes services is in order, so without
//! an answer TCP and UDP try a port that no service has: a refusal is an answer.

use std::{
    io,
    io::ErrorKind,
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::OwnedFd,
    time::Duration,
};

use netft_proto::{ids::PeerId, route::EchoOutcome};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    net::{TcpSocket, UdpSocket},
    sync::mpsc,
    time::timeout,
};

use crate::io::messages::DriverMessage;

/// Echoes that may wait to be sent; the driver repeats one that found no room.
pub(crate) const ECHO_QUEUE_LEN: usize = 64;
/// Wait for the ICMP answer, of the route with the longest way.
const ICMP_TIMEOUT: Duration = Duration::from_secs(1);
/// Wait for the answer to TCP and UDP: the kernel sends a second SYN after one second.
const PORT_TIMEOUT: Duration = Duration::from_millis(1500);
/// A port that no service has (tcpmux): a rule that opens single ports does not open this one.
const UNUSED_PORT: u16 = 1;
/// ICMP types (RFC 792).
const ECHO_REQUEST: u8 = 8;
const ECHO_REPLY: u8 = 0;

/// An order to try the way to a peer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EchoRequest {
    pub(crate) peer: PeerId,
    /// This node's virtual address.
    pub(crate) own: Ipv4Addr,
    /// The peer's.
    pub(crate) remote: Ipv4Addr,
}

/// Makes the echoes that the driver orders, each in a task of its own. Ends with the driver.
pub(crate) async fn run_echoes(
    mut requests: mpsc::Receiver<EchoRequest>,
    driver: mpsc::Sender<DriverMessage>,
) {
    while let Some(request) = requests.recv().await {
        let driver = driver.clone();
        tokio::spawn(async move {
            let outcome = try_way(request).await;
            let peer = request.peer;
            // The driver may have ended.
            let _ = driver.send(DriverMessage::EchoDone { peer, outcome }).await;
        });
    }
}

async fn try_way(request: EchoRequest) -> EchoOutcome {
    match timeout(ICMP_TIMEOUT, exchange_icmp_echo(request)).await {
        Ok(Ok(())) => return EchoOutcome::Answered,
        // Of a firewall: without the capability there is no socket.
        Ok(Err(error)) if error.raw_os_error() == Some(libc::EPERM) => return EchoOutcome::NotSent,
        Ok(Err(error)) => {
            tracing::debug!(peer = %request.peer, %error, "no ICMP echo");
            return EchoOutcome::Failed;
        }
        Err(_) => {}
    }
    let ports = async {
        tokio::select! {
            true = is_refused_by_tcp(request) => {}
            true = is_refused_by_udp(request) => {}
            else => std::future::pending().await,
        }
    };
    match timeout(PORT_TIMEOUT, ports).await {
        Ok(()) => EchoOutcome::Answered,
        Err(_) => EchoOutcome::Silent,
    }
}

async fn exchange_icmp_echo(request: EchoRequest) -> io::Result<()> {
    let socket = Socket::new(Domain::IPV4, Type::RAW.nonblocking(), Some(Protocol::ICMPV4))
        .map_err(|error| io::Error::new(ErrorKind::Unsupported, error))?;
    socket.bind(&SocketAddrV4::new(request.own, 0).into())?;
    socket.connect(&SocketAddrV4::new(request.remote, 0).into())?;
    // send(2) and recv(2) of a connected raw socket are those of a datagram socket.
    let socket = UdpSocket::from_std(OwnedFd::from(socket).into())?;
    let id = request.peer.0;
    socket.send(&encode_echo(id)).await?;
    let mut packet = [0; 256];
    loop {
        let len = socket.recv(&mut packet).await?;
        if is_echo_reply(&packet[..len], id) {
            return Ok(());
        }
    }
}

/// An echo request with this identifier.
fn encode_echo(id: u16) -> [u8; 8] {
    let [high, low] = id.to_be_bytes();
    let mut packet = [ECHO_REQUEST, 0, 0, 0, high, low, 0, 1];
    let checksum = !folded_sum(&packet);
    packet[2..4].copy_from_slice(&checksum.to_be_bytes());
    packet
}

/// The one's complement sum of 16-bit words (RFC 1071) of a few bytes.
fn folded_sum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks_exact(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
    let sum: u32 = words.sum();
    ((sum & 0xffff) + (sum >> 16)) as u16
}

/// Returns whether an IPv4 packet is the answer to [`encode_echo`].
fn is_echo_reply(packet: &[u8], id: u16) -> bool {
    let header = packet.first().map_or(0, |first| usize::from(first & 0xf) * 4);
    let Some(icmp) = packet.get(header..) else { return false };
    icmp.len() >= 8 && icmp[0] == ECHO_REPLY && icmp[4..6] == id.to_be_bytes()
}

async fn is_refused_by_tcp(request: EchoRequest) -> bool {
    let connect = async {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddrV4::new(request.own, 0).into())?;
        socket.connect(SocketAddrV4::new(request.remote, UNUSED_PORT).into()).await
    };
    match connect.await {
        Ok(_) => true,
        Err(error) => error.kind() == ErrorKind::ConnectionRefused,
    }
}

async fn is_refused_by_udp(request: EchoRequest) -> bool {
    let exchange = async {
        let socket = UdpSocket::bind(SocketAddrV4::new(request.own, 0)).await?;
        socket.connect(SocketAddrV4::new(request.remote, UNUSED_PORT)).await?;
        socket.send(&[0]).await?;
        socket.recv(&mut [0; 1]).await
    };
    match exchange.await {
        Ok(_) => true,
        Err(error) => error.kind() == ErrorKind::ConnectionRefused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_told_from_other_packets() {
        let request = encode_echo(7);
        assert_eq!(folded_sum(&request), 0xffff, "RFC 1071");
        let mut packet = vec![0x45; 20];
        packet.extend(request);
        assert!(!is_echo_reply(&packet, 7), "a request");
        packet[20] = ECHO_REPLY;
        assert!(is_echo_reply(&packet, 7));
        assert!(!is_echo_reply(&packet, 8));
        for len in 0..28 {
            assert!(!is_echo_reply(&packet[..len], 7));
        }
    }
}
