//! The filter's tables in the kernel: replaced, removed and read.

use std::{collections::BTreeMap, io};

use netft_proto::wire::DropReason;

use super::rules::{COUNTER_COUNT, FilterRules, TABLE_FAMILIES, counted_reason, table_name};
use crate::io::nftables::socket::NftSocket;

/// Packets dropped by the filter since its tables were set, by reason.
pub(super) type FilterCounts = BTreeMap<DropReason, u64>;

/// A socket for requests.
pub(super) struct FilterSocket(NftSocket);

impl FilterSocket {
    /// Opens the socket.
    ///
    /// # Errors
    /// Of the kernel: it may have no netfilter.
    pub(super) fn open() -> io::Result<Self> {
        NftSocket::open().map(Self)
    }

    /// Its port: notifications of its own requests carry it.
    pub(super) const fn port(&self) -> u32 {
        self.0.port
    }

    /// Replaces the adapter's tables in one transaction.
    ///
    /// # Errors
    /// Of the kernel; nothing changed then.
    pub(super) async fn replace_tables(&self, rules: &FilterRules) -> io::Result<()> {
        self.0.commit(rules.encode_batch()).await
    }

    /// Removes the adapter's tables; missing ones are no error.
    ///
    /// # Errors
    /// Of the kernel.
    pub(super) async fn remove_tables(&self, adapter: &str) -> io::Result<()> {
        for family in TABLE_FAMILIES {
            self.0.remove_table(&table_name(adapter), family).await?;
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
            for (name, packets) in self.0.read_counters(&table_name(adapter), family).await? {
                let Some(reason) = counted_reason(&name) else { continue };
                *counts.entry(reason).or_default() += packets;
                found += 1;
            }
        }
        Ok((found == COUNTER_COUNT).then_some(counts))
    }
}
