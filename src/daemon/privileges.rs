//! Privileges of this process: the two capabilities the adapter needs, a third for a port below
//! 1024, nothing else (S-14), and no core file that could hold a key (S-11).

use caps::{CapSet, Capability, CapsHashSet};
use rustix::process::DumpableBehavior;

/// For the TUN device, addresses, routes, and sockets bound to interfaces.
const KEPT_CAPABILITIES: [Capability; 2] = [Capability::CAP_NET_ADMIN, Capability::CAP_NET_RAW];

/// Ports below this need CAP_NET_BIND_SERVICE (ip(7)).
const PRIVILEGED_PORT_END: u16 = 1024;

/// Drops every other capability; [`drop_bind_capability`] decides on the third. Capabilities belong
/// to threads: must be called before any is started.
///
/// Returns what could not be dropped; the daemon works without that.
pub(super) fn drop_privileges() -> Vec<String> {
    let mut failed = Vec::new();
    let mut note = |what: &str, result: Result<(), String>| {
        if let Err(error) = result {
            failed.push(format!("{what}: {error}"));
        }
    };
    let kept = KEPT_CAPABILITIES.into_iter().chain([Capability::CAP_NET_BIND_SERVICE]).collect();
    note("capabilities", drop_capabilities(&kept).map_err(|error| error.to_string()));
    let result = rustix::thread::set_no_new_privs(true);
    note("no_new_privs", result.map_err(|error| error.to_string()));
    let result = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable);
    note("dumpable", result.map_err(|error| error.to_string()));
    failed
}

/// Drops CAP_NET_BIND_SERVICE unless one of `ports` is privileged; port 0 is any. Returns what
/// could not be dropped.
pub(super) fn drop_bind_capability(ports: &[u16]) -> Option<String> {
    if needs_bind_capability(ports) {
        return None;
    }
    let dropped = drop_capabilities(&KEPT_CAPABILITIES.into_iter().collect());
    dropped.err().map(|error| format!("capabilities: {error}"))
}

fn needs_bind_capability(ports: &[u16]) -> bool {
    ports.iter().any(|port| (1..PRIVILEGED_PORT_END).contains(port))
}

/// Drops every capability of this thread, for one that needs none.
pub(super) fn drop_all_capabilities() {
    if let Err(error) = drop_capabilities(&CapsHashSet::new()) {
        tracing::debug!(%error, "capabilities not dropped");
    }
}

fn drop_capabilities(kept: &CapsHashSet) -> Result<(), caps::errors::CapsError> {
    // The bounding set first, while this thread may still change it.
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP)? {
        for capability in caps::read(None, CapSet::Bounding)?.difference(kept) {
            caps::drop(None, CapSet::Bounding, *capability)?;
        }
    }
    caps::clear(None, CapSet::Ambient)?;
    caps::clear(None, CapSet::Inheritable)?;
    let permitted = caps::read(None, CapSet::Permitted)?;
    let kept: CapsHashSet = permitted.intersection(kept).copied().collect();
    caps::set(None, CapSet::Effective, &kept)?;
    caps::set(None, CapSet::Permitted, &kept)
}

/// True if this thread may create an adapter.
pub(super) fn has_net_admin() -> bool {
    caps::has_cap(None, CapSet::Effective, Capability::CAP_NET_ADMIN).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_port_below_1024_keeps_the_third_capability() {
        assert!(needs_bind_capability(&[3343, 843]) && needs_bind_capability(&[1023]));
        assert!(!needs_bind_capability(&[3343, 0, 1024]));
    }

    #[test]
    fn s_14_only_two_capabilities_are_left() {
        // A thread of its own: dropped capabilities cannot be regained. The process-wide settings
        // (bounding set, no_new_privs) do not disturb other tests.
        std::thread::spawn(|| {
            let kept: CapsHashSet = KEPT_CAPABILITIES.into_iter().collect();
            drop_capabilities(&kept).unwrap();
            for set in [CapSet::Effective, CapSet::Permitted] {
                assert!(caps::read(None, set).unwrap().is_subset(&kept));
            }
            assert!(caps::read(None, CapSet::Inheritable).unwrap().is_empty());
        })
        .join()
        .unwrap();
    }
}
