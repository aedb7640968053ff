//! Policies between JSON and the library. Pure.

use std::collections::BTreeMap;

use netft::{
    api::snapshot::PeerInfo,
    route::{
        PeerPolicies, TrafficClass,
        policy::{Dscp, PeerChange, PortRange, Protocol, UnknownPolicy},
    },
};

use super::schema::{PeerPatch, TrafficClassSpec};

/// The classes of a peer.
pub(crate) fn to_class_specs(policies: &PeerPolicies) -> Vec<TrafficClassSpec> {
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

/// The policies that [`to_class_specs`] and the default's name describe.
///
/// # Errors
/// Describes what is wrong with them.
pub(crate) fn to_policies(
    policy: &str,
    classes: &[TrafficClassSpec],
) -> Result<PeerPolicies, String> {
    let policy = policy.parse().map_err(|error: UnknownPolicy| error.to_string())?;
    let classes = classes.iter().map(parse_class).collect::<Result<_, _>>()?;
    PeerPolicies::new(policy).with_classes(classes).map_err(|error| error.to_string())
}

/// Converts a patch.
pub(super) fn to_peer_change(patch: &PeerPatch) -> Result<PeerChange, String> {
    if *patch == PeerPatch::default() {
        return Err("nothing to change: give policy or classes".to_owned());
    }
    let policy = patch.policy.as_deref().map(str::parse).transpose();
    let classes = patch.classes.as_ref().map(|classes| classes.iter().map(parse_class).collect());
    Ok(PeerChange {
        policy: policy.map_err(|error: UnknownPolicy| error.to_string())?,
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
