//! The netlink socket of nf_tables: transactions, counters and notifications.

use std::{
    collections::BTreeMap,
    io,
    time::{Duration, Instant},
};

use futures_util::FutureExt;
use netft_proto::wire::DropReason;
use rtnetlink::sys::{
    AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket, protocols::NETLINK_NETFILTER,
};

use super::{
    nfnetlink::{
        AttributeWriter, KernelMessage, MessageContent, attribute_text, encode_dump,
        find_attribute, message, split_messages,
    },
    rules::{
        COUNTER_COUNT, FilterRules, TABLE_FAMILIES, counted_reason, encode_removal, table_name,
    },
};

/// Timeout of a request: bounds the wait for a lost reply.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);
/// A transaction of another program comes as a burst of notifications.
const COALESCE_DELAY: Duration = Duration::from_millis(2);
/// Time between two reports of changes of other tables: some programs change theirs all the time.
/// Shorter than the time from a report to what it leads to.
const OTHER_TABLE_INTERVAL: Duration = Duration::from_secs(1);
/// `NFNLGRP_NFTABLES`.
const NOTIFICATION_GROUP: u32 = 7;

/// Packets dropped by the filter since its tables were set, by reason.
pub(super) type FilterCounts = BTreeMap<DropReason, u64>;

/// A socket for requests.
pub(super) struct FilterSocket {
    socket: TokioSocket,
    /// Its port: notifications of its own requests carry it.
    pub(super) port: u32,
    sequence: u32,
}

impl FilterSocket {
    /// Opens the socket.
    ///
    /// # Errors
    /// Of the kernel: it may have no netfilter.
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = TokioSocket::new(NETLINK_NETFILTER)?;
        let port = socket.socket_mut().bind_auto()?.port_number();
        Ok(Self { socket, port, sequence: 0 })
    }

    /// Replaces the adapter's tables in one transaction.
    ///
    /// # Errors
    /// Of the kernel; nothing changed then.
    pub(super) async fn replace_tables(&mut self, rules: &FilterRules) -> io::Result<()> {
        self.commit(rules.encode_batch()).await
    }

    /// Removes the adapter's tables; missing ones are no error.
    ///
    /// # Errors
    /// Of the kernel.
    pub(super) async fn remove_tables(&mut self, adapter: &str) -> io::Result<()> {
        for family in TABLE_FAMILIES {
            self.commit(encode_removal(adapter, family)).await?;
        }
        Ok(())
    }

    /// Packets that the adapter's tables dropped; `None` if a table or a part of it is missing.
    ///
    /// # Errors
    /// Of the kernel.
    pub(super) async fn read_counts(&mut self, adapter: &str) -> io::Result<Option<FilterCounts>> {
        let (mut counts, mut found) = (FilterCounts::new(), 0);
        for family in TABLE_FAMILIES {
            self.sequence += 1;
            let name = table_name(adapter);
            let write = |body: &mut AttributeWriter| body.put_text(1, &name);
            let request = encode_dump(message::GET_OBJECT, family, self.sequence, write);
            for (reason, packets) in self.dump_counters(&request, &name).await? {
                *counts.entry(reason).or_default() += packets;
                found += 1;
            }
        }
        Ok((found == COUNTER_COUNT).then_some(counts))
    }

    async fn dump_counters(
        &self,
        request: &[u8],
        table: &str,
    ) -> io::Result<Vec<(DropReason, u64)>> {
        let mut counters = Vec::new();
        self.exchange(request, |message| {
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

    async fn commit(&self, (batch, last): (Vec<u8>, u32)) -> io::Result<()> {
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

fn read_counter(attributes: &[u8], table: &str) -> Option<(DropReason, u64)> {
    if find_attribute(attributes, 1).and_then(attribute_text) != Some(table) {
        return None;
    }
    let reason = counted_reason(attribute_text(find_attribute(attributes, 2)?)?)?;
    let packets = find_attribute(find_attribute(attributes, 4)?, 2)?;
    Some((reason, u64::from_be_bytes(packets.try_into().ok()?)))
}

/// Another program changed the ruleset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RulesetChange {
    /// The adapter's table.
    OwnTable,
    /// Another table.
    OtherTable,
    /// Notifications were lost: unknown.
    Unknown,
}

/// A socket for notifications of changes of the ruleset.
pub(super) struct FilterMonitor {
    socket: TokioSocket,
    /// When a change of another table was last reported.
    reported_at: Option<Instant>,
}

impl FilterMonitor {
    /// Opens the socket; notifications are collected from this call on.
    ///
    /// # Errors
    /// Of the kernel.
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = TokioSocket::new(NETLINK_NETFILTER)?;
        socket.socket_mut().bind_auto()?;
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
    /// the adapter's. Changes of other tables are reported once per [`OTHER_TABLE_INTERVAL`].
    /// Cancel-safe.
    pub(super) async fn wait_for_change(&mut self, own: u32, table: &str) -> RulesetChange {
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
                    tracing::debug!(%error, "the socket for packet filter changes failed");
                    // The periodic check remains.
                    std::future::pending::<()>().await;
                }
            }
        }
    }
}

/// The change that a notification reports; `None` if it is this node's own, or none.
fn classify(message: &KernelMessage<'_>, own: u32, table: &str) -> Option<RulesetChange> {
    // The table is the first attribute of tables, chains, sets, elements, rules and objects.
    let MessageContent::Object(_, attributes) = message.content else { return None };
    let changed = find_attribute(attributes, 1).and_then(attribute_text);
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
        let message = |port, attributes| {
            let content = MessageContent::Object(message::NEW_RULE, attributes);
            KernelMessage { sequence: 1, port, content }
        };
        let change = |port, attributes| classify(&message(port, attributes), 7, "netft_x");
        assert_eq!(change(8, &own), Some(RulesetChange::OwnTable));
        assert_eq!(change(8, &other), Some(RulesetChange::OtherTable));
        assert_eq!(change(7, &own), None);
        assert_eq!(change(7, &other), None);
    }
}
