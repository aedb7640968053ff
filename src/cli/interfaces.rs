//! The networks of this machine, for `netft init`: those that netftd would use by itself.

use std::net::IpAddr;

use ipnet::IpNet;
use netft::{
    NodeKey,
    api::{host, host::NetlinkError},
    config::{Config, NetworkRole, PrivateKey},
    topology,
    topology::{Interface, KernelWays},
};

/// A network that an interface of this machine belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LocalNetwork {
    /// The interface.
    pub(super) interface: String,
    /// Address of this machine.
    pub(super) address: IpAddr,
    /// The network.
    pub(super) prefix: IpNet,
    /// The role that netftd gives it.
    pub(super) role: NetworkRole,
}

/// Every network that netftd would use, best first.
///
/// # Errors
/// Of netlink.
pub(super) fn find_networks() -> Result<Vec<LocalNetwork>, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    let found: Result<_, NetlinkError> = runtime.block_on(host::list_interfaces());
    Ok(to_networks(&found.map_err(|error| error.to_string())?))
}

fn to_networks(interfaces: &[Interface]) -> Vec<LocalNetwork> {
    let config = Config::new("init", PrivateKey(Vec::new().into()), NodeKey([0; 32]));
    let list = topology::build_advertisement(&config, interfaces, &[], &KernelWays::new());
    let mut found: Vec<LocalNetwork> = Vec::new();
    for endpoint in &list.endpoints {
        let owner = interfaces.iter().find(|interface| interface.owns_address(endpoint.addr));
        let Some(owner) = owner.filter(|owner| owner.up) else { continue };
        let prefix = endpoint.subnet_prefix();
        if found.iter().all(|other| other.prefix != prefix) {
            found.push(LocalNetwork {
                interface: owner.name.clone(),
                address: endpoint.addr,
                prefix,
                role: topology::network_role(&config, owner, endpoint.addr),
            });
        }
    }
    found
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use netft::topology::LocalAddr;

    use super::*;

    fn interface(index: u32, name: &str, kind: Option<&str>, addr: &str) -> Interface {
        let net: IpNet = addr.parse().unwrap();
        Interface {
            index,
            name: name.into(),
            kind: kind.map(str::to_owned),
            up: true,
            carrier: true,
            loopback: name == "lo",
            mtu: 1500,
            default_route: (name == "eth0").then_some(0),
            speed: None,
            addrs: vec![LocalAddr { addr: net.addr(), prefix: net.trunc(), is_secondary: false }],
        }
    }

    #[test]
    fn init_finds_the_networks_that_the_daemon_uses() {
        let interfaces = [
            interface(1, "lo", None, "127.0.0.1/8"),
            interface(2, "eth0", None, "10.1.0.1/24"),
            interface(3, "br-lan", Some("bridge"), "10.2.0.1/24"),
            interface(4, "docker0", Some("bridge"), "172.17.0.1/16"),
            interface(5, "tailscale0", Some("tun"), "100.64.0.1/10"),
            interface(6, "wg0", Some("wireguard"), "10.9.0.1/24"),
        ];
        let found = to_networks(&interfaces);
        let shown: Vec<_> = found
            .iter()
            .map(|it| format!("{} {} {}", it.interface, it.prefix, it.role.as_str()))
            .collect();
        assert_eq!(shown, ["br-lan 10.2.0.0/24 cluster", "eth0 10.1.0.0/24 cluster-and-client"]);
    }
}
