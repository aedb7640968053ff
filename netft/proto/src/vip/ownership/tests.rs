//! Decisions one by one; their interplay is the simulator's.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use super::*;
use crate::{time::Time, vip::FencingToken};

const LEASE_TIME: Duration = Duration::from_millis(400);

fn at(millis: u64) -> Time {
    Time::from_millis(10_000 + millis)
}

fn report(node: &str, serial: u64) -> LeaseReport {
    LeaseReport {
        serial,
        node: node.to_owned(),
        able: vec!["v".to_owned()],
        next_within: Duration::from_secs(5),
        ..LeaseReport::default()
    }
}

/// A leader, the log it writes, and rules.
struct Cluster {
    leader: OwnershipLeader,
    state: OwnershipState,
    policies: Vec<VipPolicy>,
    index: u64,
}

impl Cluster {
    fn new(policy: VipPolicy) -> Self {
        Self {
            leader: OwnershipLeader::new(at(0), None, LeaseRules::DEFAULT),
            state: OwnershipState::default(),
            policies: vec![policy],
            index: 0,
        }
    }

    fn hear(&mut self, now: Time, report: &LeaseReport) {
        self.leader.on_report(now, &self.state, report);
    }

    /// Writes all decisions to the log; returns the owner of the first address.
    fn decide(&mut self, now: Time) -> Option<String> {
        loop {
            let commands = self.leader.poll_commands(now, &self.state, &self.policies);
            if commands.is_empty() {
                let record = self.state.record_of(&self.policies[0].name);
                return record.and_then(|record| record.owner.clone());
            }
            for command in commands {
                self.index += 1;
                let token = FencingToken { term: 1, index: self.index };
                assert!(self.state.apply_command(token, &command), "{command:?}");
            }
        }
    }

    fn ask(&mut self, now: Time, report: &LeaseReport) -> LeaseVerdict {
        self.hear(now, report);
        self.leader.answer_report(now, &self.state, &self.policies, report).vips[0].verdict
    }
}

fn policy(preferred: &[&str], failback: Failback) -> VipPolicy {
    let preferred = preferred.iter().map(|name| (*name).to_owned()).collect();
    VipPolicy { preferred, failback, ..VipPolicy::new("v", LEASE_TIME) }
}

#[test]
fn the_wait_covers_the_lease_on_every_clock_within_the_drift_bound() {
    let rules = LeaseRules::DEFAULT;
    let wait = rules.wait_after_grant(LEASE_TIME).as_secs_f64();
    let e = f64::from(rules.drift_ppm) / 1e6;
    // The leader's clock runs fast, the holder's slow.
    let leader_real = wait / (1.0 + e);
    let holder_real = (LEASE_TIME + rules.fence_delay).as_secs_f64() / (1.0 - e);
    assert!(leader_real >= holder_real, "{leader_real} {holder_real}");
    assert!(wait < holder_real * 1.01, "and not much longer: {wait}");
}

#[test]
fn a_silent_owners_address_waits_for_its_last_grant_to_end() {
    let mut cluster = Cluster::new(policy(&["a"], Failback::Never));
    cluster.hear(at(1), &report("a", 1));
    cluster.hear(at(1), &report("b", 1));
    assert_eq!(cluster.decide(at(1)).as_deref(), Some("a"));
    // Leases of an earlier leader may run.
    assert!(matches!(cluster.ask(at(2), &report("a", 2)), LeaseVerdict::Wait(_)));
    assert_eq!(cluster.ask(at(500), &report("a", 3)), LeaseVerdict::Granted(LEASE_TIME));
    cluster.leader.set_reachable("a", false);
    assert_eq!(cluster.decide(at(600)).as_deref(), Some("b"), "the log does not wait");
    let LeaseVerdict::Wait(wait) = cluster.ask(at(600), &report("b", 2)) else { panic!() };
    let whole = LeaseRules::DEFAULT.wait_after_grant(LEASE_TIME);
    assert_eq!(wait, whole - Duration::from_millis(100), "since the grant at 500");
    assert_eq!(cluster.ask(at(500) + whole, &report("b", 3)), LeaseVerdict::Granted(LEASE_TIME));
}

