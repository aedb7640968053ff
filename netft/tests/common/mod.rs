//! Runs a test in network, user and mount namespaces of its own, so that it needs no root and
//! touches nothing of the host.

#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]
#![expect(unsafe_code, reason = "a child enters its namespaces between fork and exec")]

use std::{
    env,
    ffi::CString,
    fs, io,
    os::unix::process::CommandExt,
    process::{Command, Stdio},
};

const INSIDE_ENV: &str = "NETFT_TEST_INSIDE";
/// Set to 1, a machine that cannot run these tests fails them instead of skipping.
const REQUIRE_NETNS_ENV: &str = "NETFT_REQUIRE_NETNS";

/// Runs `body` inside fresh namespaces, by starting this program again for the one test `name`.
pub fn in_namespace(name: &str, body: impl AsyncFnOnce()) {
    if env::var_os(INSIDE_ENV).is_some() {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().build().unwrap().block_on(body());
        return;
    }
    if let Err(error) = fs::OpenOptions::new().read(true).write(true).open("/dev/net/tun") {
        return skip(name, &format!("/dev/net/tun: {error}"));
    }
    let maps = [
        ("/proc/self/setgroups", "deny".to_owned()),
        ("/proc/self/uid_map", format!("0 {} 1", rustix::process::getuid().as_raw())),
        ("/proc/self/gid_map", format!("0 {} 1", rustix::process::getgid().as_raw())),
    ]
    .map(|(path, text)| (CString::new(path).unwrap(), text));
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", name, "--nocapture", "--test-threads=1"]).env(INSIDE_ENV, "1");
    // SAFETY: between fork and exec `enter` only makes system calls, on memory prepared before.
    unsafe { command.pre_exec(move || enter(&maps)) };
    match command.status() {
        Ok(status) => assert!(status.success(), "{name} failed inside its namespace: {status}"),
        Err(error) => skip(name, &format!("no user and network namespaces: {error}")),
    }
}

fn skip(name: &str, why: &str) {
    assert!(env::var(REQUIRE_NETNS_ENV).as_deref() != Ok("1"), "{name} cannot run: {why}");
    eprintln!("SKIP {name}: {why}");
}

fn enter(maps: &[(CString, String)]) -> io::Result<()> {
    // SAFETY: no pointers.
    check(unsafe { libc::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNET | libc::CLONE_NEWNS) })?;
    for (path, text) in maps {
        // SAFETY: the path ends with a zero; the text is `len` bytes; both outlive the calls.
        unsafe {
            let fd = libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
            check(fd)?;
            let written = libc::write(fd, text.as_ptr().cast(), text.len());
            libc::close(fd);
            check(written as libc::c_int)?;
        }
    }
    Ok(())
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Runs `ip` with the words of `args`; its output.
pub fn ip(args: &str) -> String {
    let output =
        Command::new("ip").args(args.split_whitespace()).stderr(Stdio::piped()).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {args}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}
