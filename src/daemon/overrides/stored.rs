//! The JSON of the overrides on the disk. A change of it raises [`FORMAT_VERSION`].

use std::{net::SocketAddr, time::Duration};

use netft::{
    api::overrides::{
        InterfaceOverride, MAX_OVERRIDES, NamedRoute, OperatorOverrides, PolicyOverride,
        RouteDrain, RouteRuntimeOverride, TimeLimit,
    },
    route::{Delay, Priority, Threshold, Timing},
};
use serde::{Deserialize, Serialize};

use crate::control::{
    policies::{to_class_specs, to_policies},
    schema::TrafficClassSpec,
};

/// Version of everything below.
pub(super) const FORMAT_VERSION: u32 = 1;

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StoredOverrides {
    routes: Vec<StoredRoute>,
    interfaces: Vec<StoredInterface>,
    peers: Vec<StoredPeer>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct StoredRoute {
    peer: String,
    local: SocketAddr,
    remote: SocketAddr,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    drain: Option<StoredDrain>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    admin_down: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    priority: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    timing: Option<StoredTiming>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum StoredDrain {
    Drained(Option<StoredLimit>),
    InUse,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct StoredTiming {
    delay_ms: u64,
    threshold: u64,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct StoredInterface {
    name: String,
    limit: Option<StoredLimit>,
}

/// A limit on the wall clock, the only one that goes on between two runs.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct StoredLimit {
    wall_end_ms: u64,
    lasts_ms: u64,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct StoredPeer {
    peer: String,
    policy: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    classes: Vec<TrafficClassSpec>,
    configured_policy: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    configured_classes: Vec<TrafficClassSpec>,
}

impl From<&OperatorOverrides> for StoredOverrides {
    fn from(overrides: &OperatorOverrides) -> Self {
        let interface = |one: &InterfaceOverride| StoredInterface {
            name: one.name.clone(),
            limit: one.limit.map(to_stored_limit),
        };
        Self {
            routes: overrides.routes.iter().map(to_stored_route).collect(),
            interfaces: overrides.interfaces.iter().map(interface).collect(),
            peers: overrides.peers.iter().map(to_stored_peer).collect(),
        }
    }
}

fn to_stored_route(one: &RouteRuntimeOverride) -> StoredRoute {
    let NamedRoute { peer, local, remote } = one.ends.clone();
    let drain = one.drain.map(|drain| match drain {
        RouteDrain::Drained(limit) => StoredDrain::Drained(limit.map(to_stored_limit)),
        RouteDrain::InUse => StoredDrain::InUse,
    });
    StoredRoute {
        peer,
        local,
        remote,
        drain,
        admin_down: one.admin_down,
        priority: one.priority.map(|priority| priority.0),
        timing: one.timing.map(|timing| StoredTiming {
            delay_ms: timing.delay.as_millis().into(),
            threshold: timing.threshold.get().into(),
        }),
    }
}

fn to_stored_limit(limit: TimeLimit) -> StoredLimit {
    let lasts_ms = u64::try_from(limit.lasts.as_millis()).unwrap_or(u64::MAX);
    StoredLimit { wall_end_ms: limit.wall_end_ms, lasts_ms }
}

fn to_stored_peer(one: &PolicyOverride) -> StoredPeer {
    let PolicyOverride { peer, policies, configured } = one;
    StoredPeer {
        peer: peer.clone(),
        policy: policies.default_policy().to_string(),
        classes: to_class_specs(policies),
        configured_policy: configured.default_policy().to_string(),
        configured_classes: to_class_specs(configured),
    }
}

impl StoredOverrides {
    /// The overrides that are not over.
    ///
    /// # Errors
    /// Something in them is out of its range: none of them is used then.
    pub(super) fn to_overrides(&self, wall_now_ms: u64) -> Result<OperatorOverrides, String> {
        if self.routes.len() + self.interfaces.len() > MAX_OVERRIDES {
            return Err(format!("it has more than {MAX_OVERRIDES} overrides"));
        }
        let mut overrides = OperatorOverrides::default();
        for stored in &self.interfaces {
            // The outer `None`: it is over.
            if let Some(limit) = resume_limit(stored.limit, wall_now_ms) {
                overrides.interfaces.push(InterfaceOverride { name: stored.name.clone(), limit });
            }
        }
        for stored in &self.routes {
            overrides.routes.push(stored.to_override(wall_now_ms)?);
        }
        for stored in &self.peers {
            overrides.set_policies(PolicyOverride {
                peer: stored.peer.clone(),
                policies: to_policies(&stored.policy, &stored.classes)?,
                configured: to_policies(&stored.configured_policy, &stored.configured_classes)?,
            });
        }
        overrides.drop_empty();
        Ok(overrides)
    }
}

impl StoredRoute {
    fn to_override(&self, wall_now_ms: u64) -> Result<RouteRuntimeOverride, String> {
        let drain = match &self.drain {
            Some(StoredDrain::Drained(limit)) => {
                resume_limit(*limit, wall_now_ms).map(RouteDrain::Drained)
            }
            Some(StoredDrain::InUse) => Some(RouteDrain::InUse),
            None => None,
        };
        let timing = self.timing.as_ref().map(|timing| {
            let delay = Delay::from_millis(timing.delay_ms).map_err(|error| error.to_string())?;
            let threshold = Threshold::new(timing.threshold).map_err(|error| error.to_string())?;
            Ok::<_, String>(Timing { delay, threshold })
        });
        let (peer, local, remote) = (self.peer.clone(), self.local, self.remote);
        Ok(RouteRuntimeOverride {
            drain,
            admin_down: self.admin_down,
            priority: self.priority.map(Priority),
            timing: timing.transpose()?,
            ..RouteRuntimeOverride::new(NamedRoute { peer, local, remote })
        })
    }
}

/// The rest of a limit; the outer `None` when it is over.
fn resume_limit(stored: Option<StoredLimit>, wall_now_ms: u64) -> Option<Option<TimeLimit>> {
    let Some(StoredLimit { wall_end_ms, lasts_ms }) = stored else { return Some(None) };
    let lasts = Duration::from_millis(lasts_ms);
    TimeLimit::resume(wall_now_ms, wall_end_ms, lasts).map(Some)
}
