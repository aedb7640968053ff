#![allow(clippy::unwrap_used)]

use std::{collections::VecDeque, time::Duration};

use super::*;
use crate::{
    sim::rng::SplitMix64,
    time::Time,
    vip::{
        FencingToken,
        ownership::{Failback, HolderUpdate, LeaseRules, VipPolicy},
    },
};

const LEASE_TTL: Duration = Duration::from_secs(2);
const LEASE_ID: i64 = 7;
const START_TIME: Time = Time::from_nanos(1_000_000_000);

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn policy() -> VipPolicy {
    VipPolicy::new("web", ms(400))
}

fn holder(policy: VipPolicy) -> EtcdHolder {
    let mut holder = EtcdHolder::new("a", "1", vec![policy], LeaseRules::DEFAULT, START_TIME);
    holder.set_able("web", true);
    holder.on_lease(LEASE_ID, LEASE_TTL);
    holder
}

fn entry(key: &str, value: &str, created: u64, lease: i64) -> EtcdEntry {
    EtcdEntry { key: key.to_owned(), value: value.to_owned(), created, lease }
}

/// The keys while this node and `b` are there, and the owner's value and lease.
fn view(term: u64, owner: Option<(&str, i64)>) -> EtcdView {
    let nodes = [entry("node/a", "web", 1, LEASE_ID), entry("node/b", "web", 2, 8)];
    let owner = owner.map(|(value, lease)| entry("vip/web", value, 5, lease));
    EtcdView::new(EtcdServer { member: 1, term }, nodes.into_iter().chain(owner))
}

fn proof(asked: Time) -> Option<LeaseProof> {
    Some(LeaseProof { asked, ttl: LEASE_TTL })
}

const HELD_TOKEN: FencingToken = FencingToken { term: 0, index: 5 };

#[test]
fn a_lease_counts_from_before_its_renewal_and_ends_before_etcds() {
    let mut holder = holder(policy());
    holder.on_baseline(&view(3, None));
    let asked = START_TIME + ms(100);
    let now = asked + ms(700);
    let (updates, writes) = holder.on_view(now, proof(asked), &view(3, Some(("a 1", LEASE_ID))));
    let until = updates.iter().find_map(|update| match update {
        HolderUpdate::Granted { until, token: HELD_TOKEN, .. } => Some(*until),
        _ => None,
    });
    let until = until.unwrap();
    assert!(until > asked + ms(1900) && until + ms(20) < asked + LEASE_TTL, "{until:?}");
    assert_eq!(writes, []);
    assert!(LeaseRules::DEFAULT.wait_after_grant(until.since(asked)) <= LEASE_TTL);
    // A reply that comes too late proves nothing.
    let late = asked + LEASE_TTL;
    let (updates, _) = holder.on_view(late, proof(asked), &view(3, Some(("a 1", LEASE_ID))));
    assert_eq!(updates, []);
}

#[test]
fn a_renewal_around_a_change_of_the_leader_proves_nothing() {
    let mut holder = holder(policy());
    holder.on_baseline(&view(3, None));
    let ours = Some(("a 1", LEASE_ID));
    let granted = |updates: &[HolderUpdate]| {
        updates.iter().any(|update| matches!(update, HolderUpdate::Granted { .. }))
    };
    let (updates, _) = holder.on_view(START_TIME, proof(START_TIME), &view(4, ours));
    assert!(!granted(&updates), "{updates:?}");
    let (updates, _) = holder.on_view(START_TIME, proof(START_TIME), &view(4, ours));
    assert!(granted(&updates), "{updates:?}");
    holder.on_server_changed();
    assert!(holder.needs_baseline());
    let (updates, _) = holder.on_view(START_TIME, proof(START_TIME), &view(4, ours));
    assert!(!granted(&updates), "{updates:?}");
}

#[test]
fn a_free_address_is_claimed_by_one_node_and_the_key_of_an_earlier_process_is_taken_over() {
    let mut holder = holder(policy());
    holder.on_baseline(&view(3, None));
    // Nobody knows at the start who else will come.
    let (_, writes) = holder.on_view(START_TIME, proof(START_TIME), &view(3, None));
    assert_eq!(writes, []);
    let settled = START_TIME + ms(1000);
    let (_, writes) = holder.on_view(settled, proof(settled), &view(3, None));
    let (key, value) = ("vip/web".to_owned(), "a 1".to_owned());
    assert_eq!(writes, [EtcdWrite::Create { key, value, lease: LEASE_ID }]);
    let (updates, writes) = holder.on_view(settled, proof(settled), &view(3, Some(("a 1", 6))));
    let (key, value) = ("vip/web".to_owned(), "a 1".to_owned());
    let adopt = EtcdWrite::Adopt { key, value, created: 5, old_lease: 6, lease: LEASE_ID };
    assert_eq!(writes, [adopt]);
    assert!(matches!(updates[..], [HolderUpdate::Owner { .. }]), "{updates:?}");
    // A node of the same name in another cluster is another node.
    let (_, writes) = holder.on_view(settled, proof(settled), &view(3, Some(("a 2", 6))));
    assert_eq!(writes, []);
}

