//! Fault injection and healing.
//!
//! Every fault takes effect in the network's switch, so that nodes notice it by missing packets
//! only (or, for [`Lab::cut_carrier`], by their own interface).

use std::sync::PoisonError;

use rtnetlink::{
    LinkBridgePort, LinkUnspec,
    packet_route::neighbour::{NeighbourFlags, NeighbourState},
};

use crate::{
    build::{BRIDGE_NAME, Lab, LabNetwork, NetworkLayout, set_forwarding, set_running, set_up},
    error::LabError,
    moment::Moment,
    netns::interface_index,
};

impl Lab {
    /// Stops forwarding in both directions; every interface keeps its carrier.
    ///
    /// # Errors
    /// When the kernel refuses. The moment returned is just before the fault takes effect.
    pub fn black_hole(&self, network: usize) -> Result<Moment, LabError> {
        let LabNetwork { switch, layout, .. } = self.network(network);
        if *layout == NetworkLayout::Routed {
            let moment = Moment::now();
            set_forwarding(switch, false)?;
            return Ok(moment);
        }
        switch.run_netlink("set the bridge down", |netlink| async move {
            let index = interface_index(&netlink, BRIDGE_NAME).await?;
            let message = LinkUnspec::new_with_index(index).down().build();
            let moment = Moment::now();
            netlink.link().change(message).execute().await?;
            Ok(moment)
        })
    }

    /// Takes the carrier of the node's interface on the network away.
    ///
    /// # Errors
    /// When the kernel refuses. The moment returned is just before the fault takes effect.
    pub fn cut_carrier(&self, network: usize, node: usize) -> Result<Moment, LabError> {
        let port = Self::port_name(node);
        self.network(network).switch.run_netlink("set a port down", |netlink| async move {
            let index = interface_index(&netlink, &port).await?;
            let message = LinkUnspec::new_with_index(index).down().build();
            let moment = Moment::now();
            netlink.link().change(message).execute().await?;
            Ok(moment)
        })
    }

    /// Drops packets from `from` to `to` on a flat network; the other direction works.
    ///
    /// A bridge never sends a frame back out of the port it came in on, so a fixed forwarding
    /// entry that places `to` behind the port of `from` drops every frame between them. With more
    /// than two nodes, frames of the others to `to` are dropped as well.
    ///
    /// # Errors
    /// When the kernel refuses. The moment returned is just before the fault takes effect.
    pub fn drop_one_way(&self, network: usize, from: usize, to: usize) -> Result<Moment, LabError> {
        let LabNetwork { switch, layout, one_way_entries } = self.network(network);
        assert_eq!(*layout, NetworkLayout::Flat, "a one-way fault needs a bridge");
        let (from_port, to_port) = (Self::port_name(from), Self::port_name(to));
        let mac = Self::nic_mac(network, to);
        let (entry, moment) =
            switch.run_netlink("add a forwarding entry", |netlink| async move {
                let behind = interface_index(&netlink, &from_port).await?;
                let away = interface_index(&netlink, &to_port).await?;
                // Sticky: the bridge does not relearn it when `to` sends through its own port.
                let mut entry = netlink
                    .neighbours()
                    .add_bridge(behind, &mac)
                    .state(NeighbourState::Noarp)
                    .flags(NeighbourFlags::Controller | NeighbourFlags::Sticky)
                    .replace();
                let message = entry.message_mut().clone();
                let moment = Moment::now();
                entry.execute().await?;
                // A frame of `to` may move the entry before it is sticky: replace it once more.
                let mut again = netlink.neighbours().add_bridge(behind, &mac).replace();
                *again.message_mut() = message.clone();
                again.execute().await?;
                // Broadcast and multicast ignore forwarding entries.
                let port = LinkBridgePort::new(away).bcast_flood(false).mcast_flood(false);
                netlink.link().set_port(port.build()).execute().await?;
                Ok((message, moment))
            })?;
        one_way_entries.lock().unwrap_or_else(PoisonError::into_inner).push(entry);
        Ok(moment)
    }

