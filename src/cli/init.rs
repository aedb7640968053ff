//! `netft init`: an initial configuration, with a comment on every line to review.

use std::{
    fmt::Write as _,
    fs,
    fs::{DirBuilder, OpenOptions},
    io,
    io::Write as _,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use netft::{
    NodeKey,
    api::host::identity,
    config::{DEFAULT_PORT, PrivateKey},
};
use serde::{Deserialize, Serialize};

use super::{args::InitArgs, interfaces, interfaces::LocalNetwork, keys, output::StandardOutput};
use crate::{config::node_name, control::schema::VersionedBody, exit::ExitError};

/// Configuration file that the unit runs.
const UNIT_CONFIG: &str = "/etc/netft/netft.toml";

/// Answer of `netft init --json`: what was written, and the `[[peer]]` of this node.
#[derive(Debug, Serialize, Deserialize)]
struct InitAnswer {
    /// The configuration file.
    config: String,
    /// The key file.
    key_file: String,
    /// The key is new; otherwise it was there.
    key_made: bool,
    /// This node's name.
    name: String,
    /// Its public key, base64.
    key: String,
    /// Its physical addresses.
    addresses: Vec<String>,
}

/// Writes the configuration, and the key file beside it unless it exists.
pub(super) fn run_init(
    args: &InitArgs,
    json: bool,
    out: &mut StandardOutput,
) -> Result<(), ExitError> {
    let path = &args.output;
    let NodeFiles { name, public, made, networks, key } =
        write_node_files(path, args.name.as_deref(), args.networks)?;
    let shown = path.display();
    let mut next = format!("wrote {shown}\n");
    if made {
        let _ = writeln!(next, "wrote {} (keep it secret)", key.display());
    }
    let addresses: Vec<_> = networks.iter().map(|found| format!("\"{}\"", found.address)).collect();
    let _ = write!(
        next,
        "\nNext:\n\
         1. On every other node, add this node to the config:\n\n\
         \x20  [[peer]]\n\
         \x20  name = \"{name}\"\n\
         \x20  key = \"{}\"\n\
         \x20  addresses = [{}]\n\n\
         2. Add the other nodes to {shown} in the same way.\n\
         3. Allow UDP port {DEFAULT_PORT} between the nodes.\n\
         4. `netft validate{}`, then `{}`.\n",
        public,
        addresses.join(", "),
        if path == Path::new(UNIT_CONFIG) { String::new() } else { format!(" --config {shown}") },
        start_command(path),
    );
    let answer = VersionedBody::new(InitAnswer {
        config: path.display().to_string(),
        key_file: key.display().to_string(),
        key_made: made,
        name,
        key: public.to_string(),
        addresses: networks.iter().map(|found| found.address.to_string()).collect(),
    });
    let text = serde_json::to_string(&answer).map_err(ExitError::other_error)?;
    out.print_response(json, &text, || next)
}

/// Command that starts the daemon with this configuration: by its unit, where that is installed and
/// runs this file.
pub(super) fn start_command(config: &Path) -> String {
    if runs_by_unit(config) {
        return "systemctl enable --now netftd".to_owned();
    }
    format!("netftd --config {}", config.display())
}

/// True if the unit is installed and runs this configuration.
pub(super) fn runs_by_unit(config: &Path) -> bool {
    let folders = ["/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"];
    let has_unit = folders.iter().any(|it| Path::new(it).join("netftd.service").exists());
    has_unit && config == Path::new(UNIT_CONFIG)
}

/// Files of a new node.
pub(super) struct NodeFiles {
    /// Its name.
    pub(super) name: String,
    /// Its public key.
    pub(super) public: NodeKey,
    /// The key is new; otherwise it was there.
    pub(super) made: bool,
    /// Networks of this machine.
    pub(super) networks: Vec<LocalNetwork>,
    /// The key file.
    pub(super) key: PathBuf,
}

/// Writes a configuration file that does not exist, and the key file beside it unless it does.
pub(super) fn write_node_files(
    path: &Path,
    name: Option<&str>,
    with_tables: bool,
) -> Result<NodeFiles, ExitError> {
    if path.symlink_metadata().is_ok() {
        return Err(ExitError::invalid_input(format!(
            "{} exists: move it away first",
            path.display()
        )));
    }
    let name = match name {
        Some(name) => name.to_owned(),
        None => machine_name()?,
    };
    let networks = interfaces::find_networks().map_err(|error| {
        ExitError::bad_environment(format!("cannot list the interfaces: {error}"))
    })?;
    let key = make_config_folder(path)?.join("key");
    let (private, made) = load_or_generate_key(&key)?;
    let public = identity::public_key(&private).map_err(keys::key_exit_error)?;
    let text = config_text(&name, &networks, with_tables);
    let mut options = OpenOptions::new();
    let file = options.write(true).create_new(true).mode(0o644).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|e| write_exit_error(path, &e))?;
    Ok(NodeFiles { name, public, made, networks, key })
}

