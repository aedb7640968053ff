//! How large a packet a network takes.

use rtnetlink::LinkUnspec;

use super::{Lab, LabError, interface_index};

impl Lab {
    /// Gives every interface of the network this MTU, in the nodes and in the switch.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_mtu(&self, network: usize, mtu: u32) -> Result<(), LabError> {
        // The switch first: the bridge takes the smallest MTU of its ports.
        for node in 0..self.node_count() {
            let places = [
                (self.switch_netns(network), Self::port_name(node)),
                (self.node_netns(node), Self::nic_name(network)),
            ];
            for (place, name) in places {
                place.run_netlink("set an MTU", |netlink| async move {
                    let index = interface_index(&netlink, &name).await?;
                    let message = LinkUnspec::new_with_index(index).mtu(mtu).build();
                    netlink.link().change(message).execute().await
                })?;
            }
        }
        Ok(())
    }
}
