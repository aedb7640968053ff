//! Builder of a [`Config`], and the checks behind it.

use std::{collections::BTreeSet, net::IpAddr, path::PathBuf, time::Duration};

use ipnet::IpNet;

use crate::{
    config::{
        check::{ConfigError, check_count, check_number, check_text},
        dns,
        key::ConfigKey,
        keys,
        limits::{MAX_PEER_ADDRESSES, MAX_PEER_ROUTES, MAX_PEERS},
        network::NetworkConfig,
        peer::PeerConfig,
        private_key::PrivateKey,
        settings::Config,
        text, vip_check,
    },
    ids::{NodeKey, virtual_addrs::VirtualAddrs},
};

/// Builder of a [`Config`]. [`build`](Self::build) refuses values out of range.
///
/// ```
/// use netft_proto::config::{Config, PrivateKey};
///
/// # fn example(key: PrivateKey) {
/// let builder = Config::builder("a", key).with(|config| config.adapter.mtu = 7);
/// let error = builder.build().unwrap_err();
/// let text = "`adapter.mtu` is a whole number from 1280 to 65535 bytes, not 7";
/// assert_eq!(error.to_string(), text);
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct ConfigBuilder {
    config: Config,
    addrs: Option<VirtualAddrs>,
}

impl Config {
    /// Builder of a node with the defaults of `netft.toml`: adapter `netft0`, UDP port 3343,
    /// link-local addresses derived from the key, every network found, no peer.
    pub fn builder(name: impl Into<String>, key: PrivateKey) -> ConfigBuilder {
        // The public key and the addresses derived from it follow in `build`.
        ConfigBuilder { config: Self::new(name, key, NodeKey([0; 32])), addrs: None }
    }

    /// Checks every setting against its range, and the peers against each other.
    ///
    /// # Errors
    /// The first setting that cannot be used.
    pub fn check_settings(&self) -> Result<(), ConfigError> {
        check_text(&keys::NODE_NAME, &self.name, text::node_name)?;
        if !self.site.is_empty() {
            check_text(&keys::NODE_SITE, &self.site, text::node_name)?;
        }
        check_text(&keys::ADAPTER_NAME, &self.adapter.name, text::adapter_name)?;
        let micros = |length: Duration| length.as_micros() as u64;
        let millis = |length: Duration| length.as_millis() as u64;
        for (key, value) in [
            (&keys::ADAPTER_MTU, u64::from(self.adapter.mtu)),
            (&keys::ADAPTER_MULTICAST, u64::from(self.adapter.multicast)),
            (&keys::ADAPTER_WORKERS, self.adapter.workers as u64),
            (&keys::ADAPTER_BUSY_POLL, micros(self.adapter.busy_poll)),
            (&keys::HEARTBEAT_HISTORY, self.heartbeat.history as u64),
            (&keys::FAILOVER_HOLD, millis(self.failover.hold_down)),
            (&keys::FAILOVER_MTU_RAISE, millis(self.failover.pmtu_raise_timer)),
            (&keys::FAILOVER_GONE, millis(self.failover.gone_after)),
            (&keys::FAILOVER_UNREACHABLE, millis(self.failover.unreachable_after)),
            (&keys::SESSION_PORT, u64::from(self.session.port)),
            (&keys::SESSION_REKEY, self.session.rekey_interval.as_secs()),
            (&keys::RESEND_BYTES, self.retransmit_limits.bytes as u64),
            (&keys::RESEND_AGE, millis(self.retransmit_limits.age)),
            (&keys::RELAY_LIMIT, u64::from(self.relay.limit)),
        ] {
            check_number(key, value)?;
        }
        let objective = self.failover.objective;
        for (key, value) in [
            (&keys::SLO_DETECTION, objective.detection.map(millis)),
            (&keys::SLO_STALL, objective.stall.map(millis)),
            (&keys::SLO_LOST, objective.lost),
        ] {
            value.map_or(Ok(()), |value| check_number(key, value))?;
        }
        self.check_networks()?;
        self.check_peers()?;
        if let Some(dns) = &self.floating.dns {
            dns::check_dns(dns, &self.floating.vips)?;
        }
        vip_check::check_vips(&self.floating.vips)
    }

