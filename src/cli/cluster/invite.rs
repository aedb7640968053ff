//! `netft cluster invite`: a token for new nodes.

use std::net::SocketAddr;

use netft::roster::MAX_TOKEN_ADDRESSES;

use super::{ClusterContext, ClusterOutput};
use crate::{
    cli::cluster_args::InviteArgs,
    control::schema::{InviteAnswer, InviteOrder},
    exit::ExitError,
};

/// Opens an invite at the daemon, and prints its token.
pub(super) fn open_invite(
    args: InviteArgs,
    context: &ClusterContext,
    out: &mut ClusterOutput<'_>,
) -> Result<(), ExitError> {
    if !context.client.is_listening() {
        return Err(ExitError::other_error(
            "netftd is not running here, and it is netftd that lets new nodes in: start it first",
        ));
    }
    let mut addresses = args.addresses;
    if addresses.is_empty() {
        addresses = own_addresses(context)?;
    }
    if addresses.is_empty() {
        return Err(ExitError::invalid_input(
            "the roster has no address of this node for the token: give --address",
        ));
    }
    addresses.truncate(MAX_TOKEN_ADDRESSES);
    let order =
        InviteOrder { name: args.name, ttl_s: args.ttl.as_secs(), uses: args.uses, addresses };
    let body = serde_json::to_string(&order).map_err(ExitError::other_error)?;
    let (text, invite) =
        context.client.request_json::<InviteAnswer>("POST", "/v1/cluster/invite", &body)?;
    out.out.print_response(out.json, &text, || invite_text(&invite))
}

/// Addresses of this node in the roster.
fn own_addresses(context: &ClusterContext) -> Result<Vec<SocketAddr>, ExitError> {
    let status = context.status()?;
    let own = status.nodes.iter().filter(|node| node.this_node);
    Ok(own.flat_map(|node| &node.addresses).filter_map(|text| text.parse().ok()).collect())
}

fn invite_text(invite: &InviteAnswer) -> String {
    let nodes = match (&invite.name, invite.uses) {
        (Some(name), _) => format!("the node {name}"),
        (None, 1) => "one node".to_owned(),
        (None, uses) => format!("{uses} nodes"),
    };
    let minutes = invite.ttl_s.div_ceil(60);
    format!(
        "On the new node, as root; the token lets {nodes} in for {minutes} min, so keep it \
         secret:\n\n  netft cluster join {}\n",
        invite.token
    )
}