#[test]
fn a_lease_that_a_reload_shortened_is_waited_for_as_it_was_granted() {
    let mut cluster = Cluster::new(policy(&["a"], Failback::Never));
    cluster.hear(at(1), &report("a", 1));
    cluster.hear(at(1), &report("b", 1));
    cluster.decide(at(1));
    assert_eq!(cluster.ask(at(500), &report("a", 2)), LeaseVerdict::Granted(LEASE_TIME));
    let short = LEASE_TIME / 4;
    cluster.policies[0].lease = short;
    // This reply may be lost: the longer lease runs on then.
    assert_eq!(cluster.ask(at(510), &report("a", 3)), LeaseVerdict::Granted(short));
    cluster.leader.set_reachable("a", false);
    assert_eq!(cluster.decide(at(600)).as_deref(), Some("b"));
    let LeaseVerdict::Wait(wait) = cluster.ask(at(600), &report("b", 2)) else { panic!() };
    let whole = LeaseRules::DEFAULT.wait_after_grant(LEASE_TIME);
    assert_eq!(wait, whole - Duration::from_millis(100), "since the grant at 500");
}

/// The owner under a leader that is lost at 600; when the next leader, whose config has `lease`,
/// grants the address to another node.
fn granted_by_the_next_leader(cluster: &Cluster, lease: Duration) -> Time {
    let rules = LeaseRules::DEFAULT;
    let policies = vec![VipPolicy { lease, ..cluster.policies[0].clone() }];
    let leader = OwnershipLeader::new(at(700), Some(at(600)), rules);
    let (state, index) = (cluster.state.clone(), cluster.index);
    let mut next = Cluster { leader, state, policies, index };
    next.hear(at(700), &report("b", 1));
    next.leader.set_reachable("a", false);
    assert_eq!(next.decide(at(701)).as_deref(), Some("b"));
    let LeaseVerdict::Wait(wait) = next.ask(at(701), &report("b", 2)) else { panic!() };
    at(701) + wait
}

#[test]
fn a_later_leader_waits_for_the_lease_that_was_granted() {
    let mut cluster = Cluster::new(policy(&["a"], Failback::Never));
    cluster.hear(at(1), &report("a", 1));
    cluster.decide(at(1));
    assert_eq!(cluster.ask(at(500), &report("a", 2)), LeaseVerdict::Granted(LEASE_TIME));
    let whole = |lease| at(600) + LeaseRules::DEFAULT.wait_after_grant(lease);
    assert_eq!(granted_by_the_next_leader(&cluster, LEASE_TIME / 4), whole(LEASE_TIME));
    // A longer one is granted once the log has it.
    let long = LEASE_TIME * 2;
    cluster.policies[0].lease = long;
    assert_eq!(cluster.ask(at(510), &report("a", 3)), LeaseVerdict::Granted(LEASE_TIME));
    assert_eq!(granted_by_the_next_leader(&cluster, LEASE_TIME), whole(LEASE_TIME));
    cluster.decide(at(511));
    assert_eq!(granted_by_the_next_leader(&cluster, LEASE_TIME), whole(long));
    assert_eq!(cluster.ask(at(520), &report("a", 4)), LeaseVerdict::Granted(long));
    // A shorter one is granted at once, and the log has it when no longer one runs.
    let short = LEASE_TIME / 2;
    cluster.policies[0].lease = short;
    assert_eq!(cluster.ask(at(530), &report("a", 5)), LeaseVerdict::Granted(short));
    cluster.decide(at(531));
    assert_eq!(granted_by_the_next_leader(&cluster, short), whole(long));
    let ended = at(520) + LeaseRules::DEFAULT.wait_after_grant(long);
    let wake = cluster.leader.next_wake(at(531), &cluster.state, &cluster.policies);
    assert!(wake.is_some_and(|wake| wake <= ended), "{wake:?}");
    cluster.ask(at(1_000), &report("a", 6));
    cluster.decide(ended);
    assert_eq!(granted_by_the_next_leader(&cluster, short), whole(short));
}

