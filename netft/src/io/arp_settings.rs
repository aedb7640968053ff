//! ARP settings of interfaces that share a subnet: each answers and asks for its own addresses
//! only.
//!
//! By default Linux answers an ARP request for any of its addresses on every interface. Of two
//! cards on one subnet the wrong one answers as often as the right one, and the socket bound to the
//! right one receives nothing. `arp_ignore` 1 and `arp_announce` 2 (ip-sysctl) end that; an
//! announcement corrects neighbours that learned the wrong card before. The former values return
//! when the interfaces share no subnet, and when this is dropped; after a crash the new ones stay.

use std::{collections::BTreeMap, fs, io, path::PathBuf};

use netft_proto::topology::SharedSubnets;

use crate::io::sys::arp;

/// The settings, and the least value that separates the interfaces.
const ARP_SETTINGS: [(&str, u32); 2] = [("arp_ignore", 1), ("arp_announce", 2)];

const IPV4_SETTINGS_DIR: &str = "/proc/sys/net/ipv4/conf";

/// The settings that were changed, with their former values by interface and key.
#[derive(Debug)]
pub(crate) struct ArpSettings {
    former: BTreeMap<(String, &'static str), u32>,
    dir: PathBuf,
}

impl Default for ArpSettings {
    fn default() -> Self {
        Self { former: BTreeMap::new(), dir: IPV4_SETTINGS_DIR.into() }
    }
}

impl ArpSettings {
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
            match self.write(interface, key, least) {
                Ok(()) => {
                    self.former.entry((interface.to_owned(), key)).or_insert(own);
                    changed.push(format!("{key}={least} (was {own})"));
                }
                Err(error) => tracing::debug!(interface, key, %error, "ARP setting unchanged"),
            }
        }
        changed
    }

    fn restore(&mut self, interface: &str, key: &'static str) {
        let Some(former) = self.former.remove(&(interface.to_owned(), key)) else { return };
        // A value that somebody set since then stays.
        if self.read(interface, key) != ARP_SETTINGS.iter().find(|it| it.0 == key).map(|it| it.1) {
            return;
        }
        // The interface may be gone, and its settings with it.
        if let Err(error) = self.write(interface, key, former) {
            tracing::debug!(interface, key, %error, "ARP setting not restored");
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
        let changed: Vec<_> = self.former.keys().cloned().collect();
        for (interface, key) in changed {
            self.restore(&interface, key);
        }
    }
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
        let settings = || ArpSettings { former: BTreeMap::new(), dir: dir.path().into() };
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
    }
}
