//! Asks one interface for its link speed by ioctl. Decides nothing.

#![expect(unsafe_code, reason = "SIOCETHTOOL has no safe wrapper")]

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
    ptr,
};

use super::{
    glink,
    tun::{check, request},
};

const ETHTOOL_GSET: u32 = 0x01;
/// `SPEED_UNKNOWN` of `linux/ethtool.h`.
const UNKNOWN: u32 = u32::MAX;

/// `struct ethtool_cmd` of `linux/ethtool.h`.
#[repr(C)]
#[derive(Default)]
struct EthtoolCmd {
    cmd: u32,
    supported: u32,
    advertising: u32,
    speed: u16,
    duplex: u8,
    port: u8,
    phy_address: u8,
    transceiver: u8,
    autoneg: u8,
    mdio_support: u8,
    maxtxpkt: u32,
    maxrxpkt: u32,
    speed_hi: u16,
    eth_tp_mdix: u8,
    eth_tp_mdix_ctrl: u8,
    lp_advertising: u32,
    reserved: [u32; 2],
}

/// The link speed of the interface of number `ifindex`, Mbit/s; `None` when the driver does not
/// know it or has none (virtual interfaces, links that are down).
///
/// # Errors
/// `ENODEV` when it is gone.
pub fn of(socket: &impl AsFd, ifindex: u32) -> io::Result<Option<u32>> {
    let mut command = EthtoolCmd { cmd: ETHTOOL_GSET, ..EthtoolCmd::default() };
    let mut request = request(&glink::name(socket, ifindex)?)?;
    request.ifr_ifru.ifru_data = ptr::from_mut(&mut command).cast();
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: SIOCETHTOOL reads one `ifreq` and, for GSET, reads and writes one `ethtool_cmd`
    // behind its pointer; both outlive the call.
    match check(unsafe { libc::ioctl(fd, libc::SIOCETHTOOL as _, ptr::from_mut(&mut request)) }) {
        Ok(()) => {
            let speed = u32::from(command.speed_hi) << 16 | u32::from(command.speed);
            // Drivers of the days of 16 bits say unknown in these.
            let known = ![0, UNKNOWN, u32::from(u16::MAX)].contains(&speed);
            Ok(known.then_some(speed))
        }
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Err(error),
        Err(_) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_loopback_interface_has_no_speed_and_a_missing_one_is_an_error() {
        assert_eq!(size_of::<EthtoolCmd>(), 44);
        let socket = glink::socket().unwrap();
        assert_eq!(of(&socket, 1).unwrap(), None);
        assert_eq!(of(&socket, u32::MAX).unwrap_err().raw_os_error(), Some(libc::ENODEV));
    }
}