#[test]
fn a_leader_shortens_no_lease_before_it_knows_the_whole_log() {
    let mut cluster = Cluster::new(policy(&["a"], Failback::Never));
    cluster.hear(at(1), &report("a", 1));
    cluster.decide(at(1));
    cluster.policies[0].lease = LEASE_TIME / 2;
    cluster.decide(at(60_000));
    assert_eq!(cluster.state.record_of("v").unwrap().lease, LEASE_TIME);
    cluster.ask(at(60_001), &report("a", 2));
    cluster.decide(at(61_000));
    assert_eq!(cluster.state.record_of("v").unwrap().lease, LEASE_TIME / 2);
}

#[test]
fn a_move_waits_for_the_release_only() {
    let mut cluster = Cluster::new(policy(&["a"], Failback::After(Duration::ZERO)));
    cluster.hear(at(1), &report("a", 1));
    cluster.hear(at(1), &report("b", 1));
    cluster.decide(at(1));
    assert_eq!(cluster.ask(at(500), &report("a", 2)), LeaseVerdict::Granted(LEASE_TIME));
    let held = cluster.state.record_of("v").unwrap().token;
    let moved = cluster.leader.request_move(at(501), &cluster.state, "v", Some("b"));
    assert_eq!(moved.as_deref(), Ok("b"));
    assert_eq!(cluster.decide(at(501)).as_deref(), Some("b"));
    assert!(cluster.leader.take_nudges().contains("a"), "it is told at once");
    assert!(matches!(cluster.ask(at(502), &report("b", 2)), LeaseVerdict::Wait(_)));
    assert_eq!(cluster.ask(at(503), &report("a", 3)), LeaseVerdict::NotOwner);
    let mut released = report("a", 4);
    released.released.push(("v".to_owned(), held));
    cluster.hear(at(504), &released);
    let grants = cluster.leader.take_grants(at(504), &cluster.state, &cluster.policies);
    let [(node, reply)] = &grants[..] else { panic!("{grants:?}") };
    assert_eq!((node.as_str(), reply.serial), ("b", 2), "by its report that had to wait");
    assert_eq!(reply.vips[0].verdict, LeaseVerdict::Granted(LEASE_TIME));
    assert_eq!(cluster.ask(at(505), &report("b", 3)), LeaseVerdict::Granted(LEASE_TIME));
    // The operator's choice stands against the preferred node.
    assert_eq!(cluster.decide(at(5000)).as_deref(), Some("b"));
}

#[test]
fn an_address_returns_to_its_preferred_node_as_the_rules_say() {
    let hold = Duration::from_millis(300);
    for (failback, back_at) in [
        (Failback::Never, None),
        (Failback::After(Duration::ZERO), Some(1000)),
        (Failback::After(hold), Some(1300)),
    ] {
        let mut cluster = Cluster::new(policy(&["a", "b"], failback));
        cluster.hear(at(700), &report("b", 1));
        assert_eq!(cluster.decide(at(700)).as_deref(), Some("b"));
        cluster.hear(at(1000), &report("a", 1));
        let times = [1000, 1299, 1300, 4000];
        let back = times.into_iter().find(|t| cluster.decide(at(*t)).as_deref() == Some("a"));
        assert_eq!(back, back_at, "{failback:?}");
    }
}

