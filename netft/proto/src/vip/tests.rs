//! One node's machine in virtual time.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use super::{
    FencingToken, MacAddress, NeighborKind, NeighborMessage, VipAction, VipGrant, VipInput,
    VipLink, VipMachine, VipState,
};
use crate::time::Time;

const FOREIGN_MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 9]);
const LEASE_TIME: Duration = Duration::from_millis(400);

fn v4() -> IpAddr {
    "10.1.0.80".parse().expect("an address")
}

fn v6() -> IpAddr {
    "fd01::80".parse().expect("an address")
}

fn token(index: u64) -> FencingToken {
    FencingToken { term: 1, index }
}

fn link(index: u32) -> VipInput {
    let mac = MacAddress([2, 0, 0, 0, 0, index as u8]);
    VipInput::Link(Ok(VipLink { index, name: "eth0".to_owned(), mac }))
}

fn claim(addr: IpAddr, kind: NeighborKind) -> VipInput {
    VipInput::Heard(NeighborMessage { addr, mac: FOREIGN_MAC, kind })
}

/// A machine and its clock, with everything it did.
struct TestNode {
    machine: VipMachine,
    now: Time,
    /// Renewed by `run`, as by an engine.
    renewal: Option<(FencingToken, bool)>,
    renewed: Time,
    done: Vec<(u64, VipAction)>,
    /// Addresses on the interface.
    present: BTreeSet<IpAddr>,
}

impl TestNode {
    fn new(addrs: Vec<IpAddr>) -> Self {
        let mut node = Self {
            machine: VipMachine::new(addrs, Ok(()), 7),
            now: Time::from_millis(1000),
            renewal: None,
            renewed: Time::ZERO,
            done: Vec::new(),
            present: BTreeSet::new(),
        };
        node.input(link(1));
        node.done.clear();
        node
    }

    fn input(&mut self, input: VipInput) -> Vec<VipAction> {
        self.machine.on_input(self.now, input);
        let mut actions = Vec::new();
        while let Some(action) = self.machine.poll_action() {
            match &action {
                VipAction::AddAddress(addr) => drop(self.present.insert(*addr)),
                VipAction::RemoveAddress(addr) => drop(self.present.remove(addr)),
                _ => {}
            }
            self.done.push((self.now.as_millis(), action.clone()));
            actions.push(action);
        }
        actions
    }

    fn grant(&mut self, index: u64, is_proven: bool) -> Vec<VipAction> {
        self.renewal = Some((token(index), is_proven));
        self.renew()
    }

    fn renew(&mut self) -> Vec<VipAction> {
        self.renewed = self.now;
        let Some((token, is_proven)) = self.renewal else { return Vec::new() };
        let until = self.now + LEASE_TIME;
        self.input(VipInput::Grant(VipGrant { token, until, is_proven }))
    }

    /// Runs until `millis` later, with a renewal every 100 ms.
    fn run(&mut self, millis: u64) {
        let end = self.now + Duration::from_millis(millis);
        while self.now < end {
            let renewal = self.renewed + Duration::from_millis(100);
            let wake = self.machine.next_wake().unwrap_or(end);
            let next = wake.min(renewal).min(end).max(self.now);
            self.now = next;
            if next >= renewal {
                self.renew();
            }
            self.input(VipInput::Timer);
            let wake = self.machine.next_wake();
            assert!(wake.is_none_or(|wake| wake > self.now), "due after its timer: {wake:?}");
        }
    }

    fn times(&self, wanted: impl Fn(&VipAction) -> bool) -> Vec<u64> {
        self.done.iter().filter(|(_, action)| wanted(action)).map(|(at, _)| *at).collect()
    }

    fn first(&self, wanted: &VipAction) -> u64 {
        let times = self.times(|action| action == wanted);
        *times.first().unwrap_or_else(|| panic!("no {wanted:?} in {:?}", self.done))
    }
}

#[test]
fn a_proven_owner_permits_configures_announces_and_then_probes() {
    let mut node = TestNode::new(vec![v4(), v6()]);
    let actions = node.grant(1, true);
    let expected = [
        VipAction::Permit(Time::from_millis(1400)),
        VipAction::AddAddress(v4()),
        VipAction::AddAddress(v6()),
        VipAction::Report(VipState::Online),
        VipAction::Announce(v4()),
        VipAction::Probe(v4()),
        VipAction::Announce(v6()),
        VipAction::Probe(v6()),
    ];
    assert_eq!(actions, expected);
}

