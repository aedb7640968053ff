//! Users and processes that own files, locks and ports.

/// Returns whether files of this user are as trustworthy as this process's own: root's and its own.
pub fn is_trusted_user(uid: u32) -> bool {
    is_trusted_by(rustix::process::geteuid().as_raw(), uid)
}

/// The same for a process of the user `own`.
const fn is_trusted_by(own: u32, uid: u32) -> bool {
    uid == 0 || uid == own
}

/// A process as messages name it; `None` in another PID namespace, or if it is not known.
pub(crate) fn describe_process(pid: Option<u32>) -> String {
    pid.map_or_else(|| "pid unknown here".into(), |pid| format!("pid {pid}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_and_the_own_user_are_trusted() {
        for (own, uid, trusted) in [(0, 0, true), (0, 7, false), (7, 7, true), (7, 0, true)] {
            assert_eq!(is_trusted_by(own, uid), trusted, "{uid} by {own}");
        }
        assert!(!is_trusted_by(7, 8));
        assert!(is_trusted_user(rustix::process::geteuid().as_raw()));
    }
}
