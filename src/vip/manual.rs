//! Addresses that the operator wants on this node (`ownership = "manual"`). They are kept in the
//! runtime directory, so that a netftd that crashed takes them back, and a reboot does not.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

/// Longest file that is read.
const MAX_FILE_LEN: u64 = 64 << 10;

/// Names of the wanted addresses, and their file.
#[derive(Debug)]
pub(super) struct WantedVips {
    path: PathBuf,
    names: BTreeSet<String>,
}

impl WantedVips {
    /// Reads the file of an adapter; a missing one wants nothing.
    pub(super) fn load(runtime_dir: &Path, adapter: &str) -> Self {
        let path = runtime_dir.join(format!("{adapter}.vips"));
        let is_small = fs::metadata(&path).is_ok_and(|meta| meta.len() <= MAX_FILE_LEN);
        let text = if is_small { fs::read_to_string(&path) } else { Ok(String::new()) };
        let names = text.unwrap_or_default().lines().map(str::to_owned).collect();
        Self { path, names }
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    /// Adds or removes a name, in the file first.
    ///
    /// # Errors
    /// Of the file system; nothing changed then.
    pub(super) fn set(&mut self, name: &str, is_wanted: bool) -> io::Result<()> {
        let mut names = self.names.clone();
        let is_changed = if is_wanted { names.insert(name.to_owned()) } else { names.remove(name) };
        if !is_changed {
            return Ok(());
        }
        let text: String = names.iter().map(|name| format!("{name}\n")).collect();
        let fresh = self.path.with_extension("vips.new");
        fs::write(&fresh, text)?;
        fs::rename(&fresh, &self.path)?;
        self.names = names;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn wanted_addresses_outlive_the_process() {
        let folder = tempfile::tempdir().unwrap();
        let mut wanted = WantedVips::load(folder.path(), "netft0");
        wanted.set("web", true).unwrap();
        wanted.set("db", true).unwrap();
        wanted.set("web", false).unwrap();
        let again = WantedVips::load(folder.path(), "netft0");
        assert!(again.contains("db") && !again.contains("web"));
        let mut lost = WantedVips::load(&folder.path().join("gone"), "netft0");
        assert!(lost.set("web", true).is_err() && !lost.contains("web"));
    }
}
