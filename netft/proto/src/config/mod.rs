//! Typed, checked settings of a node. Pure.
//!
//! [`Config::builder`] makes a [`Config`] and refuses a value out of range; the config file of
//! `netftd` goes through the same checks. Every key of the file, with its range, default and
//! effect, stands in [`keys`].

mod builder;
mod check;
mod diff;
mod dns;
mod key;
pub mod keys;
mod limits;
mod network;
mod peer;
mod peer_ids;
mod private_key;
mod settings;
mod text;
mod vip;
mod vip_check;

pub use crate::config::{
    builder::ConfigBuilder,
    check::ConfigError,
    diff::{
        ChangeKind, ConfigChange, RestartRequired, describe_timing, diff_configs,
        diff_rotated_configs,
    },
    dns::{DnsConfig, DnsName, host_name},
    key::{ChangeEffect, ConfigKey, ConfigTable, KeyDefault, KeySyntax},
    limits::*,
    network::{NetworkConfig, NetworkRole},
    peer::{HostName, PeerConfig, RouteOverride},
    private_key::PrivateKey,
    settings::{
        AccessConfig, AdapterBackend, AdapterConfig, ClassTimings, Config, EtcdConfig, EtcdTls,
        ExcludeRule, FailoverConfig, FloatingConfig, HeartbeatConfig, MetricsConfig,
        OwnershipConfig, RelayConfig, SessionConfig, TlsFiles, TopologyConfig,
    },
    text::{adapter_name, exclude_rule, network_prefix, node_name},
    vip::{
        DHCP_WORD, VipAddress, VipCheck, VipConfig, VipFailback, VipFence, VipHook, VipOwnership,
        VipProbe,
    },
    vip_check::vip_address,
};
