//! One network namespace, held by a descriptor.

use std::{
    ffi::OsStr,
    fs::File,
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd, RawFd},
    process::Command,
    thread,
};

use futures_util::TryStreamExt;
use nix::sched::{CloneFlags, setns, unshare};
use rtnetlink::Handle;

use super::{LabError, sys};

/// A network namespace that lives as long as this value or a process inside it.
#[derive(Debug)]
pub struct Netns {
    name: String,
    fd: OwnedFd,
}

impl Netns {
    /// A new, empty namespace; `name` appears in error messages only.
    ///
    /// # Errors
    /// When the kernel refuses (no `CAP_SYS_ADMIN` in the current user namespace).
    pub fn new(name: impl Into<String>) -> Result<Self, LabError> {
        let name = name.into();
        // The thread ends with the namespace open: a thread that changed its namespace must
        // never serve anyone else.
        let made = thread::spawn(|| -> io::Result<OwnedFd> {
            unshare(CloneFlags::CLONE_NEWNET)?;
            // Set before any interface exists, so that every one inherits it. Addresses are ready
            // at once, without duplicate address detection. Refusal (a read-only /proc/sys) only
            // costs time: addresses also carry the `nodad` flag.
            let _ = std::fs::write("/proc/sys/net/ipv6/conf/default/accept_dad", "0");
            Ok(File::open("/proc/thread-self/ns/net")?.into())
        });
        let fd = made
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            .map_err(LabError::Namespaces)?;
        Ok(Self { name, fd })
    }

    /// The name it was given.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `work` on a fresh thread inside the namespace and waits for it.
    ///
    /// Sockets opened by `work` stay in the namespace wherever they go afterwards.
    ///
    /// # Panics
    /// When `work` panics, or the namespace cannot be entered.
    pub fn run_inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                setns(self.fd.as_fd(), CloneFlags::CLONE_NEWNET)
                    .expect("a process that made a namespace may enter it");
                work()
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// A command that starts inside the namespace and is killed when the thread that spawned it
    /// ends.
    ///
    /// # Errors
    /// When no descriptor is left.
    pub fn command_inside(&self, program: impl AsRef<OsStr>) -> Result<Command, LabError> {
        let fd = self.fd.try_clone().map_err(LabError::io_error("duplicate a descriptor"))?;
        let mut command = Command::new(program);
        sys::join_netns_at_spawn(&mut command, fd);
        Ok(command)
    }

    /// Runs netlink requests inside the namespace and waits for them.
    ///
    /// # Errors
    /// The first error of `work`, with `what`.
    pub fn run_netlink<T, F, Fut>(&self, what: &str, work: F) -> Result<T, LabError>
    where
        T: Send,
        F: FnOnce(Handle) -> Fut + Send,
        Fut: Future<Output = Result<T, rtnetlink::Error>>,
    {
        self.run_inside(|| run_netlink_here(&format!("{what} in {}", self.name), work))
    }

    pub(super) fn raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

/// Asks the kernel in the namespace of the calling thread.
pub(super) fn run_netlink_here<T, F, Fut>(what: &str, work: F) -> Result<T, LabError>
where
    F: FnOnce(Handle) -> Fut,
    Fut: Future<Output = Result<T, rtnetlink::Error>>,
{
    let failed = |source| LabError::Netlink { what: what.to_owned(), source: Box::new(source) };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(LabError::io_error("start a runtime"))?;
    runtime.block_on(async {
        let (serve, handle, _) =
            rtnetlink::new_connection().map_err(LabError::io_error("open a netlink socket"))?;
        let serve = tokio::spawn(serve);
        let result = work(handle).await.map_err(failed);
        serve.abort();
        result
    })
}

/// The number of the interface `name` in the namespace of `handle`.
///
/// # Errors
/// The kernel's answer when there is none.
pub async fn interface_index(handle: &Handle, name: &str) -> Result<u32, rtnetlink::Error> {
    let mut found = handle.link().get().match_name(name.to_owned()).execute();
    match found.try_next().await? {
        Some(message) => Ok(message.header.index),
        None => Err(rtnetlink::Error::RequestFailed),
    }
}
