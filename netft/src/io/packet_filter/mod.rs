//! The packet filter: packets for the adapter's addresses come through the adapter or not at all,
//! and packets to peers leave through it or not at all.
//!
//! Linux takes a packet for any of its addresses from any interface, and answers ARP for it there
//! (the weak host model, RFC 1122 section 3.3.4.2): without the filter every host of a physical
//! network reaches the adapter's addresses in the clear. Two nftables tables of the adapter's own
//! prevent it. They stay while netftd is down after a crash, and are removed when it stops.
//!
//! The tables are set over netlink, so the nft(8) program is not needed.

mod rules;
mod socket;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::Arc,
    time::Duration,
};

use netft_proto::{config::Config, route::EventKind, wire::DropReason};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep},
};

pub(crate) use self::rules::FilterRules;
use self::{
    rules::table_name,
    socket::{FilterCounts, FilterSocket},
};
use crate::io::{
    arp_settings::ArpSettings,
    counters::Counters,
    messages::DriverMessage,
    nftables::socket::{NftMonitor, RulesetChange},
};

/// Interval between two reads of the counters, two requests each. A removed table is noticed at
/// once by its notification, and by the next read where that was lost.
const READ_INTERVAL: Duration = Duration::from_secs(2);
/// Pause after a restoration; doubled by each that follows soon, at most [`MAX_RESTORE_PAUSE`].
const MIN_RESTORE_PAUSE: Duration = Duration::from_millis(50);
const MAX_RESTORE_PAUSE: Duration = Duration::from_secs(5);
/// Without a restoration for that long, the pause starts anew.
const BACKOFF_RESET_TIME: Duration = Duration::from_secs(10);
/// Interval between two events about packets dropped for one reason.
const DROP_REPORT_INTERVAL: Duration = Duration::from_secs(600);

/// State of an adapter's tables in the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PacketFilterState {
    /// Complete.
    Installed,
    /// The tables, or parts of them, are missing.
    Missing,
    /// The kernel has no nftables, or refuses them; the reason.
    Unsupported(String),
}

/// The adapter's tables in the kernel.
pub(crate) struct PacketFilter {
    rules: FilterRules,
    /// `None` while the kernel refuses them.
    socket: Option<FilterSocket>,
    /// Counts at the last read.
    counts: FilterCounts,
}

impl PacketFilter {
    /// Sets the tables, replacing what a crash left. The error stays with the filter, which the
    /// guard retries and reports.
    pub(crate) async fn install(rules: FilterRules) -> Self {
        let mut filter = Self { rules, socket: None, counts: FilterCounts::new() };
        if let Err(error) = filter.set_tables().await {
            tracing::debug!(%error, "packet filter refused");
        }
        filter
    }

    /// Sets the tables. The socket is kept if that succeeds.
    async fn set_tables(&mut self) -> io::Result<()> {
        let socket = match self.socket.take() {
            Some(socket) => socket,
            None => FilterSocket::open()?,
        };
        socket.replace_tables(&self.rules).await?;
        self.counts = FilterCounts::new();
        self.socket = Some(socket);
        tracing::debug!(table = table_name(&self.rules.adapter), "packet filter set");
        Ok(())
    }

    /// Packets that the tables counted since the last read, by reason; `None` if they lack parts.
    ///
    /// # Errors
    /// Of the kernel; `NotConnected` while it refuses the tables.
    async fn read_counts(&mut self) -> io::Result<Option<FilterCounts>> {
        let socket = self.socket.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        match socket.read_counts(&self.rules.adapter).await {
            Ok(counts) => Ok(counts.map(|counts| self.added_since(counts))),
            Err(error) => {
                tracing::debug!(%error, "cannot read the packet filter's counters");
                self.socket = None;
                Err(error)
            }
        }
    }

    /// Packets counted since the last read, by reason.
    fn added_since(&mut self, counts: FilterCounts) -> FilterCounts {
        let before = std::mem::replace(&mut self.counts, counts.clone());
        let mut added = FilterCounts::new();
        for (reason, packets) in counts {
            let known = before.get(&reason).copied().unwrap_or(0);
            // Another program may have reset the counters.
            let more = packets.checked_sub(known).unwrap_or(packets);
            if more > 0 {
                added.insert(reason, more);
            }
        }
        added
    }
}

/// Removes an adapter's tables; missing ones are no error.
///
/// # Errors
/// Of the kernel.
pub(crate) async fn remove_tables(adapter: &str) -> io::Result<()> {
    FilterSocket::open()?.remove_tables(adapter).await
}

