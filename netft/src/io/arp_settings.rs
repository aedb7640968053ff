//! ARP settings of interfaces that share a subnet: each answers and asks for its own addresses
//! only.
//!
//! By default Linux answers an ARP request for any of its addresses on every interface. Of two
//! cards on one subnet the wrong one answers as often as the right one, and the socket bound to the
//! right one receives nothing. `arp_ignore` 1 and `arp_announce` 2 (ip-sysctl) end that; an
//! announcement corrects neighbours that learned the wrong card before. The former values return
//! when the interfaces share no subnet, and when this is dropped. A record in the runtime directory
//! holds them meanwhile: after a crash the new values stay until the next run, or
//! `netftd --cleanup`, restores them.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use netft_proto::topology::SharedSubnets;

use crate::io::sys::arp;

/// The settings, and the least value that separates the interfaces.
pub const ARP_SETTINGS: [(&str, u32); 2] = [("arp_ignore", 1), ("arp_announce", 2)];

const IPV4_SETTINGS_DIR: &str = "/proc/sys/net/ipv4/conf";

/// Ends of the records' names: of the settings of interfaces on one subnet, and of the setting for
/// all interfaces where the packet filter is refused.
pub(crate) const SUBNET_RECORD: &str = "arp";
pub(crate) const FILTER_RECORD: &str = "filter-arp";
/// Longest record that is read, bytes: two lines for each of some thousand interfaces.
const MAX_RECORD_LEN: u64 = 256 * 1024;

/// The settings that were changed, with their former values by interface and key.
#[derive(Debug)]
pub(crate) struct ArpSettings {
    former: BTreeMap<(String, &'static str), u32>,
    dir: PathBuf,
    record: PathBuf,
}

impl ArpSettings {
    /// The settings that an earlier run of the adapter changed and did not restore, by its record
    /// of this kind.
    pub(crate) fn load(runtime_dir: &Path, adapter: &str, record: &str) -> Self {
        Self::load_from(IPV4_SETTINGS_DIR.into(), runtime_dir.join(format!("{adapter}.{record}")))
    }

    fn load_from(dir: PathBuf, record: PathBuf) -> Self {
        let is_short = fs::symlink_metadata(&record)
            .is_ok_and(|meta| meta.is_file() && meta.len() <= MAX_RECORD_LEN);
        let text = is_short.then(|| fs::read_to_string(&record).ok()).flatten();
        let former = text.iter().flat_map(|text| text.lines()).filter_map(parse_record_line);
        Self { former: former.collect(), dir, record }
    }

