//! Output of `netft vip`. Pure.

use std::fmt::Write;

use super::{
    style::{OutputStyle, TextTone},
    table::{TableCell, TableColumn, TextTable},
};
use crate::{
    control::schema::{DhcpView, NameView, OwnershipView, PartnerView, VipBody, VipList},
    text::escape,
};

const VIP_COLUMNS: [TableColumn; 8] = [
    TableColumn::text("name"),
    TableColumn::text("addresses"),
    TableColumn::text("state"),
    TableColumn::text("owner"),
    TableColumn::text("interface").with_rank(1),
    TableColumn::number("lease ms").with_rank(3),
    TableColumn::text("by").with_rank(2),
    TableColumn::text("reason"),
];

/// `netft vip list`: a line per address.
pub fn vips_table(list: &VipList, style: &OutputStyle) -> String {
    if list.vips.is_empty() {
        return "no floating addresses\n".to_owned();
    }
    let mut table = TextTable::new(&VIP_COLUMNS);
    for vip in &list.vips {
        let tone = match vip.state.as_str() {
            "online" => TextTone::Good,
            "failed" => TextTone::Bad,
            "starting" => TextTone::Warning,
            _ => TextTone::Faint,
        };
        let none = || "-".to_owned();
        table.add_row(vec![
            (&vip.name).into(),
            vip.addresses.join(", ").into(),
            TableCell::with_tone(&vip.state, tone),
            vip.owner.clone().unwrap_or_else(none).into(),
            vip.interface.clone().unwrap_or_else(none).into(),
            vip.lease.lease_left_ms.map_or_else(none, |left| left.to_string()).into(),
            (&vip.ownership).into(),
            vip.reason.clone().unwrap_or_default().into(),
        ]);
    }
    let engine: String = list.engines.iter().map(ownership_text).collect();
    let partners: String = list.partners.iter().map(partner_text).collect();
    let names: String = list.names.iter().map(name_text).collect();
    table.render(style) + &names + &engine + &partners
}

/// One line on another node, and one on each difference between its definitions and those here.
fn partner_text(partner: &PartnerView) -> String {
    let since = partner.state_ms as f64 / 1000.0;
    let name = escape(&partner.name);
    let mut text = format!("partner {name}: {} since {since:.1} s", escape(&partner.state));
    match partner.definitions.as_str() {
        "same" => {}
        words => text += &format!(", definitions {}", escape(words)),
    }
    text.push('\n');
    for difference in &partner.differences {
        // Writing into a string cannot fail.
        let _ = writeln!(text, "  {}", escape(difference));
    }
    text
}

/// One line on the engine, and one on its trouble.
fn ownership_text(engine: &OwnershipView) -> String {
    let mut text = format!("owners decided by {}\n", engine_summary(engine));
    if let Some(problem) = problem_text(engine) {
        // Writing into a string cannot fail.
        let _ = writeln!(text, "{problem}");
    }
    text
}

/// The trouble of an engine; etcd's stands in its summary.
pub(super) fn problem_text(engine: &OwnershipView) -> Option<String> {
    let problem = engine.problem.as_ref().filter(|_| engine.engine != "etcd")?;
    Some(format!("this node does not vote: {}", escape(problem)))
}

/// etcd in one line: `etcd: https://10.1.0.5:2379 answered 0.2 s ago, lease of 2.0 s`.
fn etcd_summary(engine: &OwnershipView) -> String {
    let seconds = |millis: u64| millis as f64 / 1000.0;
    if let Some(problem) = &engine.problem {
        return format!("etcd: {}", escape(problem));
    }
    let lease = engine.lease_ms.map(|length| format!(", lease of {:.1} s", seconds(length)));
    match (&engine.server, engine.answered_ms) {
        (Some(server), Some(since)) => format!(
            "etcd: {} answered {:.1} s ago{}",
            escape(server),
            seconds(since),
            lease.as_deref().unwrap_or(", no lease of this node")
        ),
        _ => "etcd: no server has answered yet".to_owned(),
    }
}