#[test]
fn addresses_keep_company_and_distance() {
    let mut cluster = Cluster::new(policy(&["a"], Failback::Never));
    let with = VipPolicy { together_with: vec!["v".to_owned()], ..VipPolicy::new("w", LEASE_TIME) };
    let apart = VipPolicy { apart_from: vec!["v".to_owned()], ..VipPolicy::new("x", LEASE_TIME) };
    cluster.policies.extend([with, apart]);
    for node in ["a", "b"] {
        let mut report = report(node, 1);
        report.able = ["v", "w", "x"].map(str::to_owned).to_vec();
        cluster.hear(at(800), &report);
    }
    cluster.decide(at(800));
    let owner = |cluster: &Cluster, vip: &str| cluster.state.record_of(vip)?.owner.clone();
    assert_eq!(owner(&cluster, "w").as_deref(), Some("a"));
    assert_eq!(owner(&cluster, "x").as_deref(), Some("b"));
    cluster.leader.request_move(at(801), &cluster.state, "v", Some("b")).unwrap();
    cluster.decide(at(801));
    assert_eq!(owner(&cluster, "w").as_deref(), Some("b"));
    assert_eq!(owner(&cluster, "x").as_deref(), Some("a"));
}

#[test]
fn a_node_that_cannot_carry_the_address_gives_it_up() {
    let mut cluster = Cluster::new(policy(&[], Failback::Never));
    cluster.hear(at(800), &report("a", 1));
    assert_eq!(cluster.decide(at(800)).as_deref(), Some("a"));
    let unable = LeaseReport { able: Vec::new(), ..report("a", 2) };
    cluster.hear(at(900), &unable);
    assert_eq!(cluster.decide(at(900)), None, "nobody is better than a broken service");
    cluster.hear(at(950), &report("b", 1));
    assert_eq!(cluster.decide(at(950)).as_deref(), Some("b"));
    assert!(cluster.leader.request_move(at(951), &cluster.state, "v", Some("a")).is_err());
}

#[test]
fn an_address_that_the_config_lost_is_taken_away_and_forgotten() {
    let mut cluster = Cluster::new(policy(&[], Failback::Never));
    cluster.hear(at(800), &report("a", 1));
    cluster.decide(at(800));
    cluster.ask(at(801), &report("a", 2));
    cluster.policies[0].name = "other".to_owned();
    cluster.decide(at(802));
    assert_eq!(cluster.state.record_of("v").unwrap().owner, None);
    // Who gives it anew, with a shorter lease, must not do it while this one runs.
    let ended = at(801) + LeaseRules::DEFAULT.wait_after_grant(LEASE_TIME);
    assert_eq!(cluster.leader.next_wake(at(802), &cluster.state, &cluster.policies), Some(ended));
    cluster.decide(ended);
    assert!(cluster.state.record_of("v").is_none());
}

#[test]
fn a_holder_ignores_what_was_overtaken_and_lets_go_first() {
    let mut holder = LeaseHolder::new("a", at(0));
    holder.set_able(at(0), "v", true);
    let word = |index: u64, owner: &str, verdict| VipVerdict {
        vip: "v".to_owned(),
        owner: Some(owner.to_owned()),
        token: FencingToken { term: 1, index },
        verdict,
        reason: String::new(),
    };
    let reply = |serial, word| LeaseReply { serial, vips: vec![word], ..LeaseReply::default() };
    let first = holder.poll_report(at(0)).unwrap();
    let granted = reply(first.serial, word(1, "a", LeaseVerdict::Granted(LEASE_TIME)));
    let updates = holder.on_reply(at(30), &granted);
    let until = at(0) + LEASE_TIME;
    let token = FencingToken { term: 1, index: 1 };
    let expected = HolderUpdate::Granted { vip: "v".to_owned(), token, until, lease: LEASE_TIME };
    assert_eq!(updates.last(), Some(&expected), "counted from the request");
    let late = holder.poll_report(at(200)).unwrap();
    let next = holder.poll_report(at(400)).unwrap();
    let updates =
        holder.on_reply(at(410), &reply(next.serial, word(2, "b", LeaseVerdict::NotOwner)));
    assert!(matches!(updates.last(), Some(HolderUpdate::Revoked { .. })));
    // The grant of the earlier report arrives after the revocation.
    let overtaken = reply(late.serial, word(1, "a", LeaseVerdict::Granted(LEASE_TIME)));
    assert_eq!(holder.on_reply(at(420), &overtaken), []);
    holder.on_released(at(430), "v", FencingToken { term: 1, index: 2 });
    let report = holder.poll_report(at(430)).unwrap();
    assert_eq!(report.released, [("v".to_owned(), token)]);
    assert_eq!(report.holds, []);
}

