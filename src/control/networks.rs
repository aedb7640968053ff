//! The library's networks → [`schema`](super::schema). Pure.

use netft::{api::snapshot::Snapshot, config::NetworkRole, topology, topology::NetworkInfo};

use super::{
    convert::PeerNames,
    schema::{Network, NetworkInterface, NetworkList},
};

/// `GET /v1/networks`.
pub fn to_network_list(snapshot: &Snapshot) -> NetworkList {
    let names = PeerNames::from(snapshot);
    let one = |formed: &NetworkInfo| to_network(formed, snapshot, &names);
    NetworkList { networks: snapshot.networks.iter().map(one).collect() }
}

fn to_network(formed: &NetworkInfo, snapshot: &Snapshot, names: &PeerNames) -> Network {
    let interface = |one: &topology::NetworkInterface| NetworkInterface {
        node: one.peer.map_or_else(|| snapshot.node.name.clone(), |peer| names.name_of(peer)),
        interface: one.name.clone(),
        number: one.number,
        address: one.addr,
        state: one.state.as_str().to_owned(),
    };
    Network {
        prefix: formed.prefix.to_string(),
        state: formed.state.as_str().to_owned(),
        role: role_name(formed.role).to_owned(),
        metric: formed.metric,
        metric_from: formed.metric_source.as_str().to_owned(),
        interfaces: formed.interfaces.iter().map(interface).collect(),
    }
}

/// Name of a role, as in the configuration.
const fn role_name(role: NetworkRole) -> &'static str {
    match role {
        NetworkRole::None => "none",
        NetworkRole::Cluster => "cluster",
        NetworkRole::ClusterAndClient => "cluster-and-client",
    }
}
