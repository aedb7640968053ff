//! The matrix of peers and networks. Pure.

use std::collections::BTreeSet;

use ipnet::IpNet;
use netft::route::RouteState;

use crate::{
    control::schema::{PeerView, RouteView},
    render::{style::TextTone, tables, views},
};

/// A column: the network in which routes start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum MatrixColumn {
    /// A network of this node.
    Network(IpNet),
    /// Routes over a third node.
    Relayed,
    /// Routes whose network is unknown.
    Unknown,
}

impl MatrixColumn {
    /// The column of a route.
    pub(super) fn of_route(route: &RouteView) -> Self {
        if route.via.is_some() {
            return Self::Relayed;
        }
        let network = route.network.as_deref().and_then(|network| network.parse().ok());
        network.map_or(Self::Unknown, Self::Network)
    }

    /// Its heading.
    pub(super) fn label(self) -> String {
        match self {
            Self::Network(network) => network.to_string(),
            Self::Relayed => "relayed".to_owned(),
            Self::Unknown => "no network".to_owned(),
        }
    }
}

/// Every column that a route needs, networks first.
pub(super) fn matrix_columns(routes: &[RouteView]) -> Vec<MatrixColumn> {
    let columns: BTreeSet<_> = routes.iter().map(MatrixColumn::of_route).collect();
    columns.into_iter().collect()
}

/// State of the routes to a peer in a column; `*` marks the one that carries data.
pub(super) fn matrix_cell(
    routes: &[RouteView],
    peer: &PeerView,
    column: MatrixColumn,
) -> (String, TextTone) {
    let is_here =
        |route: &&RouteView| route.peer == peer.name && MatrixColumn::of_route(route) == column;
    let here: Vec<_> = routes.iter().filter(is_here).collect();
    let mark = if here.iter().any(|route| route.active) { "*" } else { "" };
    match here[..] {
        [] => ("-".to_owned(), TextTone::Faint),
        [route] => (format!("{mark}{}", views::state_text(route)), tables::route_tone(route)),
        _ => {
            let up = here.iter().filter(|route| route.state == RouteState::Up).count();
            let tone = match up {
                0 => TextTone::Bad,
                _ if up < here.len() => TextTone::Warning,
                _ => TextTone::Good,
            };
            (format!("{mark}{up}/{} up", here.len()), tone)
        }
    }
}