#[test]
fn an_owner_that_lets_go_by_itself_is_replaced_at_once_and_never_granted_that_token_again() {
    let mut cluster = Cluster::new(policy(&["a"], Failback::Never));
    let mut holder = LeaseHolder::new("a", at(0));
    holder.set_able(at(0), "v", true);
    cluster.hear(at(1), &report("b", 1));
    let first = holder.poll_report(at(1)).unwrap();
    cluster.hear(at(1), &first);
    cluster.decide(at(1));
    let report_at = |holder: &mut LeaseHolder, now| {
        holder.request_report(now);
        holder.poll_report(now).unwrap()
    };
    let second = report_at(&mut holder, at(500));
    let reply = cluster.leader.answer_report(at(500), &cluster.state, &cluster.policies, &second);
    assert!(matches!(holder.on_reply(at(501), &reply)[..], [_, HolderUpdate::Granted { .. }]));
    let late = report_at(&mut holder, at(510));
    let late = cluster.leader.answer_report(at(510), &cluster.state, &cluster.policies, &late);
    let token = cluster.state.record_of("v").unwrap().token;
    holder.set_able(at(511), "v", false);
    holder.on_released(at(511), "v", token);
    assert_eq!(holder.on_reply(at(512), &late), [], "a grant that crossed the release");
    let last = report_at(&mut holder, at(513));
    assert_eq!(last.released, [("v".to_owned(), token)]);
    cluster.hear(at(513), &last);
    assert_eq!(cluster.decide(at(513)).as_deref(), Some("b"));
    assert_eq!(cluster.ask(at(514), &report("b", 2)), LeaseVerdict::Granted(LEASE_TIME));
}

#[test]
fn votes_bound_the_leases_of_earlier_leaders_only_as_a_majority() {
    let rules = LeaseRules::DEFAULT;
    let mut ages = VoteAges::default();
    ages.add_vote(4, 1, at(1000), Duration::from_millis(300), &rules);
    assert_eq!(ages.newest_ack(4, 3), None, "one of three");
    ages.add_vote(4, 1, at(1000), Duration::from_millis(300), &rules);
    assert_eq!(ages.newest_ack(4, 3), None, "the same one");
    ages.add_vote(4, 2, at(1010), Duration::from_millis(200), &rules);
    let newest = ages.newest_ack(4, 3).unwrap();
    assert!(newest >= at(810) && newest < at(812), "{newest}");
    assert_eq!(ages.newest_ack(5, 3), None, "another term");
    let mut clock = AckClock::new(at(0));
    clock.begin_ack();
    assert_eq!(clock.age(at(500)), Duration::ZERO, "one is under way");
    clock.end_ack(at(600));
    assert_eq!(clock.age(at(700)), Duration::from_millis(100));
}

