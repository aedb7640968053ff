//! `netft cluster`: the roster from the operator's side. A change is signed here, with the
//! cluster's key, and handed to the daemon; without one it is written to the state directory.

mod generate;
mod invite;
mod join;
mod rotate;
mod start;

use std::{cmp::Ordering, fs, path::Path};

use netft::{
    api::host::identity,
    config::{DEFAULT_ADAPTER, PrivateKey},
    roster::{ClusterId, NodeAddress, NodeChange, NodeEntry, Roster, SignedRoster},
};

use super::{
    args::DaemonTarget,
    cluster_args::{AddArgs, ClusterCommand, CreateArgs, KeyCommand, OwnNodeArgs, SetArgs},
    init, interfaces, keys,
    output::StandardOutput,
};
use crate::{
    cluster::{
        node_config::load_node_config,
        store,
        store::{ClusterStore, write_atomic},
    },
    control::{
        client::DaemonClient,
        schema::{ClusterStatus, VersionedBody},
    },
    exit::ExitError,
    render::{cluster as view, style::OutputStyle},
};

/// Runs a command.
pub(super) fn run_cluster(
    command: ClusterCommand,
    target: &DaemonTarget,
    out: &mut StandardOutput,
) -> Result<(), ExitError> {
    let adapter = target.adapter.as_deref().unwrap_or(DEFAULT_ADAPTER);
    let context = ClusterContext {
        store: ClusterStore::new(&target.state_dir(), adapter),
        client: DaemonClient::new(target.resolve_socket()),
    };
    let mut out = ClusterOutput { json: target.json, style: target.output_style(), out };
    match command {
        ClusterCommand::Create(args) => create_cluster(&args, target, &mut out),
        ClusterCommand::Invite(args) => invite::open_invite(args, &context, &mut out),
        ClusterCommand::Join(args) => join::join_cluster(&args, target, &mut out),
        ClusterCommand::Show => {
            let status = context.status()?;
            out.print_status(&status, view::nodes_text)
        }
        ClusterCommand::Status => {
            let status = context.status()?;
            out.print_status(&status, view::status_text)
        }
        ClusterCommand::Add(args) => {
            context.edit(&mut out, |roster| roster.with_node(node_entry(args)))
        }
        ClusterCommand::Remove { name } => {
            context.edit(&mut out, |roster| roster.without_node(&name))
        }
        ClusterCommand::Rename { name, new } => {
            let change = NodeChange { name: Some(new), ..NodeChange::default() };
            context.edit(&mut out, |roster| roster.with_change(&name, change))
        }
        ClusterCommand::Set(SetArgs { name, change }) => {
            let change = NodeChange {
                name: None,
                addresses: Some(change.addresses).filter(|list| !list.is_empty()),
                site: change.site,
                roles: Some(change.roles).filter(|list| !list.is_empty()),
            };
            context.edit(&mut out, |roster| roster.with_change(&name, change))
        }
        ClusterCommand::Export { file } => {
            let signed = context.current()?;
            match file {
                Some(file) => write_atomic(&file, signed.text().as_bytes()).map_err(|error| {
                    ExitError::bad_environment(format!("cannot write {}: {error}", file.display()))
                }),
                None => out.out.write_text(signed.text()),
            }
        }
        ClusterCommand::Import { file } => {
            let signed = store::read_roster_file(&file)?;
            let status = context.publish(&signed)?;
            out.print_status(&status, view::status_text)
        }
        ClusterCommand::Generate(args) => generate::run_generate(&args, &mut out),
        ClusterCommand::Key(KeyCommand::Backup { file }) => {
            identity::write_key_file(&file, &context.key()?).map_err(keys::key_exit_error)
        }
        ClusterCommand::Key(KeyCommand::Rotate(args)) => {
            rotate::rotate_key(&args, &context, &mut out)
        }
        ClusterCommand::Key(KeyCommand::Restore { file }) => {
            let key = identity::read_key_file(&file).map_err(keys::key_exit_error)?;
            if cluster_id(&key)? != context.current()?.roster().id {
                return Err(ExitError::invalid_input("this key is of another cluster"));
            }
            context.store.create_key(&key)
        }
    }
}

/// The cluster's files and the daemon.
struct ClusterContext {
    store: ClusterStore,
    client: DaemonClient,
}

impl ClusterContext {
    /// The roster in force: the daemon's, or without one that on disk.
    fn current(&self) -> Result<SignedRoster, ExitError> {
        let found = if self.client.is_listening() {
            let text = self.daemon_status()?.roster;
            text.map(|text| SignedRoster::verify_first(text.as_bytes()))
                .transpose()
                .map_err(ExitError::other_error)?
        } else {
            self.store.load_roster()?
        };
        found.ok_or_else(no_cluster)
    }

    fn daemon_status(&self) -> Result<ClusterStatus, ExitError> {
        Ok(self.client.request_json::<ClusterStatus>("GET", "/v1/cluster", "")?.1)
    }

    /// The status of the daemon, or of the roster on disk.
    fn status(&self) -> Result<ClusterStatus, ExitError> {
        let status = if self.client.is_listening() {
            self.daemon_status()?
        } else {
            let signed = self.store.load_roster()?.ok_or_else(no_cluster)?;
            let can_sign = self.store.key_path().exists();
            ClusterStatus { can_sign, ..ClusterStatus::from_roster(&signed) }
        };
        if status.cluster.is_none() { Err(no_cluster()) } else { Ok(status) }
    }

    fn key(&self) -> Result<PrivateKey, ExitError> {
        self.store.load_key()?.ok_or_else(|| self.store.no_key_error())
    }

