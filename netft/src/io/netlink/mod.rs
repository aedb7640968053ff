//! The kernel's interfaces, addresses and routes, over `rtnetlink`, which only this module and the
//! lab name. Callers see plain values. Decides nothing.
//!
//! Requests and notices use two sockets: the kernel marks a notice caused by a request with that
//! request's number, and on a shared socket it would be taken for the answer and lost.
//! Every request has a deadline, so that a lost answer cannot hold up its caller.

mod adapter;
mod convert;
mod interfaces;
mod monitor;
mod types;

use std::{
    future::Future,
    io,
    sync::{Mutex, PoisonError},
};

use rtnetlink::{Handle, sys::AsyncSocket};
use tokio::task::JoinHandle;

use crate::io::netlink::types::REQUEST_TIMEOUT;
pub use crate::io::netlink::{
    monitor::NetlinkMonitor,
    types::{
        AdapterAddr, AdapterState, ConfiguredAdapter, DeviceInfo, DeviceKind, HostRoute,
        NetlinkChanges, NetlinkError, ROUTE_PROTOCOL, StackedLink,
    },
};

/// A socket for requests. Must be used inside a tokio runtime, in the network namespace of the
/// thread that opened it.
#[derive(Debug)]
pub struct Netlink {
    connection: Mutex<NetlinkConnection>,
}

#[derive(Debug)]
struct NetlinkConnection {
    handle: Handle,
    task: JoinHandle<()>,
}

impl NetlinkConnection {
    fn open() -> Result<Self, NetlinkError> {
        let (mut connection, handle, _) =
            rtnetlink::new_connection().map_err(NetlinkError::Open)?;
        // Lets the kernel filter dumps by interface. Kernels before 4.20 send everything, and the
        // filters here do the rest.
        let _ = connection.socket_mut().socket_mut().set_netlink_get_strict_chk(true);
        Ok(Self { handle, task: tokio::spawn(connection) })
    }
}

impl Drop for NetlinkConnection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Netlink {
    /// Opens the socket.
    ///
    /// # Errors
    /// [`NetlinkError::Open`].
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn open() -> Result<Self, NetlinkError> {
        Ok(Self { connection: Mutex::new(NetlinkConnection::open()?) })
    }

    /// The handle to ask with; the socket is opened anew if it was shut down by an error.
    fn handle(&self) -> Result<Handle, NetlinkError> {
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        if connection.task.is_finished() {
            *connection = NetlinkConnection::open()?;
        }
        Ok(connection.handle.clone())
    }
}

/// Waits for the answer to one request.
async fn await_reply<T>(
    what: impl FnOnce() -> String,
    request: impl Future<Output = Result<T, rtnetlink::Error>>,
) -> Result<T, NetlinkError> {
    match tokio::time::timeout(REQUEST_TIMEOUT, request).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(rtnetlink::Error::NetlinkError(message))) => {
            Err(NetlinkError::Refused { what: what(), source: message.to_io() })
        }
        Ok(Err(other)) => {
            Err(NetlinkError::Refused { what: what(), source: io::Error::other(other.to_string()) })
        }
        Err(_) => Err(NetlinkError::NoAnswer { what: what() }),
    }
}

/// `None` for a thing that does not exist.
fn none_if_missing<T>(result: Result<T, NetlinkError>) -> Result<Option<T>, NetlinkError> {
    const NOT_FOUND_ERRNOS: [i32; 3] = [libc::ENODEV, libc::ESRCH, libc::EADDRNOTAVAIL];
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.errno().is_some_and(|errno| NOT_FOUND_ERRNOS.contains(&errno)) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
