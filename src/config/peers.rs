//! The other nodes of a config: each apart from this node and from each other. Pure.

use std::net::{IpAddr, SocketAddr};

use netft::{
    NodeKey,
    config::{
        HostName, MAX_PEER_ADDRESSES, MAX_PEER_ROUTES, MAX_PEERS, PeerConfig, RouteOverride, keys,
        node_name,
    },
    ids::virtual_addrs::VirtualAddrs,
    route::Priority,
};
use toml::Spanned;

use super::{
    check::{LocalNode, VirtualAddrSpans},
    names,
    names::HostOrEndpoint,
    policies,
    problem::ConfigProblem,
    raw,
    reader::{ByteSpan, FieldReader, UniqueKeys},
    virtuals,
    virtuals::AdapterPrefixes,
};

/// The settings that peers are compared with.
pub(super) struct PeerCheckContext<'a> {
    pub(super) node: Option<&'a LocalNode>,
    pub(super) own: Option<&'a VirtualAddrSpans>,
    pub(super) prefixes: AdapterPrefixes,
    pub(super) port: u16,
}

/// Names, keys and addresses, which no two nodes may share.
struct ClaimedIdentities {
    names: UniqueKeys<String>,
    keys: UniqueKeys<NodeKey>,
    virtuals: UniqueKeys<IpAddr>,
    endpoints: UniqueKeys<SocketAddr>,
    hosts: UniqueKeys<HostName>,
}

impl ClaimedIdentities {
    /// With this node's own already taken.
    fn new(reader: &mut FieldReader, context: &PeerCheckContext<'_>) -> Self {
        let mut taken = Self {
            names: UniqueKeys::new(),
            keys: UniqueKeys::new(),
            virtuals: UniqueKeys::new(),
            endpoints: UniqueKeys::new(),
            hosts: UniqueKeys::new(),
        };
        let me = "this node itself";
        if let Some(node) = context.node {
            taken.names.claim_key(reader, node.name.clone(), "", me, &node.name_span);
            taken.keys.claim_key(reader, node.public, "", me, &node.key_span);
        }
        if let Some(own) = context.own {
            taken.claim_virtual_addrs(reader, own, me);
        }
        taken
    }

    fn claim_virtual_addrs(
        &mut self,
        reader: &mut FieldReader,
        addrs: &VirtualAddrSpans,
        owner: &str,
    ) {
        let (v4, v6) = (addrs.addrs.v4, addrs.addrs.v6);
        let what = format!("virtual address {v4}");
        self.virtuals.claim_key(reader, v4.into(), &what, owner, &addrs.v4_span);
        let what = format!("virtual address {v6}");
        self.virtuals.claim_key(reader, v6.into(), &what, owner, &addrs.v6_span);
    }
}

pub(super) fn read_peers(
    reader: &mut FieldReader,
    tables: &[Spanned<raw::PeerSection>],
    context: &PeerCheckContext<'_>,
) -> Vec<PeerConfig> {
    if let Some(beyond) = tables.get(MAX_PEERS) {
        let message = format!("{} peers, more than the {MAX_PEERS} allowed", tables.len());
        reader.report_problem(ConfigProblem::at_span(
            beyond.span(),
            message,
            "the first one too many",
        ));
        return Vec::new();
    }
    let mut taken = ClaimedIdentities::new(reader, context);
    let locals = pinned_local_addresses(tables);
    tables
        .iter()
        .filter_map(|table| read_peer(reader, table, context, &mut taken, &locals))
        .collect()
}

/// This node's physical addresses, as far as routes name them.
fn pinned_local_addresses(tables: &[Spanned<raw::PeerSection>]) -> Vec<(IpAddr, ByteSpan)> {
    let mut quiet = FieldReader::default();
    let routes = tables.iter().flat_map(|table| &table.get_ref().route);
    routes
        .filter_map(|route| {
            quiet.parse_text(&route.get_ref().local, &keys::ROUTE_LOCAL, names::parse_address)
        })
        .collect()
}

