//! A laboratory of network namespaces: nodes joined by networks whose faults are ours to make.
//!
//! The demo and the kernel tests use it. It needs no root, no external program and no firewall:
//! the process re-executes itself as root of its own user namespace ([`enter_namespaces()`]),
//! builds nodes and networks through rtnetlink ([`Lab`]), breaks and heals them
//! ([`Lab::black_hole`] and its kin), measures what applications feel ([`probe`], [`transfer`]) and
//! runs daemons inside ([`daemon::Daemon`]). Nothing outside these namespaces is touched. Of the
//! project it uses `netft-proto` only, for a node's key and virtual addresses.

use std::{
    io,
    time::{Instant, SystemTime},
};

mod build;
pub mod capture;
pub mod checksums;
pub mod daemon;
mod enter;
mod fault;
mod kernel;
mod mtu;
mod nat;
mod netns;
pub mod probe;
mod scratch;
mod sys;
pub mod transfer;
mod wan;
pub mod wire;

pub use build::{Lab, NetworkLayout};
pub use enter::{EnterOutcome, enter_namespaces, in_namespace, in_namespace_for};
pub use kernel::KernelCounters;
pub use netns::{Netns, interface_index};
pub use scratch::ScratchDir;

/// Why the laboratory could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// The kernel or its security policy refuses user namespaces.
    #[error(
        "this system refuses new user namespaces ({0}): run as root, or allow them with \
         `sysctl -w user.max_user_namespaces=10000 kernel.unprivileged_userns_clone=1 \
         kernel.apparmor_restrict_unprivileged_userns=0` (keys your kernel lacks do not matter)"
    )]
    Namespaces(io::Error),
    /// The TUN device is missing or closed to this user.
    #[error(
        "/dev/net/tun cannot be opened ({0}): `modprobe tun`, or give the container \
         `--device /dev/net/tun`"
    )]
    Tun(io::Error),
    /// A netlink request failed.
    #[error("netlink: {what}: {source}")]
    Netlink {
        /// What was asked.
        what: String,
        /// The kernel's answer.
        source: Box<rtnetlink::Error>,
    },
    /// A system call failed.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A daemon or an operator command did not do what it should.
    #[error("{0}")]
    Daemon(String),
}

impl LabError {
    /// Whether this system refuses what the laboratory needs, whoever asks.
    pub fn is_refusal(&self) -> bool {
        const EPERM: i32 = -1;
        match self {
            Self::Namespaces(_) | Self::Tun(_) => true,
            // A namespace whose capabilities a security policy took away.
            Self::Netlink { source, .. } => matches!(
                &**source,
                rtnetlink::Error::NetlinkError(answer) if answer.raw_code() == EPERM
            ),
            Self::Io { .. } | Self::Daemon(_) => false,
        }
    }

    /// Turns an I/O error into [`LabError`], for `map_err`; `what` failed.
    pub fn io_error(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}

/// One moment on both clocks: the monotonic one of this process, and the one of event stamps.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// For intervals inside this process.
    pub monotonic: Instant,
    /// For comparison with time-stamps of other processes on this machine.
    pub wall: SystemTime,
}

impl Moment {
    /// The moment of the call.
    pub fn now() -> Self {
        Self { monotonic: Instant::now(), wall: SystemTime::now() }
    }
}
