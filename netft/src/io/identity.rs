//! Key file of a node: created once, read at every start, never printed.
//!
//! The key file is one line, `netft-key:` and the base64 of an Ed25519 key pair in PKCS#8 form. It
//! is opened once, without blocking on a FIFO, and checked on the open descriptor, so it cannot be
//! replaced between the check and the read (C-06, C-12). A symbolic link of root or of this user is
//! followed, as Kubernetes mounts secrets that way; what it leads to is checked alike.

use std::{
    fs::{File, OpenOptions},
    io,
    io::{Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use netft_proto::{config::PrivateKey, ids::NodeKey};
use ring::{
    rand::{SecureRandom, SystemRandom},
    signature::Ed25519KeyPair,
};
use zeroize::Zeroizing;

use crate::io::ownership::is_trusted_user;

/// Prefix of the line in a key file.
const KEY_FILE_PREFIX: &str = "netft-key:";
/// Maximum length of a key file, bytes; a longer one is not read to its end.
const MAX_FILE_LEN: u64 = 256;

/// Error of creating, storing or using a key. Never contains key material.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file could not be opened or read.
    #[error(
        "cannot read the key file {path}: {source}; {}",
        read_remedy(source),
        path = path.display()
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// The error of the kernel.
        source: io::Error,
    },
    /// The path of the new key exists.
    #[error(
        "{path} exists; an existing key is never overwritten: move it away first, or name \
         another file",
        path = path.display()
    )]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The file could not be made or written.
    #[error(
        "cannot write the key file {path}: {source}; name a file in a folder that exists and \
         that this user may write",
        path = path.display()
    )]
    Write {
        /// The file.
        path: PathBuf,
        /// The error of the kernel.
        source: io::Error,
    },
    /// A directory, FIFO or device.
    #[error(
        "the key file {path} is not a regular file (but a folder, FIFO or device); name \
         the file itself",
        path = path.display()
    )]
    NotRegular {
        /// The file.
        path: PathBuf,
    },
    /// A symbolic link that another user made, and can lead elsewhere.
    #[error(
        "the key file {path} is a symlink made by uid {uid}, not by this user or root; name the \
         file itself",
        path = path.display()
    )]
    ForeignLink {
        /// The link.
        path: PathBuf,
        /// Its owner.
        uid: u32,
    },
    /// Others can read or write it.
    #[error(
        "the key file {path} has mode {mode:04o}; only its owner may use it: chmod 600 \
         {path}",
        path = path.display()
    )]
    TooOpen {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It belongs to another user.
    #[error(
        "the key file {path} belongs to uid {uid}, not to this user or root; chown \
         it",
        path = path.display()
    )]
    Owner {
        /// The file.
        path: PathBuf,
        /// Its owner.
        uid: u32,
    },
    /// The content is not a key.
    #[error(
        "the key file {path} holds no usable key: {what}; make one with `netft \
         keygen`",
        path = path.display()
    )]
    Content {
        /// The file.
        path: PathBuf,
        /// The error, without the content.
        what: &'static str,
    },
    /// The key in memory is not an Ed25519 key pair.
    #[error("the private key is not usable: {0}; make one with `netft keygen`")]
    Unusable(&'static str),
    /// The kernel returned no random bytes.
    #[error("the kernel returned no random bytes for a new key; try again")]
    Random,
}

impl KeyError {
    /// True if the key may be right, and this user is not allowed to use its file.
    pub fn is_permission_denied(&self) -> bool {
        match self {
            Self::Read { source, .. } | Self::Write { source, .. } => {
                source.kind() == io::ErrorKind::PermissionDenied
            }
            _ => false,
        }
    }
}

/// Remedy for a key file that cannot be read: one that exists must not be replaced.
fn read_remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "make one with `netft keygen`",
        io::ErrorKind::PermissionDenied => "run as root, or as the user who owns it",
        _ => "check its disk and file system, and restore it from a copy",
    }
}

/// Generates a key.
///
/// # Errors
/// [`KeyError::Random`] when the kernel has no random bytes.
pub fn generate_key() -> Result<PrivateKey, KeyError> {
    let document =
        Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| KeyError::Random)?;
    Ok(PrivateKey(Zeroizing::new(document.as_ref().to_vec())))
}

/// Random bytes of the kernel, for secrets.
///
/// # Errors
/// [`KeyError::Random`] when the kernel has none.
pub fn random_bytes<const N: usize>() -> Result<[u8; N], KeyError> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| KeyError::Random)?;
    Ok(bytes)
}

