//! `netft cluster join`: one command that makes this machine a node of a cluster.
//!
//! The key is made first and stays whatever follows, so that a join that was cut off is repeated by
//! the same node. Roster and config are written once the inviting node's roster names this one, the
//! config last: without it netftd does not start.

use std::{
    fmt::Write as _,
    fs,
    io::Read as _,
    path::{Path, PathBuf},
    time::Duration,
};

use netft::{
    NodeKey,
    api::{
        host::identity,
        join::{Joiner, request_join},
    },
    config::{Config, DEFAULT_ADAPTER, DEFAULT_PORT, PrivateKey},
    roster::{ClusterView, JoinReply, JoinToken, RosterNode, SignedRoster},
};
use serde::{Deserialize, Serialize};

use super::{ClusterContext, ClusterOutput, own_addresses, start, start::RouteOutcome};
use crate::{
    cli::{args::DaemonTarget, cluster_args::JoinArgs, init, interfaces, keys},
    cluster::{
        node_config::{NodeConfig, load_node_config},
        store::{ClusterStore, write_atomic},
    },
    control::{client::DaemonClient, schema::VersionedBody},
    exit::ExitError,
    text::escape,
};

/// Longest token with what surrounds it on standard input, bytes.
const MAX_TOKEN_INPUT: u64 = 4096;

/// Answer of `netft cluster join --json`.
#[derive(Debug, Serialize, Deserialize)]
struct JoinAnswer {
    /// Name of the cluster.
    cluster: String,
    /// Name of this node.
    name: String,
    /// Its virtual IPv4 address.
    address: String,
    /// Its virtual IPv6 address.
    address6: String,
    /// Serial of the roster.
    serial: u64,
    /// Nodes of the roster.
    nodes: usize,
    /// The configuration file.
    config: String,
    /// netftd runs.
    running: bool,
    /// Routes that are up.
    routes_up: usize,
    /// All routes.
    routes_total: usize,
    /// Peers with routes that are not up, and why.
    missing: Vec<String>,
}

