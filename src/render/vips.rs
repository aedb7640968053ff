//! Output of `netft vip`. Pure.

use std::fmt::Write;

use super::{
    style::{OutputStyle, TextTone},
    table::{TableCell, TableColumn, TextTable},
};
use crate::{
    control::schema::{VipList, VipView},
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
            vip.lease_left_ms.map_or_else(none, |left| left.to_string()).into(),
            (&vip.ownership).into(),
            vip.reason.clone().unwrap_or_default().into(),
        ]);
    }
    table.render(style)
}

fn optional(text: Option<&String>) -> String {
    text.map_or_else(|| "-".to_owned(), |text| escape(text))
}

/// `netft vip show`.
pub fn vip_text(vip: &VipView) -> String {
    let lease = match vip.lease_left_ms {
        Some(left) => format!("{} ms, {left} ms left", vip.lease_ms),
        None => format!("{} ms, none in force", vip.lease_ms),
    };
    let rows = [
        ("addresses", escape(&vip.addresses.join(", "))),
        ("state", escape(&vip.state)),
        ("reason", vip.reason.as_deref().map_or_else(|| "-".to_owned(), escape)),
        ("since", format!("{:.1} s", vip.state_ms as f64 / 1000.0)),
        ("interface", optional(vip.interface.as_ref())),
        ("owner", optional(vip.owner.as_ref())),
        ("decided by", escape(&vip.ownership)),
        ("decision", optional(vip.token.as_ref())),
        ("lease", lease),
        ("fence", escape(&vip.fence)),
    ];
    let mut text = format!("floating address {}\n", escape(&vip.name));
    for (key, value) in rows {
        // Writing into a string cannot fail.
        let _ = writeln!(text, "  {key:<11} {value}");
    }
    text
}

/// `netft vip why`: the state, and what led to it.
pub fn why_text(vip: &VipView) -> String {
    let mut text = vip_text(vip);
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
    use crate::control::schema::VipHistoryLine;

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
        let table = vips_table(&VipList { vips: vec![vip.clone()] }, &OutputStyle::default());
        assert!(table.contains("web") && table.contains("eth0 is down"), "{table}");
        let why = why_text(&vip);
        assert!(why.contains("1.500 s ago  offline"), "{why}");
    }
}
