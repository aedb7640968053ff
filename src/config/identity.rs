//! Node keys on disk and in the config: the private key file, and a peer's public key in base64.
//!
//! A key file is one line: the Ed25519 private key as PKCS#8 in base64, mode 0600.

use std::{
    fs::OpenOptions,
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use netft::{NodeKey, config::PrivateKey};
use ring::{
    rand::SystemRandom,
    signature::{Ed25519KeyPair, KeyPair},
};
use rustix::fs::OFlags;

/// No key file is larger than this, in bytes.
const KEY_FILE_LIMIT: u64 = 4096;

/// Why a key file cannot be used or written. Never names a byte of the key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The kernel refused.
    #[error("cannot open key file {}: {error}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        error: io::Error,
    },
    /// Others may read or write it, or own it.
    #[error("key file {} {reason}", .path.display())]
    Unsafe {
        /// The file.
        path: PathBuf,
        /// Why it is not a secret of this node.
        reason: String,
    },
    /// Not a key.
    #[error("key file {} holds no netft key", .path.display())]
    NotAKey {
        /// The file.
        path: PathBuf,
    },
    /// The random source failed.
    #[error("the kernel's random source failed")]
    Random,
}

impl KeyError {
    /// What to do about it.
    pub fn help(&self) -> String {
        match self {
            Self::Io { path, error } if error.kind() == io::ErrorKind::NotFound => {
                format!("`netft keygen {}` makes one", path.display())
            }
            Self::Io { path, error } if error.kind() == io::ErrorKind::AlreadyExists => {
                format!("move {} away first; its node's peers know its public key", path.display())
            }
            Self::Io { .. } => "run as the user who owns it".to_owned(),
            Self::Unsafe { path, .. } => {
                let path = path.display();
                format!(
                    "`chown root: {path} && chmod 600 {path}`; if others may have read it, make a \
                     new one"
                )
            }
            Self::NotAKey { path } => {
                format!("make a new one: `netft keygen {}.new`", path.display())
            }
            Self::Random => "try again; the machine has just started".to_owned(),
        }
    }
}

/// A new private key.
///
/// # Errors
/// The random source failed.
pub fn generate() -> Result<PrivateKey, KeyError> {
    let document =
        Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| KeyError::Random)?;
    Ok(PrivateKey(document.as_ref().to_vec().into()))
}

/// The public half; `None` when the bytes are no Ed25519 key.
pub fn public_key(key: &PrivateKey) -> Option<NodeKey> {
    let pair = Ed25519KeyPair::from_pkcs8(&key.0).ok()?;
    let mut bytes = [0; 32];
    bytes.copy_from_slice(pair.public_key().as_ref());
    Some(NodeKey(bytes))
}

/// Writes a key to a new file, mode 0600. Never overwrites.
///
/// # Errors
/// The file exists, or cannot be created.
pub fn write_key_file(path: &Path, key: &PrivateKey) -> Result<(), KeyError> {
    let io = |error| KeyError::Io { path: path.to_owned(), error };
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(io)?;
    let line = PrivateKey(format!("{}\n", STANDARD.encode(&*key.0)).into_bytes().into());
    file.write_all(&line.0).and_then(|()| file.sync_all()).map_err(io)
}

/// The key in a file only root or this user may read.
///
/// # Errors
/// See [`KeyError`].
pub fn read_key_file(path: &Path) -> Result<PrivateKey, KeyError> {
    let io = |error| KeyError::Io { path: path.to_owned(), error };
    let unfit = |reason: String| KeyError::Unsafe { path: path.to_owned(), reason };
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path).map_err(
        |error| match error.raw_os_error() {
            Some(libc::ELOOP) => unfit("is a symlink: give the file it points to".to_owned()),
            _ => io(error),
        },
    )?;
    let meta = file.metadata().map_err(io)?;
    if !meta.is_file() {
        return Err(unfit("is not a regular file".to_owned()));
    }
    if meta.uid() != 0 && meta.uid() != rustix::process::geteuid().as_raw() {
        return Err(unfit(format!("belongs to uid {}", meta.uid())));
    }
    if meta.mode() & 0o077 != 0 {
        return Err(unfit(format!("may be read by others (mode {:04o})", meta.mode() & 0o7777)));
    }
    let mut text = PrivateKey(Vec::with_capacity(256).into());
    file.take(KEY_FILE_LIMIT).read_to_end(&mut text.0).map_err(io)?;
    let no_key = || KeyError::NotAKey { path: path.to_owned() };
    let der = STANDARD.decode(text.0.trim_ascii()).map_err(|_| no_key())?;
    let key = PrivateKey(der.into());
    public_key(&key).ok_or_else(no_key)?;
    Ok(key)
}

/// A public key as it stands in configs and output.
pub fn encode_public(key: &NodeKey) -> String {
    STANDARD.encode(key.0)
}

/// The y coordinates of the points whose order divides 8, sign bit cleared: a "key" that anyone
/// can answer for (RFC 8032 section 5.1.7; the list libsodium refuses too).
const LOW_ORDER: [[u8; 32]; 7] = [
    [0; 32],
    one_and_zeros(),
    [
        0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98,
        0xf0, 0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53,
        0xfc, 0x05,
    ],
    [
        0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67,
        0x0f, 0x2a, 0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac,
        0x03, 0x7a,
    ],
    field_end(0xec),
    field_end(0xed),
    field_end(0xee),
];

const fn one_and_zeros() -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[0] = 1;
    bytes
}

/// 2^255 − 19 and its neighbours, by the lowest byte.
const fn field_end(lowest: u8) -> [u8; 32] {
    let mut bytes = [0xff; 32];
    bytes[0] = lowest;
    bytes[31] = 0x7f;
    bytes
}

/// The key in a config line.
///
/// # Errors
/// What is wrong with the text, without repeating it.
pub fn decode_public(text: &str) -> Result<NodeKey, String> {
    let bytes = STANDARD.decode(text).map_err(|_| "this is not base64".to_owned())?;
    let bytes = <[u8; 32]>::try_from(bytes.as_slice())
        .map_err(|_| format!("this is {} bytes long, a public key has 32", bytes.len()))?;
    let mut y = bytes;
    y[31] &= 0x7f;
    if LOW_ORDER.contains(&y) {
        return Err("this is a low-order point, which anyone can answer for".to_owned());
    }
    Ok(NodeKey(bytes))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_written_key_is_read_back_and_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let key = generate().unwrap();
        write_key_file(&path, &key).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        let back = read_key_file(&path).unwrap();
        assert_eq!(public_key(&back), public_key(&key));
        assert!(matches!(write_key_file(&path, &key), Err(KeyError::Io { .. })));
    }

    #[test]
    fn unfit_public_keys_are_refused() {
        let zero = STANDARD.encode([0; 32]);
        assert!(decode_public(&zero).unwrap_err().contains("low-order"));
        let mut order_two = field_end(0xec);
        order_two[31] |= 0x80;
        assert!(decode_public(&STANDARD.encode(order_two)).unwrap_err().contains("low-order"));
        assert!(decode_public(&STANDARD.encode([1; 31])).unwrap_err().contains("31 bytes"));
        assert!(decode_public("not base64!").unwrap_err().contains("base64"));
        assert!(decode_public(&encode_public(&NodeKey([9; 32]))).is_ok());
    }
}