/// F-141.
#[test]
fn a_wait_that_was_long_ends_with_a_new_report() {
    let mut cluster = Cluster::new(policy(&["a"], Failback::Never));
    cluster.hear(at(1), &report("a", 1));
    cluster.hear(at(1), &report("b", 1));
    cluster.decide(at(1));
    cluster.ask(at(500), &report("a", 2));
    let held = cluster.state.record_of("v").unwrap().token;
    cluster.leader.request_move(at(501), &cluster.state, "v", Some("b")).unwrap();
    cluster.decide(at(501));
    assert!(matches!(cluster.ask(at(502), &report("b", 2)), LeaseVerdict::Wait(_)));
    cluster.leader.take_nudges();
    let released = vec![("v".to_owned(), held)];
    cluster.hear(at(703), &LeaseReport { released, ..report("a", 3) });
    // What is left of a lease from 502 would not outlast the next renewal.
    assert_eq!(cluster.leader.take_grants(at(703), &cluster.state, &cluster.policies), []);
    assert!(cluster.leader.take_nudges().contains("b"));
}

/// F-141.
#[test]
fn a_grant_that_follows_a_wait_counts_from_the_same_request() {
    let mut holder = LeaseHolder::new("b", at(0));
    let token = FencingToken { term: 1, index: 2 };
    let reply = |serial, verdict| LeaseReply {
        serial,
        vips: vec![VipVerdict {
            vip: "v".to_owned(),
            owner: Some("b".to_owned()),
            token,
            verdict,
            reason: String::new(),
        }],
        ..LeaseReply::default()
    };
    let serial = holder.poll_report(at(0)).unwrap().serial;
    let wait = reply(serial, LeaseVerdict::Wait(Duration::from_millis(300)));
    assert_eq!(holder.on_reply(at(2), &wait).len(), 1, "the owner is told");
    let granted = reply(serial, LeaseVerdict::Granted(LEASE_TIME));
    let until = at(0) + LEASE_TIME;
    let expected = HolderUpdate::Granted { vip: "v".to_owned(), token, until, lease: LEASE_TIME };
    assert_eq!(holder.on_reply(at(9), &granted), [expected]);
    assert_eq!(holder.on_reply(at(10), &granted), [], "only one follows");
}

/// F-96.
#[test]
fn a_renewal_names_only_what_the_node_does_not_know() {
    let names: Vec<_> = (0..100).map(|number| format!("v{number}")).collect();
    let mut cluster = Cluster::new(policy(&[], Failback::Never));
    cluster.policies = names.iter().map(|name| VipPolicy::new(name, LEASE_TIME)).collect();
    let mut holder = LeaseHolder::new("a", at(0));
    names.iter().for_each(|name| holder.set_able(at(0), name, true));
    let exchange = |cluster: &mut Cluster, holder: &mut LeaseHolder, now| {
        holder.request_report(now);
        let report = holder.poll_report(now).unwrap();
        cluster.hear(now, &report);
        let Cluster { leader, state, policies, .. } = cluster;
        let reply = leader.answer_report(now, state, policies, &report);
        let granted = holder.on_reply(now, &reply);
        let is_grant = |update: &&HolderUpdate| matches!(update, HolderUpdate::Granted { .. });
        (reply.vips.len(), granted.iter().filter(is_grant).count())
    };
    exchange(&mut cluster, &mut holder, at(800));
    cluster.decide(at(800));
    assert_eq!(exchange(&mut cluster, &mut holder, at(801)), (100, 100));
    for time in [900, 1_000] {
        assert_eq!(exchange(&mut cluster, &mut holder, at(time)), (0, 100));
    }
    // One changes its owner, one its lease, and the config loses one.
    cluster.hear(at(1_001), &LeaseReport { able: names.clone(), ..report("b", 1) });
    cluster.leader.request_move(at(1_001), &cluster.state, "v7", Some("b")).unwrap();
    cluster.policies[8].lease = LEASE_TIME / 2;
    cluster.policies.remove(9);
    cluster.decide(at(1_001));
    assert_eq!(exchange(&mut cluster, &mut holder, at(1_002)), (3, 98));
    // Another leader knows what the node knows by the report alone.
    cluster.leader = OwnershipLeader::new(at(1_010), None, LeaseRules::DEFAULT);
    assert_eq!(exchange(&mut cluster, &mut holder, at(1_011)).1, 98);
}

