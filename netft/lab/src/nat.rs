//! NAT: a node behind a router that masquerades (`nft`).

use std::{net::Ipv4Addr, ops::RangeInclusive};

use crate::{
    build::{Lab, NetworkLayout, add_address, gateway_addresses},
    error::LabError,
    netns::interface_index,
};

/// Nftables table of the router.
const NAT_TABLE: &str = "inet lab_nat";

impl Lab {
    /// Puts node 0 behind NAT at the router of a routed network: its packets leave with the
    /// router's address and a port out of `ports`, and only replies reach it. Called again, new
    /// flows get their port from the new range; existing ones keep theirs until
    /// [`Lab::reset_nat_mappings`].
    ///
    /// # Errors
    /// When there is no `nft`, or the kernel refuses.
    pub fn enable_nat(&self, network: usize, ports: RangeInclusive<u16>) -> Result<(), LabError> {
        assert_eq!(self.network(network).layout, NetworkLayout::Routed, "only a router translates");
        let (first, last, inside) = (ports.start(), ports.end(), Self::port_name(0));
        self.run_nft(
            network,
            &format!(
                "table {NAT_TABLE}
                delete table {NAT_TABLE}
                table {NAT_TABLE} {{
                    chain out {{
                        type nat hook postrouting priority srcnat;
                        oifname != \"{inside}\" meta nfproto ipv4 meta l4proto udp \
                            masquerade to :{first}-{last};
                    }}
                    chain inbound {{
                        type filter hook forward priority filter;
                        meta nfproto ipv6 drop;
                        oifname \"{inside}\" ct state new drop;
                    }}
                }}"
            ),
        )
    }

    /// Allows or drops everything node 0 sends through the router.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_outbound_open(&self, network: usize, open: bool) -> Result<(), LabError> {
        let inside = Self::port_name(0);
        self.run_nft(
            network,
            &if open {
                "delete table inet lab_outbound".to_owned()
            } else {
                format!(
                    "table inet lab_outbound {{ chain outbound {{ \
                     type filter hook forward priority -10; iifname \"{inside}\" drop; }}; }}"
                )
            },
        )
    }

    /// Removes the router's mappings towards node 1, as a restart does: its address there is
    /// deleted, and added again as `outside`.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn reset_nat_mappings(
        &self,
        network: usize,
        from: Ipv4Addr,
        outside: Ipv4Addr,
    ) -> Result<(), LabError> {
        let port = Self::port_name(1);
        self.switch_netns(network).run_netlink("change the outer address", |netlink| async move {
            let index = interface_index(&netlink, &port).await?;
            let mut request = netlink.address().add(index, from.into(), 24);
            let message = request.message_mut().clone();
            netlink.address().del(message).execute().await?;
            add_address(&netlink, index, outside.into(), 24).await
        })
    }

    /// The router's address towards node 1.
    pub fn outer_address(&self, network: usize) -> Ipv4Addr {
        match gateway_addresses(network, 1)[0].0 {
            std::net::IpAddr::V4(v4) => v4,
            std::net::IpAddr::V6(_) => unreachable!("the first gateway is the IPv4 one"),
        }
    }

    fn run_nft(&self, network: usize, rules: &str) -> Result<(), LabError> {
        let failed = || LabError::io_error("run nft");
        let mut nft = self.switch_netns(network).command_inside("nft")?;
        let output = nft.arg(rules).output().map_err(failed())?;
        if output.status.success() {
            return Ok(());
        }
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        Err(failed()(std::io::Error::other(message)))
    }
}