    /// Drops packets larger than `mtu` bytes on a flat network without an ICMP error, give or take
    /// the 4 bytes of a VLAN tag. The network's usual MTU of 1500 undoes it.
    ///
    /// # Errors
    /// When the kernel refuses. The moment returned is just before the fault takes effect.
    pub fn make_mtu_black_hole(&self, network: usize, mtu: u32) -> Result<Moment, LabError> {
        let LabNetwork { switch, layout, .. } = self.network(network);
        assert_eq!(*layout, NetworkLayout::Flat, "a router would send an ICMP error");
        // A bridge forwards segmented sends whole, whatever the MTU behind it.
        (0..self.node_count()).try_for_each(|node| self.disable_segmentation(network, node))?;
        let ports: Vec<String> = (0..self.node_count()).map(Self::port_name).collect();
        switch.run_netlink("lower the MTU of a network", |netlink| async move {
            let moment = Moment::now();
            for port in ports {
                let index = interface_index(&netlink, &port).await?;
                let change = LinkUnspec::new_with_index(index).mtu(mtu).build();
                netlink.link().change(change).execute().await?;
            }
            Ok(moment)
        })
    }

    /// Undoes every fault of the network except [`Lab::delete_nic`], [`Lab::move_address`] and
    /// [`Lab::make_mtu_black_hole`].
    ///
    /// # Errors
    /// When the kernel refuses. The moment returned is just after the network is whole.
    pub fn heal_network(&self, network: usize) -> Result<Moment, LabError> {
        let LabNetwork { switch, layout, one_way_entries } = self.network(network);
        let entries =
            std::mem::take(&mut *one_way_entries.lock().unwrap_or_else(PoisonError::into_inner));
        let ports: Vec<String> = (0..self.node_count()).map(Self::port_name).collect();
        if *layout == NetworkLayout::Routed {
            set_forwarding(switch, true)?;
        }
        switch.run_netlink("heal a network", |netlink| async move {
            for entry in entries {
                netlink.neighbours().del(entry).execute().await?;
            }
            for port in ports {
                // A port whose interface was deleted has nothing to heal.
                let Ok(index) = interface_index(&netlink, &port).await else { continue };
                if *layout == NetworkLayout::Flat {
                    let open = LinkBridgePort::new(index).bcast_flood(true).mcast_flood(true);
                    netlink.link().set_port(open.build()).execute().await?;
                }
                set_up(&netlink, &port).await?;
            }
            if *layout == NetworkLayout::Flat {
                set_running(&netlink, BRIDGE_NAME, true).await?;
            }
            Ok(Moment::now())
        })
    }

    /// Deletes the node's interface on the network, as if the card were removed.
    ///
    /// # Errors
    /// When the kernel refuses. The moment returned is just before.
    pub fn delete_nic(&self, network: usize, node: usize) -> Result<Moment, LabError> {
        let nic = Self::nic_name(network);
        self.node_netns(node).run_netlink("delete an interface", |netlink| async move {
            let index = interface_index(&netlink, &nic).await?;
            let moment = Moment::now();
            netlink.link().del(index).execute().await?;
            Ok(moment)
        })
    }

    /// Renames an interface of a node.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn rename_interface(&self, node: usize, from: &str, to: &str) -> Result<(), LabError> {
        self.node_netns(node).run_netlink("rename an interface", |netlink| async move {
            let index = interface_index(&netlink, from).await?;
            let message = LinkUnspec::new_with_index(index).name(to.to_owned()).build();
            netlink.link().change(message).execute().await
        })
    }

    /// Moves the node's addresses on a flat network to a second interface, `spare{network}`, on
    /// the same network.
    ///
    /// # Errors
    /// When the kernel refuses. The moment returned is just before the addresses leave.
    pub fn move_address(&self, network: usize, node: usize) -> Result<Moment, LabError> {
        let mut mac = Self::nic_mac(network, node);
        mac[1] = 1;
        let spare = format!("spare{network}");
        self.plug_node(network, node, &spare, &format!("second{node}"), mac)?;
        let moment = Moment::now();
        self.set_addresses(network, node, &Self::nic_name(network), false)?;
        self.set_addresses(network, node, &spare, true)?;
        Ok(moment)
    }
}
