//! The other nodes of a config: each apart from this node and from each other. Pure.

use std::net::{IpAddr, SocketAddr};

use netft::{
    NodeKey,
    config::{HostName, Peer, RouteOverride},
    ids::virtual_addrs::VirtualAddrs,
    route::Priority,
};
use toml::Spanned;

use super::{
    check::{Node, Virtual},
    names,
    names::Place,
    policies,
    problem::Problem,
    raw,
    reader::{Limits, Reader, Span, Unique},
    virtuals,
    virtuals::Prefixes,
};

/// Nodes one node can know.
const MAX_PEERS: usize = 256;
/// Physical addresses of one peer.
const MAX_ADDRESSES: usize = 32;
/// Pinned routes of one peer.
const MAX_ROUTES: usize = 64;

/// What peers are compared with.
pub(super) struct Context<'a> {
    pub(super) node: Option<&'a Node>,
    pub(super) own: Option<&'a Virtual>,
    pub(super) prefixes: Prefixes,
    pub(super) port: u16,
}

/// What no two nodes may share.
struct Taken {
    names: Unique<String>,
    keys: Unique<NodeKey>,
    virtuals: Unique<IpAddr>,
    endpoints: Unique<SocketAddr>,
    hosts: Unique<HostName>,
}

impl Taken {
    /// With this node's own already taken.
    fn new(reader: &mut Reader, context: &Context<'_>) -> Self {
        let mut taken = Self {
            names: Unique::new(),
            keys: Unique::new(),
            virtuals: Unique::new(),
            endpoints: Unique::new(),
            hosts: Unique::new(),
        };
        let me = "this node itself";
        if let Some(node) = context.node {
            taken.names.take(reader, node.name.clone(), "", me, &node.name_span);
            taken.keys.take(reader, node.public, "", me, &node.key_span);
        }
        if let Some(own) = context.own {
            taken.virtual_addrs(reader, own, me);
        }
        taken
    }

    fn virtual_addrs(&mut self, reader: &mut Reader, addrs: &Virtual, owner: &str) {
        let (v4, v6) = (addrs.addrs.v4, addrs.addrs.v6);
        let what = format!("virtual address {v4}");
        self.virtuals.take(reader, v4.into(), &what, owner, &addrs.v4_span);
        let what = format!("virtual address {v6}");
        self.virtuals.take(reader, v6.into(), &what, owner, &addrs.v6_span);
    }
}

pub(super) fn peers(
    reader: &mut Reader,
    tables: &[Spanned<raw::Peer>],
    context: &Context<'_>,
) -> Vec<Peer> {
    if let Some(beyond) = tables.get(MAX_PEERS) {
        let message = format!("{} peers, more than the {MAX_PEERS} allowed", tables.len());
        reader.report(Problem::at(beyond.span(), message, "the first one too many"));
        return Vec::new();
    }
    let mut taken = Taken::new(reader, context);
    let locals = locals(tables);
    tables.iter().filter_map(|table| peer(reader, table, context, &mut taken, &locals)).collect()
}

/// This node's physical addresses, as far as routes name them.
fn locals(tables: &[Spanned<raw::Peer>]) -> Vec<(IpAddr, Span)> {
    let mut quiet = Reader::default();
    let routes = tables.iter().flat_map(|table| &table.get_ref().route);
    routes.filter_map(|route| quiet.parse(&route.get_ref().local, "", "", names::address)).collect()
}

fn peer(
    reader: &mut Reader,
    table: &Spanned<raw::Peer>,
    context: &Context<'_>,
    taken: &mut Taken,
    locals: &[(IpAddr, Span)],
) -> Option<Peer> {
    let peer = table.get_ref();
    let span = table.span();
    reader.missing(&peer.name, "name", span.clone(), "for example `name = \"b\"`");
    let help = "`netft pubkey FILE` on that node prints its public key";
    reader.missing(&peer.key, "key", span, help);

    let name = reader.parse(&peer.name, "name", names::NODE_NAME, names::node_name);
    let owner = name
        .as_ref()
        .map_or_else(|| "a peer without a name".to_owned(), |(name, _)| format!("peer {name:?}"));
    if let Some((name, span)) = &name {
        taken.names.take(reader, name.clone(), &format!("name {name:?}"), &owner, span);
    }
    let key = reader.parse(
        &peer.key,
        "key",
        "a public key: 32 bytes in base64 (44 characters)",
        |text| text.parse::<NodeKey>().map_err(|error| error.to_string()),
    );
    if let Some((key, span)) = &key {
        taken.keys.take(reader, *key, "the same key", &owner, span);
    }
    let (addresses, names) = endpoints(reader, peer, context, taken, &owner, locals);
    let routes = routes(reader, &peer.route, context, &owner);
    let policies = policies::policies(reader, peer, &owner);
    let carrier = reader.parse(&peer.carrier, "carrier", names::CARRIER, names::carrier);
    let carrier = carrier.map(|(carrier, _)| carrier);
    let (key, key_span) = key?;
    let fields = (&peer.address, &peer.address6);
    let derived = VirtualAddrs::derive(&key);
    let addrs = virtuals::virtual_addrs(reader, fields, derived, &context.prefixes, &key_span);
    taken.virtual_addrs(reader, &addrs, &owner);
    let base = Peer::new(name?.0, key);
    Some(Peer { addrs: addrs.addrs, addresses, names, routes, policies, carrier, ..base })
}

