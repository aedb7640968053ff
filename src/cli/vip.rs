//! `netft vip`: the floating addresses.

use clap::Subcommand;

use super::output::StandardOutput;
use crate::{
    config::{adapter_name, node_name},
    control::{
        client::DaemonClient,
        schema::{VipBody, VipList, VipOrder, VipOrderDone},
    },
    exit::ExitError,
    render::{style::OutputStyle, vips},
    text::escape,
};

#[derive(Debug, Subcommand)]
pub(super) enum VipCommand {
    /// List the floating addresses.
    List,
    /// Show one address.
    Show {
        /// Name of the address.
        #[arg(value_parser = node_name)]
        name: String,
    },
    /// Explain the state of an address: who decided, and what happened on this node.
    Why {
        /// Name of the address.
        #[arg(value_parser = node_name)]
        name: String,
    },
    /// Take an address on this node, after probing for it (`ownership = "manual"`).
    Online {
        /// Name of the address.
        #[arg(value_parser = node_name)]
        name: String,
        /// For a cluster manager's agent (`ownership = "external"`): seconds of /proc/uptime before
        /// it asked the manager; to be repeated until the address is online
        #[arg(long = "asked", value_name = "UPTIME", value_parser = parse_uptime)]
        asked_ms: Option<u64>,
    },
    /// Renew the lease of an address that is online (`ownership = "external"`).
    Renew {
        /// Name of the address.
        #[arg(value_parser = node_name)]
        name: String,
        /// Seconds of /proc/uptime before the agent asked the manager.
        #[arg(long = "asked", value_name = "UPTIME", value_parser = parse_uptime)]
        asked_ms: u64,
    },
    /// Let an address go (`ownership = "manual"` or `"external"`).
    Offline {
        /// Name of the address.
        #[arg(value_parser = node_name)]
        name: String,
    },
    /// Hand an address over: its owner lets it go, and the other node takes it at once.
    Move {
        /// Name of the address.
        #[arg(value_parser = node_name)]
        name: String,
        /// Node that takes it [default: the first that can]
        #[arg(long, value_name = "NODE", value_parser = node_name)]
        to: Option<String>,
    },
    /// Announce an address to the neighbors again.
    Announce {
        /// Name of the address.
        #[arg(value_parser = node_name)]
        name: String,
    },
    /// Add an address until netftd stops.
    Add {
        /// Name of the address.
        #[arg(value_parser = node_name)]
        name: String,
        /// The address, or one of each family.
        #[arg(required = true, num_args = 1..=2)]
        addresses: Vec<String>,
        /// Interface that carries it [default: by network]
        #[arg(long, value_name = "NAME", value_parser = adapter_name)]
        interface: Option<String>,
    },
    /// Remove an address that was added by `add`.
    Remove {
        /// Name of the address.
        #[arg(value_parser = node_name)]
        name: String,
    },
}

pub(super) fn run_vip_command(
    client: &DaemonClient,
    command: VipCommand,
    json: bool,
    style: &OutputStyle,
    out: &mut StandardOutput,
) -> Result<(), ExitError> {
    let (name, order) = match command {
        VipCommand::List => {
            let (text, list) = client.request_json::<VipList>("GET", "/v1/vips", "")?;
            return out.print_response(json, &text, || vips::vips_table(&list, style));
        }
        VipCommand::Show { name } => {
            let vip = find_vip(client, &name)?;
            return print_vip(&vip, json, out, || vips::vip_text(&vip));
        }
        VipCommand::Why { name } => {
            let vip = find_vip(client, &name)?;
            return print_vip(&vip, json, out, || vips::why_text(&vip));
        }
        VipCommand::Online { name, asked_ms } => {
            (name, VipOrder { asked_ms, ..order_of("online") })
        }
        VipCommand::Renew { name, asked_ms } => {
            (name, VipOrder { asked_ms: Some(asked_ms), ..order_of("renew") })
        }
        VipCommand::Offline { name } => (name, order_of("offline")),
        VipCommand::Announce { name } => (name, order_of("announce")),
        VipCommand::Remove { name } => (name, order_of("remove")),
        VipCommand::Move { name, to } => (name, VipOrder { to, ..order_of("move") }),
        VipCommand::Add { name, addresses, interface } => {
            (name, VipOrder { addresses, interface, ..order_of("add") })
        }
    };
    let body = serde_json::to_string(&order).map_err(ExitError::other_error)?;
    let target = format!("/v1/vips/{name}");
    // A hand-over asks other nodes.
    let client = client.with_timeout(crate::vip::HAND_OVER_TIMEOUT * 4);
    let (text, done) = client.request_json::<VipOrderDone>("POST", &target, &body)?;
    out.print_response(json, &text, || format!("{}\n", escape(&done.done)))
}

fn order_of(action: &str) -> VipOrder {
    VipOrder { action: action.to_owned(), ..VipOrder::default() }
}

/// Milliseconds of a line of /proc/uptime, which counts in hundredths of seconds.
fn parse_uptime(text: &str) -> Result<u64, String> {
    let refused = || "seconds as in /proc/uptime, such as 12345.67".to_owned();
    let (seconds, hundredths) = text.split_once('.').unwrap_or((text, "00"));
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if hundredths.len() != 2 || !is_number(seconds) || !is_number(hundredths) {
        return Err(refused());
    }
    let seconds: u64 = seconds.parse().map_err(|_| refused())?;
    let hundredths: u64 = hundredths.parse().map_err(|_| refused())?;
    let millis = seconds.checked_mul(1000).and_then(|millis| millis.checked_add(10 * hundredths));
    millis.ok_or_else(refused)
}

fn find_vip(client: &DaemonClient, name: &str) -> Result<VipBody, ExitError> {
    let (_, list) = client.request_json::<VipList>("GET", "/v1/vips", "")?;
    let found = list.vips.into_iter().find(|vip| vip.name == name);
    let vip = found.ok_or_else(|| {
        ExitError::invalid_input(format!(
            "there is no floating address {name:?}: `netft vip list` shows them"
        ))
    })?;
    let engine = list.engines.into_iter().find(|engine| engine.engine == vip.ownership);
    let names = list.names.into_iter().filter(|name| name.members.contains(&vip.name)).collect();
    Ok(VipBody { vip, engine, names })
}

fn print_vip(
    vip: &VipBody,
    json: bool,
    out: &mut StandardOutput,
    show: impl FnOnce() -> String,
) -> Result<(), ExitError> {
    let text = serde_json::to_string(&crate::control::schema::VersionedBody::new(vip));
    out.print_response(json, &text.map_err(ExitError::other_error)?, show)
}
