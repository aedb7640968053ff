//! Every node: asks the leader for its leases, and lets addresses go.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::{
    time::Time,
    vip::{
        FencingToken,
        ownership::{
            lease::LeaseRules,
            messages::{LeaseReply, LeaseReport, LeaseVerdict, RoleReport, VipVerdict},
        },
    },
};

/// Renewals in one lease.
const RENEWALS_PER_LEASE: u32 = 4;
/// Interval of the reports of a node that owns nothing.
const IDLE_INTERVAL: Duration = Duration::from_millis(500);
/// Shortest interval of reports.
const MIN_INTERVAL: Duration = Duration::from_millis(5);
/// Interval of reports while the leader is not known or does not answer.
const RETRY_INTERVAL: Duration = Duration::from_millis(40);
/// Reports whose replies are awaited at once; the oldest is given up.
const MAX_PENDING: usize = 8;

/// Change for the address service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HolderUpdate {
    /// This node may answer for the address until then.
    Granted {
        /// The address.
        vip: String,
        /// The decision.
        token: FencingToken,
        /// End of the lease on this node's clock.
        until: Time,
        /// Its length, from the request.
        lease: Duration,
    },
    /// Let the address go, then tell [`LeaseHolder::on_released`].
    Revoked {
        /// The address.
        vip: String,
        /// The decision that gave it to another.
        token: FencingToken,
    },
    /// The owner of the address.
    Owner {
        /// The address.
        vip: String,
        /// Its owner.
        owner: Option<String>,
        /// The decision.
        token: FencingToken,
        /// Why.
        reason: String,
    },
}

/// An address that the node lets go.
#[derive(Clone, Copy, Debug)]
struct Release {
    /// The token under which it held the address.
    held: FencingToken,
    /// The decision that gave it to another.
    revoked_by: FencingToken,
    is_done: bool,
}

/// A report whose reply is awaited.
#[derive(Clone, Debug)]
struct PendingReport {
    asked: Time,
    /// Addresses that it said the node holds.
    holds: Vec<(String, FencingToken)>,
}

/// A node's leases.
#[derive(Clone, Debug)]
pub struct LeaseHolder {
    node: String,
    able: BTreeSet<String>,
    /// Since when the checks of addresses that follow them have passed.
    roles: BTreeMap<String, Time>,
    /// Tokens under which this process was granted addresses, and the length of those leases.
    held: BTreeMap<String, (FencingToken, Duration)>,
    releases: BTreeMap<String, Release>,
    /// The newest decision known on each address: older words are void.
    newest: BTreeMap<String, FencingToken>,
    /// Of each decision up to this one, the node knows it or the one that replaced it.
    known: FencingToken,
    /// Reports whose replies are awaited; those that a grant may still follow stay.
    pending: BTreeMap<u64, PendingReport>,
    serial: u64,
    next_report: Time,
}

impl LeaseHolder {
    /// A node that holds nothing and reports at once.
    pub fn new(node: &str, now: Time) -> Self {
        Self {
            node: node.to_owned(),
            able: BTreeSet::new(),
            roles: BTreeMap::new(),
            held: BTreeMap::new(),
            releases: BTreeMap::new(),
            newest: BTreeMap::new(),
            known: FencingToken::default(),
            pending: BTreeMap::new(),
            serial: 0,
            next_report: now,
        }
    }

    /// The node can, or cannot, carry the address.
    pub fn set_able(&mut self, now: Time, vip: &str, is_able: bool) {
        let has_changed =
            if is_able { self.able.insert(vip.to_owned()) } else { self.able.remove(vip) };
        if has_changed {
            self.next_report = self.next_report.min(now);
        }
    }

    /// The check that the address follows has passed since then.
    pub fn set_role(&mut self, vip: &str, since: Time) {
        self.roles.insert(vip.to_owned(), since);
    }

    /// The address service let the address go that `token` revoked, or let it go by itself.
    pub fn on_released(&mut self, now: Time, vip: &str, token: FencingToken) {
        let revoked = self.releases.get_mut(vip).filter(|release| !release.is_done);
        if let Some(release) = revoked {
            if [release.held, release.revoked_by].contains(&token) {
                release.is_done = true;
                self.held.remove(vip);
                self.next_report = self.next_report.min(now);
            }
        } else if let Some((held, _)) = self.held.remove(vip) {
            // The service let it go by itself, for example because netftd stops.
            let release = Release { held, revoked_by: held, is_done: true };
            self.releases.insert(vip.to_owned(), release);
            self.next_report = self.next_report.min(now);
        }
    }

    /// The leader has something to say.
    pub fn request_report(&mut self, now: Time) {
        self.next_report = self.next_report.min(now);
    }

    /// When the next report is due.
    pub fn next_wake(&self) -> Time {
        self.next_report
    }