fn endpoints(
    reader: &mut Reader,
    peer: &raw::Peer,
    context: &Context<'_>,
    taken: &mut Taken,
    owner: &str,
    locals: &[(IpAddr, Span)],
) -> (Vec<SocketAddr>, Vec<HostName>) {
    let parse = |text: &str| names::place(text, context.port);
    let list = reader.list(&peer.addresses, "addresses", names::PLACE, false, parse);
    if let Some(field) = &peer.addresses {
        if list.is_empty() && reader.problems.is_empty() {
            let message = format!("{owner} has no address");
            reader.report(Problem::at(field.span(), message, "at least one is needed"));
        } else if let Some((_, span)) = list.get(MAX_ADDRESSES) {
            let message = format!("{owner} has more than the {MAX_ADDRESSES} addresses allowed");
            reader.report(Problem::at(span.clone(), message, "the first one too many"));
        }
    }
    let (mut addresses, mut hosts) = (Vec::new(), Vec::new());
    for (place, span) in &list {
        let endpoint = match place {
            Place::Address(endpoint) => endpoint,
            Place::Name(host) => {
                taken.hosts.take(reader, host.clone(), &format!("name {host}"), owner, span);
                hosts.push(host.clone());
                continue;
            }
        };
        addresses.push(*endpoint);
        if context.prefixes.refuse_inside(reader, endpoint.ip(), span) {
            continue;
        }
        if let Some((addr, local)) = locals.iter().find(|(local, _)| *local == endpoint.ip()) {
            let message = format!("address {addr} is used twice: by {owner} and by this node");
            reader.report(
                Problem::at(span.clone(), message, "the peer's address")
                    .and(local.clone(), "this node's address"),
            );
        }
        let what = format!("address {endpoint}");
        taken.endpoints.take(reader, *endpoint, &what, owner, span);
    }
    (addresses, hosts)
}

fn routes(
    reader: &mut Reader,
    tables: &[Spanned<raw::Route>],
    context: &Context<'_>,
    owner: &str,
) -> Vec<RouteOverride> {
    if let Some(beyond) = tables.get(MAX_ROUTES) {
        let message = format!("{owner} has more than the {MAX_ROUTES} routes allowed");
        reader.report(Problem::at(beyond.span(), message, "the first one too many"));
        return Vec::new();
    }
    let mut taken = Unique::new();
    let mut routes = Vec::new();
    for table in tables {
        let route = table.get_ref();
        let help = format!("for example `remote = \"10.1.0.2:{}\"`", context.port);
        reader.missing(&route.remote, "remote", table.span(), &help);
        let parse = |text: &str| names::endpoint(text, context.port);
        let remote = reader.parse(&route.remote, "remote", names::ENDPOINT, parse);
        let local = reader.parse(&route.local, "local", names::ADDRESS, names::address);
        let delay = reader.delay(&route.delay);
        let threshold = reader.threshold(&route.threshold);
        let limits = Limits::new(0, u32::MAX.into(), "");
        let priority = reader.number(&route.priority, "priority", limits);
        let carrier = reader.parse(&route.carrier, "carrier", names::CARRIER, names::carrier);
        let Some((remote, span)) = remote else { continue };
        context.prefixes.refuse_inside(reader, remote.ip(), &span);
        if let Some((local, local_span)) = &local {
            context.prefixes.refuse_inside(reader, *local, local_span);
            if local.is_ipv4() != remote.is_ipv4() {
                let message = format!("route from {local} to {remote} joins two families");
                reader.report(
                    Problem::at(span.clone(), message, "this end")
                        .and(local_span.clone(), "and this end"),
                );
            }
        }
        let local = local.map(|(local, _)| local);
        let what = format!("route to {remote}");
        taken.take(reader, (local, remote), &what, owner, &span);
        routes.push(RouteOverride {
            local,
            remote,
            delay,
            threshold,
            priority: priority.map(|priority| Priority(priority as u32)),
            carrier: carrier.map(|(carrier, _)| carrier),
        });
    }
    routes
}