/// Creates the folder of a configuration file, and returns it.
pub(super) fn make_config_folder(path: &Path) -> Result<PathBuf, ExitError> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(folder)
        .map_err(|error| write_exit_error(folder, &error))?;
    Ok(folder.to_owned())
}

/// Key of the file, created if missing; true if it was created.
pub(super) fn load_or_generate_key(path: &Path) -> Result<(PrivateKey, bool), ExitError> {
    let made = path.symlink_metadata().is_err();
    let key = if made {
        let key = identity::generate_key().map_err(keys::key_exit_error)?;
        identity::write_key_file(path, &key).map_err(keys::key_exit_error)?;
        key
    } else {
        identity::read_key_file(path).map_err(keys::key_exit_error)?
    };
    Ok((key, made))
}

/// The host name, as a node's name.
pub(super) fn machine_name() -> Result<String, ExitError> {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim().split('.').next().unwrap_or_default();
    node_name(name).map_err(|why| {
        ExitError::invalid_input(format!(
            "the host name {name:?} is not a valid node name ({why}): give --name"
        ))
    })
}

fn write_exit_error(path: &Path, error: &io::Error) -> ExitError {
    ExitError::bad_environment(format!("cannot write {}: {error}", path.display()))
}

/// Text of an initial configuration.
pub(super) fn config_text(name: &str, networks: &[LocalNetwork], with_tables: bool) -> String {
    let mut text = format!(
        "# netft: one adapter over every network the nodes share.\n\
         # `netftd --check FILE` checks this file.\n\
         \n\
         [node]\n\
         name = \"{name}\"\n\
         key = \"key\"            # beside this file; `netft pubkey` prints its public half\n\
         \n\
         # [adapter]\n\
         # name = \"netft0\"\n\
         # mtu = 1420\n\
         \n\
         # Time between heartbeats (ms), and how many may be missed before a route is down.\n\
         # [heartbeat]\n\
         # delay = 30\n\
         # threshold = 5\n\
         \n"
    );
    text += &networks_text(networks, with_tables);
    text += "# Every other node, with one or more of its addresses.\n\
             # [[peer]]\n\
             # name = \"b\"\n\
             # key = \"…\"               # `netft pubkey` there\n\
             # addresses = [\"10.1.0.2\"]\n";
    text
}

/// The networks as tables, or as comments: with one table only listed networks are used.
fn networks_text(networks: &[LocalNetwork], with_tables: bool) -> String {
    let mut text = String::from(
        "# Every network that two nodes share becomes a route by itself, also one that is added\n\
         # later. With a [[network]] table of another role than \"none\" only listed networks\n\
         # are used. Role: \"cluster\" for traffic between nodes, \"cluster-and-client\" where\n\
         # clients are too (used last), or \"none\".\n",
    );
    if networks.is_empty() {
        text += "# No network was found on this machine.\n";
    }
    if networks.is_empty() || !with_tables {
        for found in networks {
            let (name, role) = (found.interface.escape_debug(), found.role.as_str());
            let _ = writeln!(text, "# {name}: {} in {}, {role}", found.address, found.prefix);
        }
        return text + "# [[network]]\n# prefix = \"10.1.0.0/24\"\n# role = \"cluster\"\n\n";
    }
    for found in networks {
        let _ = write!(
            text,
            "[[network]]             # {}, {} here\nprefix = \"{}\"\nrole = \"{}\"\n\n",
            found.interface.escape_debug(),
            found.address,
            found.prefix,
            found.role.as_str(),
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use netft::config::NetworkRole;

    /// A table would switch off that a new network becomes a route by itself.
    #[test]
    fn no_network_is_listed_unless_asked_for() {
        let prefix = ipnet::IpNet::new_assert([10, 1, 0, 0].into(), 24);
        let found = [LocalNetwork {
            interface: "eth0".to_owned(),
            address: [10, 1, 0, 1].into(),
            prefix,
            role: NetworkRole::Cluster,
        }];
        let tables = |with_tables| {
            let text = config_text("a", &found, with_tables);
            text.lines().filter(|line| line.starts_with("[[network]]")).count()
        };
        assert_eq!([tables(false), tables(true)], [0, 1]);
    }
}
