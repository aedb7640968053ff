//! Users and processes that own files, locks and ports.

/// Returns whether files of this user are as trustworthy as this process's own: root's and its own.
pub fn is_trusted_user(uid: u32) -> bool {
    uid == 0 || uid == rustix::process::geteuid().as_raw()
}

/// A process as messages name it; `None` in another PID namespace, or if it is not known.
pub(crate) fn describe_process(pid: Option<u32>) -> String {
    pid.map_or_else(|| "pid unknown here".into(), |pid| format!("pid {pid}"))
}