    /// Signs the next version of the roster, and brings it into force.
    fn edit<E: std::fmt::Display>(
        &self,
        out: &mut ClusterOutput<'_>,
        change: impl FnOnce(&Roster) -> Result<Roster, E>,
    ) -> Result<(), ExitError> {
        let key = self.key()?;
        let next = change(self.current()?.roster()).map_err(ExitError::invalid_input)?;
        let signed = SignedRoster::sign(&next, &key).map_err(ExitError::invalid_input)?;
        let status = self.publish(&signed)?;
        out.print_status(&status, view::nodes_text)
    }

    fn publish(&self, signed: &SignedRoster) -> Result<ClusterStatus, ExitError> {
        if self.client.is_listening() {
            let target = "/v1/cluster/roster";
            let answer = self.client.with_timeout(view::CHANGE_TIMEOUT);
            return Ok(answer.request_json::<ClusterStatus>("POST", target, signed.text())?.1);
        }
        if let Some(own) = self.store.load_roster()? {
            let is_same = own.roster().id == signed.roster().id;
            let (own, new) = (own.version(), signed.version());
            let is_newer = matches!(new.compare(&own), Some(Ordering::Greater | Ordering::Equal));
            if !is_same || !is_newer {
                return Err(ExitError::invalid_input(format!(
                    "the roster here is {own:?}{}, this one is {new:?}: only a higher serial of \
                     the same cluster replaces it",
                    if is_same { "" } else { " of another cluster" }
                )));
            }
        }
        self.store.save_roster(signed)?;
        Ok(ClusterStatus { can_sign: true, ..ClusterStatus::from_roster(signed) })
    }
}

fn no_cluster() -> ExitError {
    ExitError::invalid_input(
        "this node is in no cluster: `netft cluster create NAME`, or `netft cluster import FILE`",
    )
}

fn cluster_id(key: &PrivateKey) -> Result<ClusterId, ExitError> {
    Ok(ClusterId(identity::public_key(key).map_err(keys::key_exit_error)?.0))
}

fn node_entry(args: AddArgs) -> NodeEntry {
    let AddArgs { name, key, addresses, site, roles } = args;
    NodeEntry { name, key, addresses, site: site.unwrap_or_default(), roles }
}

/// Standard output, and how answers are written there.
struct ClusterOutput<'a> {
    json: bool,
    style: OutputStyle,
    out: &'a mut StandardOutput,
}

impl ClusterOutput<'_> {
    fn print_status(
        &mut self,
        status: &ClusterStatus,
        show: fn(&ClusterStatus, &OutputStyle) -> String,
    ) -> Result<(), ExitError> {
        let body = VersionedBody::new(status);
        let text = serde_json::to_string(&body).map_err(ExitError::other_error)?;
        let style = &self.style;
        self.out.print_response(self.json, &text, || show(status, style))
    }
}

fn create_cluster(
    args: &CreateArgs,
    target: &DaemonTarget,
    out: &mut ClusterOutput<'_>,
) -> Result<(), ExitError> {
    prepare_node(&args.own.config, args.name.as_deref())?;
    let loaded = load_node_config(&args.own.config, &target.runtime_dir, &target.state_dir())?;
    if let Some(roster) = &loaded.roster {
        let name = &roster.roster().cluster;
        return Err(ExitError::invalid_input(format!(
            "this node is in the cluster {name:?} already ({})",
            loaded.store.roster_path().display()
        )));
    }
    let config = &loaded.config;
    let key = match loaded.store.load_key()? {
        Some(key) => key,
        None => {
            let key = identity::generate_key().map_err(keys::key_exit_error)?;
            loaded.store.create_key(&key)?;
            key
        }
    };
    let addresses = own_addresses(&args.own, config.session.port)?;
    let entry = NodeEntry {
        name: config.name.clone(),
        key: config.public_key,
        addresses,
        site: config.site.clone(),
        roles: Vec::new(),
    };
    let empty = Roster { serial: 0, ..Roster::new(&args.cluster, cluster_id(&key)?) };
    let mut roster = empty.with_node(entry).map_err(ExitError::invalid_input)?;
    // Addresses that the config gives stay.
    for node in &mut roster.nodes {
        node.addrs = config.adapter.addrs;
    }
    let signed = SignedRoster::sign(&roster, &key).map_err(ExitError::invalid_input)?;
    let context =
        ClusterContext { store: loaded.store, client: DaemonClient::new(target.resolve_socket()) };
    let status = context.publish(&signed)?;
    start::start_daemon(&args.own.start, &args.own.config, &context.client)?;
    out.print_status(&status, view::nodes_text)
}

/// Writes the config file and the key of this node, unless they are there.
fn prepare_node(config: &Path, name: Option<&str>) -> Result<(), ExitError> {
    match fs::symlink_metadata(config) {
        Ok(_) => Ok(()),
        Err(_) => init::write_node_files(config, name, false).map(drop),
    }
}

/// Addresses of this node: those given, else one per network.
fn own_addresses(args: &OwnNodeArgs, port: u16) -> Result<Vec<NodeAddress>, ExitError> {
    if !args.addresses.is_empty() {
        return Ok(args.addresses.clone());
    }
    let networks = interfaces::find_networks().map_err(|error| {
        ExitError::bad_environment(format!("cannot list the interfaces: {error}"))
    })?;
    let addresses = networks.iter().map(|network| network.address);
    // A link-local address means nothing without an interface of the other node.
    let is_global = |addr: &std::net::IpAddr| match addr {
        std::net::IpAddr::V4(v4) => !v4.is_link_local(),
        std::net::IpAddr::V6(v6) => !v6.is_unicast_link_local(),
    };
    Ok(addresses.filter(is_global).map(|addr| NodeAddress::Addr((addr, port).into())).collect())
}