#[test]
fn an_address_is_deleted_only_once_it_is_let_go() {
    let mut holder = holder(policy());
    holder.on_baseline(&view(3, None));
    let ours = view(3, Some(("a 1", LEASE_ID)));
    holder.on_view(START_TIME, proof(START_TIME), &ours);
    holder.set_able("web", false);
    let (updates, writes) = holder.on_view(START_TIME + ms(10), proof(START_TIME), &ours);
    assert_eq!(updates, [HolderUpdate::Revoked { vip: "web".to_owned(), token: HELD_TOKEN }]);
    let deleted = |writes: &[EtcdWrite]| {
        writes.iter().any(|write| matches!(write, EtcdWrite::Delete { created: 5, .. }))
    };
    assert!(!deleted(&writes));
    let mut silent = holder.clone();
    holder.on_released("web", HELD_TOKEN);
    let (updates, writes) = holder.on_view(START_TIME + ms(20), proof(START_TIME), &ours);
    assert!(updates.is_empty() && deleted(&writes), "{updates:?} {writes:?}");
    // Without a word of the address service the lease must have ended.
    let (_, writes) = silent.on_view(START_TIME + ms(1980), proof(START_TIME + ms(1900)), &ours);
    assert!(!deleted(&writes));
    let (_, writes) = silent.on_view(START_TIME + ms(2000), proof(START_TIME + ms(1900)), &ours);
    assert!(deleted(&writes));
}

#[test]
fn a_node_that_stops_gives_its_lease_back() {
    let mut holder = holder(policy());
    holder.on_baseline(&view(3, None));
    holder.on_view(START_TIME, proof(START_TIME), &view(3, Some(("a 1", LEASE_ID))));
    holder.on_released("web", HELD_TOKEN);
    assert!(holder.needs_lease());
    holder.on_view(START_TIME, proof(START_TIME), &view(3, None));
    assert!(!holder.needs_lease());
}

#[test]
fn an_address_goes_where_it_is_pinned_or_preferred() {
    let preferred = VipPolicy {
        preferred: vec!["b".to_owned()],
        failback: Failback::After(ms(500)),
        ..policy()
    };
    let revoked = [HolderUpdate::Revoked { vip: "web".to_owned(), token: HELD_TOKEN }];
    let ours = view(3, Some(("a 1", LEASE_ID)));
    let mut holder = holder(preferred.clone());
    holder.on_baseline(&view(3, None));
    holder.on_view(START_TIME, proof(START_TIME), &ours);
    let (updates, _) = holder.on_view(START_TIME + ms(499), proof(START_TIME + ms(499)), &ours);
    assert!(matches!(updates[..], [HolderUpdate::Granted { .. }]), "{updates:?}");
    let (updates, _) = holder.on_view(START_TIME + ms(500), proof(START_TIME + ms(500)), &ours);
    assert_eq!(updates, revoked);

    let mut holder = self::holder(policy());
    holder.on_baseline(&view(3, None));
    holder.on_view(START_TIME, proof(START_TIME), &ours);
    let (target, write) = holder.plan_move(START_TIME, "web", None, &ours).unwrap();
    let (key, value) = ("pin/web".to_owned(), "b".to_owned());
    assert_eq!((target.as_str(), write), ("b", Some(EtcdWrite::Put { key, value, lease: 8 })));
    assert!(
        holder.plan_move(START_TIME, "web", Some("c"), &ours).unwrap_err().contains("cannot carry")
    );
    let keys = [
        entry("node/a", "web", 1, LEASE_ID),
        entry("node/b", "web", 2, 8),
        entry("pin/web", "b", 6, 8),
        entry("vip/web", "a 1", 5, LEASE_ID),
    ];
    let pinned = EtcdView::new(EtcdServer { member: 1, term: 3 }, keys);
    let (updates, _) = holder.on_view(START_TIME + ms(1), proof(START_TIME + ms(1)), &pinned);
    assert_eq!(updates, revoked);
}