#[test]
fn without_proof_nothing_is_configured_before_the_probes_are_over() {
    let mut node = TestNode::new(vec![v4(), v6()]);
    assert_eq!(node.grant(1, false), [VipAction::Report(VipState::Starting)]);
    node.run(8000);
    let probes = node.times(|action| *action == VipAction::Probe(v4()));
    assert_eq!(probes.len(), 3, "PROBE_NUM of RFC 5227");
    assert_eq!(node.times(|action| *action == VipAction::Probe(v6())).len(), 1);
    let added = node.first(&VipAction::AddAddress(v4()));
    assert!(added >= probes[2] + 2000, "ANNOUNCE_WAIT of RFC 5227");
    assert_eq!(node.first(&VipAction::Announce(v4())), added);
    let permitted = node.times(|action| matches!(action, VipAction::Permit(_)));
    assert_eq!(permitted[0], added, "the kernel permits no address that is only probed for");
    assert_eq!(node.machine.state(), &VipState::Online);
}

#[test]
fn a_conflict_leaves_the_address_unconfigured_and_names_the_holder() {
    for kind in [NeighborKind::Claim, NeighborKind::Probe] {
        let mut node = TestNode::new(vec![v4()]);
        node.grant(1, false);
        node.run(1500);
        node.input(claim(v4(), kind));
        let state = node.machine.state().clone();
        assert!(state.reason().is_some_and(|reason| reason.contains("02:00:00:00:00:09")));
        assert_eq!(state.as_str(), "failed");
        node.run(9000);
        assert!(node.present.is_empty() && node.machine.state() == &state);
        // The host is gone: it is tried again by itself.
        node.run(9000);
        assert_eq!(node.machine.state(), &VipState::Online);
    }
}

#[test]
fn conflicts_that_follow_each_other_are_tried_once_a_minute() {
    let mut node = TestNode::new(vec![v4()]);
    node.grant(1, false);
    let mut conflicts = Vec::new();
    while conflicts.len() < 13 {
        let before = node.done.len();
        node.run(100);
        if node.done[before..].iter().any(|(_, action)| *action == VipAction::Probe(v4())) {
            conflicts.push(node.now.as_millis());
            node.input(claim(v4(), NeighborKind::Claim));
        }
    }
    let pauses: Vec<_> = conflicts.windows(2).map(|two| two[1] - two[0]).collect();
    assert!(pauses[..9].iter().all(|pause| (10_000..11_200).contains(pause)), "{pauses:?}");
    assert!(pauses[10..].iter().all(|pause| *pause >= 60_000), "{pauses:?}");
    assert!(node.present.is_empty());
}

#[test]
fn a_lease_without_renewal_removes_the_address_on_time() {
    let mut node = TestNode::new(vec![v4(), v6()]);
    node.grant(1, true);
    node.renewal = None;
    node.run(2000);
    for action in [VipAction::Forbid, VipAction::RemoveAddress(v4())] {
        assert_eq!(node.first(&action), 1400, "{action:?}");
    }
    assert!(node.present.is_empty());
    assert_eq!(node.machine.state().as_str(), "offline");
    // However late the timer is, an ended lease permits nothing.
    let mut node = TestNode::new(vec![v4()]);
    node.grant(1, true);
    node.now = Time::from_millis(5000);
    let actions = node.input(VipInput::Announce);
    assert!(!actions.contains(&VipAction::Announce(v4())), "{actions:?}");
    assert!(actions.contains(&VipAction::RemoveAddress(v4())));
}

#[test]
fn a_stale_or_ended_grant_permits_nothing() {
    let mut node = TestNode::new(vec![v4()]);
    node.grant(5, true);
    let until = node.now + LEASE_TIME;
    let stale = VipGrant { token: token(4), until: until + LEASE_TIME, is_proven: true };
    assert_eq!(node.input(VipInput::Grant(stale)), []);
    assert_eq!(node.machine.grant().map(|grant| grant.until), Some(until));
    assert_eq!(node.input(VipInput::Revoke(token(4), "stale".to_owned())), []);
    let mut node = TestNode::new(vec![v4()]);
    let ended = VipGrant { token: token(1), until: node.now, is_proven: true };
    assert_eq!(node.input(VipInput::Grant(ended)), []);
}

