//! Link speed of an interface (`ETHTOOL_GSET`, `ETHTOOL_SSET`).

#![expect(unsafe_code, reason = "SIOCETHTOOL has no safe wrapper")]

use std::{
    io,
    mem::offset_of,
    os::fd::{AsFd, AsRawFd},
    ptr,
};

use crate::io::sys::tun::{check_syscall, new_ifreq};

const ETHTOOL_GSET: u32 = 0x01;
const ETHTOOL_SSET: u32 = 0x02;
/// `SPEED_UNKNOWN`, in either width that drivers report.
const UNKNOWN_SPEEDS: [u32; 2] = [u32::MAX, u16::MAX as u32];

/// `struct ethtool_cmd` of `linux/ethtool.h`, with the fields that are not read grouped: every
/// driver supports it, also those with `ETHTOOL_GLINKSETTINGS`.
#[repr(C)]
#[derive(Default)]
struct EthtoolCmd {
    cmd: u32,
    /// `supported`, `advertising`.
    _link_modes: [u32; 2],
    speed: u16,
    /// `duplex`, `port`, `phy_address`, `transceiver`, `autoneg`, `mdio_support`.
    _port: [u8; 6],
    /// `maxtxpkt`, `maxrxpkt`.
    _coalescing: [u32; 2],
    speed_hi: u16,
    /// `eth_tp_mdix`, `eth_tp_mdix_ctrl`.
    _mdix: [u8; 2],
    /// `lp_advertising`, `reserved`.
    _partner: [u32; 3],
}

const _: () = assert!(size_of::<EthtoolCmd>() == 44);
const _: () = assert!(offset_of!(EthtoolCmd, speed) == 12);
const _: () = assert!(offset_of!(EthtoolCmd, speed_hi) == 28);

/// Speed of the interface named `ifname`, Mbit/s; `None` when its driver reports none or there is
/// no such interface.
pub fn link_speed(socket: &impl AsFd, ifname: &str) -> Option<u32> {
    let mut command = EthtoolCmd { cmd: ETHTOOL_GSET, ..EthtoolCmd::default() };
    run_ethtool(socket, ifname, &mut command).ok()?;
    let speed = u32::from(command.speed_hi) << 16 | u32::from(command.speed);
    (speed != 0 && !UNKNOWN_SPEEDS.contains(&speed)).then_some(speed)
}

/// Sets the speed that the interface named `ifname` reports, Mbit/s; `None`: unknown. TUN devices
/// take it for display, and keep their other settings.
///
/// # Errors
/// Of the kernel: no such interface, a driver without it (TUN before 4.20), no `CAP_NET_ADMIN`.
pub fn set_link_speed(socket: &impl AsFd, ifname: &str, speed: Option<u32>) -> io::Result<()> {
    let mut command = EthtoolCmd { cmd: ETHTOOL_GSET, ..EthtoolCmd::default() };
    run_ethtool(socket, ifname, &mut command)?;
    let speed = speed.unwrap_or(UNKNOWN_SPEEDS[0]);
    command.cmd = ETHTOOL_SSET;
    (command.speed, command.speed_hi) = (speed as u16, (speed >> 16) as u16);
    run_ethtool(socket, ifname, &mut command)
}

fn run_ethtool(socket: &impl AsFd, ifname: &str, command: &mut EthtoolCmd) -> io::Result<()> {
    let mut request = new_ifreq(ifname)?;
    request.ifr_ifru.ifru_data = ptr::from_mut(command).cast();
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: SIOCETHTOOL reads one `ifreq` and, for GSET and SSET, reads and writes one
    // `ethtool_cmd` behind its pointer; both outlive the call.
    check_syscall(unsafe { libc::ioctl(fd, libc::SIOCETHTOOL as _, ptr::from_mut(&mut request)) })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::io::sys::glink;

    #[test]
    fn the_loopback_interface_and_one_that_is_not_there_have_no_speed() {
        let socket = glink::open_socket().unwrap();
        assert_eq!(link_speed(&socket, "lo"), None);
        assert_eq!(link_speed(&socket, "no-such-dev"), None);
    }
}
