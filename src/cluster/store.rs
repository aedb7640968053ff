//! Files of a cluster in the state directory: the signed roster, and on the node where the cluster
//! was created its private key. Written whole: a new file, fsync, rename, fsync of the directory.

use std::{
    fs,
    fs::{DirBuilder, File, OpenOptions},
    io,
    io::{Read as _, Write as _},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, fchown},
    path::{Path, PathBuf},
};

use netft::{
    NodeKey,
    api::host::identity,
    config::PrivateKey,
    roster::{MAX_ROSTER_LEN, SignedRoster},
};

use crate::exit::ExitError;

/// Directory of the lock and the control socket of a system's daemon.
const RUNTIME_DIR: &str = "/run/netft";
/// Directory of its state.
const STATE_DIR: &str = "/var/lib/netft";

/// The directory of the state, for both programs: the one given, else that which belongs to the
/// runtime directory. Daemons with other runtime directories share no state.
pub fn resolve_state_dir(given: Option<&Path>, runtime_dir: &Path) -> PathBuf {
    match given {
        Some(dir) => dir.to_owned(),
        None if runtime_dir == Path::new(RUNTIME_DIR) => STATE_DIR.into(),
        None => runtime_dir.join("state"),
    }
}

/// The files of one adapter's cluster.
#[derive(Clone, Debug)]
pub struct ClusterStore {
    dir: PathBuf,
    adapter: String,
}

impl ClusterStore {
    /// The files of `adapter` in `dir`, neither of which has to exist.
    pub fn new(dir: &Path, adapter: &str) -> Self {
        Self { dir: dir.to_owned(), adapter: adapter.to_owned() }
    }

    fn file_path(&self, what: &str) -> PathBuf {
        self.dir.join(format!("{}.{what}", self.adapter))
    }

    /// The roster's file.
    pub fn roster_path(&self) -> PathBuf {
        self.file_path("roster.toml")
    }

    /// The file of the cluster's private key.
    pub fn key_path(&self) -> PathBuf {
        self.file_path("cluster-key")
    }

    /// Keys of this node that its cluster has put, or will put, in the place of `node.key`: the
    /// newest first.
    ///
    /// # Errors
    /// A file cannot be used.
    pub fn load_node_keys(&self) -> Result<Vec<PrivateKey>, ExitError> {
        let paths = [self.next_key_path(), self.file_path("node-key")];
        let keys = paths.iter().map(|path| load_key_file(path));
        Ok(keys.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
    }

    fn next_key_path(&self) -> PathBuf {
        self.file_path("next-key")
    }

    /// Makes sure that the key that will replace `in_use` is on the disk, and returns its public
    /// half. Repeated calls give the same key until it is in use.
    ///
    /// # Errors
    /// Of the disk, or there is no randomness.
    pub fn prepare_next_key(&self, in_use: NodeKey) -> Result<NodeKey, ExitError> {
        let path = self.next_key_path();
        if let Some(key) = load_key_file(&path)? {
            let public = identity::public_key(&key).map_err(ExitError::invalid_input)?;
            if public != in_use {
                return Ok(public);
            }
            // It stays the node's key; the one before it is nobody's.
            fs::rename(&path, self.file_path("node-key"))
                .map_err(|error| write_exit_error(&path, &error))?;
        }
        let key = identity::generate_key().map_err(ExitError::bad_environment)?;
        self.make_dir()?;
        identity::write_key_file(&path, &key).map_err(ExitError::bad_environment)?;
        // The name of a file is on the disk once its folder is.
        File::open(&self.dir)
            .and_then(|folder| folder.sync_all())
            .map_err(|error| write_exit_error(&self.dir, &error))?;
        identity::public_key(&key).map_err(ExitError::invalid_input)
    }

    /// Reads the roster; `None` when there is no file.
    ///
    /// # Errors
    /// The file cannot be read, or is not a valid roster (exit code 2).
    pub fn load_roster(&self) -> Result<Option<SignedRoster>, ExitError> {
        let path = self.roster_path();
        let bytes = match read_bounded(&path, MAX_ROSTER_LEN) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(read_exit_error(&path, &error)),
        };
        parse_roster(&path, &bytes).map(Some)
    }

    /// Stores the roster.
    ///
    /// # Errors
    /// Of the kernel; the former file is untouched then.
    pub fn save_roster(&self, roster: &SignedRoster) -> Result<(), ExitError> {
        // Not secret, but of root alone to change; the directory's mode decides who reads it.
        self.write_whole(&self.roster_path(), roster.text().as_bytes())
    }

