//! A DHCP lease as nodes tell it each other, and as it is kept in the runtime directory.

use std::{fmt::Write, fs, io, net::Ipv4Addr, path::Path, time::Duration};

use netft::{
    Time,
    vip::dhcp::{ClientIdentifier, DhcpLease},
};
use serde::{Deserialize, Serialize};

/// Longest file that is read.
const MAX_FILE_LEN: u64 = 256 << 10;

/// A lease with times from the moment of the record: the clocks of nodes differ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseRecord {
    vip: String,
    client_id: String,
    address: Ipv4Addr,
    server: Ipv4Addr,
    obtained_ms: u64,
    renew_ms: Option<u64>,
    rebind_ms: Option<u64>,
    expires_ms: Option<u64>,
}

#[derive(Serialize, Deserialize)]
struct LeaseFile {
    /// By `CLOCK_BOOTTIME`: a reboot removes the runtime directory.
    written_ms: u64,
    leases: Vec<LeaseRecord>,
}

pub(super) fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing into a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

impl LeaseRecord {
    pub(super) fn new(
        now: Time,
        vip: &str,
        identifier: &ClientIdentifier,
        lease: &DhcpLease,
    ) -> Self {
        let until = |at: Option<Time>| at.map(|at| at.since(now).as_millis() as u64);
        Self {
            vip: vip.to_owned(),
            client_id: to_hex(identifier),
            address: lease.addr,
            server: lease.server,
            obtained_ms: now.since(lease.obtained).as_millis() as u64,
            renew_ms: until(lease.renew_at),
            rebind_ms: until(lease.rebind_at),
            expires_ms: until(lease.expires),
        }
    }

    /// The lease of a record that was made at `then`; `None` if it is malformed.
    pub(super) fn to_lease(&self, then: Time) -> Option<(ClientIdentifier, DhcpLease)> {
        let mut identifier = [0; 23];
        if self.client_id.len() != 2 * identifier.len() || !self.client_id.is_ascii() {
            return None;
        }
        for (at, byte) in identifier.iter_mut().enumerate() {
            *byte = u8::from_str_radix(self.client_id.get(2 * at..2 * at + 2)?, 16).ok()?;
        }
        let after = |millis: Option<u64>| millis.map(|millis| then + Duration::from_millis(millis));
        let obtained = then.as_millis().saturating_sub(self.obtained_ms);
        let lease = DhcpLease {
            addr: self.address,
            server: self.server,
            server_mac: None,
            obtained: Time::from_millis(obtained),
            renew_at: after(self.renew_ms),
            rebind_at: after(self.rebind_ms),
            expires: after(self.expires_ms),
        };
        lease.is_usable().then_some((identifier, lease))
    }
}

/// The leases of a file, by name; a missing or damaged one has none.
pub(super) fn read_leases(path: &Path, now: Time) -> Vec<(String, ClientIdentifier, DhcpLease)> {
    let is_small = fs::metadata(path).is_ok_and(|meta| meta.len() <= MAX_FILE_LEN);
    let bytes = if is_small { fs::read(path).unwrap_or_default() } else { Vec::new() };
    let Ok(file) = serde_json::from_slice::<LeaseFile>(&bytes) else { return Vec::new() };
    let written = Time::from_millis(file.written_ms);
    if written > now {
        return Vec::new();
    }
    let leases = file.leases.into_iter().filter_map(|record| {
        let (identifier, lease) = record.to_lease(written)?;
        Some((record.vip, identifier, lease))
    });
    leases.collect()
}

/// Writes the file.
///
/// # Errors
/// Of the file system.
pub(super) fn write_leases(path: &Path, now: Time, leases: Vec<LeaseRecord>) -> io::Result<()> {
    let file = LeaseFile { written_ms: now.as_millis(), leases };
    let fresh = path.with_extension("vip-leases.new");
    fs::write(&fresh, serde_json::to_vec(&file)?)?;
    fs::rename(fresh, path)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn lease(expires: Option<u64>) -> DhcpLease {
        DhcpLease {
            addr: Ipv4Addr::new(10, 1, 0, 80),
            server: Ipv4Addr::new(10, 1, 0, 1),
            server_mac: None,
            obtained: Time::from_millis(40_000),
            renew_at: expires.map(|_| Time::from_millis(90_000)),
            rebind_at: expires.map(|_| Time::from_millis(95_000)),
            expires: expires.map(Time::from_millis),
        }
    }

    #[test]
    fn a_lease_survives_the_process_and_the_way_to_another_node() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("netft0.vip-leases");
        let now = Time::from_millis(50_000);
        assert_eq!(read_leases(&path, now), []);
        let records = vec![
            LeaseRecord::new(now, "web", &[7; 23], &lease(Some(100_000))),
            LeaseRecord::new(now, "db", &[8; 23], &lease(None)),
        ];
        write_leases(&path, now, records.clone()).unwrap();
        let later = Time::from_millis(70_000);
        let found = read_leases(&path, later);
        let expected = [
            ("web".to_owned(), [7; 23], lease(Some(100_000))),
            ("db".to_owned(), [8; 23], lease(None)),
        ];
        assert_eq!(found, expected, "the time of the file does not matter");
        // The other node's clock began elsewhere.
        let (_, there) = records[0].to_lease(Time::from_millis(1_000_000)).unwrap();
        assert_eq!(there.expires, Some(Time::from_millis(1_050_000)));
        assert_eq!(read_leases(&path, Time::from_millis(1)), [], "a clock that began anew");
        fs::write(&path, b"{\"written_ms\":1,").unwrap();
        assert_eq!(read_leases(&path, later), []);
    }

    #[test]
    fn a_record_that_no_server_could_have_made_is_none() {
        let good = LeaseRecord::new(Time::from_millis(50_000), "web", &[7; 23], &lease(None));
        let now = Time::from_millis(60_000);
        assert!(good.to_lease(now).is_some());
        for client_id in ["", "07", &"é".repeat(23), &"zz".repeat(23)] {
            let bad = LeaseRecord { client_id: client_id.to_owned(), ..good.clone() };
            assert_eq!(bad.to_lease(now), None);
        }
        for address in ["0.0.0.0", "169.254.7.7", "224.0.0.1"] {
            let bad = LeaseRecord { address: address.parse().unwrap(), ..good.clone() };
            assert_eq!(bad.to_lease(now), None, "{address}");
        }
        let late = LeaseRecord { expires_ms: Some(u64::MAX), ..good };
        assert!(late.to_lease(now).is_some(), "no overflow");
    }
}
