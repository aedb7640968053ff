//! Preconditions of an adapter, checked before anything is set up: each one that fails is one line
//! with its remedy (C-13).

use std::path::Path;

use netft::config::AdapterBackend;
use rustix::process::{Resource, getrlimit, setrlimit};

use super::privileges;
use crate::exit::ExitError;

/// Descriptors for sockets, queues, netlink, the runtime and control clients.
const MIN_DESCRIPTORS: u64 = 128;

/// Checks the TUN device and the capability, unless this is a witness, and the descriptor limit.
///
/// # Errors
/// The first precondition that fails.
pub(super) fn check_environment(backend: AdapterBackend) -> Result<(), ExitError> {
    if !backend.has_device() {
        return raise_descriptor_limit();
    }
    if !Path::new("/dev/net/tun").exists() {
        return Err(ExitError::bad_environment(
            "there is no /dev/net/tun\n  = help: `modprobe tun`; give a container the device \
             (`--device /dev/net/tun`)",
        ));
    }
    if !privileges::has_net_admin() {
        return Err(ExitError::bad_environment(
            "this process has no CAP_NET_ADMIN\n  = help: run as root or by the systemd unit; \
             give a container the capability (`--cap-add NET_ADMIN`)",
        ));
    }
    raise_descriptor_limit()
}

/// Raises the soft limit of open files to the hard one.
fn raise_descriptor_limit() -> Result<(), ExitError> {
    let mut limit = getrlimit(Resource::Nofile);
    let hard = limit.maximum;
    if hard.is_some_and(|hard| hard < MIN_DESCRIPTORS) {
        let hard = hard.unwrap_or_default();
        return Err(ExitError::bad_environment(format!(
            "the open file limit is {hard}, {MIN_DESCRIPTORS} are needed\n  = help: raise the \
             limit: \
             `ulimit -n 1024`, or LimitNOFILE= in the systemd unit"
        )));
    }
    limit.current = limit.maximum;
    // A limit that stays low shows as a socket that cannot be opened.
    match setrlimit(Resource::Nofile, limit) {
        Ok(()) => tracing::debug!(limit = ?limit.current, "open file limit raised"),
        Err(error) => tracing::warn!(%error, "open file limit not raised"),
    }
    Ok(())
}
