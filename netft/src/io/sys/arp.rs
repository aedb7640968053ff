//! Announcement of an IPv4 address by ARP, from the interface that has it (RFC 5227 section 3).

#![expect(unsafe_code, reason = "packet sockets and SIOCGIFHWADDR have no safe wrapper")]

use std::{
    io,
    mem::zeroed,
    net::Ipv4Addr,
    os::fd::{AsFd, AsRawFd},
    ptr,
};

use socket2::{Domain, Socket, Type};

use crate::io::sys::tun::{check_syscall, new_ifreq};

const BROADCAST_MAC: [u8; 6] = [0xff; 6];

/// Announces that `addr` is at the interface `ifname` with index `ifindex`: neighbours that know
/// another interface of this node for it correct their entry; nobody makes a new one.
///
/// # Errors
/// Of the kernel: no Ethernet interface of that name, no `CAP_NET_RAW`.
pub fn announce_address(ifname: &str, ifindex: u32, addr: Ipv4Addr) -> io::Result<()> {
    let protocol = (libc::ETH_P_ARP as u16).to_be();
    let socket = Socket::new(Domain::PACKET, Type::DGRAM.cloexec(), None)?;
    let mac = hardware_address(&socket, ifname)?;
    let packet = announcement(mac, addr);
    // SAFETY: `sockaddr_ll` is plain data, for which zeros are valid.
    let mut to: libc::sockaddr_ll = unsafe { zeroed() };
    to.sll_family = libc::AF_PACKET as u16;
    to.sll_protocol = protocol;
    to.sll_ifindex = ifindex as libc::c_int;
    to.sll_halen = 6;
    to.sll_addr[..6].copy_from_slice(&BROADCAST_MAC);
    // SAFETY: sendto reads the packet and the address, which live through the call.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            packet.as_ptr().cast(),
            packet.len(),
            0,
            ptr::from_ref(&to).cast(),
            size_of_val(&to) as libc::socklen_t,
        )
    };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The request for the sender's own address that RFC 5227 calls an announcement.
fn announcement(mac: [u8; 6], addr: Ipv4Addr) -> [u8; 28] {
    let mut packet = [0; 28];
    // Ethernet, IPv4, their lengths, request.
    packet[..8].copy_from_slice(&[0, 1, 8, 0, 6, 4, 0, 1]);
    packet[8..14].copy_from_slice(&mac);
    packet[14..18].copy_from_slice(&addr.octets());
    packet[24..28].copy_from_slice(&addr.octets());
    packet
}

/// The hardware address of an Ethernet interface.
///
/// # Errors
/// Of the kernel: no such interface, no Ethernet.
pub fn read_hardware_address(ifname: &str) -> io::Result<[u8; 6]> {
    hardware_address(&Socket::new(Domain::IPV4, Type::DGRAM.cloexec(), None)?, ifname)
}

fn hardware_address(socket: &impl AsFd, ifname: &str) -> io::Result<[u8; 6]> {
    let mut request = new_ifreq(ifname)?;
    // SAFETY: SIOCGIFHWADDR reads and writes one `ifreq`, which outlives the call.
    check_syscall(unsafe {
        libc::ioctl(
            socket.as_fd().as_raw_fd(),
            libc::SIOCGIFHWADDR as _,
            ptr::from_mut(&mut request),
        )
    })?;
    // SAFETY: SIOCGIFHWADDR fills the address; any bytes are a valid `sockaddr`.
    let address = unsafe { request.ifr_ifru.ifru_hwaddr };
    if address.sa_family != libc::ARPHRD_ETHER {
        return Err(io::ErrorKind::Unsupported.into());
    }
    let mut mac = [0; 6];
    for (to, from) in mac.iter_mut().zip(address.sa_data) {
        *to = from as u8;
    }
    Ok(mac)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_announcement_asks_for_its_own_address() {
        let packet = announcement([2, 0, 0, 0, 0, 7], Ipv4Addr::new(10, 1, 0, 3));
        assert_eq!(packet[..8], [0, 1, 8, 0, 6, 4, 0, 1]);
        assert_eq!(packet[8..18], [2, 0, 0, 0, 0, 7, 10, 1, 0, 3]);
        assert_eq!(packet[18..], [0, 0, 0, 0, 0, 0, 10, 1, 0, 3]);
    }

    #[test]
    fn an_interface_that_is_not_there_is_an_error() {
        assert!(announce_address("no-such-if", 1, Ipv4Addr::new(10, 1, 0, 3)).is_err());
    }
}