/// Joins the cluster of a token.
pub(super) fn join_cluster(
    args: &JoinArgs,
    target: &DaemonTarget,
    out: &mut ClusterOutput<'_>,
) -> Result<(), ExitError> {
    let token: JoinToken = read_token(&args.token)?.parse().map_err(ExitError::invalid_input)?;
    let node = JoiningNode::prepare(args, target, &token)?;
    let addresses = own_addresses(&args.own, node.port())?;
    let joiner = Joiner {
        key: &node.key,
        name: &node.name,
        name_chosen: node.name_chosen,
        addresses: &addresses,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(ExitError::bad_environment)?;
    let reply = runtime
        .block_on(request_join(&token, &joiner))
        .map_err(|error| ExitError::other_error(escape(&error.to_string())))?;
    let signed = read_reply(&reply, &token)?;
    let own = signed.roster().node_with_key(&node.public).ok_or_else(|| {
        ExitError::other_error("the inviting node's reply does not name this node: nothing changed")
    })?;
    let context =
        ClusterContext { store: node.store(), client: DaemonClient::new(target.resolve_socket()) };
    node.write_files(&signed, own, &context)?;
    let running = start::start_daemon(&args.own.start, &args.own.config, &context.client)?;
    let routes = match running {
        true => start::wait_for_routes(&context.client, Duration::from_secs(args.timeout)),
        false => RouteOutcome { is_connected: true, ..RouteOutcome::default() },
    };
    let answer = JoinAnswer {
        cluster: signed.roster().cluster.clone(),
        name: own.name.clone(),
        address: own.addrs.v4.to_string(),
        address6: own.addrs.v6.to_string(),
        serial: signed.version().serial,
        nodes: signed.roster().nodes.len(),
        config: args.own.config.display().to_string(),
        running,
        routes_up: routes.up,
        routes_total: routes.total,
        missing: routes.missing,
    };
    let body = VersionedBody::new(&answer);
    let text = serde_json::to_string(&body).map_err(ExitError::other_error)?;
    out.out.print_response(out.json, &text, || answer_text(&answer, &args.own.config))?;
    match routes.is_connected {
        true => Ok(()),
        false => Err(ExitError::other_error("this node is in the cluster, but reaches no peer")),
    }
}

fn read_token(argument: &str) -> Result<String, ExitError> {
    if argument != "-" {
        return Ok(argument.to_owned());
    }
    let mut text = String::new();
    std::io::stdin().take(MAX_TOKEN_INPUT).read_to_string(&mut text).map_err(|error| {
        ExitError::bad_environment(format!("cannot read the token from standard input: {error}"))
    })?;
    Ok(text)
}

/// The roster of a reply, checked against the cluster that the token names.
fn read_reply(reply: &[u8], token: &JoinToken) -> Result<SignedRoster, ExitError> {
    match JoinReply::decode(reply) {
        Ok(JoinReply::Joined(roster)) => SignedRoster::verify(&roster, &token.cluster)
            .map_err(|refusal| ExitError::other_error(format!("nothing changed: {refusal}"))),
        Ok(JoinReply::Refused(reason)) => {
            Err(ExitError::other_error(format!("the inviting node refused: {}", escape(&reason))))
        }
        Err(_) => Err(ExitError::other_error(
            "the inviting node's reply is not understood: nothing changed; is netft of the same \
             release there?",
        )),
    }
}

/// This machine, before it is a node.
struct JoiningNode {
    /// The config, if there is one.
    existing: Option<NodeConfig>,
    config_path: PathBuf,
    state_dir: PathBuf,
    key: PrivateKey,
    public: NodeKey,
    name: String,
    name_chosen: bool,
}

impl JoiningNode {
    /// Reads config, key and roster; makes the key, if there is none.
    fn prepare(
        args: &JoinArgs,
        target: &DaemonTarget,
        token: &JoinToken,
    ) -> Result<Self, ExitError> {
        let existing = match fs::symlink_metadata(&args.own.config) {
            Ok(_) => {
                Some(load_node_config(&args.own.config, &target.runtime_dir, &target.state_dir())?)
            }
            Err(_) => None,
        };
        let (name, name_chosen, key) = match &existing {
            Some(loaded) => (loaded.config.name.clone(), true, loaded.config.key.clone()),
            None => {
                let folder = init::make_config_folder(&args.own.config)?;
                let (key, _) = init::load_or_generate_key(&folder.join("key"))?;
                let name = args.name.clone().map_or_else(init::machine_name, Ok)?;
                (name, args.name.is_some(), key)
            }
        };
        if args.name.as_ref().is_some_and(|wanted| *wanted != name) {
            return Err(ExitError::invalid_input(format!(
                "{} names this node {name:?}: leave --name out, or change it there",
                args.own.config.display()
            )));
        }
        let public = identity::public_key(&key).map_err(keys::key_exit_error)?;
        let (config_path, state_dir) = (args.own.config.clone(), target.state_dir());
        let node = Self { existing, config_path, state_dir, key, public, name, name_chosen };
        let store = node.store();
        if let Some(roster) = store.load_roster()?
            && roster.roster().id != token.cluster
        {
            return Err(ExitError::invalid_input(format!(
                "this node is in the cluster {:?}; to leave it, remove it there and move {} away",
                roster.roster().cluster,
                store.roster_path().display()
            )));
        }
        Ok(node)
    }

    fn store(&self) -> ClusterStore {
        let config = self.existing.as_ref().map(|loaded| &loaded.config);
        let adapter = config.map_or(DEFAULT_ADAPTER, |config| config.adapter.name.as_str());
        ClusterStore::new(&self.state_dir, adapter)
    }

    fn port(&self) -> u16 {
        self.existing.as_ref().map_or(DEFAULT_PORT, |loaded| loaded.config.session.port)
    }

    /// Writes roster and config, or hands the roster to a daemon that runs: both, or nothing.
    fn write_files(
        &self,
        signed: &SignedRoster,
        own: &RosterNode,
        context: &ClusterContext,
    ) -> Result<(), ExitError> {
        if let Some(loaded) = &self.existing {
            // A contradiction is named before anything is written.
            loaded.file.with_roster(signed, &context.store.roster_path(), None)?;
            return context.publish(signed).map(drop);
        }
        let mut config = Config::new(&own.name, self.key.clone(), self.public);
        let contradicts = "the roster does not fit this node: nothing changed";
        ClusterView(signed.roster())
            .apply_to(&mut config)
            .map_err(|_| ExitError::other_error(contradicts))?;
        config.check_settings().map_err(ExitError::other_error)?;
        let networks = interfaces::find_networks().map_err(|error| {
            ExitError::bad_environment(format!("cannot list the interfaces: {error}"))
        })?;
        let text = init::config_text(&own.name, &networks, false);
        let before = context.store.load_roster()?;
        context.store.save_roster(signed)?;
        write_atomic(&self.config_path, text.as_bytes()).map_err(|error| {
            // The first error is reported.
            let _ = match &before {
                Some(before) => context.store.save_roster(before),
                None => {
                    fs::remove_file(context.store.roster_path()).map_err(ExitError::other_error)
                }
            };
            let path = self.config_path.display();
            ExitError::bad_environment(format!("cannot write {path}: {error}; nothing changed"))
        })
    }
}

fn answer_text(answer: &JoinAnswer, config: &Path) -> String {
    let JoinAnswer { cluster, name, serial, nodes, address, routes_up, routes_total, .. } = answer;
    let mut text = format!(
        "joined cluster {} as {} ({address}): roster {serial}, {nodes} nodes\n",
        escape(cluster),
        escape(name)
    );
    // Writing to a String cannot fail.
    let _ = match answer.running {
        true => writeln!(text, "{routes_up} of {routes_total} routes up"),
        false => {
            writeln!(text, "netftd is not running: start it with `{}`", init::start_command(config))
        }
    };
    for missing in &answer.missing {
        let _ = writeln!(text, "missing: {}", escape(missing));
    }
    text
}