/// State of an adapter's tables; `None` if this process may not read it.
pub(crate) async fn read_state(adapter: &str) -> Option<PacketFilterState> {
    let counts = match FilterSocket::open() {
        Ok(mut socket) => socket.read_counts(adapter).await,
        Err(error) => Err(error),
    };
    match counts {
        Ok(Some(_)) => Some(PacketFilterState::Installed),
        Ok(None) => Some(PacketFilterState::Missing),
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => None,
        Err(error) => Some(PacketFilterState::Unsupported(error.to_string())),
    }
}

/// Keeps the tables as the config and the interfaces want them, and restores them when another
/// program changes them.
pub(crate) struct FilterGuard {
    pub(crate) filter: PacketFilter,
    pub(crate) config: watch::Receiver<Arc<Config>>,
    /// Names of the host's container bridges.
    pub(crate) bridges: watch::Receiver<BTreeSet<String>>,
    pub(crate) driver: mpsc::Sender<DriverMessage>,
    /// Drops since the start.
    pub(crate) counters: Arc<Counters>,
    /// Settings changed while the kernel refuses the tables.
    pub(crate) arp: ArpSettings,
}

impl FilterGuard {
    /// Runs until it is aborted or the driver is gone.
    pub(crate) async fn run(mut self) {
        // Without it the periodic read finds tables that are gone.
        let mut monitor = NftMonitor::open().ok();
        let mut reports = DropReports::default();
        let mut backoff = RestoreBackoff::default();
        let (mut is_tampered, mut is_fault_reported) = (false, false);
        loop {
            let bridges = self.bridges.borrow_and_update().clone();
            let wanted = FilterRules::new(&self.config.borrow_and_update(), bridges);
            let is_updated = wanted != self.filter.rules;
            self.filter.rules = wanted;
            let read = self.filter.read_counts().await;
            let is_changed = is_tampered || matches!(read, Ok(None));
            let is_intact = !is_changed && read.is_ok();
            let added = read.ok().flatten().unwrap_or_default();
            for (reason, packets) in &added {
                self.counters.count_drops(*reason, *packets);
            }
            let mut events = reports.take_due_events(Instant::now(), added);
            if is_updated || !is_intact {
                match self.filter.set_tables().await {
                    Ok(()) => {
                        self.arp.restore_all();
                        let table = table_name(&self.filter.rules.adapter);
                        let what = match (std::mem::take(&mut is_fault_reported), is_changed) {
                            (true, _) => Some(format!("nftables table {table} is set")),
                            (_, true) => {
                                Some(format!("nftables table {table} was changed: restored"))
                            }
                            _ => None,
                        };
                        events.extend(what.map(|what| EventKind::AdapterRestored { what }));
                    }
                    Err(error) if !is_fault_reported => {
                        is_fault_reported = true;
                        // Interfaces answer ARP for their own addresses only (ip-sysctl).
                        let arp_ignore = self.arp.raise("all", ("arp_ignore", 1));
                        let what = self.describe_fault(&error, arp_ignore);
                        events.push(EventKind::OverlayFault { what });
                    }
                    Err(_) => {}
                }
            }
            for event in events {
                if self.driver.send(DriverMessage::Event(event)).await.is_err() {
                    return;
                }
            }
            if !is_intact {
                sleep(backoff.next_pause(Instant::now())).await;
            }
            let own = self.filter.socket.as_ref().map_or(0, FilterSocket::port);
            let table = table_name(&self.filter.rules.adapter);
            is_tampered = tokio::select! {
                () = sleep(READ_INTERVAL) => false,
                change = wait_for_change(monitor.as_mut(), own, &table) => {
                    if change == RulesetChange::OtherTable
                        && self.driver.send(DriverMessage::RulesetChanged).await.is_err()
                    {
                        return;
                    }
                    change == RulesetChange::OwnTable
                }
                changed = self.config.changed() => match changed {
                    Ok(()) => false,
                    Err(_) => return,
                },
                changed = self.bridges.changed() => match changed {
                    Ok(()) => false,
                    Err(_) => return,
                },
            };
        }
    }