fn read_peer(
    reader: &mut FieldReader,
    table: &Spanned<raw::PeerSection>,
    context: &PeerCheckContext<'_>,
    taken: &mut ClaimedIdentities,
    locals: &[(IpAddr, ByteSpan)],
) -> Option<PeerConfig> {
    let peer = table.get_ref();
    let span = table.span();
    reader.require_field(&peer.name, &keys::PEER_NAME, span.clone(), "for example `name = \"b\"`");
    let help = "`netft pubkey FILE` on that node prints its public key";
    reader.require_field(&peer.key, &keys::PEER_KEY, span, help);

    let name = reader.parse_text(&peer.name, &keys::PEER_NAME, node_name);
    let owner = name
        .as_ref()
        .map_or_else(|| "a peer without a name".to_owned(), |(name, _)| format!("peer {name:?}"));
    if let Some((name, span)) = &name {
        taken.names.claim_key(reader, name.clone(), &format!("name {name:?}"), &owner, span);
    }
    let key = reader.parse_text(&peer.key, &keys::PEER_KEY, |text| {
        text.parse::<NodeKey>().map_err(|error| error.to_string())
    });
    if let Some((key, span)) = &key {
        taken.keys.claim_key(reader, *key, "the same key", &owner, span);
    }
    let (addresses, names) = read_endpoints(reader, peer, context, taken, &owner, locals);
    let routes = read_routes(reader, &peer.route, context, &owner);
    let policies = policies::read_policies(reader, peer, &owner);
    let transport =
        reader.read_choice(&peer.transport, &keys::PEER_TRANSPORT, names::parse_transport);
    let (key, key_span) = key?;
    let fields = ((&peer.address, &keys::PEER_ADDRESS), (&peer.address6, &keys::PEER_ADDRESS6));
    let derived = VirtualAddrs::derive_from_key(&key);
    let addrs = virtuals::read_virtual_addrs(reader, fields, derived, &context.prefixes, &key_span);
    taken.claim_virtual_addrs(reader, &addrs, &owner);
    let base = PeerConfig::new(name?.0, key);
    Some(PeerConfig { addrs: addrs.addrs, addresses, names, routes, policies, transport, ..base })
}

fn read_endpoints(
    reader: &mut FieldReader,
    peer: &raw::PeerSection,
    context: &PeerCheckContext<'_>,
    taken: &mut ClaimedIdentities,
    owner: &str,
    locals: &[(IpAddr, ByteSpan)],
) -> (Vec<SocketAddr>, Vec<HostName>) {
    let parse = |text: &str| names::parse_host_or_endpoint(text, context.port);
    let list = reader.read_list(&peer.addresses, &keys::PEER_ADDRESSES, parse);
    if let Some((_, span)) = list.get(MAX_PEER_ADDRESSES) {
        let message = format!("{owner} has more than the {MAX_PEER_ADDRESSES} addresses allowed");
        reader.report_problem(ConfigProblem::at_span(
            span.clone(),
            message,
            "the first one too many",
        ));
    }
    let (mut addresses, mut hosts) = (Vec::new(), Vec::new());
    for (place, span) in &list {
        let endpoint = match place {
            HostOrEndpoint::Address(endpoint) => endpoint,
            HostOrEndpoint::Name(host) => {
                taken.hosts.claim_key(reader, host.clone(), &format!("name {host}"), owner, span);
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
            reader.report_problem(
                ConfigProblem::at_span(span.clone(), message, "the peer's address")
                    .with_mark(local.clone(), "this node's address"),
            );
        }
        let what = format!("address {endpoint}");
        taken.endpoints.claim_key(reader, *endpoint, &what, owner, span);
    }
    (addresses, hosts)
}

fn read_routes(
    reader: &mut FieldReader,
    tables: &[Spanned<raw::RouteSection>],
    context: &PeerCheckContext<'_>,
    owner: &str,
) -> Vec<RouteOverride> {
    if let Some(beyond) = tables.get(MAX_PEER_ROUTES) {
        let message = format!("{owner} has more than the {MAX_PEER_ROUTES} routes allowed");
        reader.report_problem(ConfigProblem::at_span(
            beyond.span(),
            message,
            "the first one too many",
        ));
        return Vec::new();
    }
    let mut taken = UniqueKeys::new();
    let mut routes = Vec::new();
    for table in tables {
        let route = table.get_ref();
        let help = format!("for example `remote = \"10.1.0.2:{}\"`", context.port);
        reader.require_field(&route.remote, &keys::ROUTE_REMOTE, table.span(), &help);
        let parse = |text: &str| names::parse_endpoint(text, context.port);
        let remote = reader.parse_text(&route.remote, &keys::ROUTE_REMOTE, parse);
        let local = reader.parse_text(&route.local, &keys::ROUTE_LOCAL, names::parse_address);
        let delay = reader.read_delay(&route.delay, &keys::ROUTE_DELAY);
        let threshold = reader.read_threshold(&route.threshold, &keys::ROUTE_THRESHOLD);
        let priority = reader.read_number(&route.priority, &keys::ROUTE_PRIORITY);
        let transport =
            reader.read_choice(&route.transport, &keys::ROUTE_TRANSPORT, names::parse_transport);
        let Some((remote, span)) = remote else { continue };
        context.prefixes.refuse_inside(reader, remote.ip(), &span);
        if let Some((local, local_span)) = &local {
            context.prefixes.refuse_inside(reader, *local, local_span);
            if local.is_ipv4() != remote.is_ipv4() {
                let message = format!("route from {local} to {remote} joins two families");
                reader.report_problem(
                    ConfigProblem::at_span(span.clone(), message, "this end")
                        .with_mark(local_span.clone(), "and this end"),
                );
            }
        }
        let local = local.map(|(local, _)| local);
        let what = format!("route to {remote}");
        taken.claim_key(reader, (local, remote), &what, owner, &span);
        routes.push(RouteOverride {
            local,
            remote,
            delay,
            threshold,
            priority: priority.map(|priority| Priority(priority as u32)),
            transport,
        });
    }
    routes
}
