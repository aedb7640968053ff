//! Construction of a lab: nodes joined by networks, their names and addresses.
//!
//! Every node is a namespace. Every network is a namespace of its own, the "switch", which holds
//! a bridge (or routes, for [`NetworkLayout::Routed`]) and the far end of one veth pair per node.
//! Faults are injected in the switch, invisible to the nodes.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Mutex,
    time::{Duration, Instant},
};

use futures_util::TryStreamExt;
use rtnetlink::{
    Handle, LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder,
    packet_route::{
        address::AddressHeaderFlags,
        link::{InfoData, InfoVeth, LinkAttribute, State},
        neighbour::NeighbourMessage,
    },
};

use crate::{
    error::LabError,
    netns::{Netns, interface_index},
};

/// Name of the bridge in a switch.
pub(crate) const BRIDGE_NAME: &str = "br0";

/// Layer of a network: a bridge or a router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetworkLayout {
    /// One subnet, one bridge: `10.(network+1).0.(node+1)/24`, `fd00:network+1::(node+1)/64`.
    Flat,
    /// One subnet per node, joined by a router: `10.(network+1).(node+1).(node+1)/24`,
    /// `fd00:network+1:node+1::(node+1)/64`.
    Routed,
}

/// Nodes `0..` joined by networks `0..`, all up.
#[derive(Debug)]
pub struct Lab {
    nodes: Vec<Netns>,
    networks: Vec<LabNetwork>,
}

#[derive(Debug)]
pub(crate) struct LabNetwork {
    pub(crate) switch: Netns,
    pub(crate) layout: NetworkLayout,
    /// Bridge forwarding entries of one-way faults, deleted on healing.
    pub(crate) one_way_entries: Mutex<Vec<NeighbourMessage>>,
}

impl Lab {
    /// `nodes` nodes (1–200) joined by `networks` flat networks (1–100).
    ///
    /// # Errors
    /// When the kernel refuses, as it does outside
    /// [`enter_namespaces()`](crate::enter_namespaces()).
    pub fn new(nodes: usize, networks: usize) -> Result<Self, LabError> {
        Self::with_layouts(nodes, &vec![NetworkLayout::Flat; networks])
    }

    /// `nodes` nodes (1–200) joined by one network of each of the given layouts (1–100).
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn with_layouts(nodes: usize, layouts: &[NetworkLayout]) -> Result<Self, LabError> {
        assert!((1..=200).contains(&nodes) && (1..=100).contains(&layouts.len()), "lab too large");
        let nodes = (0..nodes)
            .map(|node| Netns::new(format!("node {node}")))
            .collect::<Result<Vec<_>, _>>()?;
        for node in &nodes {
            node.run_netlink("set lo up", |netlink| async move { set_up(&netlink, "lo").await })?;
        }
        let mut lab = Self { nodes, networks: Vec::new() };
        for layout in layouts {
            lab.add_network(*layout)?;
        }
        Ok(lab)
    }