/// The engine in one line: `raft: b leads in term 7, 2 of 3 voters reached (not c)`.
pub(super) fn engine_summary(engine: &OwnershipView) -> String {
    if engine.engine == "etcd" {
        return etcd_summary(engine);
    }
    let missing: Vec<_> =
        engine.voters.iter().filter(|voter| !voter.reached).map(|one| escape(&one.name)).collect();
    let missing = match missing.is_empty() {
        true => String::new(),
        false => format!(" (not {})", missing.join(", ")),
    };
    let leader = match &engine.leader {
        Some(leader) => format!("{} leads", escape(leader)),
        None => "no leader is known".to_owned(),
    };
    let term = match engine.term {
        0 => String::new(),
        term => format!(" in term {term}"),
    };
    let (reached, total) = (engine.reached_count(), engine.voters.len());
    let lost = if engine.has_majority() { "" } else { ", no majority" };
    format!("{}: {leader}{term}, {reached} of {total} voters reached{missing}{lost}", engine.engine)
}

fn optional(text: Option<&String>) -> String {
    text.map_or_else(|| "-".to_owned(), |text| escape(text))
}

/// A name in one line: `name web.example: online, 10.1.0.80 registered`, and why it is not.
fn name_text(name: &NameView) -> String {
    let mut parts = vec![format!("name {}: {}", escape(&name.name), escape(&name.state))];
    let records = name.records.iter();
    parts.extend(records.map(|one| format!("{} {}", escape(&one.address), escape(&one.state))));
    if let Some(error) = &name.error {
        parts.push(format!("{} updates failed: {}", name.failures, escape(error)));
    }
    parts.join(", ") + "\n"
}

/// The DHCP lease in one line: `bound, by 10.1.0.1, renewed in 30.0 s, ends in 60.0 s`.
fn dhcp_summary(lease: &DhcpView) -> String {
    let mut parts = vec![escape(&lease.state)];
    let seconds = |millis: u64| format!("{:.1} s", millis as f64 / 1000.0);
    if let Some(server) = &lease.server {
        parts.push(format!("by {}", escape(server)));
        parts.extend(lease.renew_ms.map(|left| format!("renewed in {}", seconds(left))));
        parts.push(match lease.expires_ms {
            Some(left) => format!("ends in {}", seconds(left)),
            None => "without end".to_owned(),
        });
    }
    parts.extend(lease.problem.as_deref().map(escape));
    parts.extend(lease.ignored.iter().map(|(reason, count)| {
        format!("{count} messages of servers ignored ({})", escape(reason))
    }));
    parts.join(", ")
}

/// `netft vip show`.
pub fn vip_text(body: &VipBody) -> String {
    let VipBody { vip, engine, names } = body;
    let lease = match vip.lease.lease_left_ms {
        Some(left) => {
            let renewed = vip.lease.renewed_ms().unwrap_or_default();
            format!("{} ms, {left} ms left, renewed {renewed} ms ago", vip.lease.lease_ms)
        }
        None => format!("{} ms, none in force", vip.lease.lease_ms),
    };
    let rows = [
        ("addresses", escape(&vip.addresses.join(", "))),
        ("state", escape(&vip.state)),
        ("reason", vip.reason.as_deref().map_or_else(|| "-".to_owned(), escape)),
        ("since", format!("{:.1} s", vip.state_ms as f64 / 1000.0)),
        ("interface", optional(vip.interface.as_ref())),
        ("owner", optional(vip.owner.as_ref())),
        ("decided by", engine.as_ref().map_or_else(|| escape(&vip.ownership), engine_summary)),
        ("because", optional(vip.cause.as_ref())),
        ("decision", optional(vip.token.as_ref())),
        ("lease", lease),
        ("fence", escape(&vip.fence)),
    ];
    let mut text = format!("floating address {}\n", escape(&vip.name));
    let dhcp = vip.dhcp.as_ref().map(|lease| ("dhcp", dhcp_summary(lease)));
    for (key, value) in rows.into_iter().chain(dhcp) {
        // Writing into a string cannot fail.
        let _ = writeln!(text, "  {key:<11} {value}");
    }
    for name in names {
        text += &format!("  {}", name_text(name));
    }
    let engine = engine.as_ref();
    if let Some(problem) = engine.and_then(problem_text) {
        let _ = writeln!(text, "  {problem}");
    }
    if let Some(error) = engine.and_then(|engine| engine.last_error.as_ref()) {
        let ago = engine.and_then(|engine| engine.last_error_ms).unwrap_or_default();
        let _ = writeln!(text, "  last error  {:.1} s ago: {}", ago as f64 / 1000.0, escape(error));
    }
    text
}

