//! What an operator ordered and may have forgotten. Pure.

use netft::topology::RoutePlan;

use super::facts::NodeFacts;
use crate::control::{
    orders::order_text,
    schema::{Finding, OrderView, Severity},
};

/// Orders that are in force, and those that a restart would forget.
pub(super) fn check_orders(facts: &NodeFacts, _: &RoutePlan) -> Vec<Finding> {
    let Some(daemon) = &facts.daemon else { return Vec::new() };
    let standing = |order: &OrderView| {
        let remedy = match order.kind.as_str() {
            "drain" | "in-use" => "`netft undrain` or `netft route undrain` ends it",
            "admin-down" => "`netft route up` ends it",
            _ => "write it into the config file, or set the file's value by hand again",
        };
        let what = format!("ordered by an operator: {}", order_text(order));
        Finding::new(Severity::Note, "standing-order", "this node", what, remedy)
    };
    let mut findings: Vec<_> = daemon.orders.iter().map(standing).collect();
    if let Some(reason) = &daemon.orders_unsaved {
        let what = format!("the orders of an operator will not survive a restart: {reason}");
        let remedy = "make room in the state directory (`netftd --state-dir`); netftd tries again \
                      every 10 s";
        findings.push(Finding::new(Severity::Warning, "orders-unsaved", "this node", what, remedy));
    }
    findings
}