    /// Reads the cluster's private key; `None` when it is not on this node.
    ///
    /// # Errors
    /// The file cannot be used.
    pub fn load_key(&self) -> Result<Option<PrivateKey>, ExitError> {
        load_key_file(&self.key_path())
    }

    /// Error of a command that needs the cluster's private key on a node without it.
    pub fn no_key_error(&self) -> ExitError {
        ExitError::invalid_input(format!(
            "the cluster's key is not on this node ({}): run this where `netft cluster create` \
             ran, or restore a backup of the key",
            self.key_path().display()
        ))
    }

    /// Stores the cluster's private key; an existing one is never overwritten.
    ///
    /// # Errors
    /// The file exists, or cannot be written.
    pub fn create_key(&self, key: &PrivateKey) -> Result<(), ExitError> {
        self.make_dir()?;
        identity::write_key_file(&self.key_path(), key).map_err(ExitError::invalid_input)
    }

    fn make_dir(&self) -> Result<(), ExitError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.dir)
            .map_err(|error| write_exit_error(&self.dir, &error))
    }

    fn write_whole(&self, path: &Path, bytes: &[u8]) -> Result<(), ExitError> {
        self.make_dir()?;
        write_atomic(path, bytes).map_err(|error| write_exit_error(path, &error))
    }
}

/// Reads a private key; `None` when there is no file.
fn load_key_file(path: &Path) -> Result<Option<PrivateKey>, ExitError> {
    if path.symlink_metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
        return Ok(None);
    }
    identity::read_key_file(path).map(Some).map_err(ExitError::invalid_input)
}

/// Reads the signed roster in a file.
///
/// # Errors
/// As [`ClusterStore::load_roster`].
pub fn read_roster_file(path: &Path) -> Result<SignedRoster, ExitError> {
    let bytes =
        read_bounded(path, MAX_ROSTER_LEN).map_err(|error| read_exit_error(path, &error))?;
    parse_roster(path, &bytes)
}

fn parse_roster(path: &Path, bytes: &[u8]) -> Result<SignedRoster, ExitError> {
    SignedRoster::verify_first(bytes).map_err(|refusal| {
        ExitError::invalid_input(format!(
            "{}: {refusal}\n`netft cluster export` on another node prints a whole one",
            path.display()
        ))
    })
}

/// Replaces the file at `path`, readable by its owner only: after a power failure it has the old
/// content or the new one.
///
/// # Errors
/// Of the kernel; no temporary file is left behind.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_prepared(path, bytes, |_| Ok(()))
}

/// Replaces the content of the file at `path`, whose mode and owner stay.
///
/// # Errors
/// As [`write_atomic`]; there is no such file.
pub fn replace_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let former = fs::metadata(path)?;
    write_prepared(path, bytes, |file| {
        let own = file.metadata()?;
        if (own.uid(), own.gid()) != (former.uid(), former.gid()) {
            fchown(file, Some(former.uid()), Some(former.gid()))?;
        }
        file.set_permissions(former.permissions())
    })
}

fn write_prepared(
    path: &Path,
    bytes: &[u8],
    prepare: impl Fn(&File) -> io::Result<()>,
) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = path.with_file_name(name);
    let write = || {
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(0o600).open(&temporary)?;
        prepare(&file)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    };
    // A leftover of a process with this id that was killed.
    let _ = fs::remove_file(&temporary);
    write().inspect_err(|_| drop(fs::remove_file(&temporary)))
}

