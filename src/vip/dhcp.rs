//! DHCP leases of floating addresses: a client for each, sockets, and what the cluster remembers.
//!
//! The client runs on the node that has the address. A lease is told to the other nodes, so that
//! the next owner uses the address at once, and kept in the runtime directory.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    sync::Arc,
};

use ipnet::IpNet;
use netft::{
    Time,
    api::vip::DhcpSocket,
    topology::{Interface, LocalAddr},
    vip::{
        MacAddress, VipInput, VipLink,
        dhcp::{
            ClientIdentifier, DhcpAction, DhcpInput, DhcpLease, DhcpReply, DhcpRequest,
            DhcpRequestKind, DhcpState, client_identifier,
        },
    },
};
use ring::rand::{SecureRandom, SystemRandom};
use tokio::{sync::mpsc, task::JoinHandle};

use super::{
    assigned::AssignedAddress,
    entry::VipEntry,
    hand_over::LeaseNews,
    lease_record::{LeaseRecord, read_leases, write_leases},
};

/// Messages of servers on their way to the service; beyond it the newest is dropped: the client
/// asks again.
pub(super) const REPLY_QUEUE_LEN: usize = 64;

/// A message of a server, and the interface that it came in by.
pub(super) type HeardReply = (u32, DhcpReply);

struct OpenDhcpSocket {
    mac: MacAddress,
    socket: Arc<DhcpSocket>,
    reader: JoinHandle<()>,
}

impl Drop for OpenDhcpSocket {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// The leases of all floating addresses.
pub(super) struct DhcpDesk {
    /// Digest that tells clusters apart.
    cluster: [u8; 32],
    /// The file of leases.
    path: PathBuf,
    sockets: BTreeMap<u32, OpenDhcpSocket>,
    heard: mpsc::Sender<HeardReply>,
    /// Requests for every peer; those that find it full are lost, and told again when a peer is
    /// back after an outage, or with the next renewal.
    peers: mpsc::Sender<LeaseNews>,
    /// Addresses of this host that do not float.
    local: BTreeSet<IpAddr>,
    /// Physical addresses of the peers, as the config names them.
    peer_addrs: BTreeSet<IpAddr>,
    /// IPv4 networks of each interface.
    networks: BTreeMap<u32, Vec<IpNet>>,
    /// Addresses of an entry changed since the last drive.
    is_changed: bool,
}

impl DhcpDesk {
    pub(super) fn new(
        cluster: [u8; 32],
        runtime_dir: &Path,
        adapter: &str,
        heard: mpsc::Sender<HeardReply>,
        peers: mpsc::Sender<LeaseNews>,
    ) -> Self {
        Self {
            cluster,
            path: runtime_dir.join(format!("{adapter}.vip-leases")),
            sockets: BTreeMap::new(),
            heard,
            peers,
            local: BTreeSet::new(),
            peer_addrs: BTreeSet::new(),
            networks: BTreeMap::new(),
            is_changed: false,
        }
    }

    /// The lease of an address that is new here: what was kept in the file, or none.
    pub(super) fn open_address(&self, now: Time, vip: &str) -> AssignedAddress {
        let kept = read_leases(&self.path, now).into_iter().find(|(name, ..)| name == vip);
        let (identifier, remembered) = match kept {
            Some((_, identifier, lease)) => (identifier, Some(lease)),
            None => (client_identifier(&self.cluster, vip), None),
        };
        let mut seed = [0; 8];
        // Without randomness transactions can be guessed, and the time is as good as anything.
        let seed = match SystemRandom::new().fill(&mut seed) {
            Ok(()) => u64::from_be_bytes(seed),
            Err(_) => now.as_nanos(),
        };
        let remembered = remembered.filter(|lease| lease.is_running(now));
        AssignedAddress::new(seed, identifier, remembered)
    }

    /// Takes in the physical addresses of the peers.
    pub(super) fn set_peer_addrs(&mut self, addrs: BTreeSet<IpAddr>) {
        self.peer_addrs = addrs;
    }

