//! Kernel counters of a namespace: TCP retransmissions, full buffers, dropped packets.

use std::collections::BTreeMap;

use crate::netns::Netns;

/// Counters of one namespace at one moment.
///
/// Protocol counters are named as `nstat` names them (`TcpExtTCPSpuriousRTOs`,
/// `UdpRcvbufErrors`), interface counters `{interface} rx_dropped` and `{interface} tx_dropped`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelCounters(pub BTreeMap<String, u64>);

impl Netns {
    /// The namespace's counters.
    pub fn kernel_counters(&self) -> KernelCounters {
        // IPv4's files count TCP for both families.
        let read = |name: &str| {
            std::fs::read_to_string(format!("/proc/thread-self/net/{name}")).unwrap_or_default()
        };
        let (tables, snmp, devices) =
            self.run_inside(|| (read("netstat"), read("snmp"), read("dev")));
        let mut counters = BTreeMap::new();
        parse_protocol_tables(&tables, &mut counters);
        parse_protocol_tables(&snmp, &mut counters);
        parse_device_drops(&devices, &mut counters);
        KernelCounters(counters)
    }
}

impl KernelCounters {
    /// One counter; 0 when there is none of that name.
    pub fn get(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or_default()
    }

    /// Increases since `before`, without the counters that stayed the same.
    pub fn since(&self, before: &Self) -> Self {
        let increase = |(name, now): (&String, &u64)| {
            let more = now.saturating_sub(before.get(name));
            (more > 0).then(|| (name.clone(), more))
        };
        Self(self.0.iter().filter_map(increase).collect())
    }
}

/// Pairs of lines: `Table: name name …`, `Table: value value …`.
fn parse_protocol_tables(text: &str, counters: &mut BTreeMap<String, u64>) {
    let lines: Vec<&str> = text.lines().collect();
    for pair in lines.chunks_exact(2) {
        let (Some((table, names)), Some((_, values))) =
            (pair[0].split_once(':'), pair[1].split_once(':'))
        else {
            continue;
        };
        for (name, value) in names.split_whitespace().zip(values.split_whitespace()) {
            // Some columns are signed limits, not counters.
            if let Ok(value) = value.parse() {
                counters.insert(format!("{table}{name}"), value);
            }
        }
    }
}

/// `name: 8 receive columns, 8 transmit columns`; the fourth of each is dropped packets.
fn parse_device_drops(text: &str, counters: &mut BTreeMap<String, u64>) {
    for line in text.lines() {
        let Some((name, columns)) = line.split_once(':') else { continue };
        let columns: Vec<u64> =
            columns.split_whitespace().filter_map(|column| column.parse().ok()).collect();
        let name = name.trim();
        for (column, what) in [(3, "rx_dropped"), (11, "tx_dropped")] {
            if let Some(value) = columns.get(column) {
                counters.insert(format!("{name} {what}"), *value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_tables_are_read() {
        let mut counters = BTreeMap::new();
        let tables = "TcpExt: A B\nTcpExt: 1 2\nTcp: RtoMin MaxConn Seg\nTcp: 200 -1 7\n";
        parse_protocol_tables(tables, &mut counters);
        let devices = "Inter-| Receive | Transmit\n face |bytes packets\n  netft0: 1 2 3 4 5 6 7 8 \
                       9 10 11 12 13 14 15 16\n";
        parse_device_drops(devices, &mut counters);
        let now = KernelCounters(counters);
        let want = ["TcpExtA", "TcpExtB", "TcpSeg", "netft0 rx_dropped", "netft0 tx_dropped"];
        assert_eq!(want.map(|name| now.get(name)), [1, 2, 7, 4, 12]);
        let mut before = now.clone();
        before.0.insert("TcpSeg".to_owned(), 5);
        assert_eq!(now.since(&before).0, BTreeMap::from([("TcpSeg".to_owned(), 2)]));
    }
}
