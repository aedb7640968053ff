//! Policies between JSON and the library. Pure.

use std::collections::BTreeMap;

use netft::{
    api::snapshot::PeerInfo,
    route::{
        PeerPolicies, TrafficClass,
        policy::{Dscp, PeerChange, PortRange, Protocol},
    },
};

use super::schema::{PeerPatch, TrafficClassSpec};

/// The classes of a peer.
pub(super) fn to_class_specs(policies: &PeerPolicies) -> Vec<TrafficClassSpec> {
    policies.classes().iter().map(to_class_spec).collect()
}

/// Number of peers by policy.
pub(super) fn count_by_policy(peers: &[PeerInfo]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for peer in peers {
        *counts.entry(peer.policies.default_policy().to_string()).or_default() += 1;
    }
    counts
}

fn to_class_spec(class: &TrafficClass) -> TrafficClassSpec {
    TrafficClassSpec {
        policy: class.policy.to_string(),
        dscp: class.dscp.map(|dscp| dscp.get().into()),
        protocol: class.protocol.map(|protocol| protocol.as_str().to_owned()),
        port: class.ports.map(|ports| ports.to_string()),
        min_size: class.min_size,
        max_size: class.max_size,
    }
}

/// Converts a patch.
pub(super) fn to_peer_change(patch: &PeerPatch) -> Result<PeerChange, String> {
    if *patch == PeerPatch::default() {
        return Err("nothing to change: give policy or classes".to_owned());
    }
    let policy = patch.policy.as_deref().map(str::parse).transpose();
    let classes = patch.classes.as_ref().map(|classes| classes.iter().map(parse_class).collect());
    Ok(PeerChange {
        policy: policy.map_err(|error: netft::route::policy::UnknownPolicy| error.to_string())?,
        classes: classes.transpose()?,
    })
}

fn parse_class(class: &TrafficClassSpec) -> Result<TrafficClass, String> {
    let protocol = |name: &String| {
        Protocol::from_name(name).ok_or_else(|| "a protocol is `tcp`, `udp` or `icmp`".to_owned())
    };
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let ports = class.port.as_deref().map(str::parse::<PortRange>).transpose();
    Ok(TrafficClass {
        policy: class.policy.parse().map_err(|error| text(&error))?,
        dscp: class.dscp.map(Dscp::new).transpose().map_err(|error| text(&error))?,
        protocol: class.protocol.as_ref().map(protocol).transpose()?,
        ports: ports.map_err(|error| text(&error))?,
        min_size: class.min_size,
        max_size: class.max_size,
    })
}
