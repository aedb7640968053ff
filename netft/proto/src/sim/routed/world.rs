//! The networks of a routed world: cards on segments, routers between segments, routing tables.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;

use crate::{
    sim::rng::SplitMix64,
    topology::{Interface, KernelWays, LocalAddr, SourceAddresses},
};

/// The interface index of a node's first card.
pub(crate) const FIRST_INDEX: u32 = 2;

/// A card of a node.
#[derive(Clone, Debug)]
pub(crate) struct Card {
    pub(crate) segment: usize,
    pub(crate) addrs: Vec<IpNet>,
    pub(crate) has_carrier: bool,
}

/// An entry of a node's routing table: everything in `prefix` goes to the router of a card.
#[derive(Clone, Debug)]
pub(crate) struct KernelRoute {
    pub(crate) prefix: IpNet,
    pub(crate) card: usize,
    pub(crate) metric: u32,
}

/// One layer 2 network.
#[derive(Clone, Debug, Default)]
pub(crate) struct Segment {
    /// The routers it is joined to, for IPv4 and IPv6.
    pub(crate) fabric: [Option<usize>; 2],
    /// Nothing of a family passes.
    pub(crate) is_filtered: [bool; 2],
    /// Nothing passes from a node.
    pub(crate) is_cut: [bool; 2],
}

/// The cards and the routing table of a node.
#[derive(Clone, Debug, Default)]
pub(crate) struct Host {
    pub(crate) cards: Vec<Card>,
    pub(crate) table: Vec<KernelRoute>,
    /// Its kernel answers no question about ways, as where policy rules hide them.
    pub(crate) is_blind: bool,
}

/// Two nodes and what is between them.
#[derive(Clone, Debug, Default)]
pub(crate) struct World {
    pub(crate) hosts: [Host; 2],
    pub(crate) segments: Vec<Segment>,
    /// Nothing passes the routers.
    pub(crate) is_fabric_cut: Vec<bool>,
}

/// A change of the networks or of a routing table.
#[derive(Clone, Debug)]
pub(crate) enum WorldChange {
    /// The default routes of a node leave through a card.
    MoveDefault { node: usize, card: usize },
    /// A node gets a default route through a card.
    AddDefault { node: usize, card: usize, metric: u32 },
    /// The default routes of a card are gone.
    RemoveDefault { node: usize, card: usize },
    /// Routers stop or start.
    CutFabric { fabric: usize, is_cut: bool },
    /// A segment passes nothing from a node, or passes it again.
    CutSegment { segment: usize, node: usize, is_cut: bool },
    /// A card loses its carrier or gets it back.
    SetCarrier { node: usize, card: usize, has_carrier: bool },
}

impl WorldChange {
    /// The node whose kernel reports it.
    pub(crate) fn reporting_node(&self) -> Option<usize> {
        match self {
            Self::MoveDefault { node, .. }
            | Self::AddDefault { node, .. }
            | Self::RemoveDefault { node, .. }
            | Self::SetCarrier { node, .. } => Some(*node),
            Self::CutFabric { .. } | Self::CutSegment { .. } => None,
        }
    }
}

fn family(addr: IpAddr) -> usize {
    usize::from(addr.is_ipv6())
}

impl World {
    /// The card of the other node at which a packet arrives.
    pub(crate) fn deliver(
        &self,
        (node, card): (usize, usize),
        from: IpAddr,
        to: IpAddr,
    ) -> Option<usize> {
        let (host, far) = (&self.hosts[node], &self.hosts[1 - node]);
        let sender = &host.cards[card];
        let segment = &self.segments[sender.segment];
        if !sender.has_carrier || segment.is_cut[node] || segment.is_filtered[family(to)] {
            return None;
        }
        let receives = |wanted: &dyn Fn(&Card) -> bool| {
            let mut cards = far.cards.iter();
            cards.position(|card| {
                card.has_carrier && wanted(card) && card.addrs.iter().any(|net| net.addr() == to)
            })
        };
        let is_on_link = sender.addrs.iter().any(|net| net.addr() == from && net.contains(&to));
        if is_on_link {
            return receives(&|card: &Card| card.segment == sender.segment);
        }
        host.entry_of(card, to)?;
        let fabric = segment.fabric[family(to)].filter(|fabric| !self.is_fabric_cut[*fabric])?;
        receives(&|card: &Card| {
            let segment = &self.segments[card.segment];
            segment.fabric[family(to)] == Some(fabric) && !segment.is_cut[node]
        })
    }

    /// Returns whether packets pass both ways between two addresses of two cards.
    pub(crate) fn connects(&self, ends: [(usize, IpAddr); 2]) -> bool {
        let [(own, here), (far, there)] = ends;
        here.is_ipv4() == there.is_ipv4()
            && self.deliver((0, own), here, there) == Some(far)
            && self.deliver((1, far), there, here) == Some(own)
    }

    /// Every pair of addresses, as the first node's card and address, then the second's.
    pub(crate) fn address_pairs(&self) -> Vec<[(usize, IpAddr); 2]> {
        let ends = |node: usize| {
            let cards = self.hosts[node].cards.iter().enumerate();
            cards.flat_map(|(card, it)| it.addrs.iter().map(move |net| (card, net.addr())))
        };
        ends(0).flat_map(|own| ends(1).map(move |far| [own, far])).collect()
    }