/// The whole file; one byte more than `most` if it is longer.
///
/// # Errors
/// Of the kernel.
pub fn read_bounded(path: &Path, most: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(most as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn read_exit_error(path: &Path, error: &io::Error) -> ExitError {
    ExitError::bad_environment(format!("cannot read {}: {error}", path.display()))
}

fn write_exit_error(path: &Path, error: &io::Error) -> ExitError {
    ExitError::bad_environment(format!("cannot write {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::os::unix::fs::PermissionsExt;

    use netft::roster::{ClusterId, NodeEntry, Roster};

    use super::*;

    fn signed(serial: u64) -> (SignedRoster, PrivateKey) {
        let key = identity::generate_key().unwrap();
        let id = ClusterId(identity::public_key(&key).unwrap().0);
        let roster = Roster { serial, ..Roster::new("prod", id) };
        (SignedRoster::sign(&roster, &key).unwrap(), key)
    }

    #[test]
    fn a_roster_survives_the_disk_and_no_part_of_a_new_one_is_ever_seen() {
        let folder = tempfile::tempdir().unwrap();
        let store = ClusterStore::new(&folder.path().join("state"), "netft0");
        assert!(store.load_roster().unwrap().is_none());
        for serial in 1..4 {
            let (roster, _) = signed(serial);
            store.save_roster(&roster).unwrap();
            assert_eq!(store.load_roster().unwrap().unwrap(), roster);
        }
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&store.roster_path()), 0o600);
        assert_eq!(mode(store.roster_path().parent().unwrap()), 0o700);
        assert_eq!(fs::read_dir(folder.path().join("state")).unwrap().count(), 1);
        // A write that fails in its middle leaves the former file.
        let before = fs::read(store.roster_path()).unwrap();
        let unwritable = store.roster_path().join("below-a-file");
        assert!(write_atomic(&unwritable, b"x").is_err());
        assert_eq!(fs::read(store.roster_path()).unwrap(), before);
    }

    #[test]
    fn a_replaced_file_keeps_its_mode() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("netft.toml");
        assert!(replace_file(&path, b"x").is_err(), "there is none to replace");
        fs::write(&path, "before").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        replace_file(&path, b"after").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "after");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left");
    }

    /// The text is TOML as others read it.
    #[test]
    fn another_reader_of_toml_finds_the_same() {
        let key = identity::generate_key().unwrap();
        let id = ClusterId(identity::public_key(&key).unwrap().0);
        let mut roster = Roster::new("prod", id);
        for name in ["a", "b"] {
            let key = identity::public_key(&identity::generate_key().unwrap()).unwrap();
            let addresses = vec![format!("{name}.example.net:3343").parse().unwrap()];
            let (name, site, roles) = (name.to_owned(), String::new(), Vec::new());
            roster = roster.with_node(NodeEntry { name, key, addresses, site, roles }).unwrap();
        }
        let signed = SignedRoster::sign(&roster, &key).unwrap();
        let table: toml::Table = toml::from_str(signed.text()).unwrap();
        assert_eq!(table["serial"].as_integer(), Some(3));
        assert_eq!(table["node"][1]["name"].as_str(), Some("b"));
        assert_eq!(table["node"][1]["addresses"][0].as_str(), Some("b.example.net:3343"));
        assert_eq!(table["signature"]["ed25519"].as_str().map(str::len), Some(88));
    }

    #[test]
    fn a_damaged_roster_is_refused_with_its_path_and_the_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let store = ClusterStore::new(folder.path(), "netft0");
        let (roster, _) = signed(7);
        let damaged = roster.text().replace("serial = 7", "serial = 8");
        fs::write(store.roster_path(), damaged).unwrap();
        let error = store.load_roster().unwrap_err();
        assert_eq!(error.code, 2);
        assert!(error.text.contains("netft0.roster.toml: the signature does not fit"));
        assert!(error.text.contains("`netft cluster export` on another node"), "{}", error.text);
    }

    #[test]
    fn a_next_key_is_the_same_until_it_is_in_use_and_the_key_in_use_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let store = ClusterStore::new(&folder.path().join("state"), "netft0");
        let public = |key: &PrivateKey| identity::public_key(key).unwrap();
        let stored = || store.load_node_keys().unwrap().iter().map(public).collect::<Vec<_>>();
        assert!(stored().is_empty());
        let first = NodeKey([2; 32]);
        let second = store.prepare_next_key(first).unwrap();
        assert_eq!(store.prepare_next_key(first).unwrap(), second, "asked again");
        assert_eq!(stored(), [second]);
        let third = store.prepare_next_key(second).unwrap();
        assert_eq!(stored(), [third, second], "the key in use is on the disk at every moment");
        let fourth = store.prepare_next_key(third).unwrap();
        assert_eq!(stored(), [fourth, third], "and the former one is gone");
    }

    #[test]
    fn a_cluster_key_is_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let store = ClusterStore::new(folder.path(), "netft0");
        assert!(store.load_key().unwrap().is_none());
        let (_, key) = signed(1);
        store.create_key(&key).unwrap();
        assert_eq!(store.load_key().unwrap().unwrap().public_key(), key.public_key());
        assert!(store.create_key(&signed(1).1).is_err());
    }
}