    /// The report to send now, if one is due.
    pub fn poll_report(&mut self, now: Time) -> Option<LeaseReport> {
        if now < self.next_report {
            return None;
        }
        let interval = self.interval();
        self.next_report = now + interval;
        self.serial += 1;
        let holds: Vec<_> =
            self.held.iter().map(|(vip, (token, _))| (vip.clone(), *token)).collect();
        let pending = PendingReport { asked: now, holds: holds.clone() };
        self.pending.insert(self.serial, pending);
        while self.pending.len() > MAX_PENDING {
            self.pending.pop_first();
        }
        let released = self.releases.iter().filter(|(_, release)| release.is_done);
        let roles = self.roles.iter().filter(|(vip, _)| self.able.contains(*vip));
        Some(LeaseReport {
            serial: self.serial,
            node: self.node.clone(),
            able: self.able.iter().cloned().collect(),
            roles: roles
                .map(|(vip, since)| RoleReport {
                    vip: vip.clone(),
                    began_ns: since.as_nanos(),
                    age: now.since(*since),
                })
                .collect(),
            holds,
            released: released.map(|(vip, release)| (vip.clone(), release.held)).collect(),
            next_within: interval,
            known: self.known,
        })
    }

    fn interval(&self) -> Duration {
        let shortest = self.held.values().map(|(_, lease)| *lease / RENEWALS_PER_LEASE).min();
        shortest.map_or(IDLE_INTERVAL, |interval| interval.clamp(MIN_INTERVAL, IDLE_INTERVAL))
    }

    /// The report did not reach a leader.
    pub fn on_failure(&mut self, now: Time, serial: u64) {
        if self.pending.remove(&serial).is_some() {
            self.next_report = self.next_report.min(now + RETRY_INTERVAL);
        }
    }

    /// The newest decision on the address that this node has heard of.
    pub fn newest_decision(&self, vip: &str) -> FencingToken {
        self.newest.get(vip).copied().unwrap_or_default()
    }

    /// Takes in the leader's reply. A report that was told to wait may get a second one, with the
    /// grant: a lease counts from its request, however many replies follow.
    pub fn on_reply(&mut self, now: Time, reply: &LeaseReply) -> Vec<HolderUpdate> {
        let Some(PendingReport { asked, holds }) = self.pending.remove(&reply.serial) else {
            return Vec::new();
        };
        let mut updates = Vec::new();
        if let Some(lease) = reply.renewed {
            let named: BTreeSet<&str> = reply.vips.iter().map(|word| word.vip.as_str()).collect();
            for (vip, token) in holds.iter().filter(|(vip, _)| !named.contains(vip.as_str())) {
                // A decision that the node heard of since is not the one that was renewed.
                if self.newest_decision(vip) == *token {
                    self.on_granted(now, asked, (vip, *token), lease, &mut updates);
                }
            }
        }
        if reply.vips.iter().any(|word| matches!(word.verdict, LeaseVerdict::Wait(_))) {
            self.pending.insert(reply.serial, PendingReport { asked, holds });
        }
        self.known = self.known.max(reply.latest);
        for word in &reply.vips {
            let newest = self.newest_decision(&word.vip);
            // A reply that was overtaken speaks of an owner that is none.
            if word.token < newest {
                continue;
            }
            if word.token > newest {
                self.newest.insert(word.vip.clone(), word.token);
                updates.push(HolderUpdate::Owner {
                    vip: word.vip.clone(),
                    owner: word.owner.clone(),
                    token: word.token,
                    reason: word.reason.clone(),
                });
            }
            self.on_verdict(now, asked, word, &mut updates);
        }
        updates
    }

    fn on_verdict(
        &mut self,
        now: Time,
        asked: Time,
        word: &VipVerdict,
        updates: &mut Vec<HolderUpdate>,
    ) {
        let held = self.held.get(&word.vip).map(|(token, _)| *token);
        // What was held under an earlier token is let go first, also when the node is to have the
        // address again.
        if let Some(held) =
            held.filter(|held| *held != word.token || word.verdict == LeaseVerdict::NotOwner)
        {
            let is_known =
                self.releases.get(&word.vip).is_some_and(|one| one.revoked_by == word.token);
            if !is_known {
                let release = Release { held, revoked_by: word.token, is_done: false };
                self.releases.insert(word.vip.clone(), release);
                updates.push(HolderUpdate::Revoked { vip: word.vip.clone(), token: word.token });
            }
            return;
        }
        match word.verdict {
            LeaseVerdict::Granted(lease) => {
                self.on_granted(now, asked, (&word.vip, word.token), lease, updates);
            }
            LeaseVerdict::Wait(wait) => {
                self.next_report = self.next_report.min(now + wait.max(MIN_INTERVAL));
            }
            LeaseVerdict::NotOwner => {}
        }
    }

    fn on_granted(
        &mut self,
        now: Time,
        asked: Time,
        (vip, token): (&str, FencingToken),
        lease: Duration,
        updates: &mut Vec<HolderUpdate>,
    ) {
        let is_given_up = |release: &Release| release.is_done && release.held == token;
        // What this node said it let go it does not take up again under the same token.
        if self.releases.get(vip).is_some_and(is_given_up) {
            return;
        }
        self.releases.remove(vip);
        self.held.insert(vip.to_owned(), (token, lease));
        self.next_report = self.next_report.min(asked + lease / RENEWALS_PER_LEASE);
        let until = LeaseRules::lease_end(asked, lease);
        // A grant that arrived after its end is none.
        if now < until {
            updates.push(HolderUpdate::Granted { vip: vip.to_owned(), token, until, lease });
        }
    }
}
