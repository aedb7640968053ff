//! The shape of the file: which tables and keys exist. Every value keeps its place and its TOML
//! type until [`check`](super::check) reads it, so that one wording covers wrong types and wrong
//! values alike.

use serde::Deserialize;
use toml::Spanned;

use super::value::TomlValue;

/// A key that may be left out.
pub(super) type OptionalField = Option<Spanned<TomlValue>>;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ConfigFile {
    pub(super) node: Option<Spanned<NodeTable>>,
    #[serde(default)]
    pub(super) adapter: AdapterTable,
    #[serde(default)]
    pub(super) heartbeat: HeartbeatTable,
    #[serde(default)]
    pub(super) failover: FailoverTable,
    #[serde(default)]
    pub(super) slo: ObjectiveTable,
    #[serde(default)]
    pub(super) session: SessionTable,
    #[serde(default)]
    pub(super) resend: ResendTable,
    #[serde(default)]
    pub(super) topology: TopologyTable,
    #[serde(default)]
    pub(super) relay: RelayTable,
    #[serde(default)]
    pub(super) ownership: OwnershipTable,
    #[serde(default)]
    pub(super) metrics: MetricsTable,
    #[serde(default)]
    pub(super) network: Vec<Spanned<NetworkTable>>,
    #[serde(default)]
    pub(super) peer: Vec<Spanned<PeerSection>>,
    #[serde(default)]
    pub(super) vip: Vec<Spanned<VipSection>>,
    pub(super) dns: Option<Spanned<DnsTable>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NodeTable {
    pub(super) name: OptionalField,
    pub(super) key: OptionalField,
    pub(super) site: OptionalField,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TopologyTable {
    pub(super) plumb_all_cross_subnet_routes: OptionalField,
    pub(super) exclude: OptionalField,
    pub(super) keep_arp_settings: OptionalField,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OwnershipTable {
    pub(super) voters: OptionalField,
    pub(super) store: OptionalField,
    #[serde(default)]
    pub(super) etcd: EtcdTable,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EtcdTable {
    pub(super) endpoints: OptionalField,
    pub(super) ca_file: OptionalField,
    pub(super) certificate_file: OptionalField,
    pub(super) key_file: OptionalField,
    pub(super) prefix: OptionalField,
    pub(super) ttl: OptionalField,
    pub(super) user: OptionalField,
    pub(super) password_file: OptionalField,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MetricsTable {
    pub(super) listen: OptionalField,
    pub(super) token_file: OptionalField,
    pub(super) certificate_file: OptionalField,
    pub(super) key_file: OptionalField,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RelayTable {
    pub(super) offer: OptionalField,
    pub(super) limit: OptionalField,
    #[serde(rename = "use")]
    pub(super) uses: OptionalField,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AdapterTable {
    pub(super) name: OptionalField,
    pub(super) backend: OptionalField,
    pub(super) mtu: OptionalField,
    pub(super) multicast: OptionalField,
    pub(super) forward: OptionalField,
    pub(super) workers: OptionalField,
    pub(super) busy_poll: OptionalField,
    pub(super) address: OptionalField,
    pub(super) address6: OptionalField,
    pub(super) prefix: OptionalField,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HeartbeatTable {
    pub(super) profile: OptionalField,
    pub(super) delay: OptionalField,
    pub(super) threshold: OptionalField,
    #[serde(default)]
    pub(super) cross_subnet: TimingTable,
    #[serde(default)]
    pub(super) cross_site: TimingTable,
    pub(super) history: OptionalField,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TimingTable {
    pub(super) delay: OptionalField,
    pub(super) threshold: OptionalField,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FailoverTable {
    pub(super) hold: OptionalField,
    pub(super) mtu_raise: OptionalField,
    pub(super) gone: OptionalField,
    pub(super) unreachable: OptionalField,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ObjectiveTable {
    pub(super) detection_ms: OptionalField,
    pub(super) stall_ms: OptionalField,
    pub(super) lost: OptionalField,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SessionTable {
    pub(super) port: OptionalField,
    pub(super) rekey: OptionalField,
    pub(super) aegis: OptionalField,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ResendTable {
    pub(super) bytes: OptionalField,
    pub(super) age: OptionalField,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NetworkTable {
    pub(super) prefix: OptionalField,
    pub(super) role: OptionalField,
    pub(super) metric: OptionalField,
    pub(super) capacity: OptionalField,
    pub(super) transport: OptionalField,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PeerSection {
    pub(super) name: OptionalField,
    pub(super) key: OptionalField,
    pub(super) addresses: OptionalField,
    pub(super) address: OptionalField,
    pub(super) address6: OptionalField,
    pub(super) policy: OptionalField,
    pub(super) transport: OptionalField,
    #[serde(default)]
    pub(super) class: Vec<Spanned<ClassTable>>,
    #[serde(default)]
    pub(super) route: Vec<Spanned<RouteSection>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ClassTable {
    pub(super) policy: OptionalField,
    pub(super) dscp: OptionalField,
    pub(super) protocol: OptionalField,
    pub(super) port: OptionalField,
    pub(super) min_size: OptionalField,
    pub(super) max_size: OptionalField,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RouteSection {
    pub(super) local: OptionalField,
    pub(super) remote: OptionalField,
    pub(super) delay: OptionalField,
    pub(super) threshold: OptionalField,
    pub(super) priority: OptionalField,
    pub(super) transport: OptionalField,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct VipSection {
    pub(super) name: OptionalField,
    pub(super) address: OptionalField,
    pub(super) interface: OptionalField,
    pub(super) network: OptionalField,
    pub(super) ownership: OptionalField,
    pub(super) lease: OptionalField,
    pub(super) fence: OptionalField,
    pub(super) source: OptionalField,
    pub(super) preferred: OptionalField,
    pub(super) failback: OptionalField,
    pub(super) follow: OptionalField,
    #[serde(default)]
    pub(super) placement: PlacementTable,
    pub(super) hook: OptionalField,
    pub(super) hook_timeout: OptionalField,
    pub(super) check: Option<Spanned<CheckTable>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DnsTable {
    pub(super) server: OptionalField,
    pub(super) zone: OptionalField,
    pub(super) key_file: OptionalField,
    pub(super) ttl: OptionalField,
    #[serde(default)]
    pub(super) name: Vec<Spanned<NameSection>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NameSection {
    pub(super) name: OptionalField,
    pub(super) members: OptionalField,
    pub(super) register_all: OptionalField,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PlacementTable {
    pub(super) together_with: OptionalField,
    pub(super) apart_from: OptionalField,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CheckTable {
    pub(super) tcp: OptionalField,
    pub(super) http: OptionalField,
    pub(super) status: OptionalField,
    pub(super) exec: OptionalField,
    pub(super) timeout: OptionalField,
    pub(super) interval: OptionalField,
    pub(super) rise: OptionalField,
    pub(super) fall: OptionalField,
}