/// etcd as its clients see it, with a leader that was replaced and does not know: it renews leases
/// in vain (etcd before 3.4.28 and 3.5.10).
struct EtcdModel {
    entries: Vec<EtcdEntry>,
    /// End of each lease.
    leases: Vec<(i64, u64)>,
    revision: u64,
    term: u64,
    /// Until when each node's server follows the leader of the term before.
    stale_until: [u64; 2],
}

/// A server's time to live, shorter by what its clock and a node's may differ.
const REAL_TTL: u64 = 1996;

impl EtcdModel {
    fn tick(&mut self, now: u64) {
        let ended: Vec<i64> =
            self.leases.iter().filter(|lease| lease.1 <= now).map(|lease| lease.0).collect();
        self.leases.retain(|lease| !ended.contains(&lease.0));
        self.entries.retain(|entry| !ended.contains(&entry.lease));
    }

    fn elect(&mut self, now: u64, rng: &mut SplitMix64) {
        self.term += 1;
        self.leases.iter_mut().for_each(|lease| lease.1 = now + REAL_TTL);
        for stale in &mut self.stale_until {
            *stale = if rng.next_below(2) == 0 { now + rng.next_below(1500) } else { now };
        }
    }

    fn renew(&mut self, now: u64, node: usize, id: i64) -> bool {
        let lease = self.leases.iter_mut().find(|lease| lease.0 == id);
        if self.stale_until[node] > now {
            return true;
        }
        lease.map(|lease| lease.1 = now + REAL_TTL).is_some()
    }

    fn write(&mut self, write: EtcdWrite) {
        self.revision += 1;
        let revision = self.revision;
        let place = |entries: &[EtcdEntry], key: &str| entries.iter().position(|e| e.key == key);
        let (EtcdWrite::Put { lease, .. }
        | EtcdWrite::Create { lease, .. }
        | EtcdWrite::Adopt { lease, .. }) = &write
        else {
            if let EtcdWrite::Delete { key, created } = write {
                self.entries.retain(|e| e.key != key || e.created != created);
            }
            return;
        };
        // etcd refuses a lease that ended.
        if !self.leases.iter().any(|one| one.0 == *lease) {
            return;
        }
        match write {
            EtcdWrite::Put { key, value, lease } => match place(&self.entries, &key) {
                Some(at) => (self.entries[at].value, self.entries[at].lease) = (value, lease),
                None => self.entries.push(entry(&key, &value, revision, lease)),
            },
            EtcdWrite::Create { key, value, lease } => {
                if place(&self.entries, &key).is_none() {
                    self.entries.push(entry(&key, &value, revision, lease));
                }
            }
            EtcdWrite::Adopt { key, created, old_lease, lease, .. } => {
                let same = |e: &&mut EtcdEntry| {
                    e.key == key && e.created == created && e.lease == old_lease
                };
                if let Some(found) = self.entries.iter_mut().find(same) {
                    found.lease = lease;
                }
            }
            EtcdWrite::Delete { .. } => {}
        }
    }
}

/// A node's place in its round of requests.
enum Step {
    Renew,
    Read(Option<LeaseProof>),
    Apply(Option<LeaseProof>, EtcdView),
    Write(VecDeque<EtcdWrite>),
}

struct NodeModel {
    holder: EtcdHolder,
    step: Step,
    at: u64,
    asked: u64,
    next_lease: i64,
    /// The kernel answers until then.
    enforced: u64,
    is_released_at: Option<(u64, FencingToken)>,
}

fn at(millis: u64) -> Time {
    START_TIME + ms(millis)
}

impl NodeModel {
    fn new(index: usize, now: u64, next_lease: i64) -> Self {
        let node = ["a", "b"][index];
        let mut holder = EtcdHolder::new(node, "1", vec![policy()], LeaseRules::DEFAULT, at(now));
        holder.set_able("web", true);
        let (step, asked) = (Step::Renew, now);
        Self { holder, step, at: now, asked, next_lease, enforced: 0, is_released_at: None }
    }

    fn take(&mut self, now: u64, updates: Vec<HolderUpdate>, rng: &mut SplitMix64) {
        for update in updates {
            match update {
                // The kernel is late by its delay at most.
                HolderUpdate::Granted { until, .. } if at(now) < until => {
                    self.enforced = until.since(START_TIME).as_millis() as u64 + rng.next_below(21);
                }
                HolderUpdate::Revoked { token, .. } => {
                    self.is_released_at = Some((now + rng.next_below(1500), token));
                }
                HolderUpdate::Granted { .. } | HolderUpdate::Owner { .. } => {}
            }
        }
    }

