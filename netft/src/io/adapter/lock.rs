//! One daemon per adapter: a lock file in the runtime directory.
//!
//! The kernel releases the lock when its holder ends, however it ends. The file stays: removing it
//! would let two daemons lock two files of the same name.

use std::{
    fs,
    fs::{DirBuilder, File, Metadata},
    io,
    io::{Read, Seek, Write},
    os::{
        fd::OwnedFd,
        unix::fs::{DirBuilderExt, MetadataExt},
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{FlockOperation, Mode, OFlags},
    io::Errno,
};

use crate::io::{
    adapter::types::{LockError, is_valid_name},
    ownership::is_trusted_user,
};

/// Exclusive lock of an adapter; released when dropped.
#[derive(Debug)]
pub struct AdapterLock {
    file: File,
    path: PathBuf,
}

impl AdapterLock {
    /// Acquires the lock `<runtime_dir>/<adapter>.lock` and writes this process's id into it.
    /// Creates the directory with mode 0700 if needed.
    ///
    /// # Errors
    /// [`LockError::AlreadyLocked`] when another process holds it; otherwise when the directory is
    /// a symbolic link, writable by others, or cannot be created.
    pub fn acquire(runtime_dir: &Path, adapter: &str) -> Result<Self, LockError> {
        if !is_valid_name(adapter) {
            return Err(LockError::BadName(adapter.into()));
        }
        let dir = open_dir(runtime_dir)?;
        let name = format!("{adapter}.lock");
        let path = runtime_dir.join(&name);
        let failed = |error: io::Error| LockError::Io { path: path.clone(), source: error };
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&dir, &name, flags, Mode::RUSR | Mode::WUSR)
            .map_err(|error| failed(error.into()))?;
        let mut file = File::from(fd);
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                return Err(LockError::AlreadyLocked {
                    adapter: adapter.into(),
                    pid: read_pid(&mut file),
                });
            }
            Err(error) => return Err(failed(error.into())),
        }
        file.set_len(0).map_err(failed)?;
        file.write_all(format!("{}\n", std::process::id()).as_bytes()).map_err(failed)?;
        tracing::debug!(path = %path.display(), "adapter locked");
        Ok(Self { file, path })
    }

    /// The lock that another process handed over, from now on with this process's id in it.
    ///
    /// # Errors
    /// The descriptor is that of another file, or it cannot be written.
    pub fn inherit(
        descriptor: OwnedFd,
        runtime_dir: &Path,
        adapter: &str,
    ) -> Result<Self, LockError> {
        let path = runtime_dir.join(format!("{adapter}.lock"));
        let failed = |error: io::Error| LockError::Io { path: path.clone(), source: error };
        let mut file = File::from(descriptor);
        let id = |meta: Metadata| (meta.dev(), meta.ino());
        let (own, named) = (file.metadata().map_err(failed)?, fs::metadata(&path).map_err(failed)?);
        if id(own) != id(named) {
            return Err(failed(io::Error::other("the lock handed over is of another file")));
        }
        file.set_len(0).and_then(|()| file.rewind()).map_err(failed)?;
        file.write_all(format!("{}\n", std::process::id()).as_bytes()).map_err(failed)?;
        tracing::debug!(path = %path.display(), "adapter lock handed over");
        Ok(Self { file, path })
    }

    /// A second descriptor of the lock, which is held as long as either is open.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn duplicate(&self) -> io::Result<OwnedFd> {
        Ok(self.file.try_clone()?.into())
    }

    /// The lock file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Creates the directory if needed, and refuses one that others can write to.
fn open_dir(path: &Path) -> Result<File, LockError> {
    let failed = |error: io::Error| LockError::Io { path: path.into(), source: error };
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let dir = rustix::fs::open(path, flags, Mode::empty()).map_err(|error| failed(error.into()))?;
    let stat = rustix::fs::fstat(&dir).map_err(|error| failed(error.into()))?;
    if !is_trusted_user(stat.st_uid) || stat.st_mode & 0o022 != 0 {
        return Err(LockError::Unsafe { path: path.into() });
    }
    Ok(File::from(dir))
}

fn read_pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_second_lock_is_refused_and_names_the_holder() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("run");
        let lock = AdapterLock::acquire(&dir, "netft0").unwrap();
        assert_eq!(fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(lock.path(), dir.join("netft0.lock"));
        let error = AdapterLock::acquire(&dir, "netft0").unwrap_err();
        let text = error.to_string();
        assert!(text.contains(&format!("pid {}", std::process::id())), "{text}");
        assert!(!text.contains('\n'));
        AdapterLock::acquire(&dir, "netft1").unwrap();
        drop(lock);
        AdapterLock::acquire(&dir, "netft0").unwrap();
    }

    #[test]
    fn a_lock_that_is_handed_over_is_held_without_a_gap() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("run");
        let lock = AdapterLock::acquire(&dir, "netft0").unwrap();
        let inherited = lock.duplicate().unwrap();
        drop(lock);
        let is_held = || AdapterLock::acquire(&dir, "netft0").is_err();
        assert!(is_held());
        fs::write(dir.join("netft0.lock"), "a number much longer than that of this process\n")
            .unwrap();
        let lock = AdapterLock::inherit(inherited, &dir, "netft0").unwrap();
        let text = fs::read_to_string(lock.path()).unwrap();
        assert_eq!(text, format!("{}\n", std::process::id()));
        assert!(is_held());
        let other = AdapterLock::acquire(&dir, "netft1").unwrap().duplicate().unwrap();
        assert!(AdapterLock::inherit(other, &dir, "netft0").is_err(), "another adapter's");
    }

    #[test]
    fn directories_and_files_others_control_are_refused() {
        let parent = tempfile::tempdir().unwrap();
        let open = parent.path().join("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(AdapterLock::acquire(&open, "netft0"), Err(LockError::Unsafe { .. })));
        let safe = parent.path().join("safe");
        AdapterLock::acquire(&safe, "netft0").unwrap();
        let link = parent.path().join("link");
        std::os::unix::fs::symlink(&safe, &link).unwrap();
        assert!(matches!(AdapterLock::acquire(&link, "netft0"), Err(LockError::Io { .. })));
        std::os::unix::fs::symlink("/etc/passwd", safe.join("netft1.lock")).unwrap();
        assert!(matches!(AdapterLock::acquire(&safe, "netft1"), Err(LockError::Io { .. })));
    }

    #[test]
    fn names_that_are_paths_are_refused() {
        for name in ["", ".", "..", "../x", "a/b", "sixteen-bytes-xx", "tun%d", "a b"] {
            let error = AdapterLock::acquire(Path::new("/nonexistent"), name);
            assert!(matches!(error, Err(LockError::BadName(_))), "{name:?}");
        }
    }
}