    pub(crate) fn apply(&mut self, change: &WorldChange) {
        match *change {
            WorldChange::MoveDefault { node, card } => {
                let host = &mut self.hosts[node];
                for entry in host.table.iter_mut().filter(|entry| entry.prefix.prefix_len() == 0) {
                    entry.card = card;
                }
            }
            WorldChange::AddDefault { node, card, metric } => {
                self.hosts[node].add_default(card, metric);
            }
            WorldChange::RemoveDefault { node, card } => {
                let is_other =
                    |entry: &KernelRoute| entry.prefix.prefix_len() > 0 || entry.card != card;
                self.hosts[node].table.retain(is_other);
            }
            WorldChange::CutFabric { fabric, is_cut } => self.is_fabric_cut[fabric] = is_cut,
            WorldChange::CutSegment { segment, node, is_cut } => {
                self.segments[segment].is_cut[node] = is_cut;
            }
            WorldChange::SetCarrier { node, card, has_carrier } => {
                self.hosts[node].cards[card].has_carrier = has_carrier;
            }
        }
    }
}

impl Host {
    /// The entry for `remote` out of a card: the longest prefix, then the lowest metric.
    fn entry_of(&self, card: usize, remote: IpAddr) -> Option<&KernelRoute> {
        let through = |entry: &&KernelRoute| entry.card == card && entry.prefix.contains(&remote);
        // The kernel drops the routes of a card without a carrier.
        let found = self.table.iter().filter(|_| self.cards[card].has_carrier).filter(through);
        found.min_by_key(|entry| (u8::MAX - entry.prefix.prefix_len(), entry.metric))
    }

    pub(crate) fn add_default(&mut self, card: usize, metric: u32) {
        for prefix in ["0.0.0.0/0", "::/0"] {
            let prefix = prefix.parse().expect("a prefix");
            self.table.push(KernelRoute { prefix, card, metric });
        }
    }

    /// The interfaces, as the kernel lists them.
    pub(crate) fn interfaces(&self) -> Vec<Interface> {
        let cards = self.cards.iter().enumerate();
        cards
            .map(|(number, card)| {
                let defaults = self.table.iter().filter(|entry| {
                    entry.prefix.prefix_len() == 0 && entry.card == number && card.has_carrier
                });
                Interface {
                    index: FIRST_INDEX + number as u32,
                    name: format!("eth{number}"),
                    kind: None,
                    up: true,
                    carrier: card.has_carrier,
                    loopback: false,
                    mtu: 1500,
                    default_route: defaults.map(|entry| entry.metric).min(),
                    speed: None,
                    addrs: card.addrs.iter().map(local_addr).collect(),
                }
            })
            .collect()
    }

    /// The kernel's answers about ways.
    pub(crate) fn ways(&self, pairs: &[(IpAddr, u32, IpAddr)]) -> KernelWays {
        let asked = pairs.iter().filter(|_| !self.is_blind);
        let found = asked.filter_map(|(local, index, remote)| {
            let entry = self.entry_of((index - FIRST_INDEX) as usize, *remote)?;
            Some(((*local, *remote), entry.metric))
        });
        found.collect()
    }

    /// The kernel's choice of source for each address.
    pub(crate) fn sources(&self, remotes: impl IntoIterator<Item = IpAddr>) -> SourceAddresses {
        let choice = |remote: IpAddr| {
            let cards = 0..self.cards.len();
            let entries = cards.filter_map(|card| self.entry_of(card, remote));
            let best =
                entries.min_by_key(|entry| (u8::MAX - entry.prefix.prefix_len(), entry.metric))?;
            let addrs = self.cards[best.card].addrs.iter().map(IpNet::addr);
            let mut of_family = addrs.filter(|addr| addr.is_ipv4() == remote.is_ipv4());
            let source = of_family.next()?;
            Some((remote, (source, FIRST_INDEX + best.card as u32)))
        };
        remotes.into_iter().filter_map(choice).collect()
    }
}

fn local_addr(net: &IpNet) -> LocalAddr {
    LocalAddr { addr: net.addr(), prefix: net.trunc(), is_secondary: false }
}

/// Builds a world from random draws.
struct WorldBuilder<'a> {
    rng: &'a mut SplitMix64,
    world: World,
    subnets: u8,
    host_numbers: BTreeSet<u8>,
}

impl World {
    /// Shared LANs, cables, routed cards, a prefix that both sites have, isolated cards; and tables
    /// with specific and default routes.
    pub(crate) fn random(rng: &mut SplitMix64) -> Self {
        let mut builder =
            WorldBuilder { rng, world: Self::default(), subnets: 0, host_numbers: BTreeSet::new() };
        builder.add_cards();
        for host in &mut builder.world.hosts {
            for place in (1..host.cards.len()).rev() {
                host.cards.swap(place, builder.rng.next_below(place as u64 + 1) as usize);
            }
        }
        builder.fill_tables();
        builder.world
    }
}