#[test]
fn a_revoked_address_is_silent_and_gone_before_it_is_released() {
    let mut node = TestNode::new(vec![v4()]);
    node.grant(1, true);
    node.renewal = None;
    let actions = node.input(VipInput::Revoke(token(2), "moved".to_owned()));
    let expected = [
        VipAction::Forbid,
        VipAction::RemoveAddress(v4()),
        VipAction::Released(token(2)),
        VipAction::Report(VipState::Offline("moved".to_owned())),
    ];
    assert_eq!(actions, expected);
    // An engine that lost the answer asks again.
    let again = node.input(VipInput::Revoke(token(2), "moved".to_owned()));
    assert_eq!(again, [VipAction::Released(token(2))]);
}

#[test]
fn a_foreign_claim_is_answered_at_most_once_in_ten_seconds() {
    let mut node = TestNode::new(vec![v4()]);
    node.grant(1, true);
    node.run(6000);
    node.done.clear();
    for _ in 0..250 {
        node.run(100);
        node.input(claim(v4(), NeighborKind::Claim));
    }
    let defended = node.times(|action| matches!(action, VipAction::Defend(_)));
    assert_eq!(defended.len(), 3, "{defended:?}");
    assert!(defended.windows(2).all(|two| two[1] - two[0] >= 10_000));
    assert_eq!(node.machine.state(), &VipState::Online, "the rightful owner keeps it");
}

#[test]
fn a_host_that_answers_the_probes_beside_the_use_is_a_conflict() {
    let mut node = TestNode::new(vec![v4()]);
    node.grant(1, true);
    // A claim that was on its way before the grant.
    node.input(claim(v4(), NeighborKind::Claim));
    assert_eq!(node.machine.state(), &VipState::Online);
    node.renewal = None;
    node.now = node.now + Duration::from_millis(300);
    let actions = node.input(claim(v4(), NeighborKind::Claim));
    assert_eq!(actions[..2], [VipAction::Forbid, VipAction::RemoveAddress(v4())]);
    assert!(actions.contains(&VipAction::Released(token(1))), "{actions:?}");
    assert!(actions.iter().any(|action| matches!(action, VipAction::Able(Err(_)))));
    // The engine hears when the conflict is over.
    node.run(20_000);
    assert_eq!(node.times(|action| *action == VipAction::Able(Ok(()))).len(), 1);
    // Its own frames, and other addresses, are no conflict.
    let mut node = TestNode::new(vec![v4()]);
    node.grant(1, true);
    for _ in 0..9 {
        node.run(300);
        let own = NeighborMessage {
            addr: v4(),
            mac: MacAddress([2, 0, 0, 0, 0, 1]),
            kind: NeighborKind::Claim,
        };
        node.input(VipInput::Heard(own));
        node.input(claim(v6(), NeighborKind::Claim));
    }
    assert_eq!(node.machine.state(), &VipState::Online);
}

#[test]
fn an_address_that_another_program_removes_is_put_back_ever_more_rarely() {
    let mut node = TestNode::new(vec![v4()]);
    node.grant(1, true);
    node.run(6000);
    node.done.clear();
    for _ in 0..600 {
        node.run(100);
        node.present.clear();
        node.input(VipInput::Present(BTreeSet::new()));
    }
    let restored = node.times(|action| *action == VipAction::Restored(v4()));
    assert!((15..25).contains(&restored.len()), "{restored:?}");
    node.done.clear();
    node.run(20_000);
    let present = node.present.clone();
    node.input(VipInput::Present(present));
    node.done.clear();
    assert_eq!(node.input(VipInput::Present(BTreeSet::new()))[0], VipAction::AddAddress(v4()));
}

#[test]
fn what_a_crash_left_on_the_interface_is_removed() {
    let mut node = TestNode::new(vec![v4(), v6()]);
    let actions = node.input(VipInput::Present([v6()].into()));
    assert_eq!(actions, [VipAction::RemoveAddress(v6())]);
}

