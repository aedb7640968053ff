//! `netft cluster key rotate`: another key for a node, make before break.
//!
//! ```text
//! the node stores its next key ─▶ roster: key and next key ─▶ every node accepts both
//!                                                         ─▶ roster: the next key alone
//! ```
//!
//! At each step the node is usable, and the command can be run again after it was cut off.

use std::{
    thread,
    time::{Duration, Instant},
};

use netft::{
    NodeKey,
    config::PrivateKey,
    roster::{Roster, SignedRoster},
};

use super::{ClusterContext, ClusterOutput};
use crate::{
    cli::cluster_args::RotateArgs,
    control::schema::{ClusterStatus, NextKeyAnswer, NextKeyOrder},
    exit::ExitError,
    render::cluster::{CHANGE_TIMEOUT, nodes_text},
};

/// Interval of the questions which roster each node has.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Replaces the key of a node.
pub(super) fn rotate_key(
    args: &RotateArgs,
    context: &ClusterContext,
    out: &mut ClusterOutput<'_>,
) -> Result<(), ExitError> {
    if !context.client.is_listening() {
        return Err(ExitError::other_error(
            "netftd is not running here, and it is netftd that has the node make its next key: \
             start it first",
        ));
    }
    let cluster_key = context.key()?;
    let status = context.status()?;
    let this_node = || status.nodes.iter().find(|node| node.this_node).map(|node| &node.name);
    let name = args.name.as_ref().or_else(this_node).ok_or_else(|| {
        ExitError::invalid_input("the roster does not name this node: give the node's name")
    })?;
    let roster = context.current()?;
    let node = roster
        .roster()
        .node_named(name)
        .ok_or_else(|| ExitError::invalid_input(format!("the cluster has no node {name:?}")))?;
    let next_key = match (ask_next_key(context, name), node.next_key) {
        (Ok(key), _) => key,
        // It stored this one before the roster named it, and is off.
        (Err(_), Some(key)) if args.force => key,
        (Err(error), _) => return Err(error),
    };
    if node.next_key != Some(next_key) {
        let next = roster.roster().with_next_key(name, next_key);
        sign_and_publish(context, &next.map_err(ExitError::invalid_input)?, &cluster_key)?;
    }
    let deadline = Instant::now() + Duration::from_secs(args.timeout);
    let behind = wait_for_roster(context, deadline)?;
    if !behind.is_empty() && !args.force {
        return Err(ExitError::other_error(format!(
            "nothing is lost, {name} goes on with its key: these nodes do not accept its next key \
             yet and would refuse it: {}; start them and run this again, or give --force",
            behind.join(", ")
        )));
    }
    let next = context.current()?.roster().with_rotated_key(name);
    sign_and_publish(context, &next.map_err(ExitError::invalid_input)?, &cluster_key)?;
    wait_for_roster(context, Instant::now() + Duration::from_secs(args.timeout))?;
    out.print_status(&context.status()?, nodes_text)
}

fn ask_next_key(context: &ClusterContext, name: &str) -> Result<NodeKey, ExitError> {
    let order = NextKeyOrder { node: name.to_owned() };
    let body = serde_json::to_string(&order).map_err(ExitError::other_error)?;
    let client = context.client.with_timeout(CHANGE_TIMEOUT);
    let answer = client.request_json::<NextKeyAnswer>("POST", "/v1/cluster/key", &body)?.1;
    answer.key.parse().map_err(ExitError::other_error)
}

fn sign_and_publish(
    context: &ClusterContext,
    next: &Roster,
    key: &PrivateKey,
) -> Result<ClusterStatus, ExitError> {
    context.publish(&SignedRoster::sign(next, key).map_err(ExitError::invalid_input)?)
}

/// Waits until every node has the roster in force. Returns those that do not.
fn wait_for_roster(context: &ClusterContext, until: Instant) -> Result<Vec<String>, ExitError> {
    loop {
        let status = context.status()?;
        let behind = status.nodes.iter().filter(|node| node.serial != status.serial);
        let behind: Vec<_> = behind.map(|node| node.name.clone()).collect();
        if behind.is_empty() || Instant::now() >= until {
            return Ok(behind);
        }
        thread::sleep(POLL_INTERVAL);
    }
}
