//! The library's networks → [`schema`](super::schema). Pure.

use netft::{config::Role, topology, topology::FormedNetwork};

use super::{
    convert::Names,
    schema::{Network, NetworkInterface, Networks},
};
use crate::daemon::node::Snapshot;

/// `GET /v1/networks`.
pub fn networks(snapshot: &Snapshot) -> Networks {
    let names = Names::from(snapshot);
    let one = |formed: &FormedNetwork| network(formed, snapshot, &names);
    Networks { networks: snapshot.networks.iter().map(one).collect() }
}

fn network(formed: &FormedNetwork, snapshot: &Snapshot, names: &Names) -> Network {
    let interface = |one: &topology::NetworkInterface| NetworkInterface {
        node: one.peer.map_or_else(|| snapshot.node.name.clone(), |peer| names.of(peer)),
        interface: one.name.clone(),
        number: one.number,
        address: one.addr,
        state: one.state.name().to_owned(),
    };
    Network {
        prefix: formed.prefix.to_string(),
        state: formed.state.name().to_owned(),
        role: role(formed.role).to_owned(),
        metric: formed.metric,
        metric_from: formed.metric_from.name().to_owned(),
        interfaces: formed.interfaces.iter().map(interface).collect(),
    }
}

/// The word of a role, as the config has it.
const fn role(role: Role) -> &'static str {
    match role {
        Role::None => "none",
        Role::Cluster => "cluster",
        Role::ClusterAndClient => "cluster-and-client",
    }
}