    /// The address is one that a node of the cluster has by itself.
    fn belongs_to_node(&self, addr: IpAddr) -> bool {
        self.local.contains(&addr) || self.peer_addrs.contains(&addr)
    }

    pub(super) fn set_local(&mut self, interfaces: &[Interface]) {
        let addrs = interfaces.iter().flat_map(|one| &one.addrs);
        let is_own = |local: &&LocalAddr| local.prefix.prefix_len() < 32;
        self.local = addrs.filter(is_own).map(|local| local.addr).collect();
        let is_routed = |local: &&LocalAddr| match local.addr {
            IpAddr::V4(v4) => !v4.is_link_local(),
            IpAddr::V6(_) => false,
        };
        let networks = interfaces.iter().map(|one| {
            let own = one.addrs.iter().filter(is_own).filter(is_routed);
            (one.index, own.map(|local| local.prefix).collect())
        });
        self.networks = networks.collect();
    }

    /// Takes in a server's message.
    pub(super) fn on_reply(
        &mut self,
        now: Time,
        (index, mut reply): HeardReply,
        entries: &mut BTreeMap<Arc<str>, VipEntry>,
    ) {
        let addr = IpAddr::from(reply.addr);
        let networks = self.networks.get(&index).map_or(&[][..], Vec::as_slice);
        if !networks.is_empty() && !networks.iter().any(|network| is_host_of(network, addr)) {
            // Anyone on the segment can answer, but not with an address of somewhere else.
            reply.addr = Ipv4Addr::UNSPECIFIED;
        }
        let is_asked = |entry: &VipEntry| {
            let asked = |one: &AssignedAddress| {
                let is_here = one.link.as_ref().is_some_and(|link| link.index == index);
                is_here && one.client.state() != DhcpState::Stopped && one.client.xid() == reply.xid
            };
            entry.dhcp.as_ref().is_some_and(asked)
        };
        let is_taken = self.belongs_to_node(addr)
            || entries.values().any(|one| !is_asked(one) && one.machine.addrs().contains(&addr));
        let asked = entries.values_mut().find(|entry| is_asked(entry));
        match asked.and_then(|entry| entry.dhcp.as_mut()) {
            Some(one) => one.client.on_input(now, DhcpInput::Reply { reply, is_taken }),
            None => tracing::trace!(xid = reply.xid, "a DHCP message for nobody"),
        }
    }

    /// Gives back the leases of addresses that are removed for good, once they were let go.
    pub(super) fn finish_releases(
        &mut self,
        now: Time,
        entries: &mut BTreeMap<Arc<str>, VipEntry>,
    ) {
        for entry in entries.values_mut() {
            let Some(one) = entry.dhcp.as_mut().filter(|one| one.is_ending()) else { continue };
            self.is_changed = true;
            // Only the node that used the lease knows that it is over.
            if one.finish_release(now) {
                self.tell(&entry.name, None);
            }
        }
        self.drive(now, entries);
    }

    /// Takes in what another node told of a lease; `None`: it is gone. The client of this node
    /// knows better while it runs.
    pub(super) fn learn(&mut self, now: Time, record: Option<&LeaseRecord>, entry: &mut VipEntry) {
        let Some(one) = entry.dhcp.as_mut() else { return };
        if one.client.state() != DhcpState::Stopped {
            return;
        }
        let told = record.and_then(|record| record.to_lease(now));
        // The fence would silence an address of this host, and the announcement take one of a peer.
        let told = told.filter(|(_, lease)| !self.belongs_to_node(lease.addr.into()));
        let input = match told {
            Some((identifier, lease)) => {
                (one.identifier, one.remembered) = (identifier, Some(lease));
                VipInput::Assigned(vec![lease.addr.into()])
            }
            None if one.remembered.is_none() => return,
            None => {
                one.remembered = None;
                VipInput::Unassigned("another node lost its DHCP lease".to_owned())
            }
        };
        entry.input(now, input);
        self.is_changed = true;
    }

    /// Tells the peers the leases in use.
    pub(super) fn tell_all(&self, entries: &BTreeMap<Arc<str>, VipEntry>) {
        for (name, entry) in entries {
            if let Some(one) = &entry.dhcp
                && let Some(lease) = one.client.lease()
            {
                self.tell(name, Some((one.identifier, *lease)));
            }
        }
    }