impl WorldBuilder<'_> {
    fn chance(&mut self, permille: u16) -> bool {
        self.rng.chance_permille(permille)
    }

    /// A host number that no other card has.
    fn host_number(&mut self) -> u8 {
        loop {
            let number = self.rng.next_in_range(1, 200) as u8;
            if self.host_numbers.insert(number) {
                return number;
            }
        }
    }

    fn add_segment(&mut self, fabric: [Option<usize>; 2]) -> usize {
        self.world.segments.push(Segment { fabric, ..Segment::default() });
        self.world.segments.len() - 1
    }

    /// Adds a card with an address in the subnet `net`, and one of IPv6 in that of the same number.
    fn add_card(&mut self, node: usize, segment: usize, v4: Option<[u8; 3]>, v6: Option<u8>) {
        let mut addrs = Vec::new();
        if let Some([a, b, c]) = v4 {
            let addr = Ipv4Addr::new(a, b, c, self.host_number()).into();
            addrs.push(IpNet::new(addr, 24).expect("in range"));
        }
        if let Some(subnet) = v6 {
            let host = u16::from(self.host_number());
            let addr = Ipv6Addr::new(0x2001, 0xdb8, subnet.into(), 0, 0, 0, 0, host).into();
            addrs.push(IpNet::new(addr, 64).expect("in range"));
        }
        self.world.hosts[node].cards.push(Card { segment, addrs, has_carrier: true });
    }

    fn next_subnet(&mut self) -> u8 {
        self.subnets += 1;
        self.subnets
    }

    fn add_cards(&mut self) {
        let fabrics = self.rng.next_in_range(1, 3) as usize;
        self.world.is_fabric_cut = vec![false; fabrics];
        for _ in 0..self.rng.pick_one(&[0, 0, 1, 2]) {
            let (segment, subnet) = (self.add_segment([None, None]), self.next_subnet());
            let has_v6 = self.chance(400);
            self.world.segments[segment].is_filtered[0] = has_v6 && self.chance(200);
            for node in [0, 1] {
                self.add_card(node, segment, Some([10, subnet, 0]), has_v6.then_some(subnet));
            }
        }
        if self.chance(250) {
            let cables = self.rng.next_in_range(2, 3);
            for _ in 0..cables {
                let segment = self.add_segment([None, None]);
                for node in [0, 1] {
                    self.add_card(node, segment, Some([10, 200, 0]), None);
                }
            }
        }
        for node in [0, 1] {
            for _ in 0..self.rng.pick_one(&[0, 1, 1, 2, 3]) {
                let fabric = Some(self.rng.next_below(fabrics as u64) as usize);
                let subnet = self.next_subnet();
                let has_v6 = self.chance(300);
                let segment = self.add_segment([fabric, fabric]);
                let v4 = Some([10, subnet, node as u8]);
                self.add_card(node, segment, v4, has_v6.then_some(subnet));
            }
            for _ in 0..self.rng.pick_one(&[0, 0, 1, 2]) {
                let (segment, subnet) = (self.add_segment([None, None]), self.next_subnet());
                self.add_card(node, segment, Some([192, 168, subnet]), None);
            }
        }
        if self.chance(200) {
            // The same private prefix at both sites, perhaps with IPv6 between them.
            for node in [0, 1] {
                let (subnet, segment) = (self.next_subnet(), self.add_segment([None, Some(0)]));
                self.add_card(node, segment, Some([192, 168, 0]), Some(subnet));
            }
        }
        for node in [0, 1] {
            if self.world.hosts[node].cards.is_empty() {
                let (subnet, segment) = (self.next_subnet(), self.add_segment([Some(0), Some(0)]));
                self.add_card(node, segment, Some([10, subnet, node as u8]), Some(subnet));
            }
        }
    }

    /// A specific route through each routed card to what its routers reach, or a default route.
    fn fill_tables(&mut self) {
        for node in [0, 1] {
            let mut next_default = 100;
            for card in 0..self.world.hosts[node].cards.len() {
                let segment = self.world.hosts[node].cards[card].segment;
                let fabric = self.world.segments[segment].fabric;
                let is_routed = fabric != [None, None];
                if is_routed && self.chance(500) {
                    self.add_specific_routes(node, card, fabric);
                    if self.chance(700) {
                        continue;
                    }
                }
                if is_routed || self.chance(100) {
                    let metric = self.rng.pick_one(&[0, next_default]);
                    self.world.hosts[node].add_default(card, metric);
                    next_default += 100;
                }
            }
            self.world.hosts[node].is_blind = self.chance(60);
        }
    }

    fn add_specific_routes(&mut self, node: usize, card: usize, fabric: [Option<usize>; 2]) {
        let metric = self.rng.pick_one(&[0, 0, 50, 1024]);
        let world = &mut self.world;
        for far in &world.hosts[1 - node].cards {
            for net in &far.addrs {
                let family = family(net.addr());
                let joined = world.segments[far.segment].fabric[family];
                if joined.is_some() && joined == fabric[family] {
                    let prefix = net.trunc();
                    world.hosts[node].table.push(KernelRoute { prefix, card, metric });
                }
            }
        }
    }
}
