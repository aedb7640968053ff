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
        for node in 0..self.nodes() {
            let places =
                [(self.switch(network), Self::port(node)), (self.node(node), Self::nic(network))];
            for (place, name) in places {
                place.netlink("set an MTU", |netlink| async move {
                    let index = interface_index(&netlink, &name).await?;
                    let message = LinkUnspec::new_with_index(index).mtu(mtu).build();
                    netlink.link().change(message).execute().await
                })?;
            }
        }
        Ok(())
    }
}