/// The public key of `key`.
///
/// # Errors
/// [`KeyError::Unusable`] when `key` is no Ed25519 key pair.
pub fn public_key(key: &PrivateKey) -> Result<NodeKey, KeyError> {
    key.public_key().map_err(KeyError::Unusable)
}

/// Writes the key file at `path`, readable by its owner only.
///
/// # Errors
/// [`KeyError::Exists`] when `path` exists, otherwise [`KeyError::Write`]; no file is left behind.
pub fn write_key_file(path: &Path, key: &PrivateKey) -> Result<(), KeyError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::AlreadyExists => KeyError::Exists { path: path.to_owned() },
        _ => KeyError::Write { path: path.to_owned(), source },
    };
    // O_EXCL: neither overwrites a key nor follows a planted link (S-15, S-16).
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
    let text = Zeroizing::new(STANDARD.encode(&*key.0));
    let line = Zeroizing::new(format!("{KEY_FILE_PREFIX}{}\n", *text));
    file.write_all(line.as_bytes()).and_then(|()| file.sync_all()).map_err(|source| {
        // No partial key file is left; the first error is reported.
        let _ = std::fs::remove_file(path);
        failed(source)
    })
}

/// Reads the key file at `path`.
///
/// # Errors
/// [`KeyError::Read`], [`KeyError::NotRegular`], [`KeyError::ForeignLink`], [`KeyError::TooOpen`],
/// [`KeyError::Owner`] or [`KeyError::Content`].
pub fn read_key_file(path: &Path) -> Result<PrivateKey, KeyError> {
    let mut text = Zeroizing::new(String::with_capacity(MAX_FILE_LEN as usize + 1));
    open_key_file(path)?
        .take(MAX_FILE_LEN + 1)
        .read_to_string(&mut text)
        .map_err(|source| KeyError::Read { path: path.to_owned(), source })?;
    parse_key(&text).map_err(|what| KeyError::Content { path: path.to_owned(), what })
}

fn open_key_file(path: &Path) -> Result<File, KeyError> {
    let unread = |source| KeyError::Read { path: path.to_owned(), source };
    let open = |flags| {
        let flags = flags | libc::O_NONBLOCK | libc::O_CLOEXEC;
        OpenOptions::new().read(true).custom_flags(flags).open(path)
    };
    let file = match open(libc::O_NOFOLLOW) {
        // O_NOFOLLOW on a symbolic link.
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => {
            let uid = path.symlink_metadata().map_err(unread)?.uid();
            if !is_trusted_user(uid) {
                return Err(KeyError::ForeignLink { path: path.to_owned(), uid });
            }
            open(0).map_err(unread)?
        }
        opened => opened.map_err(unread)?,
    };
    let meta = file.metadata().map_err(unread)?;
    if !meta.is_file() {
        return Err(KeyError::NotRegular { path: path.to_owned() });
    }
    if meta.mode() & 0o077 != 0 {
        return Err(KeyError::TooOpen { path: path.to_owned(), mode: meta.mode() & 0o7777 });
    }
    if !is_trusted_user(meta.uid()) {
        return Err(KeyError::Owner { path: path.to_owned(), uid: meta.uid() });
    }
    Ok(file)
}