    fn run(&mut self, index: usize, now: u64, etcd: &mut EtcdModel, rng: &mut SplitMix64) {
        if let Some((_, token)) = self.is_released_at.take_if(|(when, _)| *when <= now) {
            self.enforced = 0;
            self.holder.on_released("web", token);
        }
        if now < self.at {
            return;
        }
        let delay = |rng: &mut SplitMix64| {
            if rng.next_below(20) == 0 { rng.next_below(3000) } else { rng.next_below(5) }
        };
        self.at = now + 1 + delay(rng);
        self.step = match std::mem::replace(&mut self.step, Step::Renew) {
            Step::Renew if self.holder.needs_baseline() => {
                if etcd.stale_until[index] > now {
                    return;
                }
                let server = EtcdServer { member: 1, term: etcd.term };
                self.holder.on_baseline(&EtcdView::new(server, etcd.entries.clone()));
                Step::Renew
            }
            Step::Renew => match self.holder.lease_id() {
                None if etcd.stale_until[index] > now => Step::Renew,
                None => {
                    self.next_lease += 2;
                    etcd.leases.push((self.next_lease, now + REAL_TTL));
                    self.holder.on_lease(self.next_lease, LEASE_TTL);
                    self.asked = now;
                    Step::Renew
                }
                // The request is under way since the step before.
                Some(id) => match etcd.renew(now, index, id) {
                    true => Step::Read(Some(LeaseProof { asked: at(self.asked), ttl: LEASE_TTL })),
                    false => {
                        let updates = self.holder.on_lease_lost();
                        self.take(now, updates, rng);
                        Step::Renew
                    }
                },
            },
            // Without a majority a read waits.
            Step::Read(proof) if etcd.stale_until[index] > now => {
                self.at = now + 1;
                // Some give it up and begin again with a renewal.
                if rng.next_below(100) == 0 {
                    self.asked = self.at;
                    Step::Renew
                } else {
                    Step::Read(proof)
                }
            }
            Step::Read(proof) => {
                let server = EtcdServer { member: 1, term: etcd.term };
                Step::Apply(proof, EtcdView::new(server, etcd.entries.clone()))
            }
            Step::Apply(proof, view) => {
                let (updates, writes) = self.holder.on_view(at(now), proof, &view);
                self.take(now, updates, rng);
                Step::Write(writes.into())
            }
            Step::Write(mut writes) => match writes.pop_front() {
                Some(write) if etcd.stale_until[index] > now => {
                    writes.push_front(write);
                    Step::Write(writes)
                }
                Some(write) => {
                    etcd.write(write);
                    Step::Write(writes)
                }
                None => {
                    self.asked = now;
                    self.at = now + if rng.next_below(2) == 0 { 400 } else { delay(rng) };
                    // The clock is read before the request leaves, however long that takes.
                    if rng.next_below(2) == 0 {
                        self.asked = self.at;
                    }
                    Step::Renew
                }
            },
        };
    }
}

/// F-70: crashes, pauses, moves and replaced leaders.
#[test]
fn f_70_no_two_nodes_are_enforced_whatever_etcds_leaders_do() {
    let (mut owned, mut changes) = (0, 0);
    for seed in 0..400 {
        let mut rng = SplitMix64::new(seed);
        let mut etcd = EtcdModel {
            entries: Vec::new(),
            leases: Vec::new(),
            revision: 1,
            term: 1,
            stale_until: [0; 2],
        };
        let mut nodes = [NodeModel::new(0, 0, 10), NodeModel::new(1, 0, 11)];
        let mut last = None;
        for now in 0..15_000 {
            etcd.tick(now);
            for (index, node) in nodes.iter_mut().enumerate() {
                node.run(index, now, &mut etcd, &mut rng);
            }
            let owners: Vec<usize> = (0..2).filter(|index| nodes[*index].enforced > now).collect();
            assert!(owners.len() < 2, "seed {seed}: two owners at {now} ms");
            owned += owners.len();
            changes += usize::from(!owners.is_empty() && last != owners.first().copied());
            last = owners.first().copied().or(last);
            let index = rng.next_below(2) as usize;
            match rng.next_below(6000) {
                0 => etcd.elect(now, &mut rng),
                1..4 => nodes[index].at += rng.next_below(4000),
                4..6 => {
                    // A process that starts replaces the fence before its engine starts.
                    nodes[index] = NodeModel::new(index, now, nodes[index].next_lease + 2);
                }
                6..8 => {
                    let is_able = rng.next_below(3) > 0;
                    nodes[index].holder.set_able("web", is_able);
                }
                _ => {}
            }
        }
    }
    assert!(owned > 500_000 && changes > 100, "{owned} ms owned, {changes} changes");
}
