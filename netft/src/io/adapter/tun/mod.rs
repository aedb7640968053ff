//! Opens the adapter's queues, and removes the device that a crash left: at start, when the adapter
//! was deleted, and for `netftd --cleanup`.
//!
//! The device is persistent: it outlives the daemon with its addresses and routes, so that a
//! restart breaks no connection. An existing device is adopted if no process has it open and it
//! fits the backend; a leftover of the other backend is replaced.

mod attach;
mod cleanup;

use std::{io, os::fd::OwnedFd, time::Duration};

use netft_proto::config::AdapterBackend;
use rustix::net::{AddressFamily, SocketType};

pub use crate::io::adapter::tun::cleanup::remove_leftover;
use crate::io::{
    adapter::types::{DeviceOrigin, MAX_QUEUES, TunOpenError, is_valid_name},
    netlink::{DeviceInfo, DeviceKind, Netlink},
    socket::TunQueue,
    sys,
};

/// Retries while the device is in use: a process that is being killed closes its queues a little
/// after its lock.
const BUSY_RETRIES: u32 = 10;
const BUSY_RETRY_DELAY: Duration = Duration::from_millis(50);

/// An opened adapter.
pub struct OpenedAdapter {
    /// The queues, all of one device, non-blocking.
    pub queues: Vec<TunQueue>,
    /// Interface index of the device.
    pub ifindex: u32,
    /// Origin of the device.
    pub origin: DeviceOrigin,
}

impl OpenedAdapter {
    /// Of a witness.
    pub const fn without_device() -> Self {
        Self { queues: Vec::new(), ifindex: 0, origin: DeviceOrigin::Created }
    }
}

/// Opens `queues` queues of the adapter `name`. The caller holds the adapter's
/// [lock](crate::io::adapter::lock) and configures the device afterwards.
///
/// # Errors
/// See [`TunOpenError`]. A device in use is retried for at most half a second.
pub async fn open_adapter(
    netlink: &Netlink,
    name: &str,
    backend: AdapterBackend,
    queues: usize,
) -> Result<OpenedAdapter, TunOpenError> {
    if !is_valid_name(name) {
        return Err(TunOpenError::BadName(name.into()));
    }
    let most = if backend == AdapterBackend::Plain { 1 } else { MAX_QUEUES };
    if !(1..=most).contains(&queues) {
        return Err(TunOpenError::Queues(queues));
    }
    for _ in 0..BUSY_RETRIES {
        match try_open(netlink, name, backend, queues).await {
            Err(TunOpenError::Taken { .. }) => tokio::time::sleep(BUSY_RETRY_DELAY).await,
            result => return result,
        }
    }
    try_open(netlink, name, backend, queues).await
}

/// Takes over the queues of the adapter `name` that another process handed over, whatever their
/// number; `None` if they are of another device or backend.
pub fn inherit_adapter(
    name: &str,
    backend: AdapterBackend,
    descriptors: Vec<OwnedFd>,
) -> Option<OpenedAdapter> {
    let vnet_hdr = backend == AdapterBackend::Offload;
    let as_queue = |fd: OwnedFd| {
        let flags = sys::tun::queue_flags(&fd);
        let fits = flags.is_ok_and(|(device, flags)| device == name && flags.vnet_hdr == vnet_hdr);
        let format = attach::inherited_format(&fd, vnet_hdr).filter(|_| fits)?;
        Some(TunQueue { fd, format })
    };
    // One ioctl, not a dump over netlink: packets wait meanwhile.
    let asked = rustix::net::socket(AddressFamily::UNIX, SocketType::DGRAM, None).ok()?;
    let ifindex = rustix::net::netdevice::name_to_index(&asked, name).ok()?;
    let queues: Vec<_> = descriptors.into_iter().map(as_queue).collect::<Option<_>>()?;
    let (count, origin) = (queues.len(), DeviceOrigin::HandedOver);
    tracing::info!(adapter = name, ifindex, queues = count, ?origin, "adapter opened");
    Some(OpenedAdapter { queues, ifindex, origin })
}

