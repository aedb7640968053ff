//! Reads a file that decides what root does: opened once, everything asked of the descriptor.
//!
//! Bounds: a regular file of at most [`MAX_FILE_BYTES`] bytes; never blocks (a FIFO is refused, not
//! opened for reading), never follows a symlink that somebody else made.

use std::{fs::File, io, io::Read, os::unix::fs::MetadataExt, path::Path};

use netft::api::host::is_trusted_user;
use rustix::fs::{AtFlags, Mode, OFlags};

/// The largest config file, in bytes.
pub(super) const MAX_FILE_BYTES: u64 = 1 << 20;

/// Why a file was not read.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The kernel refused.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// A directory, FIFO, device or socket.
    #[error("it is {0}, not a regular file")]
    Kind(&'static str),
    /// A symlink owned by neither root nor this user.
    #[error("it is a symlink made by uid {0}")]
    ForeignLink(u32),
    /// A file owned by neither root nor this user.
    #[error("it belongs to uid {0}, who could change it at any time")]
    ForeignFile(u32),
    /// A file everyone may write.
    #[error("everyone may write it (mode {0:04o})")]
    Writable(u32),
    /// Larger than the limit.
    #[error("it has {0} bytes, more than the {MAX_FILE_BYTES} allowed")]
    TooLarge(u64),
}

impl FileError {
    /// True if this user is not allowed to read it.
    pub fn is_denied(&self) -> bool {
        matches!(self, Self::Io(error) if error.kind() == io::ErrorKind::PermissionDenied)
    }

    /// The remedy, for the `help:` line.
    pub fn help_text(&self, path: &Path) -> String {
        let path = path.display();
        match self {
            Self::Io(error) if error.kind() == io::ErrorKind::NotFound => {
                format!("`netft init --output {path}` writes one")
            }
            Self::Io(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                "run as root, or as the user who owns it".to_owned()
            }
            Self::Io(_) => "give the path of a netft config file".to_owned(),
            Self::Kind(_) | Self::TooLarge(_) => "give the path of a netft config file".to_owned(),
            Self::ForeignLink(_) | Self::ForeignFile(_) => {
                format!("make it root's: `chown -h root: {path}`")
            }
            Self::Writable(_) => format!("`chmod o-w {path}`"),
        }
    }
}

/// The bytes of the file at `path`.
///
/// # Errors
/// See [`FileError`].
pub(super) fn read_config_file(path: &Path) -> Result<Vec<u8>, FileError> {
    let file = open_no_follow(path)?;
    let meta = file.metadata()?;
    let kind = meta.file_type();
    if !kind.is_file() {
        return Err(FileError::Kind(if kind.is_dir() {
            "a directory"
        } else {
            "a device, FIFO or socket"
        }));
    }
    if !is_trusted_user(meta.uid()) {
        return Err(FileError::ForeignFile(meta.uid()));
    }
    if meta.mode() & 0o002 != 0 {
        return Err(FileError::Writable(meta.mode() & 0o7777));
    }
    if meta.len() > MAX_FILE_BYTES {
        return Err(FileError::TooLarge(meta.len()));
    }
    let mut bytes = Vec::with_capacity(meta.len() as usize);
    // One byte more than allowed: the file may have grown since its length was read.
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(FileError::TooLarge(bytes.len() as u64));
    }
    Ok(bytes)
}

fn open_no_follow(path: &Path) -> Result<File, FileError> {
    // NONBLOCK: opening a FIFO must not wait for a writer.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    match rustix::fs::open(path, flags | OFlags::NOFOLLOW, Mode::empty()) {
        Ok(fd) => Ok(fd.into()),
        Err(rustix::io::Errno::LOOP) => {
            let stat = rustix::fs::statat(rustix::fs::CWD, path, AtFlags::SYMLINK_NOFOLLOW)
                .map_err(io::Error::from)?;
            if !is_trusted_user(stat.st_uid) {
                return Err(FileError::ForeignLink(stat.st_uid));
            }
            Ok(rustix::fs::open(path, flags, Mode::empty()).map_err(io::Error::from)?.into())
        }
        Err(error) => Err(io::Error::from(error).into()),
    }
}
