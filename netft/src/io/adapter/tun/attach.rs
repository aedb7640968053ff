//! Attaches queues to a device.

use std::io;

use crate::io::{adapter::tun::OpenError, fib::TunQueue, sys::tun};

/// Queues with super-packets. A device that must not exist yet is created.
///
/// Offloads and header size belong to the device and survive on a persistent one: both are set at
/// every attach, whatever was there before.
pub(super) fn offload(name: &str, count: usize, create: bool) -> Result<Vec<TunQueue>, OpenError> {
    let mut queues = Vec::with_capacity(count);
    for place in 0..count {
        let fd = tun::open().map_err(opening)?;
        let flags =
            tun::Flags { multi_queue: true, vnet_hdr: true, exclusive: create && place == 0 };
        tun::attach(&fd, name, flags).map_err(|error| attaching(name, error))?;
        if !tun::flags(&fd).map_err(failed(name, "read the flags of"))?.1.vnet_hdr {
            // Another process attached in between without the header, and decided.
            return Err(OpenError::Taken { name: name.into() });
        }
        tun::set_vnet_hdr_size(&fd, tun::VNET_HDR_SIZE)
            .map_err(failed(name, "set the header size of"))?;
        tun::set_offload(&fd, tun::OFFLOADS)
            .or_else(|_| tun::set_offload(&fd, tun::OFFLOADS_WITHOUT_USO))
            .map_err(failed(name, "set the offloads of"))?;
        queues.push(TunQueue { fd, vnet_hdr: true });
    }
    // Last, so that a device that could not be set up goes away with its queues.
    if let Some(queue) = queues.first() {
        tun::set_persist(&queue.fd, true).map_err(failed(name, "keep"))?;
    }
    Ok(queues)
}

/// One queue with one packet per read and write, through the `tun-tap` crate.
pub(super) fn plain(name: &str) -> Result<TunQueue, OpenError> {
    // Opened here first, so that the error tells the missing driver from the missing right.
    drop(tun::open().map_err(opening)?);
    let device = tun_tap::Iface::without_packet_info(name, tun_tap::Mode::Tun)
        .map_err(|error| attaching(name, error))?;
    device.set_non_blocking().map_err(failed(name, "set up"))?;
    let fd = tun::into_fd(device);
    // A persistent device keeps its offloads, and without a header the kernel would hand over
    // giant packets with unfinished checksums, and no word about either.
    tun::set_offload(&fd, 0).map_err(failed(name, "clear the offloads of"))?;
    tun::set_persist(&fd, true).map_err(failed(name, "keep"))?;
    Ok(TunQueue { fd, vnet_hdr: false })
}

fn opening(error: io::Error) -> OpenError {
    let what = format!("open {}", tun::DEVICE);
    match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => OpenError::NoDriver,
        Some(libc::EACCES | libc::EPERM) => OpenError::NotAllowed { what },
        _ => OpenError::Io { what, source: error },
    }
}

fn attaching(name: &str, error: io::Error) -> OpenError {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => {
            OpenError::NotAllowed { what: format!("create the adapter {name}") }
        }
        Some(libc::EBUSY) => OpenError::Taken { name: name.into() },
        _ => OpenError::Io { what: format!("create the adapter {name}"), source: error },
    }
}

fn failed(name: &str, what: &str) -> impl FnOnce(io::Error) -> OpenError {
    let what = format!("{what} the adapter {name}");
    move |source| OpenError::Io { what, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_is_one_line_with_a_remedy() {
        let errno = io::Error::from_raw_os_error;
        for (error, remedy) in [
            (opening(errno(libc::ENOENT)), "modprobe tun"),
            (opening(errno(libc::ENODEV)), "modprobe tun"),
            (opening(errno(libc::EACCES)), "CAP_NET_ADMIN"),
            (attaching("netft0", errno(libc::EPERM)), "CAP_NET_ADMIN"),
            (attaching("netft0", errno(libc::EBUSY)), "another adapter name"),
        ] {
            let text = error.to_string();
            assert!(text.contains(remedy) && !text.contains('\n'), "{text}");
        }
    }
}