    fn check_networks(&self) -> Result<(), ConfigError> {
        let mut before: Vec<IpNet> = Vec::new();
        for network in &self.networks {
            let prefix = network.prefix;
            let refused = |reason| ConfigError::NotAllowed {
                key: &keys::NETWORK_PREFIX,
                value: prefix.to_string(),
                reason,
            };
            text::check_prefix(prefix).map_err(refused)?;
            let overlap = |other: &&IpNet| other.contains(&prefix) || prefix.contains(*other);
            if let Some(other) = before.iter().find(overlap) {
                return Err(refused(format!("it overlaps {other}")));
            }
            before.push(prefix);
            for (key, value) in [
                (&keys::NETWORK_METRIC, network.metric),
                (&keys::NETWORK_CAPACITY, network.capacity),
            ] {
                value.map_or(Ok(()), |value| check_number(key, value.into()))?;
            }
        }
        Ok(())
    }

    fn check_peers(&self) -> Result<(), ConfigError> {
        check_count("peers", self.peers.len(), MAX_PEERS)?;
        let mut names = BTreeSet::from([self.name.as_str()]);
        let mut public_keys = BTreeSet::from([self.public_key]);
        let own = self.adapter.addrs;
        let mut addrs: BTreeSet<IpAddr> = BTreeSet::from([own.v4.into(), own.v6.into()]);
        let twice = |key: &'static ConfigKey, value: String| ConfigError::UsedTwice { key, value };
        for peer in &self.peers {
            check_text(&keys::PEER_NAME, &peer.name, text::node_name)?;
            check_count("addresses of one peer", peer.addresses.len(), MAX_PEER_ADDRESSES)?;
            check_count("routes of one peer", peer.routes.len(), MAX_PEER_ROUTES)?;
            if !names.insert(&peer.name) {
                return Err(twice(&keys::PEER_NAME, peer.name.clone()));
            }
            if let Some(key) = peer.accepted_keys().find(|key| !public_keys.insert(*key)) {
                return Err(twice(&keys::PEER_KEY, key.to_string()));
            }
            if !addrs.insert(peer.addrs.v4.into()) {
                return Err(twice(&keys::PEER_ADDRESS, peer.addrs.v4.to_string()));
            }
            if !addrs.insert(peer.addrs.v6.into()) {
                return Err(twice(&keys::PEER_ADDRESS6, peer.addrs.v6.to_string()));
            }
        }
        Ok(())
    }
}

impl ConfigBuilder {
    /// Derives the public key, and the virtual addresses unless they were given, and checks every
    /// setting.
    ///
    /// # Errors
    /// The first setting that cannot be used.
    pub fn build(self) -> Result<Config, ConfigError> {
        let Self { mut config, addrs } = self;
        config.public_key = config.key.public_key().map_err(ConfigError::UnusableKey)?;
        config.adapter.addrs =
            addrs.unwrap_or_else(|| VirtualAddrs::derive_from_key(&config.public_key));
        config.check_settings()?;
        Ok(config)
    }

