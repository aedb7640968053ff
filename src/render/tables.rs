//! Tables of routes, peers and networks. Pure.

use std::fmt::Write;

use netft::{
    route::{Attributes, RouteState, Transport},
    topology::{InterfaceState, NetworkState},
};

use super::{
    style::{OutputStyle, TextTone},
    table::{TableCell, TableColumn, TextTable},
    views,
};
use crate::{
    control::{
        schema::{
            NetworkInterfaceView, NetworkList, PeerList, PeerView, RouteList, RouteView,
            SessionState,
        },
        words::Word,
    },
    text::{NO_PEERS, escape, format_percent, yes_or_no},
};

/// Columns of the routes; those of the highest rank are hidden first.
const ROUTE_COLUMNS: [TableColumn; 15] = [
    TableColumn::text(""),
    TableColumn::number("id"),
    TableColumn::text("peer"),
    TableColumn::text("interface").with_rank(1),
    TableColumn::text("real_local"),
    TableColumn::text("real_remote"),
    TableColumn::text("state"),
    TableColumn::text("tx").with_rank(5),
    TableColumn::text("rx").with_rank(6),
    TableColumn::number("delay").with_rank(8),
    TableColumn::number("threshold").with_rank(9),
    TableColumn::number("priority").with_rank(4),
    TableColumn::text("attributes").with_rank(7),
    TableColumn::number("rtt").with_rank(3),
    TableColumn::number("loss").with_rank(2),
];

/// `netft routes`. Routes that carry data are marked `*`.
pub fn routes_table(routes: &RouteList, style: &OutputStyle) -> String {
    if routes.routes.is_empty() {
        return "no routes\n".to_owned();
    }
    // Shown only if a route uses another transport than NetFT's.
    let has_other_transports = routes.routes.iter().any(|route| route.transport != Transport::Udp);
    let mut columns = ROUTE_COLUMNS.to_vec();
    if has_other_transports {
        columns.push(TableColumn::text("transport").with_rank(3));
    }
    let mut table = TextTable::new(&columns);
    for route in &routes.routes {
        let mut row = route_cells(route);
        if has_other_transports {
            row.push(route.transport.to_string().into());
        }
        table.add_row(row);
    }
    table.render(style)
}

fn route_cells(route: &RouteView) -> Vec<TableCell> {
    let (state, tone) = (views::state_text(route), route_tone(route));
    let loss = route.loss.max(route.loss_out).max(route.data_loss);
    vec![
        if route.active { "*" } else { "" }.into(),
        route.id.to_string().into(),
        (&route.peer).into(),
        views::optional_text(route.interface.as_deref()).into(),
        if route.via.is_none() { route.real_local.to_string() } else { "-".to_owned() }.into(),
        match &route.via {
            None => route.real_remote.to_string(),
            Some(via) => format!("via {via}"),
        }
        .into(),
        TableCell::with_tone(state, tone),
        yes_or_no(route.tx).into(),
        yes_or_no(route.rx).into(),
        format!("{} ms", route.delay_ms).into(),
        route.threshold.to_string().into(),
        route.priority.to_string().into(),
        Attributes(route.attributes).to_string().into(),
        views::rtt_text(route).into(),
        TableCell::with_tone(
            format_percent(loss),
            if loss > 0.0 { TextTone::Warning } else { TextTone::Plain },
        ),
    ]
}

/// Meaning of a route's state.
pub(super) fn route_tone(route: &RouteView) -> TextTone {
    match route.state {
        RouteState::Up if views::state_text(route) == route.state.as_str() => TextTone::Good,
        RouteState::Up | RouteState::Init => TextTone::Warning,
        RouteState::Down => TextTone::Bad,
        RouteState::AdminDown => TextTone::Faint,
    }
}

/// Columns of the peers; those of the highest rank are hidden first.
const PEER_COLUMNS: [TableColumn; 13] = [
    TableColumn::text("name"),
    TableColumn::text("routes up"),
    TableColumn::text("session"),
    TableColumn::text("reachable"),
    TableColumn::number("active").with_rank(3),
    TableColumn::text("v4"),
    TableColumn::text("v6").with_rank(1),
    TableColumn::text("addresses").with_rank(4),
    TableColumn::number("failovers").with_rank(5),
    TableColumn::text("adapter").with_rank(6),
    TableColumn::text("policy").with_rank(2),
    TableColumn::text("release").with_rank(7),
    TableColumn::text("wire").with_rank(8),
];