    fn describe_fault(&self, error: &io::Error, arp_ignore: io::Result<u32>) -> String {
        let FilterRules { adapter, .. } = &self.filter.rules;
        let arp = arp_ignore.map_or_else(
            |_| "arp_ignore could not be set either".to_owned(),
            |value| {
                format!("arp_ignore is {value}, which hides the addresses and does not close them")
            },
        );
        format!(
            "hosts on the physical networks reach the addresses of {adapter} in plaintext: \
             nftables refuses table {}: {error}; enable nf_tables in the kernel (modprobe \
             nf_tables), or stop what owns a table of that name; {arp}",
            table_name(adapter)
        )
    }
}

async fn wait_for_change(monitor: Option<&mut NftMonitor>, own: u32, table: &str) -> RulesetChange {
    match monitor {
        Some(monitor) => monitor.wait_for_change(own, table).await,
        None => std::future::pending().await,
    }
}

/// Pause after a restoration.
#[derive(Default)]
struct RestoreBackoff {
    last: Option<(Instant, Duration)>,
}

impl RestoreBackoff {
    fn next_pause(&mut self, now: Instant) -> Duration {
        let pause = match self.last {
            Some((at, pause)) if now < at + BACKOFF_RESET_TIME => {
                (2 * pause).min(MAX_RESTORE_PAUSE)
            }
            _ => MIN_RESTORE_PAUSE,
        };
        self.last = Some((now, pause));
        pause
    }
}

/// Events about dropped packets: the first of a reason at once, the later ones summed.
#[derive(Default)]
struct DropReports {
    unreported: FilterCounts,
    reported_at: BTreeMap<DropReason, Instant>,
}

impl DropReports {
    fn take_due_events(&mut self, now: Instant, added: FilterCounts) -> Vec<EventKind> {
        for (reason, packets) in added {
            *self.unreported.entry(reason).or_default() += packets;
        }
        let is_due = |reason: &DropReason| {
            let reported = self.reported_at.get(reason);
            reported.is_none_or(|at| now >= *at + DROP_REPORT_INTERVAL)
        };
        let due: Vec<_> = self.unreported.keys().copied().filter(is_due).collect();
        let mut events = Vec::new();
        for reason in due {
            let packets = self.unreported.remove(&reason).unwrap_or(0);
            self.reported_at.insert(reason, now);
            let what = format!("{packets} packets dropped: {}", describe_drop(reason));
            events.push(EventKind::OverlayFault { what });
        }
        events
    }
}

/// Cause and remedy of drops of the packet filter.
fn describe_drop(reason: DropReason) -> &'static str {
    match reason {
        DropReason::OutsideAdapter => {
            "a host on a physical network sent to this node's virtual address, or in the name of a \
             peer's"
        }
        DropReason::NotForwarded => {
            "another host sent to a peer through this node; set `adapter.forward` if it may"
        }
        DropReason::LeftAdapter => {
            "packets to a peer's virtual address would have left by another interface; look for a \
             missing route or a policy rule (`ip rule`)"
        }
        DropReason::ForeignSource => {
            "packets to a peer had a source address that is not this node's, which the peer \
             refuses; masquerade them, or bind the program to the adapter's address"
        }
        other => other.description(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_are_reported_at_once_and_then_summed() {
        let (mut reports, start) = (DropReports::default(), Instant::now());
        let one = || FilterCounts::from([(DropReason::LeftAdapter, 1)]);
        assert_eq!(reports.take_due_events(start, one()).len(), 1);
        for second in 1..600 {
            let now = start + Duration::from_secs(second);
            assert_eq!(reports.take_due_events(now, one()).len(), 0);
        }
        let events = reports.take_due_events(start + DROP_REPORT_INTERVAL, one());
        let [EventKind::OverlayFault { what }] = &events[..] else { panic!("{events:?}") };
        assert!(what.starts_with("600 packets dropped"), "{what}");
        let other = FilterCounts::from([(DropReason::ForeignSource, 1)]);
        assert_eq!(reports.take_due_events(start + DROP_REPORT_INTERVAL, other).len(), 1);
    }

    #[test]
    fn restorations_that_follow_each_other_are_spaced() {
        let (mut backoff, start) = (RestoreBackoff::default(), Instant::now());
        assert_eq!(backoff.next_pause(start), MIN_RESTORE_PAUSE);
        assert_eq!(backoff.next_pause(start), 2 * MIN_RESTORE_PAUSE);
        for _ in 0..9 {
            backoff.next_pause(start);
        }
        assert_eq!(backoff.next_pause(start), MAX_RESTORE_PAUSE);
        assert_eq!(backoff.next_pause(start + BACKOFF_RESET_TIME), MIN_RESTORE_PAUSE);
    }
}