    /// Sets the directory of the lock.
    #[must_use]
    pub fn with_runtime_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.config.access.runtime_dir = dir.into();
        self
    }

    /// Sets the interface name of the adapter.
    #[must_use]
    pub fn with_adapter(mut self, name: impl Into<String>) -> Self {
        self.config.adapter.name = name.into();
        self
    }

    /// Sets the UDP port of every local address.
    #[must_use]
    pub fn with_port(mut self, port: u16) -> Self {
        self.config.session.port = port;
        self
    }

    /// Changes any other setting.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut Config)) -> Self {
        change(&mut self.config);
        self
    }

    /// Sets the virtual addresses, in place of those derived from the key.
    #[must_use]
    pub fn with_virtual_addrs(mut self, addrs: VirtualAddrs) -> Self {
        self.addrs = Some(addrs);
        self
    }

    /// Adds a physical network; without any, every one found is used.
    #[must_use]
    pub fn with_network(mut self, network: NetworkConfig) -> Self {
        self.config.networks.push(network);
        self
    }

    /// Adds a peer.
    #[must_use]
    pub fn with_peer(mut self, peer: PeerConfig) -> Self {
        self.config.peers.push(peer);
        self.config.assign_ids();
        self
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use ring::{rand::SystemRandom, signature::Ed25519KeyPair};

    use super::*;

    fn builder() -> ConfigBuilder {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Config::builder("a", PrivateKey(document.as_ref().to_vec().into()))
    }

    fn refused(change: impl Fn(ConfigBuilder) -> ConfigBuilder) -> String {
        change(builder()).build().unwrap_err().to_string()
    }

    #[test]
    fn the_defaults_are_allowed_and_derived_from_the_key() {
        let config = builder().build().unwrap();
        assert_eq!(config.public_key, config.key.public_key().unwrap());
        assert_eq!(config.adapter.addrs, VirtualAddrs::derive_from_key(&config.public_key));
    }

    #[test]
    fn a_value_out_of_range_names_its_key_and_range() {
        let errors = [
            refused(|builder| builder.with(|config| config.adapter.mtu = 1279)),
            refused(|builder| {
                builder.with(|config| config.adapter.busy_poll = Duration::from_micros(1001))
            }),
            refused(|builder| builder.with_port(0)),
            refused(|builder| {
                builder.with(|config| config.failover.hold_down = Duration::from_secs(601))
            }),
            refused(|builder| builder.with_adapter("a/b")),
            refused(|builder| builder.with(|config| config.site = "x y".into())),
        ];
        assert_eq!(
            errors,
            [
                "`adapter.mtu` is a whole number from 1280 to 65535 bytes, not 1279",
                "`adapter.busy_poll` is a whole number from 0 to 1000 µs (0: never), not 1001",
                "`session.port` is a whole number from 1 to 65535, not 0",
                "`failover.hold` is a whole number from 0 to 600000 ms, not 601000",
                "`adapter.name` is an interface name of 1 to 15 printable ASCII characters \
                 without `/`, `%` and `:`, not \"a/b\": '/' is not allowed",
                "`node.site` is a name of 1 to 64 letters, digits, `.`, `_` or `-`, not \"x y\": \
                 ' ' is not allowed",
            ]
        );
    }

    #[test]
    fn networks_and_peers_are_held_against_each_other() {
        let network = |prefix: &str| NetworkConfig::new(prefix.parse().unwrap());
        let two = |a: &str, b: &str| {
            refused(|builder| builder.with_network(network(a)).with_network(network(b)))
        };
        assert!(two("10.1.0.0/16", "10.1.7.0/24").ends_with("it overlaps 10.1.0.0/16"));
        assert!(two("10.1.0.0/16", "10.2.0.1/16").contains("did you mean `10.2.0.0/16`"));
        let none = NetworkConfig { capacity: Some(0), ..network("10.1.0.0/16") };
        let error = refused(|builder| builder.with_network(none.clone()));
        assert_eq!(error, "`network.capacity` is a whole number from 1 to 10000000 Mbit/s, not 0");
        let peer = |name: &str, key: u8| PeerConfig::new(name, NodeKey([key; 32]));
        let error = refused(|builder| builder.with_peer(peer("a", 2)));
        assert_eq!(error, "`peer.name` a is used twice");
        let error = refused(|builder| builder.with_peer(peer("b", 2)).with_peer(peer("c", 2)));
        assert!(error.starts_with("`peer.key` AgIC"), "{error}");
        let many = |builder| {
            let peers =
                (0..257).map(|place| PeerConfig::new(format!("n{place}"), NodeKey([9; 32])));
            peers.fold(builder, ConfigBuilder::with_peer)
        };
        assert_eq!(refused(many), "257 peers, more than the 256 allowed");
    }

    #[test]
    fn an_unusable_private_key_is_refused() {
        let error = Config::builder("a", PrivateKey(vec![0; 83].into())).build().unwrap_err();
        assert_eq!(error, ConfigError::UnusableKey("it is all zero"));
    }
}
