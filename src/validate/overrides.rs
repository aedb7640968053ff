//! Overrides that an operator may have forgotten. Pure.

use netft::topology::RoutePlan;

use super::facts::NodeFacts;
use crate::control::{
    overrides::override_text,
    schema::{Finding, OverrideView, Severity},
};

/// Reports the overrides in force, and those that a restart would forget.
pub(super) fn check_overrides(facts: &NodeFacts, _: &RoutePlan) -> Vec<Finding> {
    let Some(daemon) = &facts.daemon else { return Vec::new() };
    let to_finding = |one: &OverrideView| {
        let remedy = match one.kind.as_str() {
            "drain" | "in-use" => "`netft undrain` or `netft route undrain` ends it",
            "admin-down" => "`netft route up` ends it",
            _ => "write it into the config file, or set the file's value by hand again",
        };
        let what = format!("set by an operator: {}", override_text(one));
        Finding::new(Severity::Note, "override", "this node", what, remedy)
    };
    let mut findings: Vec<_> = daemon.overrides.iter().map(to_finding).collect();
    if let Some(reason) = &daemon.overrides_unsaved {
        let what = format!("the overrides of an operator will not survive a restart: {reason}");
        let remedy = "make room in the state directory (`netftd --state-dir`); netftd tries again \
                      every 10 s";
        findings.push(Finding::new(
            Severity::Warning,
            "overrides-unsaved",
            "this node",
            what,
            remedy,
        ));
    }
    findings
}
