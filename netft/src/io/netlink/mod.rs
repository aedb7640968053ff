//! Interfaces, addresses and routes of the kernel, over `rtnetlink`, which only this module and the
//! lab name. Callers see plain values.
//!
//! Requests and notifications use two sockets: the kernel gives a notification that a request
//! caused the sequence number of the request, so on a shared socket it would be taken for the
//! reply. Every request has a timeout, so that a lost reply cannot block its caller.

mod adapter;
mod convert;
mod interfaces;
mod monitor;
pub mod rules;
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
        AdapterAddr, AdapterState, ConfiguredAdapter, DeviceInfo, DeviceKind, HostRoute, Ipv6State,
        MAIN_TABLE, NetlinkChanges, NetlinkError, PolicyRule, ROUTE_PROTOCOL, StackedLink,
        TX_QUEUE_LEN,
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

    /// Handle for a request; the socket is reopened if an error has closed it.
    fn handle(&self) -> Result<Handle, NetlinkError> {
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        if connection.task.is_finished() {
            *connection = NetlinkConnection::open()?;
        }
        Ok(connection.handle.clone())
    }
}

/// Awaits the reply to one request.
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

/// Maps the error numbers of a missing object to `None`.
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
