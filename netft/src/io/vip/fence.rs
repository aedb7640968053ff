//! The fence in the kernel: what stops a node whose lease ended from answering, whatever state its
//! netftd is in.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    time::Duration,
};

use netft_proto::time::Time;

use super::fence_rules::{
    FENCE_COUNTERS, FENCE_FAMILIES, LeaseSlot, encode_arming, encode_forbid, encode_switch,
    encode_tables, encode_vips, fence_table,
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
    /// The slot in use, and the end of the lease.
    leases: BTreeMap<IpAddr, (LeaseSlot, Time)>,
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
        Ok(Self { socket, table, vips, leases: BTreeMap::new() })
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
        self.forbid(&removed).await?;
        self.socket.commit(encode_vips(&self.table, &added, &removed)).await?;
        self.vips = vips;
        Ok(())
    }

    /// Lets addresses answer until `until`.
    ///
    /// # Errors
    /// Of the kernel; `TimedOut` where it took so long that the lease would outlive `until`.
    pub async fn permit(&mut self, addrs: &[IpAddr], until: Time) -> io::Result<()> {
        let next_slot = |addr: &IpAddr| {
            let slot = self.leases.get(addr).map_or(LeaseSlot::First, |(slot, _)| slot.other());
            (*addr, slot)
        };
        let leases: Vec<_> = addrs.iter().map(next_slot).collect();
        for _ in 0..ARMING_ATTEMPTS {
            let rest = until.since(clock::now());
            let timeout = rest - rest / TRANSACTION_SHARE;
            if timeout < Duration::from_millis(1) {
                break;
            }
            self.socket.commit(encode_arming(&self.table, &leases, timeout)).await?;
            if clock::now() + timeout > until {
                continue;
            }
            self.socket.commit(encode_switch(&self.table, &leases)).await?;
            self.leases.extend(leases.into_iter().map(|(addr, slot)| (addr, (slot, until))));
            return Ok(());
        }
        Err(io::Error::new(io::ErrorKind::TimedOut, "the lease was nearly over"))
    }

    /// Stops addresses from answering at once.
    ///
    /// # Errors
    /// Of the kernel.
    pub async fn forbid(&mut self, addrs: &[IpAddr]) -> io::Result<()> {
        if addrs.is_empty() {
            return Ok(());
        }
        self.socket.commit(encode_forbid(&self.table, addrs)).await?;
        self.leases.retain(|addr, _| !addrs.contains(addr));
        Ok(())
    }

    /// Sets the tables anew, with the leases that run.
    ///
    /// # Errors
    /// Of the kernel.
    pub async fn restore(&mut self) -> io::Result<()> {
        self.socket.commit(encode_tables(&self.table, &self.vips)).await?;
        let now = clock::now();
        let mut running = BTreeMap::<Time, Vec<IpAddr>>::new();
        for (addr, (_, until)) in std::mem::take(&mut self.leases) {
            if until > now {
                running.entry(until).or_default().push(addr);
            }
        }
        for (until, addrs) in running {
            self.permit(&addrs, until).await?;
        }
        Ok(())
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
        Ok(FenceWatch { monitor: NftMonitor::open()?, own, table })
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
