//! Two distant sites: a wire between the router of a routed network and a node.

use rtnetlink::{LinkUnspec, LinkVeth};

use crate::{
    build::{Lab, NetworkLayout, add_address, gateway_addresses, set_up},
    error::LabError,
    netns::interface_index,
    wire::ImpairedWire,
};

/// The router's interface towards the far site, and the other end of its cable.
const ROUTER_INTERFACE: &str = "near";
const CABLE_END_INTERFACE: &str = "far";

impl ImpairedWire {
    /// Puts a wire between the router of a routed network and node 1, which the router reaches
    /// over an interface of its own from then on. `seed` decides which frames random loss takes.
    /// The wire's direction 0 is towards the node, 1 towards the router.
    ///
    /// # Errors
    /// When the kernel refuses an interface or packet sockets.
    pub fn insert_at_far_site(lab: &Lab, network: usize, seed: u64) -> Result<Self, LabError> {
        let node = 1;
        let routed = lab.network(network).layout == NetworkLayout::Routed && lab.node_count() == 2;
        assert!(routed, "a router and two nodes have two sites");
        (0..2).try_for_each(|node| lab.disable_segmentation(network, node))?;
        let (switch, port) = (lab.switch_netns(network), Lab::port_name(node));
        // The port becomes an end of the wire: no address, no answer to ARP.
        switch.run_inside(|| {
            for (file, value) in [
                (format!("/proc/sys/net/ipv4/conf/{port}/arp_ignore"), "8"),
                (format!("/proc/sys/net/ipv6/conf/{port}/disable_ipv6"), "1"),
            ] {
                std::fs::write(&file, value)
                    .map_err(LabError::io_error(format!("write {file}")))?;
            }
            Ok(())
        })?;
        let addresses = gateway_addresses(network, node);
        switch.run_netlink("move a router's address", |netlink| async move {
            let old = interface_index(&netlink, &port).await?;
            let (address, length) = addresses[0];
            let mut request = netlink.address().add(old, address, length);
            let message = request.message_mut().clone();
            netlink.address().del(message).execute().await?;
            netlink
                .link()
                .add(LinkVeth::new(ROUTER_INTERFACE, CABLE_END_INTERFACE).build())
                .execute()
                .await?;
            let near = interface_index(&netlink, ROUTER_INTERFACE).await?;
            let mtu = LinkUnspec::new_with_index(near).mtu(1500).build();
            netlink.link().change(mtu).execute().await?;
            for name in [CABLE_END_INTERFACE, ROUTER_INTERFACE] {
                set_up(&netlink, name).await?;
            }
            for (address, length) in addresses {
                add_address(&netlink, near, address, length).await?;
            }
            Ok(())
        })?;
        switch.run_inside(|| {
            let file = format!("/proc/sys/net/ipv4/conf/{CABLE_END_INTERFACE}/arp_ignore");
            std::fs::write(&file, "8").map_err(LabError::io_error(format!("write {file}")))
        })?;
        Self::connect_ports(switch, [CABLE_END_INTERFACE, &Lab::port_name(node)], seed)
    }
}