    /// Joins all nodes by one more network.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn add_network(&mut self, layout: NetworkLayout) -> Result<(), LabError> {
        let network = self.networks.len();
        let switch = Netns::new(format!("network {network}"))?;
        prepare_switch(&switch, layout)?;
        self.networks.push(LabNetwork { switch, layout, one_way_entries: Mutex::default() });
        (0..self.nodes.len()).try_for_each(|node| self.add_nic(network, node))
    }

    /// The namespace of a node.
    pub fn node_netns(&self, node: usize) -> &Netns {
        &self.nodes[node]
    }

    /// The namespace of a network's switch, which every frame between two nodes passes.
    pub fn switch_netns(&self, network: usize) -> &Netns {
        &self.networks[network].switch
    }

    /// Number of nodes.
    pub fn node_count(&self) -> usize {
        self.nodes.len()
    }

    /// Number of networks.
    pub fn network_count(&self) -> usize {
        self.networks.len()
    }

    pub(crate) fn network(&self, network: usize) -> &LabNetwork {
        &self.networks[network]
    }

    /// The IPv4 address of a node on a network.
    pub fn node_ipv4(&self, network: usize, node: usize) -> Ipv4Addr {
        let [net, host] = [to_u8(network + 1), to_u8(node + 1)];
        match self.networks[network].layout {
            NetworkLayout::Flat => Ipv4Addr::new(10, net, 0, host),
            NetworkLayout::Routed => Ipv4Addr::new(10, net, host, host),
        }
    }

    /// The IPv6 address of a node on a network.
    pub fn node_ipv6(&self, network: usize, node: usize) -> Ipv6Addr {
        let [net, host] = [u16::from(to_u8(network + 1)), u16::from(to_u8(node + 1))];
        let subnet = if self.networks[network].layout == NetworkLayout::Flat { 0 } else { host };
        Ipv6Addr::new(0xfd00, net, subnet, 0, 0, 0, 0, host)
    }

    /// The interface of a node on a network: `eth0`, `eth1`, …
    pub fn nic_name(network: usize) -> String {
        format!("eth{network}")
    }

    /// The far end of a node's cable, inside the network's switch: `port0`, `port1`, …
    pub fn port_name(node: usize) -> String {
        format!("port{node}")
    }

    /// The hardware address of a node's interface on a network.
    pub fn nic_mac(network: usize, node: usize) -> [u8; 6] {
        [0x02, 0, 0, to_u8(network + 1), 0, to_u8(node + 1)]
    }

    /// A node's address on a network, of either family.
    pub fn node_address(&self, network: usize, node: usize, ipv6: bool) -> IpAddr {
        if ipv6 {
            self.node_ipv6(network, node).into()
        } else {
            self.node_ipv4(network, node).into()
        }
    }

    /// The prefix of a node's subnet on a network.
    pub(crate) fn subnet_prefix(&self, network: usize, node: usize, ipv6: bool) -> String {
        let address = self.node_address(network, node, ipv6);
        let net = ipnet::IpNet::new(address, if ipv6 { 64 } else { 24 });
        net.expect("64 and 24 are in range").trunc().to_string()
    }

    /// The network of a node's address.
    pub fn network_of(&self, node: usize, address: IpAddr) -> Option<usize> {
        (0..self.network_count())
            .find(|n| self.node_ipv4(*n, node) == address || self.node_ipv6(*n, node) == address)
    }

    /// Sets the MTU of every interface of the network, in the nodes and in the switch.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_mtu(&self, network: usize, mtu: u32) -> Result<(), LabError> {
        // The switch first: the bridge takes the smallest MTU of its ports.
        for node in 0..self.node_count() {
            let interfaces = [
                (self.switch_netns(network), Self::port_name(node)),
                (self.node_netns(node), Self::nic_name(network)),
            ];
            for (netns, name) in interfaces {
                netns.run_netlink("set an MTU", |netlink| async move {
                    let index = interface_index(&netlink, &name).await?;
                    let message = LinkUnspec::new_with_index(index).mtu(mtu).build();
                    netlink.link().change(message).execute().await
                })?;
            }
        }
        Ok(())
    }

    /// Makes a node's interface segment its sends itself: bridge and wire see frames of wire size.
    pub(crate) fn disable_segmentation(&self, network: usize, node: usize) -> Result<(), LabError> {
        let nic = Self::nic_name(network);
        self.node_netns(node).run_netlink("disable segmentation", |netlink| async move {
            let index = interface_index(&netlink, &nic).await?;
            let change = LinkUnspec::new_with_index(index)
                .append_extra_attribute(LinkAttribute::GsoMaxSegs(1))
                .build();
            netlink.link().change(change).execute().await
        })
    }

    /// Plugs a node into a network: interface, addresses, cable. Undoes [`Lab::delete_nic`].
    ///
    /// # Errors
    /// When the kernel refuses, or the interface exists.
    pub fn add_nic(&self, network: usize, node: usize) -> Result<(), LabError> {
        let (nic, port) = (Self::nic_name(network), Self::port_name(node));
        self.plug_node(network, node, &nic, &port, Self::nic_mac(network, node))?;
        self.set_addresses(network, node, &nic, true)?;
        if self.networks[network].layout == NetworkLayout::Routed {
            self.set_routes(network, node, &nic)?;
        }
        Ok(())
    }

    /// A veth pair: `nic` in the node, up; `port` in the switch, up and attached.
    pub(crate) fn plug_node(
        &self,
        network: usize,
        node: usize,
        nic: &str,
        port: &str,
        mac: [u8; 6],
    ) -> Result<(), LabError> {
        let LabNetwork { switch, layout, .. } = &self.networks[network];
        let far = LinkUnspec::new_with_name(nic)
            .address(mac.to_vec())
            .setns_by_fd(self.nodes[node].raw_fd())
            .build();
        let pair = LinkVeth::new(port, nic).set_info_data(InfoData::Veth(InfoVeth::Peer(far)));
        let gateways = gateway_addresses(network, node);
        switch.run_netlink("plug a node in", |netlink| async move {
            netlink.link().add(pair.build()).execute().await?;
            let index = interface_index(&netlink, port).await?;
            if *layout == NetworkLayout::Flat {
                let bridge = interface_index(&netlink, BRIDGE_NAME).await?;
                let attach = LinkUnspec::new_with_index(index).controller(bridge).up().build();
                return netlink.link().change(attach).execute().await;
            }
            for (address, length) in gateways {
                add_address(&netlink, index, address, length).await?;
            }
            set_up(&netlink, port).await
        })?;
        self.nodes[node].run_netlink("set an interface up", |netlink| async move {
            set_up(&netlink, nic).await?;
            await_carrier(&netlink, nic).await
        })?;
        // The bridge forwards for a port from here on.
        switch.run_netlink("wait for a port", |netlink| async move {
            await_carrier(&netlink, port).await
        })
    }

    /// Adds the node's addresses on the network to `nic`, or deletes them.
    pub(crate) fn set_addresses(
        &self,
        network: usize,
        node: usize,
        nic: &str,
        present: bool,
    ) -> Result<(), LabError> {
        let addresses: [(IpAddr, u8); 2] = [
            (self.node_ipv4(network, node).into(), 24),
            (self.node_ipv6(network, node).into(), 64),
        ];
        self.nodes[node].run_netlink("set addresses", |netlink| async move {
            let index = interface_index(&netlink, nic).await?;
            for (address, length) in addresses {
                if present {
                    add_address(&netlink, index, address, length).await?;
                } else {
                    let request = netlink.address().add(index, address, length);
                    let mut request = request;
                    let message = request.message_mut().clone();
                    netlink.address().del(message).execute().await?;
                }
            }
            Ok(())
        })
    }

    /// Routes to the other subnets of a routed network.
    fn set_routes(&self, network: usize, node: usize, nic: &str) -> Result<(), LabError> {
        let [(gateway4, _), (gateway6, _)] = gateway_addresses(network, node);
        let net = to_u8(network + 1);
        let all4 = (Ipv4Addr::new(10, net, 0, 0).into(), 16);
        let all6 = (Ipv6Addr::new(0xfd00, net.into(), 0, 0, 0, 0, 0, 0).into(), 32);
        self.nodes[node].run_netlink("set routes", |netlink| async move {
            let index = interface_index(&netlink, nic).await?;
            for ((prefix, length), gateway) in [(all4, gateway4), (all6, gateway6)] {
                let route = RouteMessageBuilder::<IpAddr>::new()
                    .destination_prefix(prefix, length)
                    .and_then(|route| route.gateway(gateway))
                    .expect("prefix and gateway are of one family")
                    .output_interface(index)
                    .build();
                netlink.route().add(route).execute().await?;
            }
            Ok(())
        })
    }
}

