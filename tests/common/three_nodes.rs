//! Three nodes with two networks, and a daemon on each.

use std::net::SocketAddr;

use netft_lab::{
    Lab, Moment,
    daemon::{Daemon, Site, SiteSettings},
    transfer::Transfer,
};

use super::{HOLD_CONFIG, programs};

pub struct NodeTriple {
    // Daemons first: they end before their namespaces and files go.
    pub daemons: Vec<Daemon>,
    pub site: Site,
    pub lab: Lab,
}

impl NodeTriple {
    /// Every route of every node up; these tables are in every config.
    pub fn start_up(common: &str) -> Self {
        let mut three = Self::start(Lab::new(3, 2).unwrap(), common, &[]);
        for daemon in &mut three.daemons {
            daemon.wait_ready(4).unwrap();
        }
        three
    }

    /// The daemons started, with tables per node too.
    pub fn start(lab: Lab, common: &str, each: &[&str]) -> Self {
        let common = format!("{HOLD_CONFIG}{common}");
        let settings = SiteSettings { common: &common, per_node: each, ..SiteSettings::default() };
        let site = Site::new(&lab, programs(), settings).unwrap();
        let daemons = (0..3).map(|node| site.start_daemon(&lab, node).unwrap()).collect();
        Self { daemons, site, lab }
    }

    /// Takes away what nodes 0 and 2 share: node 0 keeps network 0, node 2 network 1.
    pub fn separate_nodes(lab: &Lab) -> Moment {
        let moment = lab.delete_nic(1, 0).unwrap();
        lab.delete_nic(0, 2).unwrap();
        moment
    }

    /// A node's virtual IPv4 address.
    pub fn endpoint(&self, node: usize) -> SocketAddr {
        self.site.virtual_endpoint(&self.lab, node, false).unwrap()
    }

    pub fn transfer(&self, from: usize, to: usize, rate: u64) -> Transfer {
        let end = |node: usize| (self.lab.node_netns(node), self.endpoint(node));
        Transfer::start(end(from), end(to), Some(rate)).unwrap()
    }

    pub fn counter(&self, node: usize, name: &str) -> u64 {
        self.daemons[node].get_json("/v1/status").unwrap()["counters"][name].as_u64().unwrap()
    }

    pub fn drops(&self, node: usize, reason: &str) -> u64 {
        let status = self.daemons[node].get_json("/v1/status").unwrap();
        status["counters"]["drops"][reason].as_u64().unwrap()
    }
}
