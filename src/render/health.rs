//! Output of `netft check`, as monitoring plugins write it. Pure.

use std::fmt::Write;

use crate::{
    control::{schema::DaemonStatus, verdict::RedundancyState},
    text::escape,
};

/// One line with the verdict and performance data, then a line for each reason (Monitoring Plugins
/// Development Guidelines).
pub fn plugin_text(status: &DaemonStatus) -> String {
    let DaemonStatus { verdict, peers, routes, failovers, .. } = status;
    let word = match verdict.state {
        RedundancyState::Redundant => "OK",
        RedundancyState::Degraded => "WARNING",
        RedundancyState::CutOff => "CRITICAL",
    };
    let (reachable, configured) = (peers.reachable, peers.configured);
    let mut out = format!(
        "NETFT {word} - {}: {reachable} of {configured} peers reachable, {} of {} routes up | \
         peers_reachable={reachable};;;0;{configured} routes_up={};;;0;{} failovers={failovers}c\n",
        verdict.state.as_str(),
        routes.up,
        routes.total,
        routes.up,
        routes.total,
    );
    for reason in &verdict.reasons {
        // A bar would begin performance data.
        let _ = writeln!(out, "{}", escape(reason).replace('|', "/"));
    }
    out
}