fn to_u8(number: usize) -> u8 {
    u8::try_from(number).expect("the constructor bounds nodes and networks")
}

/// The router's addresses towards a node.
pub(crate) fn gateway_addresses(network: usize, node: usize) -> [(IpAddr, u8); 2] {
    let [net, host] = [to_u8(network + 1), to_u8(node + 1)];
    let v4 = Ipv4Addr::new(10, net, host, 254);
    let v6 = Ipv6Addr::new(0xfd00, net.into(), host.into(), 0, 0, 0, 0, 254);
    [(v4.into(), 24), (v6.into(), 64)]
}

fn prepare_switch(switch: &Netns, layout: NetworkLayout) -> Result<(), LabError> {
    match layout {
        NetworkLayout::Flat => {
            // Without IPv6 the bridge sends nothing: the network carries the nodes' frames only.
            switch.run_inside(|| {
                let _ = std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
            });
            switch.run_netlink("add a bridge", |netlink| async move {
                let bridge = LinkBridge::new(BRIDGE_NAME).mcast_snooping(false).up().build();
                netlink.link().add(bridge).execute().await
            })
        }
        NetworkLayout::Routed => set_forwarding(switch, true),
    }
}

/// Turns a routed network's router on or off.
pub(crate) fn set_forwarding(switch: &Netns, on: bool) -> Result<(), LabError> {
    let value = if on { "1" } else { "0" };
    switch.run_inside(|| {
        for path in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
            let path = format!("/proc/sys/net/{path}");
            std::fs::write(&path, value).map_err(LabError::io_error(format!("write {path}")))?;
        }
        Ok(())
    })
}

pub(crate) async fn set_up(netlink: &Handle, name: &str) -> Result<(), rtnetlink::Error> {
    set_running(netlink, name, true).await
}

/// Waits until the kernel reports an interface as operational, which may be a second after its
/// carrier is there (linkwatch). Returns after 3 s all the same: what needs the carrier then fails.
async fn await_carrier(netlink: &Handle, name: &str) -> Result<(), rtnetlink::Error> {
    let index = interface_index(netlink, name).await?;
    let deadline = Instant::now() + Duration::from_secs(3);
    while Instant::now() < deadline {
        let mut rows = netlink.link().get().match_index(index).execute();
        let up = rows
            .try_next()
            .await?
            .is_some_and(|found| found.attributes.contains(&LinkAttribute::OperState(State::Up)));
        if up {
            break;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Ok(())
}

pub(crate) async fn set_running(
    netlink: &Handle,
    name: &str,
    up: bool,
) -> Result<(), rtnetlink::Error> {
    let index = interface_index(netlink, name).await?;
    let message: LinkMessageBuilder<LinkUnspec> = LinkUnspec::new_with_index(index);
    let message = if up { message.up() } else { message.down() };
    netlink.link().change(message.build()).execute().await
}

/// Adds an address that is usable at once (no duplicate address detection).
pub(crate) async fn add_address(
    netlink: &Handle,
    index: u32,
    address: IpAddr,
    length: u8,
) -> Result<(), rtnetlink::Error> {
    let mut request = netlink.address().add(index, address, length);
    request.message_mut().header.flags = AddressHeaderFlags::Nodad;
    request.execute().await
}