    /// Raises one setting of an interface, or of `all`, where it is less. Returns the value in
    /// force.
    ///
    /// # Errors
    /// Of the kernel.
    pub(crate) fn raise(
        &mut self,
        interface: &str,
        (key, least): (&'static str, u32),
    ) -> io::Result<u32> {
        let own = self.read(interface, key).ok_or(io::ErrorKind::NotFound)?;
        if own >= least {
            return Ok(own);
        }
        self.former.entry((interface.to_owned(), key)).or_insert(own);
        // Recorded first: a crash in between restores what was not changed.
        self.write_record();
        self.write(interface, key, least).inspect_err(|_| {
            self.former.remove(&(interface.to_owned(), key));
            self.write_record();
        })?;
        Ok(least)
    }

    /// Restores every setting. Returns whether there were any.
    pub(crate) fn restore_all(&mut self) -> bool {
        let changed: Vec<_> = self.former.keys().cloned().collect();
        for (interface, key) in &changed {
            self.restore(interface, key);
        }
        !changed.is_empty()
    }

    /// Separates the interfaces of `shared` and restores all others. Returns what was changed, in
    /// words.
    pub(crate) fn apply(&mut self, shared: &SharedSubnets) -> Option<String> {
        let mut changed = Vec::new();
        for ((interface, ifindex), addrs) in shared {
            let keys = self.separate(interface);
            if keys.is_empty() {
                continue;
            }
            changed.push(format!("{interface}: {}", keys.join(" ")));
            for addr in addrs {
                if let Err(error) = arp::announce_address(interface, *ifindex, *addr) {
                    tracing::debug!(interface, %addr, %error, "address not announced");
                }
            }
        }
        let is_shared = |name: &String| shared.keys().any(|(interface, _)| interface == name);
        let over: Vec<_> =
            self.former.keys().filter(|(name, _)| !is_shared(name)).cloned().collect();
        for (interface, key) in over {
            self.restore(&interface, key);
            changed.push(format!("{interface}: {key} restored"));
        }
        (!changed.is_empty()).then(|| changed.join(", "))
    }

    /// Raises the settings of an interface. The kernel takes the larger of its own and `all`.
    fn separate(&mut self, interface: &str) -> Vec<String> {
        let mut changed = Vec::new();
        for (key, least) in ARP_SETTINGS {
            let Some(own) = self.read(interface, key) else { continue };
            if own.max(self.read("all", key).unwrap_or_default()) >= least {
                continue;
            }
            match self.raise(interface, (key, least)) {
                Ok(_) => changed.push(format!("{key}={least} (was {own})")),
                Err(error) => tracing::debug!(interface, key, %error, "ARP setting unchanged"),
            }
        }
        changed
    }

    fn restore(&mut self, interface: &str, key: &'static str) {
        let Some(former) = self.former.remove(&(interface.to_owned(), key)) else { return };
        self.restore_value(interface, key, former);
        self.write_record();
    }

    fn restore_value(&self, interface: &str, key: &str, former: u32) {
        // A value that somebody set since then stays.
        if self.read(interface, key) != ARP_SETTINGS.iter().find(|it| it.0 == key).map(|it| it.1) {
            return;
        }
        // The interface may be gone, and its settings with it.
        if let Err(error) = self.write(interface, key, former) {
            tracing::debug!(interface, key, %error, "ARP setting not restored");
        }
    }

    /// Best effort: without a record a crash leaves the new values.
    fn write_record(&self) {
        let written = if self.former.is_empty() {
            fs::remove_file(&self.record)
        } else {
            let lines = self.former.iter();
            let lines =
                lines.map(|((interface, key), value)| format!("{interface} {key} {value}\n"));
            let text: String = lines.collect();
            let draft = self.record.with_extension("new");
            fs::write(&draft, text).and_then(|()| fs::rename(&draft, &self.record))
        };
        if let Err(error) = written.or_else(none_if_absent) {
            tracing::debug!(record = %self.record.display(), %error, "ARP settings not recorded");
        }
    }

    fn read(&self, interface: &str, key: &str) -> Option<u32> {
        fs::read_to_string(self.dir.join(interface).join(key)).ok()?.trim().parse().ok()
    }

    fn write(&self, interface: &str, key: &str, value: u32) -> io::Result<()> {
        fs::write(self.dir.join(interface).join(key), value.to_string())
    }
}

impl Drop for ArpSettings {
    fn drop(&mut self) {
        self.restore_all();
    }
}

fn none_if_absent(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

/// A line of a record: interface, key, former value.
fn parse_record_line(line: &str) -> Option<((String, &'static str), u32)> {
    let mut words = line.split(' ');
    let (interface, key, value) = (words.next()?, words.next()?, words.next()?);
    let (key, _) = *ARP_SETTINGS.iter().find(|(known, _)| *known == key)?;
    let is_name = !interface.is_empty() && interface != ".." && !interface.contains('/');
    is_name.then_some(((interface.to_owned(), key), value.parse().ok()?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::path::Path;

    use super::*;

    fn value(dir: &Path, interface: &str, key: &str) -> String {
        fs::read_to_string(dir.join(interface).join(key)).unwrap().trim().to_owned()
    }

    #[test]
    fn settings_are_raised_while_a_subnet_is_shared_and_restored_after() {
        let dir = tempfile::tempdir().unwrap();
        for interface in ["all", "eth0", "eth1"] {
            fs::create_dir(dir.path().join(interface)).unwrap();
            for (key, _) in ARP_SETTINGS {
                fs::write(dir.path().join(interface).join(key), "0\n").unwrap();
            }
        }
        // The operator's own choice is kept.
        fs::write(dir.path().join("eth1/arp_ignore"), "2\n").unwrap();
        let shared: SharedSubnets =
            [(("eth0".to_owned(), 2), vec![]), (("eth1".to_owned(), 3), vec![])].into();
        let record = dir.path().join("netft0.arp");
        let settings = || ArpSettings::load_from(dir.path().into(), record.clone());
        let values = || {
            let read = |interface, key| value(dir.path(), interface, key);
            [("eth0", "arp_ignore"), ("eth0", "arp_announce"), ("eth1", "arp_ignore")]
                .map(|(interface, key)| read(interface, key))
                .join(" ")
        };
        let mut arp = settings();
        let what = arp.apply(&shared).unwrap();
        assert!(what.starts_with("eth0: arp_ignore=1 (was 0) arp_announce=2 (was 0), "), "{what}");
        assert_eq!(values(), "1 2 2");
        assert_eq!(arp.apply(&shared), None, "once");
        fs::write(dir.path().join("eth0/arp_ignore"), "0\n").unwrap();
        assert!(arp.apply(&shared).is_some(), "another program's change is undone");
        assert!(arp.apply(&SharedSubnets::new()).is_some());
        assert_eq!(values(), "0 0 2");
        arp.apply(&shared);
        drop(arp);
        assert_eq!(values(), "0 0 2", "a stop restores them");
        assert!(!record.exists());
        let mut arp = settings();
        arp.apply(&shared);
        // A crash forgets them.
        arp.former.clear();
        assert_eq!(values(), "1 2 2", "a crash leaves them");
        let mut arp = settings();
        assert_eq!(arp.apply(&shared), None);
        assert!(arp.restore_all());
        assert_eq!(values(), "0 0 2", "the next run knows the former values");
        assert!(!record.exists());
        arp.apply(&shared);
        // A crash forgets them.
        arp.former.clear();
        fs::write(dir.path().join("eth0/arp_ignore"), "3\n").unwrap();
        drop(settings());
        assert_eq!(values(), "3 0 2", "a value that somebody set since stays");
    }

    #[test]
    fn a_record_names_nothing_but_settings_of_interfaces() {
        let line = |text| parse_record_line(text).is_some();
        assert!(line("eth0 arp_ignore 0") && line("all arp_announce 2"));
        for bad in ["", "eth0", "eth0 arp_ignore", "../x arp_ignore 0", ".. arp_ignore 0"] {
            assert!(!line(bad), "{bad}");
        }
        assert!(!line("eth0 forwarding 0") && !line("eth0 arp_ignore x"));
        let dir = tempfile::tempdir().unwrap();
        let settings = ArpSettings::load_from(dir.path().into(), dir.path().into());
        assert!(settings.former.is_empty(), "a directory is no record");
    }
}