async fn try_open(
    netlink: &Netlink,
    name: &str,
    backend: AdapterBackend,
    queues: usize,
) -> Result<OpenedAdapter, TunOpenError> {
    let origin = decide_origin(name, netlink.find_device(name).await?, backend)?;
    if origin == DeviceOrigin::Replaced {
        netlink.remove_adapter(name).await?;
    }
    let queues = match backend {
        AdapterBackend::Offload => {
            attach::attach_offload(name, queues, origin != DeviceOrigin::Adopted)?
        }
        AdapterBackend::Plain => vec![attach::attach_plain(name)?],
        AdapterBackend::None => return Err(TunOpenError::Queues(queues)),
    };
    match netlink.find_device(name).await? {
        Some(device) => {
            let (ifindex, count) = (device.index, queues.len());
            tracing::info!(adapter = name, ifindex, queues = count, ?origin, "adapter opened");
            Ok(OpenedAdapter { queues, ifindex, origin })
        }
        None => Err(TunOpenError::Io {
            what: format!("find {name} after opening it"),
            source: io::Error::from_raw_os_error(libc::ENODEV),
        }),
    }
}

/// Decides whether a device with the adapter's name is created, adopted, replaced or refused.
fn decide_origin(
    name: &str,
    device: Option<DeviceInfo>,
    backend: AdapterBackend,
) -> Result<DeviceOrigin, TunOpenError> {
    match device.map(|device| device.kind) {
        None => Ok(DeviceOrigin::Created),
        Some(DeviceKind::Other(kind)) => Err(TunOpenError::NotTun { name: name.into(), kind }),
        Some(DeviceKind::Tun { in_use: true, .. }) => {
            Err(TunOpenError::Taken { name: name.into() })
        }
        Some(DeviceKind::Tun { multi_queue, .. }) => {
            // The kernel fixes this flag when the first queue creates the device.
            let fits = multi_queue == (backend == AdapterBackend::Offload);
            Ok(if fits { DeviceOrigin::Adopted } else { DeviceOrigin::Replaced })
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn device(kind: DeviceKind) -> Option<DeviceInfo> {
        Some(DeviceInfo { index: 7, name: "netft0".into(), kind })
    }

    fn tun(multi_queue: bool, in_use: bool) -> Option<DeviceInfo> {
        device(DeviceKind::Tun { multi_queue, vnet_hdr: true, persistent: true, in_use })
    }

    #[test]
    fn a_device_of_the_name_is_adopted_replaced_or_refused() {
        let cases = [
            (None, AdapterBackend::Offload, DeviceOrigin::Created),
            (None, AdapterBackend::Plain, DeviceOrigin::Created),
            (tun(true, false), AdapterBackend::Offload, DeviceOrigin::Adopted),
            (tun(false, false), AdapterBackend::Offload, DeviceOrigin::Replaced),
            (tun(true, false), AdapterBackend::Plain, DeviceOrigin::Replaced),
            (tun(false, false), AdapterBackend::Plain, DeviceOrigin::Adopted),
        ];
        for (device, backend, wanted) in cases {
            assert_eq!(
                decide_origin("netft0", device.clone(), backend).unwrap(),
                wanted,
                "{device:?}"
            );
        }
        for (multi_queue, backend) in [
            (true, AdapterBackend::Offload),
            (false, AdapterBackend::Offload),
            (true, AdapterBackend::Plain),
        ] {
            let error = decide_origin("netft0", tun(multi_queue, true), backend).unwrap_err();
            assert!(matches!(error, TunOpenError::Taken { .. }));
        }
        let tap = device(DeviceKind::Other("tap".into()));
        let text = decide_origin("netft0", tap, AdapterBackend::Offload).unwrap_err().to_string();
        assert!(text.contains("ip link del netft0") && !text.contains('\n'), "{text}");
    }
}