/// `netft peers`. `+2` behind a policy: two classes have their own, see `netft peer show`.
pub fn peers_table(peers: &PeerList, style: &OutputStyle) -> String {
    if peers.peers.is_empty() {
        return format!("{NO_PEERS}\n");
    }
    let mut table = TextTable::new(&PEER_COLUMNS);
    peers.peers.iter().for_each(|peer| table.add_row(peer_cells(peer)));
    let mut out = table.render(style);
    for peer in peers.peers.iter().filter(|peer| peer.session_reason.is_some()) {
        let _ = write!(out, "\n{}: session {}\n", escape(&peer.name), views::session_text(peer));
    }
    for peer in &peers.peers {
        if let Some(problem) = &peer.overlay_problem {
            let _ = write!(out, "\n{}: adapter: {}\n", escape(&peer.name), escape(problem));
        }
    }
    out
}

fn peer_cells(peer: &PeerView) -> Vec<TableCell> {
    let routes_tone = match (peer.routes_up, peer.routes_up == peer.routes_total) {
        (0, _) => TextTone::Bad,
        (1, _) | (_, false) => TextTone::Warning,
        (_, true) => TextTone::Good,
    };
    let session_tone = match peer.session_state {
        SessionState::Up => TextTone::Good,
        SessionState::Silent | SessionState::None => TextTone::Bad,
    };
    let reachable_tone = if peer.reachable { TextTone::Good } else { TextTone::Bad };
    let policy = match peer.classes.len() {
        0 => peer.policy.clone(),
        more => format!("{} +{more}", peer.policy),
    };
    vec![
        (&peer.name).into(),
        TableCell::with_tone(format!("{}/{}", peer.routes_up, peer.routes_total), routes_tone),
        TableCell::with_tone(views::session_state_text(peer), session_tone),
        TableCell::with_tone(views::reachability_text(peer), reachable_tone),
        views::active_route_text(peer).into(),
        peer.v4.to_string().into(),
        peer.v6.to_string().into(),
        views::addresses_text(peer).into(),
        peer.failovers.to_string().into(),
        views::adapter_state_text(peer).into(),
        policy.into(),
        views::optional_text(peer.release.as_deref()).into(),
        peer.wire_versions.map_or_else(|| "-".to_owned(), views::wire_text).into(),
    ]
}

/// Columns of the networks; those of the highest rank are hidden first.
const NETWORK_COLUMNS: [TableColumn; 8] = [
    TableColumn::text("network"),
    TableColumn::text("state"),
    TableColumn::text("role").with_rank(1),
    TableColumn::number("metric").with_rank(2),
    TableColumn::text("node"),
    TableColumn::text("interface"),
    TableColumn::text("address"),
    TableColumn::text(""),
];

/// `netft networks`: a line per network, and one for each of its other interfaces.
pub fn networks_table(networks: &NetworkList, style: &OutputStyle) -> String {
    if networks.networks.is_empty() {
        return "no networks\n".to_owned();
    }
    let mut table = TextTable::new(&NETWORK_COLUMNS);
    for network in &networks.networks {
        let tone = match network.state {
            NetworkState::Up => TextTone::Good,
            NetworkState::Partitioned => TextTone::Warning,
            NetworkState::Down => TextTone::Bad,
            NetworkState::Unavailable => TextTone::Faint,
        };
        let mut row: Vec<TableCell> = vec![
            (&network.prefix).into(),
            TableCell::with_tone(network.state.as_str(), tone),
            network.role.word().into(),
            network.metric.to_string().into(),
        ];
        row.extend(network.interfaces.first().map_or_else(Vec::new, interface_cells));
        row.resize(NETWORK_COLUMNS.len(), "".into());
        table.add_row(row);
        for more in network.interfaces.iter().skip(1) {
            let mut row: Vec<TableCell> = vec!["".into(); 4];
            row.extend(interface_cells(more));
            table.add_row(row);
        }
    }
    table.render(style)
}

fn interface_cells(one: &NetworkInterfaceView) -> Vec<TableCell> {
    let name = one.interface.clone().unwrap_or_else(|| format!("#{}", one.number));
    let tone = match one.state {
        InterfaceState::Up => TextTone::Good,
        InterfaceState::Unreachable | InterfaceState::Failed => TextTone::Bad,
        InterfaceState::Unavailable => TextTone::Faint,
    };
    vec![
        (&one.node).into(),
        name.into(),
        one.address.to_string().into(),
        TableCell::with_tone(one.state.as_str(), tone),
    ]
}
