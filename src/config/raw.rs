//! The shape of the file: which tables and keys exist. Every value keeps its place and its TOML
//! type until [`check`](super::check) reads it, so that one wording covers wrong types and wrong
//! values alike.

use serde::Deserialize;
use toml::Spanned;

use super::value::Value;

/// A key that may be left out.
pub(super) type Field = Option<Spanned<Value>>;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub(super) node: Option<Spanned<Node>>,
    #[serde(default)]
    pub(super) adapter: Adapter,
    #[serde(default)]
    pub(super) heartbeat: Heartbeat,
    #[serde(default)]
    pub(super) failover: Failover,
    #[serde(default)]
    pub(super) session: Session,
    #[serde(default)]
    pub(super) resend: Resend,
    #[serde(default)]
    pub(super) topology: Topology,
    #[serde(default)]
    pub(super) relay: Relay,
    #[serde(default)]
    pub(super) network: Vec<Spanned<Network>>,
    #[serde(default)]
    pub(super) peer: Vec<Spanned<Peer>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Node {
    pub(super) name: Field,
    pub(super) key: Field,
    pub(super) site: Field,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Topology {
    pub(super) plumb_all_cross_subnet_routes: Field,
    pub(super) exclude: Field,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Relay {
    pub(super) offer: Field,
    pub(super) limit: Field,
    #[serde(rename = "use")]
    pub(super) uses: Field,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Adapter {
    pub(super) name: Field,
    pub(super) backend: Field,
    pub(super) mtu: Field,
    pub(super) multicast: Field,
    pub(super) workers: Field,
    pub(super) busy_poll: Field,
    pub(super) address: Field,
    pub(super) address6: Field,
    pub(super) prefix: Field,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Heartbeat {
    pub(super) profile: Field,
    pub(super) delay: Field,
    pub(super) threshold: Field,
    #[serde(default)]
    pub(super) cross_subnet: Timing,
    #[serde(default)]
    pub(super) cross_site: Timing,
    pub(super) history: Field,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Timing {
    pub(super) delay: Field,
    pub(super) threshold: Field,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Failover {
    pub(super) hold: Field,
    pub(super) mtu_raise: Field,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Session {
    pub(super) port: Field,
    pub(super) rekey: Field,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Resend {
    pub(super) bytes: Field,
    pub(super) age: Field,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Network {
    pub(super) prefix: Field,
    pub(super) role: Field,
    pub(super) metric: Field,
    pub(super) capacity: Field,
    pub(super) carrier: Field,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Peer {
    pub(super) name: Field,
    pub(super) key: Field,
    pub(super) addresses: Field,
    pub(super) address: Field,
    pub(super) address6: Field,
    pub(super) policy: Field,
    pub(super) carrier: Field,
    #[serde(default)]
    pub(super) class: Vec<Spanned<Class>>,
    #[serde(default)]
    pub(super) route: Vec<Spanned<Route>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Class {
    pub(super) policy: Field,
    pub(super) dscp: Field,
    pub(super) protocol: Field,
    pub(super) port: Field,
    pub(super) min_size: Field,
    pub(super) max_size: Field,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Route {
    pub(super) local: Field,
    pub(super) remote: Field,
    pub(super) delay: Field,
    pub(super) threshold: Field,
    pub(super) priority: Field,
    pub(super) carrier: Field,
}
