//! Network namespaces, each held by a descriptor.

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

use crate::{error::LabError, sys};

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
        // On a thread of its own: a thread that changed its namespace must not be reused.
        let made = thread::spawn(|| -> io::Result<OwnedFd> {
            unshare(CloneFlags::CLONE_NEWNET)?;
            // No duplicate address detection (RFC 4862), inherited by every later interface. With a
            // read-only /proc/sys the `nodad` flag of the addresses does the same.
            let _ = std::fs::write("/proc/sys/net/ipv6/conf/default/accept_dad", "0");
            Ok(File::open("/proc/thread-self/ns/net")?.into())
        });
        let fd = made
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            .map_err(LabError::Namespaces)?;
        Ok(Self { name, fd })
    }

    /// Its name.
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

    /// A command that starts inside the namespace and is killed when its spawning thread ends.
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

    pub(crate) fn raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

/// Runs netlink requests in the namespace of the calling thread.
pub(crate) fn run_netlink_here<T, F, Fut>(what: &str, work: F) -> Result<T, LabError>
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

/// The index of the interface `name` in the namespace of `handle`.
///
/// # Errors
/// When there is none.
pub async fn interface_index(handle: &Handle, name: &str) -> Result<u32, rtnetlink::Error> {
    let mut found = handle.link().get().match_name(name.to_owned()).execute();
    match found.try_next().await? {
        Some(message) => Ok(message.header.index),
        None => Err(rtnetlink::Error::RequestFailed),
    }
}
