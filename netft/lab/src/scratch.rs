//! Temporary directories, removed when dropped.

use std::{
    fs::DirBuilder,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use crate::error::LabError;

/// A directory of mode 0700 under the system's temporary directory.
#[derive(Debug)]
pub struct ScratchDir(PathBuf);

impl ScratchDir {
    /// A new directory whose name starts with `netft-{label}`.
    ///
    /// # Errors
    /// When the directory cannot be created, or something of that name exists.
    pub fn new(label: &str) -> Result<Self, LabError> {
        let stamp = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos());
        let name = format!("netft-{label}-{}-{stamp:x}", std::process::id());
        let path = std::env::temp_dir().join(name);
        DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .map_err(LabError::io_error(format!("create {}", path.display())))?;
        Ok(Self(path))
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for ScratchDir {
    fn drop(&mut self) {
        // A failure leaves the directory to the system's /tmp cleaner.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
