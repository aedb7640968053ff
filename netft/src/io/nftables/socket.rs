//! Netlink sockets of nf_tables: transactions, dumps and notifications.

use std::{
    io,
    time::{Duration, Instant},
};

use futures_util::FutureExt;
use rtnetlink::sys::{
    AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket, protocols::NETLINK_NETFILTER,
};
use socket2::{SockFilter, SockRef};

use super::{
    nfnetlink::{
        AttributeWriter, KernelMessage, MessageContent, attribute_text, encode_dump,
        find_attribute, message, split_messages,
    },
    table::encode_removal,
};

/// Timeout of a request: bounds the wait for a lost reply.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);
/// A transaction of another program comes as a burst of notifications.
const COALESCE_DELAY: Duration = Duration::from_millis(2);
/// Time between two reports of changes of other tables: some programs change theirs all the time.
/// Shorter than the time from a report to what it leads to.
const OTHER_TABLE_INTERVAL: Duration = Duration::from_secs(1);
/// Start of the names of the tables that enforce leases.
pub(crate) const FENCE_TABLE_PREFIX: &str = "netft_vip_";
/// `NFNLGRP_NFTABLES`.
const NOTIFICATION_GROUP: u32 = 7;

/// A socket for requests.
pub(crate) struct NftSocket {
    socket: TokioSocket,
    /// Its port: notifications of its own requests carry it.
    pub(crate) port: u32,
    sequence: u32,
}

impl NftSocket {
    /// Opens the socket.
    ///
    /// # Errors
    /// Of the kernel: it may have no netfilter.
    pub(crate) fn open() -> io::Result<Self> {
        let mut socket = TokioSocket::new(NETLINK_NETFILTER)?;
        let port = socket.socket_mut().bind_auto()?.port_number();
        Ok(Self { socket, port, sequence: 0 })
    }

    /// Removes a table; a missing one is no error.
    ///
    /// # Errors
    /// Of the kernel.
    pub(crate) async fn remove_table(&self, table: &str, family: i32) -> io::Result<()> {
        self.commit(encode_removal(table, family)).await
    }

    /// The packets that the named counters of a table counted.
    ///
    /// # Errors
    /// Of the kernel.
    pub(crate) async fn read_counters(
        &mut self,
        table: &str,
        family: i32,
    ) -> io::Result<Vec<(String, u64)>> {
        self.sequence += 1;
        let write = |body: &mut AttributeWriter| body.put_text(1, table);
        let request = encode_dump(message::GET_OBJECT, family, self.sequence, write);
        let mut counters = Vec::new();
        self.exchange(&request, |message| {
            if message.sequence != self.sequence {
                return None;
            }
            match message.content {
                MessageContent::Done | MessageContent::Acknowledged(0) => Some(Ok(())),
                MessageContent::Acknowledged(errno) => {
                    Some(Err(io::Error::from_raw_os_error(errno)))
                }
                MessageContent::Object(message::NEW_OBJECT, attributes) => {
                    counters.extend(read_counter(attributes, table));
                    None
                }
                MessageContent::Object(..) | MessageContent::Other => None,
            }
        })
        .await?;
        Ok(counters)
    }

    /// Applies a transaction.
    ///
    /// # Errors
    /// Of the kernel; nothing changed then.
    pub(crate) async fn commit(&self, (batch, last): (Vec<u8>, u32)) -> io::Result<()> {
        let mut refused = None;
        self.exchange(&batch, |message| {
            let MessageContent::Acknowledged(errno) = message.content else { return None };
            if errno != 0 {
                refused.get_or_insert(errno);
            }
            // An error of the batch itself carries the number of its first message.
            (message.sequence == last || errno != 0 && message.sequence == 0).then_some(Ok(()))
        })
        .await?;
        refused.map_or(Ok(()), |errno| Err(io::Error::from_raw_os_error(errno)))
    }

    /// Sends a request and reads messages until one ends the exchange.
    async fn exchange(
        &self,
        request: &[u8],
        mut on_message: impl FnMut(KernelMessage<'_>) -> Option<io::Result<()>>,
    ) -> io::Result<()> {
        let exchange = async {
            self.socket.send_to(request, &SocketAddr::new(0, 0)).await?;
            loop {
                let (bytes, _) = self.socket.recv_from_full().await?;
                let end = split_messages(&bytes).find_map(&mut on_message);
                if let Some(result) = end {
                    return result;
                }
            }
        };
        let timeout = || io::Error::new(io::ErrorKind::TimedOut, "no answer from the kernel");
        tokio::time::timeout(REQUEST_TIMEOUT, exchange).await.map_err(|_| timeout())?
    }
}

fn read_counter(attributes: &[u8], table: &str) -> Option<(String, u64)> {
    if find_attribute(attributes, 1).and_then(attribute_text) != Some(table) {
        return None;
    }
    let name = attribute_text(find_attribute(attributes, 2)?)?;
    let packets = find_attribute(find_attribute(attributes, 4)?, 2)?;
    Some((name.to_owned(), u64::from_be_bytes(packets.try_into().ok()?)))
}

/// Another program changed the ruleset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RulesetChange {
    /// The table that is watched.
    OwnTable,
    /// Another table.
    OtherTable,
    /// Notifications were lost: unknown.
    Unknown,
}

