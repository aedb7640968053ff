//! Text of `netft cluster show` and `netft cluster status`.

use std::{fmt::Write as _, time::Duration};

use super::{
    style::OutputStyle,
    table::{TableColumn, TextTable},
    views,
};
use crate::{
    control::schema::{ClusterNodeView, ClusterStatus},
    text::escape,
};

/// Time limit for a change of the roster: it is stored, removed nodes are told, sessions end.
pub const CHANGE_TIMEOUT: Duration = Duration::from_secs(10);

fn heading(status: &ClusterStatus) -> String {
    let text = |text: &Option<String>| escape(text.as_deref().unwrap_or("-"));
    let serial = status.serial.map_or_else(|| "-".to_owned(), |serial| serial.to_string());
    format!(
        "cluster {}, roster {serial} ({}), {} nodes, id {}\n",
        text(&status.cluster),
        text(&status.digest),
        status.nodes.len(),
        text(&status.id)
    )
}

/// The nodes of the roster.
pub fn nodes_text(status: &ClusterStatus, style: &OutputStyle) -> String {
    let mut table = TextTable::new(&[
        TableColumn::text("name"),
        TableColumn::text("v4"),
        TableColumn::text("v6").with_rank(3),
        TableColumn::text("site").with_rank(1),
        TableColumn::text("roles").with_rank(2),
        TableColumn::text("addresses"),
        TableColumn::text("key").with_rank(4),
    ]);
    for node in &status.nodes {
        table.add_row(vec![
            name_text(node).into(),
            (&node.address).into(),
            (&node.address6).into(),
            node.site.as_deref().unwrap_or("-").into(),
            node.roles.join(", ").into(),
            node.addresses.join(", ").into(),
            (&node.key).into(),
        ]);
    }
    format!("{}\n{}", heading(status), table.render(style))
}

fn name_text(node: &ClusterNodeView) -> String {
    node.name.clone() + if node.this_node { " (this node)" } else { "" }
}

/// The wire version that all nodes could speak.
fn wire_text(status: &ClusterStatus) -> String {
    let unknown = match status.wire_unknown.len() {
        0 => String::new(),
        // Without a daemon nothing is known of any node.
        count if count == status.nodes.len() => return String::new(),
        count => format!(" ({count} of them not heard yet)"),
    };
    match (status.wire_version, status.nodes.len()) {
        (_, 0) => String::new(),
        (Some(version), _) => format!("wire version that all nodes speak: {version}{unknown}\n"),
        (None, _) => "the nodes share no wire version: upgrade the oldest\n".to_owned(),
    }
}

/// Each node's roster, and every problem.
pub fn status_text(status: &ClusterStatus, style: &OutputStyle) -> String {
    let mut out = heading(status);
    let key = if status.can_sign { "here" } else { "on another node" };
    let _ = writeln!(out, "the cluster's key is {key}");
    if let Some(problem) = &status.problem {
        let _ = writeln!(out, "problem: {}", crate::text::escape_lines(problem));
    }
    let refused: Vec<_> = status.joins_refused.iter().filter(|(_, count)| **count > 0).collect();
    if status.invites_open + status.joins_accepted > 0 || !refused.is_empty() {
        let _ = write!(
            out,
            "invites open: {}, nodes joined here: {}",
            status.invites_open, status.joins_accepted
        );
        let refused: Vec<_> =
            refused.iter().map(|(reason, count)| format!("{} {count}", escape(reason))).collect();
        if !refused.is_empty() {
            let _ = write!(out, ", refused: {}", refused.join(", "));
        }
        out.push('\n');
    }
    out += &wire_text(status);
    let mut table = TextTable::new(&[
        TableColumn::text("name"),
        TableColumn::text("session"),
        TableColumn::number("roster"),
        TableColumn::text("release").with_rank(1),
        TableColumn::text("wire").with_rank(1),
        TableColumn::text("state"),
    ]);
    for node in &status.nodes {
        let serial = node.serial.map_or_else(|| "-".to_owned(), |serial| serial.to_string());
        let session = match (node.this_node, node.session) {
            (true, _) => "-",
            (false, true) => "yes",
            (false, false) => "no",
        };
        let state = match (&node.problem, node.serial, status.serial) {
            (Some(problem), ..) => problem.clone(),
            (None, Some(theirs), Some(own)) if theirs < own => "older".to_owned(),
            (None, Some(_), _) => "same".to_owned(),
            (None, None, _) => "unknown".to_owned(),
        };
        table.add_row(vec![
            name_text(node).into(),
            session.into(),
            serial.into(),
            node.release.as_deref().unwrap_or("-").into(),
            node.wire_versions.map_or_else(|| "-".to_owned(), views::wire_text).into(),
            state.into(),
        ]);
    }
    out + "\n" + &table.render(style)
}
