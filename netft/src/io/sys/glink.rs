//! Carrier state of an interface (`ETHTOOL_GLINK`).
//!
//! Netlink reports a lost carrier up to a second late, because the kernel batches link-watch events
//! of all interfaces; `ETHTOOL_GLINK` flushes that batch and returns the present state.

#![expect(unsafe_code, reason = "SIOCETHTOOL has no safe wrapper")]

use std::{
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    ptr,
};

use crate::io::sys::tun::{check_syscall, ifreq_name, new_ifreq};

const ETHTOOL_GLINK: u32 = 0x0a;

/// `struct ethtool_value` of `linux/ethtool.h`.
#[repr(C)]
struct EthtoolValue {
    cmd: u32,
    data: u32,
}

/// Opens a socket for the ioctls; any socket of the same network namespace will do.
///
/// # Errors
/// Of `socket`: no more descriptors or memory.
pub fn open_socket() -> io::Result<OwnedFd> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None)?;
    Ok(socket.into())
}

/// Returns whether the interface named `ifname` is up and has a carrier.
///
/// # Errors
/// `ENODEV` when no interface has that name. A rename makes the name stale: prefer
/// [`carrier_by_index`].
pub fn carrier_by_name(socket: &impl AsFd, ifname: &str) -> io::Result<bool> {
    let fd = socket.as_fd().as_raw_fd();
    let mut value = EthtoolValue { cmd: ETHTOOL_GLINK, data: 0 };
    let mut request = new_ifreq(ifname)?;
    request.ifr_ifru.ifru_data = ptr::from_mut(&mut value).cast();
    // SAFETY: SIOCETHTOOL reads one `ifreq` and, for GLINK, reads and writes one `ethtool_value`
    // behind its pointer; both outlive the call.
    match check_syscall(unsafe {
        libc::ioctl(fd, libc::SIOCETHTOOL as _, ptr::from_mut(&mut request))
    }) {
        Ok(()) => Ok(value.data != 0),
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => is_running(fd, ifname),
        Err(error) => Err(error),
    }
}

/// Returns whether the interface with index `ifindex` is up and has a carrier, whatever its name
/// is.
///
/// # Errors
/// `ENODEV` when it is gone.
pub fn carrier_by_index(socket: &impl AsFd, ifindex: u32) -> io::Result<bool> {
    carrier_by_name(socket, &interface_name(socket, ifindex)?)
}

/// Present name of an interface.
///
/// # Errors
/// `ENODEV` when it is gone.
pub fn interface_name(socket: &impl AsFd, ifindex: u32) -> io::Result<String> {
    let mut request = new_ifreq("")?;
    request.ifr_ifru.ifru_ifindex = ifindex as libc::c_int;
    // SAFETY: SIOCGIFNAME reads and writes one `ifreq`, which outlives the call.
    check_syscall(unsafe {
        libc::ioctl(socket.as_fd().as_raw_fd(), libc::SIOCGIFNAME as _, ptr::from_mut(&mut request))
    })?;
    Ok(ifreq_name(&request))
}

/// For drivers without `ETHTOOL_GLINK`: the operational state in the interface's flags.
fn is_running(fd: libc::c_int, ifname: &str) -> io::Result<bool> {
    let mut request = new_ifreq(ifname)?;
    // SAFETY: SIOCGIFFLAGS reads and writes one `ifreq`, which outlives the call.
    check_syscall(unsafe {
        libc::ioctl(fd, libc::SIOCGIFFLAGS as _, ptr::from_mut(&mut request))
    })?;
    // SAFETY: SIOCGIFFLAGS fills the flags; any bits are a valid `c_short`.
    let flags = libc::c_int::from(unsafe { request.ifr_ifru.ifru_flags });
    Ok(flags & libc::IFF_RUNNING != 0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_loopback_interface_has_a_carrier_and_a_missing_one_is_an_error() {
        let socket = open_socket().unwrap();
        assert_eq!(interface_name(&socket, 1).unwrap(), "lo");
        assert_eq!(carrier_by_name(&socket, "lo").unwrap(), carrier_by_index(&socket, 1).unwrap());
        let missing = carrier_by_name(&socket, "no-such-if").unwrap_err();
        assert_eq!(missing.raw_os_error(), Some(libc::ENODEV));
        let long = carrier_by_name(&socket, "a-name-of-16-byt").unwrap_err();
        assert_eq!(long.raw_os_error(), Some(libc::EINVAL));
        assert!(carrier_by_index(&socket, u32::MAX).is_err());
    }
}
