//! Errors and small types of the adapter, below the code that opens it.

use std::{io, path::PathBuf};

use crate::io::{netlink::NetlinkError, ownership::describe_process};

/// Maximum number of queues of a device.
pub const MAX_QUEUES: usize = 256;

/// Returns whether `name` is a valid interface and file name. Stricter than the kernel, which
/// replaces `%d` by a number and allows any letters.
pub(in crate::io::adapter) fn is_valid_name(name: &str) -> bool {
    (1..=15).contains(&name.len())
        && name != "."
        && name != ".."
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

/// Error of acquiring the lock.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another daemon holds it.
    #[error(
        "adapter {adapter} belongs to a running netftd ({}); stop it, or choose another adapter \
         name", describe_process(*pid)
    )]
    AlreadyLocked {
        /// The adapter.
        adapter: String,
        /// Process id of the holder, if it wrote one.
        pid: Option<u32>,
    },
    /// Not a valid interface name.
    #[error("{0:?} is not a valid adapter name: 1–15 letters, digits, '.', '_' and '-'")]
    BadName(String),
    /// Others can write to the directory, and so hold or replace the lock.
    #[error("{path}: must belong to this user or root and be writable by nobody else (mode 0700)")]
    Unsafe {
        /// The directory.
        path: PathBuf,
    },
    /// The directory or the file cannot be used.
    #[error("{path}: {source}")]
    Io {
        /// The path.
        path: PathBuf,
        /// The error of the kernel.
        source: io::Error,
    },
}

/// Error of opening the adapter: one line, with the remedy.
#[derive(Debug, thiserror::Error)]
pub enum TunOpenError {
    /// Not a valid interface name.
    #[error("{0:?} is not a valid adapter name: 1–15 letters, digits, '.', '_' and '-'")]
    BadName(String),
    /// No queue, or more than the kernel or the backend supports.
    #[error("{0} queues: 1–{MAX_QUEUES} are possible, and 1 with the plain backend")]
    Queues(usize),
    /// The TUN driver is missing.
    #[error(
        "/dev/net/tun is missing; load the driver (modprobe tun), or give the container the device \
         (--device /dev/net/tun)"
    )]
    NoDriver,
    /// Missing permission.
    #[error("not allowed to {what}; run as root or grant CAP_NET_ADMIN")]
    NotAllowed {
        /// The operation.
        what: String,
    },
    /// Another process has the device open.
    #[error("{name} is in use by another process; stop it, or choose another adapter name")]
    Taken {
        /// The device.
        name: String,
    },
    /// A device of that name is not a TUN device.
    #[error(
        "{name} exists and is not a TUN device but {kind}; remove it (ip link del {name}), or \
         choose another adapter name"
    )]
    NotTun {
        /// The device.
        name: String,
        /// Its type, as named by the kernel.
        kind: String,
    },
    /// The kernel refused a request.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// Anything else.
    #[error("cannot {what}: {source}")]
    Io {
        /// The operation.
        what: String,
        /// The error of the kernel.
        source: io::Error,
    },
}

/// Origin of an opened device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceOrigin {
    /// Its queues were handed over by the process that ran it.
    HandedOver,
    /// It did not exist.
    Created,
    /// Left by an earlier run, possibly with its addresses and routes.
    Adopted,
    /// Left by an earlier run with the other backend, and removed.
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

/// Error of the cleanup; the device is unchanged.
#[derive(Debug, thiserror::Error)]
pub enum CleanupError {
    /// A daemon owns it.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// Not a TUN device.
    #[error("{name} is not a TUN device but {kind}: left unchanged")]
    NotTun {
        /// The device.
        name: String,
        /// Its type, as named by the kernel.
        kind: String,
    },
    /// A process without the lock has it open.
    #[error("{name} is in use by another process: left unchanged")]
    InUse {
        /// The device.
        name: String,
    },
    /// The kernel refused.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
}
