//! Writes a hosts file: whole or not at all, with the owner and the mode it had.
//!
//! The new text goes into a file beside it, which then takes its place, so a reader never sees a
//! half and a crash leaves the old one.

use std::{
    fs,
    fs::{File, OpenOptions},
    io,
    io::Write,
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown},
    path::{Path, PathBuf},
};

use super::{BlockError, HostsBlock};
use crate::control::schema::HostEntry;

/// The hosts file of the resolver.
pub const HOSTS_PATH: &str = "/etc/hosts";
/// Mode of a new file.
const NEW_FILE_MODE: u32 = 0o644;
/// Largest file that is changed, bytes: resolvers read it whole.
const MAX_FILE_BYTES: u64 = 16 << 20;

/// The hosts file was not written and is unchanged.
#[derive(Debug, thiserror::Error)]
pub enum HostsError {
    /// Its netft block is damaged.
    #[error("{}: {broken}", .path.display())]
    Broken {
        /// The file.
        path: PathBuf,
        /// Description.
        broken: BlockError,
    },
    /// The kernel refused.
    #[error("cannot write {}: {source}{}", .path.display(), help_text(.source))]
    Io {
        /// The file.
        path: PathBuf,
        /// Kernel error.
        source: io::Error,
    },
}

fn help_text(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => ": run as root",
        io::ErrorKind::ReadOnlyFilesystem => {
            ": under systemd add `ReadWritePaths=/etc` to the unit"
        }
        io::ErrorKind::ResourceBusy => {
            ": it is a mount of its own, as in a container: give the container its names \
             (`--add-host`), `netft hosts` prints them"
        }
        _ => "",
    }
}

/// Writes `hosts` to the block of `adapter` in the file at `path`. Returns true if it changed.
///
/// # Errors
/// See [`HostsError`].
pub fn update_block(path: &Path, adapter: &str, hosts: &[HostEntry]) -> Result<bool, HostsError> {
    let machine = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let block = HostsBlock::for_adapter(adapter);
    replace_block(path, &block, &block.render_block(hosts, machine.trim_end()))
}

/// Removes the block of `adapter` from the file at `path`. Returns true if there was one.
///
/// # Errors
/// See [`HostsError`].
pub fn remove_block(path: &Path, adapter: &str) -> Result<bool, HostsError> {
    replace_block(path, &HostsBlock::for_adapter(adapter), "")
}

fn replace_block(path: &Path, block: &HostsBlock, text: &str) -> Result<bool, HostsError> {
    let failed = |source| HostsError::Io { path: path.to_owned(), source };
    // A symbolic link is kept: its target is written.
    let target = match fs::canonicalize(path) {
        Ok(target) => target,
        Err(error) if error.kind() == io::ErrorKind::NotFound => path.to_owned(),
        Err(error) => return Err(failed(error)),
    };
    let former = read_file(&target).map_err(failed)?;
    let old = former.as_ref().map_or(&[][..], |(bytes, _)| bytes);
    let new = block
        .replace_in(old, text)
        .map_err(|broken| HostsError::Broken { path: path.to_owned(), broken })?;
    if new == old {
        return Ok(false);
    }
    write_atomically(&target, &new, former.map(|(_, meta)| meta)).map_err(failed)?;
    Ok(true)
}

fn read_file(path: &Path) -> io::Result<Option<(Vec<u8>, fs::Metadata)>> {
    let meta = match fs::metadata(path) {
        Ok(meta) => meta,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if !meta.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    if meta.len() > MAX_FILE_BYTES {
        return Err(io::Error::other(format!("it has more than {} MiB", MAX_FILE_BYTES >> 20)));
    }
    Ok(Some((fs::read(path)?, meta)))
}

fn write_atomically(path: &Path, bytes: &[u8], former: Option<fs::Metadata>) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".netft-{}", std::process::id()));
    let beside = path.with_file_name(name);
    // A leftover of a killed process with the same pid.
    let _ = fs::remove_file(&beside);
    let written = write_temporary(&beside, bytes, former).and_then(|()| fs::rename(&beside, path));
    if written.is_err() {
        // The first error is the one to report.
        let _ = fs::remove_file(&beside);
        return written;
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

fn write_temporary(path: &Path, bytes: &[u8], former: Option<fs::Metadata>) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    let mode = match former {
        Some(former) => {
            let own = file.metadata()?;
            if (own.uid(), own.gid()) != (former.uid(), former.gid()) {
                fchown(&file, Some(former.uid()), Some(former.gid()))?;
            }
            former.mode() & 0o7777
        }
        None => NEW_FILE_MODE,
    };
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.sync_all()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn some() -> Vec<HostEntry> {
        vec![super::super::host_entry("b", [169, 254, 1, 2].into(), "fe80::2".parse().unwrap())]
    }

    #[test]
    fn a_file_is_replaced_with_its_mode_and_nothing_is_left_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hosts");
        fs::write(&path, "127.0.0.1 localhost\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let before = fs::metadata(&path).unwrap();
        assert!(update_block(&path, "netft0", &some()).unwrap());
        let after = fs::metadata(&path).unwrap();
        assert_eq!(after.mode(), before.mode());
        assert_eq!((after.uid(), after.gid()), (before.uid(), before.gid()));
        assert_ne!(after.ino(), before.ino());
        assert!(fs::read_to_string(&path).unwrap().contains("169.254.1.2\tb.netft\n"));
        assert!(!update_block(&path, "netft0", &some()).unwrap(), "the same again");
        assert_eq!(fs::metadata(&path).unwrap().ino(), after.ino());
        assert!(remove_block(&path, "netft0").unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), "127.0.0.1 localhost\n");
        assert!(!remove_block(&path, "netft0").unwrap());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_link_stays_a_link_and_a_missing_file_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let (path, link) = (dir.path().join("real"), dir.path().join("hosts"));
        assert!(update_block(&path, "netft0", &some()).unwrap());
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, NEW_FILE_MODE);
        std::os::unix::fs::symlink("real", &link).unwrap();
        assert!(remove_block(&link, "netft0").unwrap());
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read(&path).unwrap(), b"");
    }

    #[test]
    fn a_damaged_file_and_a_folder_are_refused_and_stay() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hosts");
        fs::write(&path, "x\n# BEGIN netft netft0\n").unwrap();
        let error = update_block(&path, "netft0", &some()).unwrap_err().to_string();
        assert!(error.contains("hosts: line 2: ") && error.contains("does not end"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"x\n# BEGIN netft netft0\n");
        let error = update_block(dir.path(), "netft0", &some()).unwrap_err().to_string();
        assert!(error.contains("not a regular file"), "{error}");
    }
}
