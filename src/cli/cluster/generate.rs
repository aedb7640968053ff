//! `netft cluster generate`: one folder per node, with no secret but its own.

use std::{fmt::Write as _, fs, fs::DirBuilder, os::unix::fs::DirBuilderExt, path::Path};

use netft::{
    api::host::identity,
    roster::{NodeEntry, NodeRole, Roster, SignedRoster},
};
use serde::Deserialize;

use super::{ClusterOutput, cluster_id, keys};
use crate::{
    cli::{
        cluster_args::{GenerateArgs, parse_address},
        init,
    },
    cluster::store::{read_roster_file, write_atomic},
    config::node_name,
    control::schema::ClusterStatus,
    exit::ExitError,
    render::cluster,
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Inventory {
    cluster: String,
    #[serde(default)]
    node: Vec<InventoryNode>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct InventoryNode {
    name: String,
    #[serde(default)]
    addresses: Vec<String>,
    #[serde(default)]
    site: String,
    #[serde(default)]
    roles: Vec<String>,
}

/// Writes the folders. What is there is kept: keys, virtual addresses, and a roster that says the
/// same.
pub(super) fn run_generate(
    args: &GenerateArgs,
    out: &mut ClusterOutput<'_>,
) -> Result<(), ExitError> {
    let path = args.inventory.display();
    let text = fs::read_to_string(&args.inventory)
        .map_err(|error| ExitError::bad_environment(format!("cannot read {path}: {error}")))?;
    let inventory: Inventory = toml::from_str(&text)
        .map_err(|error| ExitError::invalid_input(format!("{path}: {error}")))?;
    let entries = check_inventory(&inventory)
        .map_err(|reason| ExitError::invalid_input(format!("{path}: {reason}")))?;
    make_folder(&args.out)?;
    let cluster_key = init::load_or_generate_key(&args.out.join("cluster-key"))?.0;
    let id = cluster_id(&cluster_key)?;
    let roster_path = args.out.join("roster.toml");
    let before = if roster_path.exists() { Some(read_roster_file(&roster_path)?) } else { None };
    let mut roster = match &before {
        Some(signed) => signed.roster().clone(),
        None => Roster { serial: 0, ..Roster::new(&inventory.cluster, id) },
    };
    let serial = roster.serial;
    let gone = |name: &str| !entries.iter().any(|(entry, _)| entry == name);
    let names: Vec<_> = roster.nodes.iter().map(|node| node.name.clone()).collect();
    for name in names.iter().filter(|name| gone(name)) {
        roster = roster.without_node(name).map_err(ExitError::invalid_input)?;
    }
    for (name, entry) in &entries {
        let folder = args.out.join(name);
        make_folder(&folder)?;
        let key = init::load_or_generate_key(&folder.join("key"))?.0;
        let key = identity::public_key(&key).map_err(keys::key_exit_error)?;
        let entry = NodeEntry { key, ..entry.clone() };
        roster = roster.with_node(entry).map_err(ExitError::invalid_input)?;
    }
    // One new version, and none when nothing changed.
    roster.serial = serial + 1;
    let is_same = before.as_ref().is_some_and(|signed| {
        let same = Roster { serial, ..roster.clone() };
        same.without_lines() == signed.roster().clone().without_lines()
    });
    let signed = match before {
        Some(signed) if is_same => signed,
        _ => SignedRoster::sign(&roster, &cluster_key).map_err(ExitError::invalid_input)?,
    };
    write_file(&roster_path, signed.text())?;
    for (name, _) in &entries {
        let folder = args.out.join(name);
        write_file(&folder.join("netft.toml"), &config_text(name, &inventory.cluster))?;
        write_file(&folder.join("netft0.roster.toml"), signed.text())?;
    }
    let status = ClusterStatus { can_sign: true, ..ClusterStatus::from_roster(&signed) };
    out.print_status(&status, cluster::nodes_text)
}

/// The nodes as they stand in the inventory, with a placeholder for the key.
fn check_inventory(inventory: &Inventory) -> Result<Vec<(String, NodeEntry)>, String> {
    node_name(&inventory.cluster).map_err(|why| format!("cluster: {why}"))?;
    let entries = inventory.node.iter().map(|node| {
        let failed = |why: String| format!("node {:?}: {why}", node.name);
        let name = node_name(&node.name).map_err(failed)?;
        let addresses = node.addresses.iter().map(|text| parse_address(text));
        let roles = node.roles.iter().map(|word| {
            NodeRole::from_word(word).ok_or_else(|| failed(format!("{word:?} is no role")))
        });
        let site = match node.site.as_str() {
            "" => String::new(),
            site => node_name(site).map_err(failed)?,
        };
        let entry = NodeEntry {
            name: name.clone(),
            key: netft::NodeKey([0; 32]),
            addresses: addresses.collect::<Result<_, _>>().map_err(failed)?,
            site,
            roles: roles.collect::<Result<_, _>>()?,
        };
        Ok((name, entry))
    });
    entries.collect()
}

fn config_text(name: &str, cluster: &str) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = write!(
        text,
        "# Node {name} of cluster {cluster}; the other nodes stand in netft0.roster.toml, which\n\
         # belongs into the state directory (/var/lib/netft).\n\n\
         [node]\nname = \"{name}\"\nkey = \"key\"\n"
    );
    text
}

fn make_folder(path: &Path) -> Result<(), ExitError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|error| {
        ExitError::bad_environment(format!("cannot create {}: {error}", path.display()))
    })
}

fn write_file(path: &Path, text: &str) -> Result<(), ExitError> {
    write_atomic(path, text.as_bytes()).map_err(|error| {
        ExitError::bad_environment(format!("cannot write {}: {error}", path.display()))
    })
}