/// `netft vip why`: the state, and what led to it.
pub fn why_text(body: &VipBody) -> String {
    let (mut text, vip) = (vip_text(body), &body.vip);
    text.push_str("  what happened on this node, oldest first:\n");
    if vip.history.is_empty() {
        text.push_str("    nothing\n");
    }
    for line in &vip.history {
        let ago = line.ago_ms as f64 / 1000.0;
        let _ = writeln!(text, "    {ago:>9.3} s ago  {}", escape(&line.what));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::schema::{VipHistoryLine, VipView, VoterView};

    #[test]
    fn a_failed_address_shows_its_reason_and_its_history() {
        let line = VipHistoryLine { ago_ms: 1500, what: "offline".into() };
        let vip = VipView {
            name: "web".into(),
            addresses: vec!["10.1.0.80".into()],
            state: "failed".into(),
            reason: Some("eth0 is down".into()),
            history: vec![line],
            ..VipView::default()
        };
        let list = VipList {
            vips: vec![vip.clone()],
            ownership: None,
            engines: Vec::new(),
            partners: Vec::new(),
            names: Vec::new(),
        };
        let table = vips_table(&list, &OutputStyle::default());
        assert!(table.contains("web") && table.contains("eth0 is down"), "{table}");
        let why = why_text(&VipBody { vip, engine: None, names: Vec::new() });
        assert!(why.contains("1.500 s ago  offline"), "{why}");
    }

    #[test]
    fn an_engine_without_a_majority_says_whom_it_misses() {
        let voter = |name: &str, reached| VoterView { name: name.to_owned(), reached };
        let mut engine = OwnershipView {
            engine: "raft".to_owned(),
            leader: Some("b".to_owned()),
            term: 7,
            voters: vec![voter("a", true), voter("b", true), voter("c", false)],
            ..OwnershipView::default()
        };
        let text = engine_summary(&engine);
        assert_eq!(text, "raft: b leads in term 7, 2 of 3 voters reached (not c)");
        let mut etcd = OwnershipView {
            engine: "etcd".to_owned(),
            server: Some("http://10.1.0.5:2379".to_owned()),
            answered_ms: Some(240),
            lease_ms: Some(2000),
            ..OwnershipView::default()
        };
        let text = engine_summary(&etcd);
        assert_eq!(text, "etcd: http://10.1.0.5:2379 answered 0.2 s ago, lease of 2.0 s");
        etcd.problem = Some("no etcd server answers: refused".to_owned());
        let text = ownership_text(&etcd);
        assert_eq!(text, "owners decided by etcd: no etcd server answers: refused\n");
        (engine.leader, engine.voters[1].reached) = (None, false);
        engine.problem = Some("the store is damaged".to_owned());
        let text = ownership_text(&engine);
        assert_eq!(
            text,
            "owners decided by raft: no leader is known in term 7, 1 of 3 voters reached (not b, \
             c), no majority\nthis node does not vote: the store is damaged\n"
        );
    }
}