    fn tell(&self, vip: &Arc<str>, lease: Option<(ClientIdentifier, DhcpLease)>) {
        let news = LeaseNews { vip: Arc::clone(vip), lease };
        if self.peers.try_send(news).is_err() {
            tracing::debug!(%vip, "the peers are not told of the DHCP lease");
        }
    }

    /// Starts and stops clients, and carries out what they decided. True if addresses changed.
    pub(super) fn drive(&mut self, now: Time, entries: &mut BTreeMap<Arc<str>, VipEntry>) -> bool {
        // What another node told, and what was given back, changes the file, too.
        let mut is_stored = self.is_changed;
        for entry in entries.values_mut() {
            let Some(mut one) = entry.dhcp.take() else { continue };
            is_stored |= self.drive_one(now, entry, &mut one);
            entry.dhcp = Some(one);
        }
        if is_stored {
            let leases = entries.iter().filter_map(|(name, entry)| {
                let one = entry.dhcp.as_ref()?;
                LeaseRecord::new(now, name, &one.identifier, one.remembered.as_ref()?).into()
            });
            if let Err(error) = write_leases(&self.path, now, leases.collect()) {
                tracing::warn!(%error, "cannot keep the DHCP leases");
            }
        }
        let used: BTreeSet<_> = entries
            .values()
            .filter_map(|entry| Some(entry.dhcp.as_ref()?.link.as_ref()?.index))
            .collect();
        self.sockets.retain(|index, open| used.contains(index) && !open.reader.is_finished());
        std::mem::take(&mut self.is_changed)
    }

    /// True if what is remembered changed.
    fn drive_one(&mut self, now: Time, entry: &mut VipEntry, one: &mut AssignedAddress) -> bool {
        // What was decided while it had an interface leaves by that interface.
        let mut is_stored = self.carry_out(now, entry, one);
        if one.is_ending() {
            return is_stored;
        }
        let link = entry.machine.link().filter(|_| entry.machine.is_granted());
        if one.link.as_ref() != link {
            // Another interface, or none: the lease moves.
            one.link = link.cloned();
            one.client.on_input(now, DhcpInput::Stop);
        }
        if one.link.is_some() && one.client.state() == DhcpState::Stopped {
            one.client.on_input(now, DhcpInput::Start(one.remembered));
        }
        if one.client.next_wake().is_some_and(|wake| wake <= now) {
            one.client.on_input(now, DhcpInput::Timer);
        }
        is_stored |= self.carry_out(now, entry, one);
        let is_known = |lease: DhcpLease| lease.is_running(now);
        match one.remembered.filter(|_| one.client.state() == DhcpState::Stopped) {
            // A node that does not have the address follows the lease, too.
            Some(lease) if is_known(lease) && entry.machine.addrs().is_empty() => {
                entry.input(now, VipInput::Assigned(vec![lease.addr.into()]));
                self.is_changed = true;
            }
            Some(lease) if !is_known(lease) => {
                one.remembered = None;
                let reason = format!("the DHCP lease of {} ended", lease.addr);
                entry.input(now, VipInput::Unassigned(reason));
                self.is_changed = true;
            }
            _ => {}
        }
        is_stored
    }

    /// True if what is remembered changed.
    fn carry_out(&mut self, now: Time, entry: &mut VipEntry, one: &mut AssignedAddress) -> bool {
        let mut is_stored = false;
        while let Some(action) = one.client.poll_action() {
            match action {
                DhcpAction::Send(request) => self.send(now, entry, one, &request),
                DhcpAction::Assigned(lease) => {
                    is_stored |= self.on_assigned(now, entry, one, lease);
                }
                DhcpAction::Lost(reason) => {
                    one.remembered = None;
                    (is_stored, self.is_changed) = (true, true);
                    entry.add_history(now, reason.clone());
                    one.problem = Some(reason.clone());
                    entry.input(now, VipInput::Unassigned(reason));
                    self.tell(&entry.name, None);
                }
                DhcpAction::Unserved(reason) => {
                    let interface = one.link.as_ref().map(|link| link.name.as_str());
                    let reason = format!("{reason} on {}", interface.unwrap_or("no interface"));
                    one.problem = Some(reason.clone());
                    entry.input(now, VipInput::Unassigned(reason.clone()));
                    entry.input(now, VipInput::Refused(reason));
                }
            }
        }
        is_stored
    }

