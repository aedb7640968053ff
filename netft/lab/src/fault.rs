//! Faults, and how they heal.
//!
//! Every fault takes effect in the network's switch, so that nodes cannot see it except by what
//! they no longer hear (or, for [`Lab::cut_carrier`], by their own interface).

use rtnetlink::{
    LinkBridgePort, LinkUnspec,
    packet_route::{
        link::LinkAttribute,
        neighbour::{NeighbourFlags, NeighbourState},
    },
};

use super::{
    Lab, LabError, Moment, NetworkLayout,
    build::{BRIDGE_NAME, LabNetwork, set_forwarding, set_running, set_up},
    interface_index,
};

impl Lab {
    /// The network forwards nothing in either direction; every interface keeps its carrier.
    ///
    /// # Errors
    /// When the kernel refuses. The moment returned is just before the fault takes effect.
    pub fn black_hole(&self, network: usize) -> Result<Moment, LabError> {
        let LabNetwork { switch, layout: shape, .. } = self.network(network);
        if *shape == NetworkLayout::Routed {
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

    /// The node's interface on the network loses its carrier.
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

    /// On a flat network, what `from` sends to `to` vanishes; what `to` sends arrives.
    ///
    /// A bridge never sends a frame back out of the port it came in on, so a fixed forwarding
    /// entry that places `to` behind the port of `from` swallows every frame between them. With
    /// more than two nodes, what the others send to `to` vanishes as well.
    ///
    /// # Errors
    /// When the kernel refuses. The moment returned is just before the fault takes effect.
    pub fn drop_one_way(&self, network: usize, from: usize, to: usize) -> Result<Moment, LabError> {
        let LabNetwork { switch, layout: shape, one_way_entries: traps } = self.network(network);
        assert_eq!(*shape, NetworkLayout::Flat, "a one-way fault needs a bridge");
        let (from_port, to_port) = (Self::port_name(from), Self::port_name(to));
        let mac = Self::nic_mac(network, to);
        let (trap, moment) = switch.run_netlink("set a trap", |netlink| async move {
            let behind = interface_index(&netlink, &from_port).await?;
            let away = interface_index(&netlink, &to_port).await?;
            // Sticky: not moved when `to` is heard behind its own port.
            let mut trap = netlink
                .neighbours()
                .add_bridge(behind, &mac)
                .state(NeighbourState::Noarp)
                .flags(NeighbourFlags::Controller | NeighbourFlags::Sticky)
                .replace();
            let message = trap.message_mut().clone();
            let moment = Moment::now();
            trap.execute().await?;
            // Between placing an entry and making it stick, a frame of `to` may move it back.
            let mut again = netlink.neighbours().add_bridge(behind, &mac).replace();
            *again.message_mut() = message.clone();
            again.execute().await?;
            // Broadcast and multicast do not look at the forwarding entries.
            let port = LinkBridgePort::new(away).bcast_flood(false).mcast_flood(false);
            netlink.link().set_port(port.build()).execute().await?;
            Ok((message, moment))
        })?;
        traps.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(trap);
        Ok(moment)
    }

    /// On a flat network, packets larger than `mtu` bytes vanish without a word, give or take the
    /// 4 bytes of a VLAN tag; smaller ones pass, and the nodes see nothing. The network's usual MTU
    /// of 1500 undoes it.
    ///
    /// # Errors
    /// When the kernel refuses. The moment returned is just before the fault takes effect.
    pub fn make_mtu_black_hole(&self, network: usize, mtu: u32) -> Result<Moment, LabError> {
        let LabNetwork { switch, layout: shape, .. } = self.network(network);
        assert_eq!(*shape, NetworkLayout::Flat, "a router would tell the sender");
        let nic = &Self::nic_name(network);
        for node in 0..self.node_count() {
            // A bridge lets every packet pass that is still to be segmented behind it.
            self.node_netns(node).run_netlink(
                "leave no segmenting to others",
                |netlink| async move {
                    let index = interface_index(&netlink, nic).await?;
                    let change = LinkUnspec::new_with_index(index)
                        .append_extra_attribute(LinkAttribute::GsoMaxSegs(1))
                        .build();
                    netlink.link().change(change).execute().await
                },
            )?;
        }
        let ports: Vec<String> = (0..self.node_count()).map(Self::port_name).collect();
        switch.run_netlink("narrow a network", |netlink| async move {
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
        let LabNetwork { switch, layout: shape, one_way_entries: traps } = self.network(network);
        let traps = std::mem::take(&mut *traps.lock().unwrap_or_else(|p| p.into_inner()));
        let ports: Vec<String> = (0..self.node_count()).map(Self::port_name).collect();
        if *shape == NetworkLayout::Routed {
            set_forwarding(switch, true)?;
        }
        switch.run_netlink("heal a network", |netlink| async move {
            for trap in traps {
                netlink.neighbours().del(trap).execute().await?;
            }
            for port in ports {
                // A port whose interface was deleted has nothing to heal.
                let Ok(index) = interface_index(&netlink, &port).await else { continue };
                if *shape == NetworkLayout::Flat {
                    let open = LinkBridgePort::new(index).bcast_flood(true).mcast_flood(true);
                    netlink.link().set_port(open.build()).execute().await?;
                }
                set_up(&netlink, &port).await?;
            }
            if *shape == NetworkLayout::Flat {
                set_running(&netlink, BRIDGE_NAME, true).await?;
            }
            Ok(Moment::now())
        })
    }

    /// Removes the node's interface on the network, as if the card were pulled out.
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

    /// Gives an interface of a node another name.
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