/// F-96.
#[test]
fn decisions_of_one_moment_take_few_entries() {
    let names: Vec<_> = (0..100).map(|number| format!("v{number}")).collect();
    let mut cluster = Cluster::new(policy(&[], Failback::Never));
    cluster.policies = names.iter().map(|name| VipPolicy::new(name, LEASE_TIME)).collect();
    cluster.hear(at(800), &LeaseReport { able: names, ..report("a", 1) });
    let commands = cluster.leader.poll_commands(at(800), &cluster.state, &cluster.policies);
    assert_eq!(commands.len(), 100);
    let entries = OwnershipCommand::into_entries(commands);
    assert_eq!(entries.len(), 4);
    for (index, entry) in (1..).zip(&entries) {
        assert!(cluster.state.apply_command(FencingToken { term: 1, index }, entry));
    }
    let owned = cluster.state.records().filter(|(_, record)| record.owner.is_some());
    assert_eq!(owned.count(), 100);
}

/// F-102.
#[test]
fn a_bound_that_reaches_the_log_twice_undoes_none_in_between() {
    let mut cluster = Cluster::new(policy(&["a"], Failback::Never));
    cluster.hear(at(1), &report("a", 1));
    cluster.decide(at(1));
    let bound = |cluster: &Cluster, lease| OwnershipCommand::SetLease {
        vip: "v".to_owned(),
        lease,
        expected: Some(cluster.state.record_of("v").unwrap().lease_token),
    };
    let apply = |cluster: &mut Cluster, command: &OwnershipCommand| {
        cluster.index += 1;
        let token = FencingToken { term: 1, index: cluster.index };
        cluster.state.apply_command(token, command)
    };
    let shorter = bound(&cluster, LEASE_TIME / 2);
    assert!(apply(&mut cluster, &shorter));
    let longer = bound(&cluster, LEASE_TIME);
    assert!(apply(&mut cluster, &longer));
    // The address has the same lease again, which may run.
    assert!(!apply(&mut cluster, &shorter));
    assert_eq!(cluster.state.record_of("v").unwrap().lease, LEASE_TIME);
}

/// F-140.
#[test]
fn a_new_leader_waits_a_moment_for_a_better_node_to_report() {
    let mut cluster = Cluster::new(policy(&["a", "b"], Failback::Never));
    cluster.hear(at(1), &report("a", 1));
    cluster.decide(at(1));
    let elected = |cluster: &mut Cluster| {
        cluster.leader = OwnershipLeader::new(at(500), Some(at(100)), LeaseRules::DEFAULT);
        let asked = ["b", "c"].map(str::to_owned).into();
        cluster.leader.ask_nodes(at(500), asked);
        assert!(cluster.leader.take_nudges().contains("b"));
        cluster.leader.set_reachable("a", false);
        cluster.hear(at(501), &report("c", 1));
        assert_eq!(cluster.decide(at(501)).as_deref(), Some("a"), "b may report any moment");
    };
    let before = (cluster.state.clone(), cluster.index);
    elected(&mut cluster);
    cluster.hear(at(503), &report("b", 1));
    assert_eq!(cluster.decide(at(503)).as_deref(), Some("b"));
    // One that does not report costs no more than that moment.
    (cluster.state, cluster.index) = before.clone();
    elected(&mut cluster);
    let wake = cluster.leader.next_wake(at(501), &cluster.state, &cluster.policies).unwrap();
    assert!(wake <= at(600), "{wake}");
    assert_eq!(cluster.decide(wake).as_deref(), Some("c"));
    (cluster.state, cluster.index) = before;
    elected(&mut cluster);
    cluster.leader.set_reachable("b", false);
    assert_eq!(cluster.decide(at(502)).as_deref(), Some("c"), "b is dead, too");
}