#[test]
fn a_lost_interface_gives_the_address_back_and_another_one_takes_it() {
    let mut node = TestNode::new(vec![v4()]);
    node.grant(1, true);
    let actions = node.input(VipInput::Link(Err("eth0 has no carrier".to_owned())));
    let expected = [
        VipAction::Forbid,
        VipAction::RemoveAddress(v4()),
        VipAction::Able(Err("eth0 has no carrier".to_owned())),
        VipAction::Released(token(1)),
        VipAction::Report(VipState::Failed("eth0 has no carrier".to_owned())),
    ];
    // The removal comes before the loss is told.
    let place = |wanted: &VipAction| actions.iter().position(|action| action == wanted);
    assert!(expected.iter().all(|action| place(action).is_some()), "{actions:?}");
    assert!(place(&expected[1]) < place(&expected[3]));
    assert_eq!(node.input(link(2))[0], VipAction::Able(Ok(())));
    // The operator's wish outlives the loss: it is probed for again.
    let mut node = TestNode::new(vec![v4()]);
    node.grant(1, false);
    node.run(8000);
    node.input(VipInput::Link(Err("gone".to_owned())));
    node.run(1000);
    assert_eq!(node.machine.state(), &VipState::Failed("gone".to_owned()));
    node.input(link(2));
    assert_eq!(node.machine.state(), &VipState::Starting);
    node.run(8000);
    assert_eq!(node.machine.state(), &VipState::Online);
}

#[test]
fn an_owner_whose_check_fails_gives_the_address_away() {
    let mut node = TestNode::new(vec![v4()]);
    node.grant(1, true);
    let actions = node.input(VipInput::Health(Err("port 5432 refused".to_owned())));
    assert!(actions.contains(&VipAction::Released(token(1))), "{actions:?}");
    assert!(node.present.is_empty());
    // A grant to a node that said so is given back.
    let actions = node.grant(2, true);
    assert!(actions.contains(&VipAction::Released(token(2))), "{actions:?}");
    assert!(node.input(VipInput::Health(Ok(()))).contains(&VipAction::Able(Ok(()))));
}

#[test]
fn what_the_kernel_refuses_is_released_and_tried_again() {
    let mut node = TestNode::new(vec![v4()]);
    node.grant(1, true);
    node.renewal = None;
    let actions = node.input(VipInput::Refused("nftables is missing".to_owned()));
    assert_eq!(actions[..2], [VipAction::Forbid, VipAction::RemoveAddress(v4())]);
    assert!(actions.contains(&VipAction::Released(token(1))), "{actions:?}");
    node.run(3000);
    assert_eq!(node.times(|action| *action == VipAction::Able(Ok(()))).len(), 1);
}

#[test]
fn an_assigned_address_is_taken_when_it_comes_and_let_go_when_it_goes() {
    let mut node = TestNode::new(Vec::new());
    node.grant(1, true);
    assert_eq!(node.machine.state(), &VipState::Starting);
    node.run(3000);
    assert!(node.present.is_empty() && node.machine.is_granted(), "it waits, and keeps the lease");
    node.input(VipInput::Assigned(vec![v4()]));
    assert_eq!(node.machine.state(), &VipState::Online);
    assert!(node.present.contains(&v4()));
    assert_eq!(node.input(VipInput::Assigned(vec![v4()])), [], "a renewal changes nothing");
    // Another address: the old one is silent and gone first.
    let actions = node.input(VipInput::Assigned(vec!["10.1.0.81".parse().expect("an address")]));
    assert_eq!(actions[..2], [VipAction::Forbid, VipAction::RemoveAddress(v4())]);
    node.input(VipInput::Unassigned("its lease ended".to_owned()));
    assert!(node.present.is_empty());
    assert_eq!(node.machine.state(), &VipState::Failed("its lease ended".to_owned()));
    assert!(node.machine.is_granted(), "others are asked for");
    // Nobody assigns one: the engine gets its lease back, and may try again later.
    let actions = node.input(VipInput::Refused("no server".to_owned()));
    assert!(actions.contains(&VipAction::Released(token(1))), "{actions:?}");
    assert!(actions.contains(&VipAction::Able(Err("no server".to_owned()))), "{actions:?}");
    node.renewal = None;
    node.run(2100);
    assert!(node.done.iter().any(|(_, action)| *action == VipAction::Able(Ok(()))));
}

#[test]
fn a_conflict_of_an_assigned_address_is_told_once() {
    let mut node = TestNode::new(Vec::new());
    node.grant(1, true);
    node.input(VipInput::Assigned(vec![v4()]));
    node.run(500);
    node.input(claim(v4(), NeighborKind::Claim));
    node.run(300);
    let actions = node.input(claim(v4(), NeighborKind::Claim));
    assert_eq!(actions.last(), Some(&VipAction::Conflict(v4())), "{actions:?}");
    node.input(VipInput::Unassigned("declined".to_owned()));
    node.renewal = None;
    node.run(2100);
    assert!(node.present.is_empty() && !node.machine.is_granted());
}