    /// True if the lease is news.
    fn on_assigned(
        &mut self,
        now: Time,
        entry: &mut VipEntry,
        one: &mut AssignedAddress,
        lease: DhcpLease,
    ) -> bool {
        let addr = IpAddr::from(lease.addr);
        self.is_changed |= entry.machine.addrs() != [addr];
        if entry.machine.addrs() != [addr] {
            entry.add_history(now, format!("DHCP server {} assigned {addr}", lease.server));
        }
        entry.input(now, VipInput::Assigned(vec![addr]));
        one.problem = None;
        if one.remembered == Some(lease) {
            return false;
        }
        one.remembered = Some(lease);
        self.tell(&entry.name, Some((one.identifier, lease)));
        true
    }

    fn send(&mut self, now: Time, entry: &VipEntry, one: &AssignedAddress, request: &DhcpRequest) {
        // No chain of the kernel sees what netftd sends itself: a process that was stopped must
        // not speak as an address whose lease has ended, but to give it back.
        let is_permitted = request.client_addr.is_unspecified()
            || request.kind == DhcpRequestKind::Release
            || entry.machine.grant().is_some_and(|grant| now < grant.until);
        let Some(link) = one.link.as_ref().filter(|_| is_permitted) else { return };
        let sent = match self.socket(link) {
            Ok(socket) => socket.send(request, &one.identifier),
            Err(error) => Err(error),
        };
        tracing::debug!(vip = %entry.name, kind = ?request.kind, xid = request.xid, ?sent, "DHCP");
    }

    fn socket(&mut self, link: &VipLink) -> std::io::Result<&DhcpSocket> {
        let is_stale = |open: &OpenDhcpSocket| open.mac != link.mac || open.reader.is_finished();
        if self.sockets.get(&link.index).is_none_or(is_stale) {
            let socket = Arc::new(DhcpSocket::open(link.index, link.mac)?);
            let reader = read_replies(link.index, Arc::clone(&socket), self.heard.clone());
            let open = OpenDhcpSocket { mac: link.mac, socket, reader: tokio::spawn(reader) };
            self.sockets.insert(link.index, open);
        }
        let open = self.sockets.get(&link.index).ok_or(std::io::ErrorKind::NotConnected)?;
        Ok(&open.socket)
    }
}

async fn read_replies(index: u32, socket: Arc<DhcpSocket>, heard: mpsc::Sender<HeardReply>) {
    loop {
        match socket.receive().await {
            Ok(reply) => {
                if let Err(mpsc::error::TrySendError::Closed(_)) = heard.try_send((index, reply)) {
                    return;
                }
            }
            // The interface went down or away; the next message opens another socket.
            Err(error) => return tracing::debug!(%error, "a socket for DHCP failed"),
        }
    }
}

/// A host of the network can have the address.
fn is_host_of(network: &IpNet, addr: IpAddr) -> bool {
    let is_reserved = addr == network.network() || addr == network.broadcast();
    // RFC 3021: a /31 has two hosts.
    network.contains(&addr) && (!is_reserved || network.prefix_len() > 30)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_network_and_its_broadcast_address_are_no_hosts() {
        for (network, addr, expected) in [
            ("10.1.0.0/24", "10.1.0.80", true),
            ("10.1.0.0/24", "10.1.0.0", false),
            ("10.1.0.0/24", "10.1.0.255", false),
            ("10.1.0.0/24", "10.2.0.80", false),
            ("10.1.0.0/31", "10.1.0.0", true),
        ] {
            let is_host = is_host_of(&network.parse().unwrap(), addr.parse().unwrap());
            assert_eq!(is_host, expected, "{addr} in {network}");
        }
    }
}