/// A socket for notifications of changes of the ruleset.
pub(crate) struct NftMonitor {
    socket: TokioSocket,
    /// When a change of another table was last reported.
    reported_at: Option<Instant>,
}

impl NftMonitor {
    /// Opens the socket; notifications are collected from this call on.
    ///
    /// # Errors
    /// Of the kernel.
    pub(crate) fn open() -> io::Result<Self> {
        Self::open_filtered(&[])
    }

    /// Opens the socket; the changes that the owner of port `own` makes do not wake it.
    ///
    /// # Errors
    /// Of the kernel.
    pub(crate) fn open_without(own: u32) -> io::Result<Self> {
        Self::open_filtered(&foreign_filter(own))
    }

    fn open_filtered(filter: &[SockFilter]) -> io::Result<Self> {
        let mut socket = TokioSocket::new(NETLINK_NETFILTER)?;
        socket.socket_mut().bind_auto()?;
        if !filter.is_empty() {
            SockRef::from(socket.socket_ref()).attach_filter(filter)?;
        }
        socket.socket_mut().add_membership(NOTIFICATION_GROUP)?;
        Ok(Self { socket, reported_at: None })
    }

    fn may_report(&mut self, now: Instant) -> bool {
        let may = self.reported_at.is_none_or(|at| now >= at + OTHER_TABLE_INTERVAL);
        if may {
            self.reported_at = Some(now);
        }
        may
    }

    /// Waits until another program than the owner of port `own` changes the ruleset; `table` is
    /// the watched one. Changes of other tables are reported once per [`OTHER_TABLE_INTERVAL`].
    /// Cancel-safe.
    pub(crate) async fn wait_for_change(&mut self, own: u32, table: &str) -> RulesetChange {
        loop {
            match self.socket.recv_from_full().await {
                Ok((bytes, _)) => {
                    let changes = split_messages(&bytes).filter_map(|it| classify(&it, own, table));
                    match changes.min_by_key(|change| *change != RulesetChange::OwnTable) {
                        Some(RulesetChange::OwnTable) => {
                            // One change comes as many notifications.
                            tokio::time::sleep(COALESCE_DELAY).await;
                            while let Some(Ok(_)) = self.socket.recv_from_full().now_or_never() {}
                            return RulesetChange::OwnTable;
                        }
                        Some(change) if self.may_report(Instant::now()) => return change,
                        _ => {}
                    }
                }
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    return RulesetChange::Unknown;
                }
                Err(error) => {
                    tracing::debug!(%error, "the socket for nf_tables changes failed");
                    // The periodic check remains.
                    std::future::pending::<()>().await;
                }
            }
        }
    }
}

/// Accepts datagrams that are not about changes of the owner of port `own`. One datagram tells of
/// one transaction, and its first message has the port.
fn foreign_filter(own: u32) -> [SockFilter; 4] {
    const PORT_OFFSET: u32 = 12;
    // The filter loads in network byte order what the header has in the host's.
    let own = u32::from_be_bytes(own.to_ne_bytes());
    let [load, compare, end] = [
        libc::BPF_LD | libc::BPF_W | libc::BPF_ABS,
        libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
        libc::BPF_RET | libc::BPF_K,
    ]
    .map(|code| code as u16);
    [
        SockFilter::new(load, 0, 0, PORT_OFFSET),
        SockFilter::new(compare, 0, 1, own),
        SockFilter::new(end, 0, 0, 0),
        SockFilter::new(end, 0, 0, u32::MAX),
    ]
}

/// The change that a notification reports; `None` if it is this node's own, or none.
fn classify(message: &KernelMessage<'_>, own: u32, table: &str) -> Option<RulesetChange> {
    // The table is the first attribute of tables, chains, sets, elements, rules and objects.
    let MessageContent::Object(_, attributes) = message.content else { return None };
    let changed = find_attribute(attributes, 1).and_then(attribute_text);
    // The fences of this host's adapters change with every renewal of a lease.
    let is_fence = changed.is_some_and(|changed| changed.starts_with(FENCE_TABLE_PREFIX));
    if is_fence && changed != Some(table) {
        return None;
    }
    (message.port != own).then_some(match changed == Some(table) {
        true => RulesetChange::OwnTable,
        false => RulesetChange::OtherTable,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_of_the_own_table_or_of_another_program() {
        let attributes = |table: &str| {
            let mut writer = AttributeWriter::default();
            writer.put_text(1, table);
            writer.into_bytes()
        };
        let (own, other) = (attributes("netft_x"), attributes("filter"));
        let fence = attributes("netft_vip_x");
        let message = |port, attributes| {
            let content = MessageContent::Object(message::NEW_RULE, attributes);
            KernelMessage { sequence: 1, port, content }
        };
        let change = |port, attributes| classify(&message(port, attributes), 7, "netft_x");
        assert_eq!(change(8, &own), Some(RulesetChange::OwnTable));
        assert_eq!(change(8, &other), Some(RulesetChange::OtherTable));
        assert_eq!(change(7, &own), None);
        assert_eq!(change(7, &other), None);
        assert_eq!(change(8, &fence), None, "a renewal of a lease");
    }
}
