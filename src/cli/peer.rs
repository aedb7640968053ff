//! `netft peer`: one peer and its traffic policies.

use clap::Subcommand;
use netft::route::{
    Policy,
    policy::{Dscp, PortRange, Protocol},
};

use super::{
    diff,
    output::{StandardOutput, warn_unsaved},
};
use crate::{
    config::node_name,
    control::{
        client::DaemonClient,
        schema::{OverrideView, PeerBody, PeerList, PeerPatch, TrafficClassSpec},
    },
    exit::ExitError,
    render::views,
};

#[derive(Debug, Subcommand)]
pub(super) enum PeerCommand {
    /// Show a peer.
    Show {
        /// Peer name.
        #[arg(value_parser = node_name)]
        name: String,
    },
    /// Change the traffic policies of a peer; the change stays over a restart.
    Set {
        /// Peer name.
        #[arg(value_parser = node_name)]
        name: String,
        #[command(flatten)]
        change: PeerChangeArgs,
        /// Write the change into the configuration file, too; its comments stay.
        #[arg(long)]
        save: bool,
    },
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = true)]
pub(super) struct PeerChangeArgs {
    /// Policy of unclassified traffic: failover, duplicate or balance.
    #[arg(long, value_name = "POLICY", value_parser = parse_policy)]
    policy: Option<String>,
    /// Traffic class with a policy of its own, such as `policy=duplicate,dscp=ef`; further keys are
    /// protocol, port, min_size and max_size. Repeat it for more classes: they replace the present
    /// ones, and the first match decides.
    #[arg(long = "class", value_name = "KEY=VALUE,…", value_parser = parse_class)]
    classes: Vec<TrafficClassSpec>,
    /// Remove every class.
    #[arg(long, conflicts_with = "classes")]
    no_classes: bool,
}

/// The error about a peer that a filter names and the daemon does not know.
pub(super) fn unknown_peer(name: &str) -> ExitError {
    ExitError::invalid_input(format!("there is no peer {name:?}"))
}

/// Fails unless the daemon knows the peer: a filter that is misspelt must not look like silence.
///
/// # Errors
/// It does not, or there is no daemon.
pub(super) fn require_peer(client: &DaemonClient, name: &str) -> Result<(), ExitError> {
    let (_, list) = client.request_json::<PeerList>("GET", "/v1/peers", "")?;
    let is_known = list.peers.iter().any(|peer| peer.name == name);
    if is_known { Ok(()) } else { Err(unknown_peer(name)) }
}

pub(super) fn run_peer_command(
    client: &DaemonClient,
    command: PeerCommand,
    json: bool,
    out: &mut StandardOutput,
) -> Result<(), ExitError> {
    let (text, answer) = match command {
        PeerCommand::Show { name } => {
            client.request_json::<PeerBody>("GET", &format!("/v1/peers/{name}"), "")?
        }
        PeerCommand::Set { name, change, save } => {
            let replaced = change.no_classes || !change.classes.is_empty();
            let classes = replaced.then_some(change.classes);
            let patch = PeerPatch { policy: change.policy, classes };
            let body = serde_json::to_string(&patch).map_err(ExitError::other_error)?;
            let target = format!("/v1/peers/{name}");
            let answer = client.request_json::<PeerBody>("PATCH", &target, &body)?;
            if save {
                let is_own =
                    |one: &OverrideView| one.kind == "policies" && one.peer.as_ref() == Some(&name);
                diff::save_overrides(client, is_own)?;
            }
            answer
        }
    };
    warn_unsaved(answer.overrides_unsaved.as_deref());
    out.print_response(json, &text, || views::peer_text(&answer.peer))
}

fn parse_policy(text: &str) -> Result<String, String> {
    let policy: Policy =
        text.parse().map_err(|error: netft::route::policy::UnknownPolicy| error.to_string())?;
    Ok(policy.to_string())
}

/// Parses a class given as `key=value,key=value`, with the keys of the configuration.
fn parse_class(text: &str) -> Result<TrafficClassSpec, String> {
    let mut class = TrafficClassSpec::default();
    for pair in text.split(',') {
        let (key, value) =
            pair.split_once('=').ok_or_else(|| format!("{pair:?} is not `key=value`"))?;
        let size =
            || value.parse().map(Some).map_err(|_| format!("{value:?} is not a size in bytes"));
        match key {
            "policy" => class.policy = parse_policy(value)?,
            "dscp" => class.dscp = Some(parse_dscp(value)?),
            "protocol" => {
                let protocol =
                    Protocol::from_name(value).ok_or("a protocol is tcp, udp or icmp")?;
                class.protocol = Some(protocol.as_str().to_owned());
            }
            "port" => {
                let ports = value.parse::<PortRange>().map_err(|error| error.to_string())?;
                class.port = Some(ports.to_string());
            }
            "min_size" => class.min_size = size()?,
            "max_size" => class.max_size = size()?,
            _ => return Err(format!("a class has no key {key:?}")),
        }
    }
    if class.policy.is_empty() {
        return Err("`policy=` is missing".to_owned());
    }
    Ok(class)
}

fn parse_dscp(text: &str) -> Result<u64, String> {
    let number = || text.parse().ok().and_then(|number| Dscp::new(number).ok());
    let found = Dscp::from_name(text).or_else(number);
    let found = found.ok_or("a code point is 0–63, or a name such as ef, cs6 or af41")?;
    Ok(found.get().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_is_keys_and_values() {
        let all = "policy=balance,dscp=ef,protocol=udp,port=5-9,min_size=1,max_size=2";
        let expected = TrafficClassSpec {
            policy: "balance".to_owned(),
            dscp: Some(46),
            protocol: Some("udp".to_owned()),
            port: Some("5-9".to_owned()),
            min_size: Some(1),
            max_size: Some(2),
        };
        assert_eq!(parse_class(all), Ok(expected));
        for (text, word) in [
            ("", "key=value"),
            ("dscp=1", "`policy=` is missing"),
            ("policy=fast", "a policy is"),
            ("policy=balance,dscp=64", "0–63"),
            ("policy=balance,port=x", "a port"),
            ("policy=balance,protocol=gre", "tcp"),
            ("policy=balance,max_size=-1", "size in bytes"),
            ("policy=balance,colour=1", "no key \"colour\""),
        ] {
            let error = parse_class(text).expect_err(text);
            assert!(error.contains(word), "{text}: {error}");
        }
    }
}
