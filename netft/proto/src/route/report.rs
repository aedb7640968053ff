//! The peer's view of a route, as its heartbeats report it. Pure.

use crate::route::state::Reason;

/// The peer's last report on its end of a route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct RemoteReport {
    /// The peer receives this node's heartbeats there.
    pub(crate) heard: bool,
    /// The peer's end has a local fault.
    pub(crate) local_down: bool,
    /// The peer's operator took the route out of use.
    pub(crate) admin_down: bool,
    /// The peer's operator drains the route.
    pub(crate) draining: bool,
    /// The peer sends data there.
    pub(crate) carries: bool,
}

/// The far end of a route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct RemoteEnd {
    /// The peer's number of the route; 0 until its first heartbeat.
    pub(crate) route: u32,
    /// The newest report; `None` before the first, or when the peer does not list the route.
    pub(crate) report: Option<RemoteReport>,
}

impl RemoteEnd {
    /// Returns whether the peer confirms this node's direction, and its end works.
    pub(crate) fn confirms_tx(&self) -> bool {
        self.report.is_some_and(|it| it.heard && !it.local_down && !it.admin_down)
    }

    /// Returns whether an operator drains the route at the peer.
    pub(crate) fn is_draining(&self) -> bool {
        self.report.is_some_and(|report| report.draining)
    }

    /// Returns whether the peer sends data there.
    pub(crate) fn carries_data(&self) -> bool {
        self.report.is_some_and(|report| report.carries)
    }

    /// Why this node may not send there; `None` while the peer's end is unknown.
    pub(crate) fn tx_loss_reason(&self) -> Option<Reason> {
        match self.report {
            None if self.route == 0 => None,
            Some(report) if report.admin_down => Some(Reason::PeerAdmin),
            Some(report) if report.local_down => Some(Reason::PeerLocalDown),
            Some(report) if report.heard => Some(Reason::HeardNowhere),
            None | Some(_) => Some(Reason::PeerDoesNotHear),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_working_end_that_receives_confirms_the_direction() {
        let heard = RemoteReport { heard: true, ..RemoteReport::default() };
        let end = |report| RemoteEnd { route: 9, report };
        assert!(end(Some(heard)).confirms_tx());
        for report in [
            None,
            Some(RemoteReport::default()),
            Some(RemoteReport { local_down: true, ..heard }),
            Some(RemoteReport { admin_down: true, ..heard }),
        ] {
            assert!(!end(report).confirms_tx(), "{report:?}");
        }
    }

    #[test]
    fn the_reason_is_the_most_specific_one() {
        let heard = RemoteReport { heard: true, ..RemoteReport::default() };
        let reason = |route, report| RemoteEnd { route, report }.tx_loss_reason();
        assert_eq!(reason(0, None), None);
        assert_eq!(reason(9, None), Some(Reason::PeerDoesNotHear));
        assert_eq!(reason(9, Some(heard)), Some(Reason::HeardNowhere));
        let broken = RemoteReport { local_down: true, ..heard };
        assert_eq!(reason(9, Some(broken)), Some(Reason::PeerLocalDown));
        let admin = RemoteReport { admin_down: true, ..broken };
        assert_eq!(reason(9, Some(admin)), Some(Reason::PeerAdmin));
    }
}
