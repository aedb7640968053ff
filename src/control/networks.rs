//! The library's networks → [`schema`](super::schema). Pure.

use netft::{api::snapshot::Snapshot, topology, topology::NetworkInfo};

use super::{
    convert::PeerNames,
    schema::{Network, NetworkInterfaceView, NetworkList},
};

/// `GET /v1/networks`.
pub fn to_network_list(snapshot: &Snapshot) -> NetworkList {
    let names = PeerNames::from(snapshot);
    let one = |formed: &NetworkInfo| to_network(formed, snapshot, &names);
    NetworkList { networks: snapshot.networks.iter().map(one).collect() }
}

fn to_network(formed: &NetworkInfo, snapshot: &Snapshot, names: &PeerNames) -> Network {
    let interface = |one: &topology::NetworkInterface| NetworkInterfaceView {
        node: one.peer.map_or_else(|| snapshot.node.name.clone(), |peer| names.name_of(peer)),
        interface: one.name.clone(),
        number: one.number,
        address: one.addr,
        state: one.state,
    };
    Network {
        prefix: formed.prefix.to_string(),
        state: formed.state,
        role: formed.role,
        metric: formed.metric,
        metric_from: formed.metric_source,
        interfaces: formed.interfaces.iter().map(interface).collect(),
    }
}
