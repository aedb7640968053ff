//! Monitor of interface, address and route changes (netlink multicast groups).
//!
//! A notification carries no details: the receiver reads the state again. So the queue is four
//! bits, it cannot overflow, and unread notifications are merged. An overrun of the socket, where
//! the kernel dropped notifications, is itself a notification (resync).

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use futures_util::StreamExt;
use rtnetlink::{
    MulticastGroup, new_multicast_connection, packet_core::NetlinkPayload,
    packet_route::RouteNetlinkMessage, sys::AsyncSocket,
};
use tokio::{sync::Notify, task::JoinHandle};

use crate::io::netlink::types::{NetlinkChanges, NetlinkError};

const MULTICAST_GROUPS: [MulticastGroup; 7] = [
    MulticastGroup::Link,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
    MulticastGroup::Ipv4Rule,
    MulticastGroup::Ipv6Rule,
];

/// Receive buffer of the socket, bytes; beyond it the kernel drops notifications.
const RECEIVE_BUFFER: u32 = 1 << 20;

/// Delay before a failed socket is reopened.
const REOPEN_DELAY: Duration = Duration::from_secs(1);

const CHANGED_LINKS: u8 = 1;
const CHANGED_ADDRESSES: u8 = 2;
const CHANGED_ROUTES: u8 = 4;
const CHANGED_UNKNOWN: u8 = 8;

/// A socket for notifications. Stops when dropped.
#[derive(Debug)]
pub struct NetlinkMonitor {
    shared: Arc<MonitorShared>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct MonitorShared {
    bits: AtomicU8,
    notify: Notify,
}

impl MonitorShared {
    fn mark_changed(&self, bits: u8) {
        if bits != 0 {
            self.bits.fetch_or(bits, Ordering::AcqRel);
            self.notify.notify_one();
        }
    }
}

impl NetlinkMonitor {
    /// Opens the socket; notifications are collected from this call on.
    ///
    /// # Errors
    /// [`NetlinkError::Open`].
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn open() -> Result<Self, NetlinkError> {
        let shared = Arc::new(MonitorShared::default());
        let socket = open_socket()?;
        let task = tokio::spawn(run_monitor(Arc::clone(&shared), socket));
        Ok(Self { shared, task })
    }

    /// Waits for a change. Cancel-safe.
    pub async fn next(&mut self) -> NetlinkChanges {
        loop {
            let bits = self.shared.bits.swap(0, Ordering::AcqRel);
            if bits != 0 {
                let changes = NetlinkChanges {
                    links: bits & CHANGED_LINKS != 0,
                    addresses: bits & CHANGED_ADDRESSES != 0,
                    routes: bits & CHANGED_ROUTES != 0,
                    resync: bits & CHANGED_UNKNOWN != 0,
                };
                tracing::debug!(?changes, "netlink change");
                return changes;
            }
            self.shared.notify.notified().await;
        }
    }
}

impl Drop for NetlinkMonitor {
    fn drop(&mut self) {
        self.task.abort();
    }
}

type NotificationSocket = (
    rtnetlink::proto::Connection<RouteNetlinkMessage>,
    rtnetlink::Handle,
    futures_util::stream::BoxStream<'static, NetlinkPayload<RouteNetlinkMessage>>,
);

fn open_socket() -> Result<NotificationSocket, NetlinkError> {
    let (mut connection, handle, messages) =
        new_multicast_connection(&MULTICAST_GROUPS).map_err(NetlinkError::Open)?;
    // Best effort: a smaller buffer only causes earlier resyncs.
    let _ = connection.socket_mut().socket_mut().set_rx_buf_sz(RECEIVE_BUFFER);
    Ok((connection, handle, messages.map(|(message, _)| message.payload).boxed()))
}

async fn run_monitor(shared: Arc<MonitorShared>, socket: NotificationSocket) {
    let mut socket = Some(socket);
    loop {
        if let Some((mut connection, _handle, mut messages)) = socket.take() {
            loop {
                tokio::select! {
                    message = messages.next() => match message {
                        Some(payload) => shared.mark_changed(change_bits(&payload)),
                        None => break,
                    },
                    () = &mut connection => break,
                }
            }
            tracing::warn!("the netlink socket for notifications failed: reopening it");
        }
        tokio::time::sleep(REOPEN_DELAY).await;
        socket = open_socket()
            .inspect_err(|error| tracing::warn!(%error, "cannot reopen the netlink socket"))
            .ok();
        if socket.is_some() {
            shared.mark_changed(CHANGED_UNKNOWN);
        }
    }
}

fn change_bits(payload: &NetlinkPayload<RouteNetlinkMessage>) -> u8 {
    use RouteNetlinkMessage as Message;
    match payload {
        NetlinkPayload::InnerMessage(message) => match message {
            Message::NewLink(_) | Message::DelLink(_) => CHANGED_LINKS,
            Message::NewAddress(_) | Message::DelAddress(_) => CHANGED_ADDRESSES,
            Message::NewRoute(_) | Message::DelRoute(_) => CHANGED_ROUTES,
            Message::NewRule(_) | Message::DelRule(_) => CHANGED_ROUTES,
            _ => 0,
        },
        NetlinkPayload::Overrun(_) | NetlinkPayload::Error(_) => CHANGED_UNKNOWN,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_notifications_are_a_resync() {
        assert_eq!(change_bits(&NetlinkPayload::Overrun(Vec::new())), CHANGED_UNKNOWN);
        assert_eq!(change_bits(&NetlinkPayload::Noop), 0);
    }
}
