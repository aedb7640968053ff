//! Errors of the lab.

use std::io;

/// Failure of a lab operation.
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
        /// Operation that failed.
        what: String,
        /// Error of the kernel.
        source: Box<rtnetlink::Error>,
    },
    /// A system call failed.
    #[error("{what}: {source}")]
    Io {
        /// Operation that failed.
        what: String,
        /// Error of the kernel.
        source: io::Error,
    },
    /// A daemon or an operator command failed or did not reach a state in time.
    #[error("{0}")]
    Daemon(String),
}

impl LabError {
    /// Returns true when this system refuses the lab's requirements to any caller.
    pub fn is_refusal(&self) -> bool {
        const RAW_EPERM: i32 = -1;
        match self {
            Self::Namespaces(_) | Self::Tun(_) => true,
            // A namespace whose capabilities a security policy took away.
            Self::Netlink { source, .. } => matches!(
                &**source,
                rtnetlink::Error::NetlinkError(answer) if answer.raw_code() == RAW_EPERM
            ),
            Self::Io { .. } | Self::Daemon(_) => false,
        }
    }

    /// Turns an I/O error of the operation `what` into [`LabError`], for `map_err`.
    pub fn io_error(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}
