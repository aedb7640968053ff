//! Relation to another node of the cluster, as far as floating addresses are concerned. Pure.
//!
//! | state | meaning |
//! |---|---|
//! | recover | it is reachable, and its definitions were not compared yet |
//! | normal | it is reachable, and its definitions were compared |
//! | interrupted | it is not reachable, and leases that it was granted may still run |
//! | partner down | it is not reachable, and every lease that it was granted has ended |
//!
//! The words are those of DHCP failover (draft-ietf-dhc-failover-12, section 8).

use std::{collections::BTreeMap, time::Duration};

use crate::time::Time;

/// State of a partner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartnerState {
    /// Reachable; not compared yet.
    Recover,
    /// Reachable and compared.
    Normal,
    /// Not reachable; its leases may run.
    Interrupted,
    /// Not reachable; its leases have ended.
    PartnerDown,
}

impl PartnerState {
    /// The word in output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Recover => "recover",
            Self::Normal => "normal",
            Self::Interrupted => "interrupted",
            Self::PartnerDown => "partner-down",
        }
    }
}

/// A partner.
#[derive(Clone, Copy, Debug)]
pub struct Partner {
    is_reachable: bool,
    is_compared: bool,
    since: Time,
}

impl Partner {
    /// A partner that was not heard yet: it may hold leases of before.
    pub const fn new(now: Time) -> Self {
        Self { is_reachable: false, is_compared: false, since: now }
    }

    /// netft reaches it, or not over any route.
    pub fn set_reachable(&mut self, now: Time, is_reachable: bool) {
        if self.is_reachable != is_reachable {
            *self = Self { is_reachable, is_compared: false, since: now };
        }
    }

    /// Its definitions were compared, or it answered that it cannot.
    pub fn on_compared(&mut self, now: Time) {
        if self.is_reachable && !self.is_compared {
            (self.is_compared, self.since) = (true, now);
        }
    }

    /// Its state, and since when. After `lease_wait` every lease that it was granted has ended.
    pub fn state_at(&self, now: Time, lease_wait: Duration) -> (PartnerState, Time) {
        let down_at = self.since + lease_wait;
        match (self.is_reachable, self.is_compared) {
            (true, true) => (PartnerState::Normal, self.since),
            (true, false) => (PartnerState::Recover, self.since),
            (false, _) if now < down_at => (PartnerState::Interrupted, self.since),
            (false, _) => (PartnerState::PartnerDown, down_at),
        }
    }
}

/// Differences between the definitions here and those of a partner, by address. Both map names to
/// digests.
pub fn compare_definitions(
    own: &BTreeMap<String, String>,
    theirs: &BTreeMap<String, String>,
) -> BTreeMap<String, &'static str> {
    let mut differences = BTreeMap::new();
    for (name, digest) in own {
        match theirs.get(name) {
            None => differences.insert(name.clone(), "it is not defined there"),
            Some(other) if other != digest => {
                differences.insert(name.clone(), "its definition differs there")
            }
            Some(_) => None,
        };
    }
    for name in theirs.keys().filter(|name| !own.contains_key(*name)) {
        differences.insert(name.clone(), "it is defined there, and not here");
    }
    differences
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE_WAIT: Duration = Duration::from_millis(420);

    #[test]
    fn a_partner_is_down_once_its_leases_have_ended() {
        let at = Time::from_millis;
        let state = |partner: &Partner, now| partner.state_at(at(now), LEASE_WAIT).0;
        let mut partner = Partner::new(at(0));
        assert_eq!(state(&partner, 10), PartnerState::Interrupted);
        partner.set_reachable(at(50), true);
        assert_eq!(state(&partner, 9_000), PartnerState::Recover);
        partner.on_compared(at(60));
        partner.set_reachable(at(70), true);
        assert_eq!(partner.state_at(at(9_000), LEASE_WAIT), (PartnerState::Normal, at(60)));
        partner.set_reachable(at(10_000), false);
        partner.on_compared(at(10_001));
        let end = at(10_000) + LEASE_WAIT;
        assert_eq!(partner.state_at(end, LEASE_WAIT), (PartnerState::PartnerDown, end));
        assert_eq!(state(&partner, end.as_millis() - 1), PartnerState::Interrupted);
        partner.set_reachable(at(20_000), true);
        assert_eq!(state(&partner, 20_000), PartnerState::Recover);
    }

    #[test]
    fn definitions_differ_by_name() {
        let map = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(name, digest)| ((*name).into(), (*digest).into())).collect()
        };
        let own = map(&[("db", "1"), ("web", "2"), ("x", "3")]);
        let theirs = map(&[("db", "1"), ("web", "9"), ("y", "4")]);
        let found = compare_definitions(&own, &theirs);
        let names: Vec<_> = found.keys().map(String::as_str).collect();
        assert_eq!(names, ["web", "x", "y"]);
        assert_eq!(compare_definitions(&own, &own), BTreeMap::new());
    }
}
