//! The ioctls of `/dev/net/tun`.

#![expect(unsafe_code, reason = "ioctls of /dev/net/tun have no safe wrapper")]

use std::{
    fs::OpenOptions,
    io,
    mem::zeroed,
    os::{
        fd::{AsFd, AsRawFd, FromRawFd, IntoRawFd, OwnedFd},
        unix::fs::OpenOptionsExt,
    },
    ptr,
};

use libc::{c_int, c_ulong};

/// Device node of the TUN driver.
pub const TUN_DEVICE_PATH: &str = "/dev/net/tun";

/// All offloads of the packet path: those of [`OFFLOADS_WITHOUT_TUNNELS`], also inside UDP tunnels
/// with and without an outer checksum (`TUN_F_UDP_TUNNEL_GSO`, `TUN_F_UDP_TUNNEL_GSO_CSUM`).
pub const ALL_OFFLOADS: u32 = OFFLOADS_WITHOUT_TUNNELS | 0x080 | 0x100;

/// Offloads of kernels before 6.17: partial checksums, TCP and UDP segmentation.
pub const OFFLOADS_WITHOUT_TUNNELS: u32 =
    OFFLOADS_WITHOUT_USO | libc::TUN_F_USO4 | libc::TUN_F_USO6;

/// Offloads of kernels before 6.2.
pub const OFFLOADS_WITHOUT_USO: u32 =
    libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN;

/// Flags of a queue attached to a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TunFlags {
    /// The device has several queues.
    pub multi_queue: bool,
    /// Every packet has a `virtio_net_hdr` before it.
    pub vnet_hdr: bool,
    /// Fail with `EBUSY` when the device exists. Never reported by [`queue_flags`].
    pub exclusive: bool,
}

/// Opens a queue that belongs to no device: non-blocking, closed on exec.
///
/// # Errors
/// Of `open`: `ENOENT` without the device node, `ENODEV` without the module, `EACCES`.
pub fn open_queue() -> io::Result<OwnedFd> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(TUN_DEVICE_PATH)
        .map(OwnedFd::from)
}

/// Attaches a queue to the TUN device `name`, which is created if it does not exist.
///
/// # Errors
/// `EPERM` without `CAP_NET_ADMIN`, `EBUSY` when every queue is taken or the device must not
/// exist, `EINVAL` when a device of that name has other flags or is no TUN, and for a name longer
/// than 15 bytes.
pub fn attach_queue(queue: &impl AsFd, name: &str, flags: TunFlags) -> io::Result<()> {
    let mut bits = libc::IFF_TUN | libc::IFF_NO_PI;
    for (wanted, bit) in [
        (flags.multi_queue, libc::IFF_MULTI_QUEUE),
        (flags.vnet_hdr, libc::IFF_VNET_HDR),
        (flags.exclusive, libc::IFF_TUN_EXCL),
    ] {
        if wanted {
            bits |= bit;
        }
    }
    let mut request = new_ifreq(name)?;
    // The bits are sixteen; IFF_TUN_EXCL is the sign.
    request.ifr_ifru.ifru_flags = bits as u16 as i16;
    // SAFETY: TUNSETIFF reads and writes one `ifreq`, which outlives the call.
    check_syscall(unsafe {
        libc::ioctl(queue.as_fd().as_raw_fd(), libc::TUNSETIFF as _, ptr::from_mut(&mut request))
    })
}

/// Present name of a queue's device, and the flags of its attachment.
///
/// # Errors
/// `EBADFD` when the device is gone or the queue was never attached.
pub fn queue_flags(queue: &impl AsFd) -> io::Result<(String, TunFlags)> {
    let mut request = new_ifreq("")?;
    // SAFETY: TUNGETIFF writes one `ifreq`, which outlives the call.
    check_syscall(unsafe {
        libc::ioctl(queue.as_fd().as_raw_fd(), libc::TUNGETIFF as _, ptr::from_mut(&mut request))
    })?;
    // SAFETY: TUNGETIFF fills the flags; any bits are a valid `c_short`.
    let bits = c_int::from(unsafe { request.ifr_ifru.ifru_flags } as u16);
    let flags = TunFlags {
        multi_queue: bits & libc::IFF_MULTI_QUEUE != 0,
        vnet_hdr: bits & libc::IFF_VNET_HDR != 0,
        exclusive: false,
    };
    Ok((ifreq_name(&request), flags))
}

/// Sets the offloads that the reader supports. A property of the device: it survives on a
/// persistent one.
///
/// # Errors
/// `EINVAL` for a bit the kernel does not know.
pub fn set_offload(queue: &impl AsFd, mask: u32) -> io::Result<()> {
    // SAFETY: TUNSETOFFLOAD takes its argument by value.
    check_syscall(unsafe {
        libc::ioctl(queue.as_fd().as_raw_fd(), libc::TUNSETOFFLOAD as _, c_ulong::from(mask))
    })
}

/// Sets the size of the header before each packet. A property of the device.
///
/// # Errors
/// `EINVAL` for a size the kernel does not know.
pub fn set_vnet_hdr_size(queue: &impl AsFd, size: c_int) -> io::Result<()> {
    // SAFETY: TUNSETVNETHDRSZ reads one `int`, which outlives the call.
    check_syscall(unsafe {
        libc::ioctl(queue.as_fd().as_raw_fd(), libc::TUNSETVNETHDRSZ as _, ptr::from_ref(&size))
    })
}

/// Size of the header before each packet.
///
/// # Errors
/// `EBADFD` when the device is gone.
pub fn vnet_hdr_size(queue: &impl AsFd) -> io::Result<c_int> {
    let mut size = 0;
    // SAFETY: TUNGETVNETHDRSZ writes one `int`, which outlives the call.
    check_syscall(unsafe {
        libc::ioctl(queue.as_fd().as_raw_fd(), libc::TUNGETVNETHDRSZ as _, ptr::from_mut(&mut size))
    })?;
    Ok(size)
}

/// Sets whether the device remains when its last queue is closed.
///
/// # Errors
/// `EBADFD` when the device is gone.
pub fn set_persist(queue: &impl AsFd, persist: bool) -> io::Result<()> {
    // SAFETY: TUNSETPERSIST takes its argument by value.
    check_syscall(unsafe {
        libc::ioctl(queue.as_fd().as_raw_fd(), libc::TUNSETPERSIST as _, c_ulong::from(persist))
    })
}

/// Takes the descriptor of a device of the `tun-tap` crate.
pub(crate) fn into_fd(device: tun_tap::Iface) -> OwnedFd {
    // SAFETY: `into_raw_fd` gives up ownership of an open descriptor.
    unsafe { OwnedFd::from_raw_fd(device.into_raw_fd()) }
}

/// An `ifreq` for the interface `name`.
pub(super) fn new_ifreq(name: &str) -> io::Result<libc::ifreq> {
    // SAFETY: `ifreq` is plain data, for which zeros are valid.
    let mut request: libc::ifreq = unsafe { zeroed() };
    // One byte is left for the end of the string.
    if name.len() >= request.ifr_name.len() || name.contains('\0') {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    Ok(request)
}

/// The name in an `ifreq` that the kernel filled.
pub(super) fn ifreq_name(request: &libc::ifreq) -> String {
    let bytes: Vec<u8> =
        request.ifr_name.iter().take_while(|byte| **byte != 0).map(|byte| *byte as u8).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The result of a system call that returns -1 on failure.
pub(super) fn check_syscall(result: c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
