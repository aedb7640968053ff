//! The fence in the kernel: what stops a node whose lease ended from answering, whatever state its
//! netftd is in.

use std::{collections::BTreeSet, io, net::IpAddr, time::Duration};

use netft_proto::time::Time;

use super::{
    fence_leases::LeaseTable,
    fence_rules::{
        FENCE_COUNTERS, FENCE_FAMILIES, encode_arming, encode_change, encode_tables, encode_vips,
        fence_table,
    },
};
use crate::io::{
    clock,
    nftables::socket::{NftMonitor, NftSocket, RulesetChange},
};

/// Part of a lease's rest that one transaction may take: the element's timeout is shorter than the
/// rest by it, so that it ends in time although the kernel gets it later.
const TRANSACTION_SHARE: u32 = 8;
/// Attempts to set a lease in time.
const ARMING_ATTEMPTS: u32 = 2;

/// The fence of an adapter's floating addresses.
pub struct VipFence {
    socket: NftSocket,
    table: String,
    vips: BTreeSet<IpAddr>,
    leases: LeaseTable,
    /// A transaction failed: what the kernel holds is unknown.
    is_uncertain: bool,
}

impl VipFence {
    /// Sets the tables, replacing what a crash left: no address answers before it is permitted.
    ///
    /// # Errors
    /// Of the kernel: it has no nf_tables, or refuses them.
    pub async fn install(adapter: &str, vips: BTreeSet<IpAddr>) -> io::Result<Self> {
        let (socket, table) = (NftSocket::open()?, fence_table(adapter));
        socket.commit(encode_tables(&table, &vips)).await?;
        tracing::debug!(table, vips = vips.len(), "fence set");
        Ok(Self { socket, table, vips, leases: LeaseTable::default(), is_uncertain: false })
    }

    /// Name of its tables.
    pub fn table(&self) -> &str {
        &self.table
    }

    /// Makes these the floating addresses; leases of those that stay run on.
    ///
    /// # Errors
    /// Of the kernel.
    pub async fn set_vips(&mut self, vips: BTreeSet<IpAddr>) -> io::Result<()> {
        let added: Vec<_> = vips.difference(&self.vips).copied().collect();
        let removed: Vec<_> = self.vips.difference(&vips).copied().collect();
        if added.is_empty() && removed.is_empty() {
            return Ok(());
        }
        if self.is_uncertain {
            self.vips = vips;
            return self.forbid(&removed).await;
        }
        self.forbid(&removed).await?;
        self.commit(encode_vips(&self.table, &added, &removed)).await?;
        self.vips = vips;
        Ok(())
    }

    /// Lets addresses answer until `until`.
    ///
    /// # Errors
    /// Of the kernel; `TimedOut` where it took so long that the lease would outlive `until`.
    pub async fn permit(&mut self, addrs: &[IpAddr], until: Time) -> io::Result<()> {
        if self.is_uncertain {
            self.restore().await?;
        }
        self.set_lease(&addrs.iter().copied().collect(), until).await
    }

    async fn set_lease(&mut self, addrs: &BTreeSet<IpAddr>, until: Time) -> io::Result<()> {
        if addrs.is_empty() {
            return Ok(());
        }
        let change = self.leases.plan_renewal(addrs);
        let Some(set) = &change.set else { return Ok(()) };
        for _ in 0..ARMING_ATTEMPTS {
            let rest = until.since(clock::now());
            let timeout = rest - rest / TRANSACTION_SHARE;
            if timeout < Duration::from_millis(1) {
                break;
            }
            let is_new = self.leases.lacks_chain(set.lease);
            self.commit(encode_arming(&self.table, set, is_new, timeout)).await?;
            self.leases.add_chain(set.lease);
            if clock::now() + timeout > until {
                continue;
            }
            self.commit(encode_change(&self.table, &change)).await?;
            self.leases.apply_change(&change, until);
            return Ok(());
        }
        Err(io::Error::new(io::ErrorKind::TimedOut, "the lease was nearly over"))
    }

    /// Stops addresses from answering at once.
    ///
    /// # Errors
    /// Of the kernel.
    pub async fn forbid(&mut self, addrs: &[IpAddr]) -> io::Result<()> {
        let addrs = addrs.iter().copied().collect();
        let change = self.leases.plan_removal(&addrs);
        // Also where the maps are set anew, these addresses get no lease.
        self.leases.apply_change(&change, Time::ZERO);
        if self.is_uncertain {
            return self.restore().await;
        }
        if change.ended_addrs.is_empty() {
            return Ok(());
        }
        self.commit(encode_change(&self.table, &change)).await
    }

    /// Sets the tables anew, with the leases that run.
    ///
    /// # Errors
    /// Of the kernel.
    pub async fn restore(&mut self) -> io::Result<()> {
        self.commit(encode_tables(&self.table, &self.vips)).await?;
        self.is_uncertain = false;
        for (addrs, until) in self.leases.take_running(clock::now()) {
            match self.set_lease(&addrs, until).await {
                // It is nearly over; the others run on.
                Err(error) if error.kind() == io::ErrorKind::TimedOut && !self.is_uncertain => {}
                done => done?,
            }
        }
        Ok(())
    }

    async fn commit(&mut self, transaction: (Vec<u8>, u32)) -> io::Result<()> {
        let done = self.socket.commit(transaction).await;
        self.is_uncertain |= done.is_err();
        done
    }

    /// Packets and ARP messages dropped since the tables were set; `None` if they lack parts.
    ///
    /// # Errors
    /// Of the kernel.
    pub async fn read_drops(&mut self) -> io::Result<Option<u64>> {
        let mut counts = Vec::new();
        for family in FENCE_FAMILIES {
            counts.extend(self.socket.read_counters(&self.table, family).await?);
        }
        let packets = counts.iter().map(|(_, packets)| packets).sum();
        Ok((counts.len() == FENCE_COUNTERS).then_some(packets))
    }

    /// A watch for changes of the tables by other programs.
    ///
    /// # Errors
    /// Of the kernel.
    pub fn watch(&self) -> io::Result<FenceWatch> {
        let (own, table) = (self.socket.port, self.table.clone());
        Ok(FenceWatch { monitor: NftMonitor::open_without(own)?, own, table })
    }
}

/// Removes an adapter's fence; a missing one is no error.
///
/// # Errors
/// Of the kernel.
pub async fn remove_fence(adapter: &str) -> io::Result<()> {
    let socket = NftSocket::open()?;
    for family in FENCE_FAMILIES {
        socket.remove_table(&fence_table(adapter), family).await?;
    }
    Ok(())
}

/// Notices changes of the tables by other programs.
pub struct FenceWatch {
    monitor: NftMonitor,
    own: u32,
    table: String,
}

impl FenceWatch {
    /// Waits until another program changed the tables, or may have. Cancel-safe.
    pub async fn changed(&mut self) {
        loop {
            match self.monitor.wait_for_change(self.own, &self.table).await {
                RulesetChange::OwnTable | RulesetChange::Unknown => return,
                RulesetChange::OtherTable => {}
            }
        }
    }
}
