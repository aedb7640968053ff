//! Attachment of queues to a device.

use std::{io, os::fd::OwnedFd};

use netft_proto::packet::virtio_net::VnetFormat;

use crate::io::{adapter::types::TunOpenError, socket::TunQueue, sys::tun};

/// Attaches queues with segmentation offload. `create`: the device must not exist yet.
///
/// Offloads and header size belong to the device and survive on a persistent one: both are set at
/// every attach, whatever was there before.
pub(super) fn attach_offload(
    name: &str,
    count: usize,
    create: bool,
) -> Result<Vec<TunQueue>, TunOpenError> {
    let mut queues = Vec::with_capacity(count);
    for place in 0..count {
        let fd = tun::open_queue().map_err(open_error)?;
        let flags =
            tun::TunFlags { multi_queue: true, vnet_hdr: true, exclusive: create && place == 0 };
        tun::attach_queue(&fd, name, flags).map_err(|error| attach_error(name, error))?;
        if !tun::queue_flags(&fd).map_err(io_error(name, "read the flags of"))?.1.vnet_hdr {
            // Another process created the device in between, without the header.
            return Err(TunOpenError::Taken { name: name.into() });
        }
        let format = enable_offloads(&fd, name)?;
        queues.push(TunQueue { fd, format });
    }
    // Last, so that a device that could not be set up disappears with its queues.
    if let Some(queue) = queues.first() {
        tun::set_persist(&queue.fd, true).map_err(io_error(name, "keep"))?;
    }
    Ok(queues)
}

/// Asks for the offloads that the kernel has.
fn enable_offloads(fd: &OwnedFd, name: &str) -> Result<VnetFormat, TunOpenError> {
    let set_header = |format: VnetFormat| {
        tun::set_vnet_hdr_size(fd, format.header_len() as i32)
            .map_err(io_error(name, "set the header size of"))
    };
    // The kernel describes a packet in a tunnel in the longer header only, so that comes first. Its
    // byte order is little-endian.
    if cfg!(target_endian = "little") {
        set_header(VnetFormat::Tunnel)?;
        if tun::set_offload(fd, tun::ALL_OFFLOADS).is_ok() {
            return Ok(VnetFormat::Tunnel);
        }
        tracing::debug!(adapter = name, "no tunnel offload: it needs Linux 6.17");
    }
    tun::set_offload(fd, tun::OFFLOADS_WITHOUT_TUNNELS)
        .or_else(|_| tun::set_offload(fd, tun::OFFLOADS_WITHOUT_USO))
        .map_err(io_error(name, "set the offloads of"))?;
    set_header(VnetFormat::Basic)?;
    Ok(VnetFormat::Basic)
}

/// Format of a queue that another process set up; `None` if this process knows none of its size.
pub(super) fn inherited_format(fd: &OwnedFd, vnet_hdr: bool) -> Option<VnetFormat> {
    if !vnet_hdr {
        return Some(VnetFormat::Absent);
    }
    let size = usize::try_from(tun::vnet_hdr_size(fd).ok()?).ok()?;
    [VnetFormat::Basic, VnetFormat::Tunnel].into_iter().find(|format| format.header_len() == size)
}

/// Attaches one queue without offloads, through the `tun-tap` crate.
pub(super) fn attach_plain(name: &str) -> Result<TunQueue, TunOpenError> {
    // Opened here first, so that the error distinguishes a missing driver from a missing
    // permission.
    drop(tun::open_queue().map_err(open_error)?);
    let device = tun_tap::Iface::without_packet_info(name, tun_tap::Mode::Tun)
        .map_err(|error| attach_error(name, error))?;
    device.set_non_blocking().map_err(io_error(name, "set up"))?;
    let fd = tun::into_fd(device);
    // A persistent device keeps its offloads: without a header the kernel would deliver
    // super-packets with partial checksums that nothing describes.
    tun::set_offload(&fd, 0).map_err(io_error(name, "clear the offloads of"))?;
    tun::set_persist(&fd, true).map_err(io_error(name, "keep"))?;
    Ok(TunQueue { fd, format: VnetFormat::Absent })
}

fn open_error(error: io::Error) -> TunOpenError {
    let what = format!("open {}", tun::TUN_DEVICE_PATH);
    match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => TunOpenError::NoDriver,
        Some(libc::EACCES | libc::EPERM) => TunOpenError::NotAllowed { what },
        _ => TunOpenError::Io { what, source: error },
    }
}

fn attach_error(name: &str, error: io::Error) -> TunOpenError {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => {
            TunOpenError::NotAllowed { what: format!("create the adapter {name}") }
        }
        Some(libc::EBUSY) => TunOpenError::Taken { name: name.into() },
        _ => TunOpenError::Io { what: format!("create the adapter {name}"), source: error },
    }
}

fn io_error(name: &str, what: &str) -> impl FnOnce(io::Error) -> TunOpenError {
    let what = format!("{what} the adapter {name}");
    move |source| TunOpenError::Io { what, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_is_one_line_with_a_remedy() {
        let errno = io::Error::from_raw_os_error;
        for (error, remedy) in [
            (open_error(errno(libc::ENOENT)), "modprobe tun"),
            (open_error(errno(libc::ENODEV)), "modprobe tun"),
            (open_error(errno(libc::EACCES)), "CAP_NET_ADMIN"),
            (attach_error("netft0", errno(libc::EPERM)), "CAP_NET_ADMIN"),
            (attach_error("netft0", errno(libc::EBUSY)), "another adapter name"),
        ] {
            let text = error.to_string();
            assert!(text.contains(remedy) && !text.contains('\n'), "{text}");
        }
    }
}
