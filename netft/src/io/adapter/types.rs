//! Errors and small types of the adapter, below the code that opens it.

use std::{io, path::PathBuf};

use crate::io::netlink::NetlinkError;

/// The most queues a device can have.
pub const MAX_QUEUES: usize = 256;

/// Whether `name` can be the name of an interface and of a file. Stricter than the kernel, which
/// takes `%d` as a request for a number and allows any letters.
pub(in crate::io::adapter) fn is_valid_name(name: &str) -> bool {
    (1..=15).contains(&name.len())
        && name != "."
        && name != ".."
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

/// The lock could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another daemon has it.
    #[error(
        "adapter {adapter} belongs to a running netftd ({}); stop it, or choose another adapter \
         name", describe_holder(*pid)
    )]
    AlreadyLocked {
        /// The adapter.
        adapter: String,
        /// The holder, if it wrote its number.
        pid: Option<u32>,
    },
    /// The name cannot be the name of an interface, so not of a file either.
    #[error("{0:?} is no name for an adapter: 1–15 letters, digits, '.', '_' and '-'")]
    BadName(String),
    /// Others can write to the directory, and so take or replace the lock.
    #[error("{path}: must belong to this user or root and be writable by nobody else (mode 0700)")]
    Unsafe {
        /// The directory.
        path: PathBuf,
    },
    /// The directory or the file cannot be used.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

fn describe_holder(pid: Option<u32>) -> String {
    pid.map_or_else(|| "pid unknown".into(), |pid| format!("pid {pid}"))
}

/// The adapter could not be opened. Each error is one line and says what to do.
#[derive(Debug, thiserror::Error)]
pub enum TunOpenError {
    /// The name cannot be the name of an interface.
    #[error("{0:?} is no name for an adapter: 1–15 letters, digits, '.', '_' and '-'")]
    BadName(String),
    /// No queue, or more than the kernel allows.
    #[error("{0} queues: 1–{MAX_QUEUES} are possible, and 1 with the plain backend")]
    Queues(usize),
    /// The kernel has no TUN driver here.
    #[error(
        "/dev/net/tun is missing; load the driver (modprobe tun), or give the container the device \
         (--device /dev/net/tun)"
    )]
    NoDriver,
    /// Not allowed.
    #[error("not allowed to {what}; run as root or grant CAP_NET_ADMIN")]
    NotAllowed {
        /// What.
        what: String,
    },
    /// Somebody has the device open.
    #[error("{name} is in use by another process; stop it, or choose another adapter name")]
    Taken {
        /// The device.
        name: String,
    },
    /// A device of that name is something else.
    #[error(
        "{name} exists and is no TUN device but {kind}; remove it (ip link del {name}), or choose \
         another adapter name"
    )]
    NotTun {
        /// The device.
        name: String,
        /// What it is, in the kernel's word.
        kind: String,
    },
    /// The kernel refused a request.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// Anything else.
    #[error("cannot {what}: {source}")]
    Io {
        /// What failed.
        what: String,
        /// Why.
        source: io::Error,
    },
}

/// Where an opened device comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceOrigin {
    /// It did not exist.
    Created,
    /// It was left by an earlier run; its addresses and routes may still be there.
    Adopted,
    /// It was left by an earlier run of the other backend, and was removed.
    Replaced,
}

/// Result of [`remove_leftover`](crate::io::adapter::tun::remove_leftover).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CleanupOutcome {
    /// The device is removed, with its addresses and routes.
    Removed,
    /// There was none.
    Nothing,
}

/// The device was left alone.
#[derive(Debug, thiserror::Error)]
pub enum CleanupError {
    /// A daemon owns it.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// Not ours to remove.
    #[error("{name} is no TUN device but {kind}: left alone")]
    NotTun {
        /// The device.
        name: String,
        /// What it is, in the kernel's word.
        kind: String,
    },
    /// A process without our lock has it open.
    #[error("{name} is in use by another process: left alone")]
    InUse {
        /// The device.
        name: String,
    },
    /// The kernel refused.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
}
