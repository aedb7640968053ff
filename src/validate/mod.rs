//! `netft validate`: what is wrong with this node before it hurts, as NetFT's cluster validation.
//!
//! [`facts`] asks the kernel, the firewall and the daemon; everything that judges is pure
//! ([`checks`], [`links`], [`firewall`]) and works on the gathered [`Facts`].

pub mod checks;
pub mod facts;
pub mod firewall;
pub mod links;

use netft::topology::{self, Plan};

pub use facts::{Daemon, Facts};
pub use links::Link;

use crate::control::schema::{Finding, Severity};

/// Everything that is wrong, the worst first.
pub fn validate(facts: &Facts) -> Vec<Finding> {
    let plan = facts.plan();
    let mut findings: Vec<_> = checks::ALL.iter().flat_map(|check| check(facts, &plan)).collect();
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    findings
}

/// The exit code: 0 fine (or notes), 1 warnings, 2 errors.
pub fn exit_code(findings: &[Finding]) -> u8 {
    match findings.iter().map(|finding| finding.severity).max() {
        None | Some(Severity::Note) => 0,
        Some(Severity::Warning) => 1,
        Some(Severity::Error) => 2,
    }
}

impl Facts {
    /// The routes the config means, with the interfaces as they are.
    pub fn plan(&self) -> Plan {
        let interfaces: Vec<_> = self.links.iter().map(|link| link.interface.clone()).collect();
        topology::plan(&self.config, &interfaces, &self.sources, &[])
    }

    /// The interface of this number.
    pub fn link(&self, index: u32) -> Option<&Link> {
        self.links.iter().find(|link| link.interface.index == index)
    }
}