fn parse_key(text: &str) -> Result<PrivateKey, &'static str> {
    let mut lines = text.lines();
    let (Some(line), None) = (lines.next(), lines.next()) else {
        return Err("it is not one line");
    };
    let encoded =
        line.strip_prefix(KEY_FILE_PREFIX).ok_or("its line does not begin with `netft-key:`")?;
    let bytes = STANDARD.decode(encoded.trim()).map_err(|_| "its base64 is damaged")?;
    let key = PrivateKey(Zeroizing::new(bytes));
    key.public_key()?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::{
        fs,
        os::unix::fs::{PermissionsExt, symlink},
    };

    use super::*;

    /// Length of an Ed25519 key pair in PKCS#8 form, and the place of its secret, bytes.
    const PKCS8_LEN: usize = 83;
    const SEED_RANGE: std::ops::Range<usize> = 16..48;

    fn place() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        (dir, path)
    }

    fn put(path: &Path, text: &str) {
        fs::write(path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    }

    #[test]
    fn a_key_survives_the_disk_and_the_file_is_private() {
        let (_dir, path) = place();
        let key = generate_key().unwrap();
        write_key_file(&path, &key).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let back = read_key_file(&path).unwrap();
        assert_eq!(public_key(&back).unwrap(), public_key(&key).unwrap());
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with(KEY_FILE_PREFIX) && text.lines().count() == 1, "one line");
    }

    #[test]
    fn an_existing_file_or_planted_link_is_never_overwritten() {
        let (dir, path) = place();
        let key = generate_key().unwrap();
        let target = dir.path().join("target");
        put(&target, "precious");
        symlink(&target, &path).unwrap();
        assert!(matches!(write_key_file(&path, &key), Err(KeyError::Exists { .. })));
        assert_eq!(fs::read_to_string(&target).unwrap(), "precious");
    }

    #[test]
    fn a_file_others_may_read_is_refused_with_the_remedy() {
        let (_dir, path) = place();
        write_key_file(&path, &generate_key().unwrap()).unwrap();
        for mode in [0o640, 0o604, 0o660, 0o666, 0o601] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let error = read_key_file(&path).unwrap_err();
            assert!(matches!(error, KeyError::TooOpen { .. }), "{error}");
            assert!(error.to_string().contains("chmod 600"), "{error}");
        }
    }

    #[test]
    fn what_is_no_regular_file_is_refused_without_waiting() {
        let (dir, _path) = place();
        assert!(matches!(read_key_file(dir.path()), Err(KeyError::NotRegular { .. })));
        let link = dir.path().join("folder");
        symlink(dir.path(), &link).unwrap();
        assert!(matches!(read_key_file(&link), Err(KeyError::NotRegular { .. })));
        let fifo = dir.path().join("fifo");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &fifo,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        assert!(matches!(read_key_file(&fifo), Err(KeyError::NotRegular { .. })));
        assert!(matches!(read_key_file(&dir.path().join("none")), Err(KeyError::Read { .. })));
    }

    /// As Kubernetes mounts a secret: `key` → `..data/key`, `..data` → a folder with a date.
    #[test]
    fn links_are_followed_and_their_target_is_checked() {
        let (dir, path) = place();
        let folder = dir.path().join("..2026_11_29");
        fs::create_dir(&folder).unwrap();
        let target = folder.join("key");
        let key = generate_key().unwrap();
        write_key_file(&target, &key).unwrap();
        symlink("..2026_11_29", dir.path().join("..data")).unwrap();
        symlink("..data/key", &path).unwrap();
        let back = read_key_file(&path).unwrap();
        assert_eq!(public_key(&back).unwrap(), public_key(&key).unwrap());
        fs::set_permissions(&target, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(read_key_file(&path), Err(KeyError::TooOpen { mode: 0o644, .. })));
        // Only root can give a link away.
        if std::os::unix::fs::lchown(&path, Some(12345), None).is_ok() {
            let error = read_key_file(&path).unwrap_err();
            assert!(matches!(error, KeyError::ForeignLink { uid: 12345, .. }), "{error}");
        }
        fs::remove_file(&target).unwrap();
        assert!(matches!(
            read_key_file(&path),
            Err(KeyError::Read { .. } | KeyError::ForeignLink { .. })
        ));
    }

    #[test]
    fn a_damaged_key_is_refused_and_never_shown() {
        let (_dir, path) = place();
        let good = generate_key().unwrap();
        let text = STANDARD.encode(&*good.0);
        let mut flipped = good.0.to_vec();
        flipped[20] ^= 1;
        let mut zero = good.0.to_vec();
        zero[SEED_RANGE].fill(0);
        let short = &good.0[..PKCS8_LEN - 1];
        let cases = [
            String::new(),
            format!("{text}\n"),
            format!("{KEY_FILE_PREFIX}{}!\n", &text[1..]),
            format!("{KEY_FILE_PREFIX}{text}\n{KEY_FILE_PREFIX}{text}\n"),
            format!("{KEY_FILE_PREFIX}{}\n", STANDARD.encode(short)),
            format!("{KEY_FILE_PREFIX}{}\n", STANDARD.encode([0; PKCS8_LEN])),
            format!("{KEY_FILE_PREFIX}{}\n", STANDARD.encode(&zero)),
            format!("{KEY_FILE_PREFIX}{}\n", STANDARD.encode(&flipped)),
            format!("{KEY_FILE_PREFIX}{}\n", "A".repeat(5000)),
        ];
        for case in cases {
            put(&path, &case);
            let error = read_key_file(&path).unwrap_err();
            assert!(matches!(error, KeyError::Content { .. }), "{error}");
            let shown = format!("{error} {error:?}");
            assert!(!shown.contains(&text[20..40]), "key material shown: {shown}");
            assert_eq!(error.to_string().lines().count(), 1);
        }
    }

    #[test]
    fn a_public_key_reads_back_from_its_text() {
        let key = public_key(&generate_key().unwrap()).unwrap();
        assert_eq!(key.to_string().parse::<NodeKey>().unwrap(), key);
        assert_eq!(key.to_string().len(), 44);
    }
}
