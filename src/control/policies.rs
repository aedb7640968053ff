//! Policies between JSON and the library. Pure.

use std::collections::BTreeMap;

use netft::route::{
    Policies, TrafficClass,
    policy::{Dscp, PeerChange, Ports, Protocol},
};

use super::schema::{Class, PeerPatch};
use crate::daemon::node::PeerInfo;

/// The classes of a peer.
pub(super) fn classes(policies: &Policies) -> Vec<Class> {
    policies.classes().iter().map(class).collect()
}

/// How many peers have which policy.
pub(super) fn count(peers: &[PeerInfo]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for peer in peers {
        *counts.entry(peer.policies.default_policy().to_string()).or_default() += 1;
    }
    counts
}

fn class(class: &TrafficClass) -> Class {
    Class {
        policy: class.policy.to_string(),
        dscp: class.dscp.map(|dscp| dscp.get().into()),
        protocol: class.protocol.map(|protocol| protocol.name().to_owned()),
        port: class.ports.map(|ports| ports.to_string()),
        min_size: class.min_size,
        max_size: class.max_size,
    }
}

/// What a patch asks for, or what is wrong with it.
pub(super) fn change(patch: &PeerPatch) -> Result<PeerChange, String> {
    if *patch == PeerPatch::default() {
        return Err("nothing to change: give policy or classes".to_owned());
    }
    let policy = patch.policy.as_deref().map(str::parse).transpose();
    let classes = patch.classes.as_ref().map(|classes| classes.iter().map(parse).collect());
    Ok(PeerChange {
        policy: policy.map_err(|error: netft::route::policy::UnknownPolicy| error.to_string())?,
        classes: classes.transpose()?,
    })
}

fn parse(class: &Class) -> Result<TrafficClass, String> {
    let protocol = |name: &String| {
        Protocol::named(name).ok_or_else(|| "a protocol is `tcp`, `udp` or `icmp`".to_owned())
    };
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let ports = class.port.as_deref().map(str::parse::<Ports>).transpose();
    Ok(TrafficClass {
        policy: class.policy.parse().map_err(|error| text(&error))?,
        dscp: class.dscp.map(Dscp::new).transpose().map_err(|error| text(&error))?,
        protocol: class.protocol.as_ref().map(protocol).transpose()?,
        ports: ports.map_err(|error| text(&error))?,
        min_size: class.min_size,
        max_size: class.max_size,
    })
}
