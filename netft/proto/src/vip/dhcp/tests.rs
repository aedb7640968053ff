//! The client in virtual time, against servers of every kind.

use std::{net::Ipv4Addr, time::Duration};

use proptest::prelude::*;

use super::{
    DhcpAction, DhcpClient, DhcpInput, DhcpLease, DhcpReply, DhcpReplyKind, DhcpRequest,
    DhcpRequestKind, DhcpState, IgnoreReason,
};
use crate::{time::Time, vip::MacAddress};

const SERVER_ADDR: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);
const OTHER_SERVER: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 2);
const LEASED_ADDR: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 80);
const OTHER_ADDR: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 81);
const SERVER_MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
/// T1, T2 and end of a lease with the defaults: 60 s, 105 s, 120 s.
const LEASE_SECS: u32 = 120;

struct TestClient {
    client: DhcpClient,
    now: Time,
}

impl TestClient {
    fn new(seed: u64) -> Self {
        Self { client: DhcpClient::new(seed), now: Time::from_millis(10_000) }
    }

    fn input(&mut self, input: DhcpInput) -> Vec<DhcpAction> {
        self.client.on_input(self.now, input);
        std::iter::from_fn(|| self.client.poll_action()).collect()
    }

    /// Takes the timer at its time.
    fn wake(&mut self) -> Vec<DhcpAction> {
        let wake = self.client.next_wake().expect("a timer");
        assert!(wake > self.now || self.client.state() == DhcpState::Bound, "due at once");
        self.now = self.now.max(wake);
        self.input(DhcpInput::Timer)
    }

    fn answer(&self, kind: DhcpReplyKind, addr: Ipv4Addr) -> DhcpReply {
        DhcpReply {
            kind,
            xid: self.client.xid(),
            addr,
            server: Some(SERVER_ADDR),
            lease_secs: Some(LEASE_SECS),
            renew_secs: None,
            rebind_secs: None,
            from: SERVER_MAC,
        }
    }

    fn reply(&mut self, kind: DhcpReplyKind, addr: Ipv4Addr) -> Vec<DhcpAction> {
        let reply = self.answer(kind, addr);
        self.input(DhcpInput::Reply { reply, is_taken: false })
    }

    fn ignores(&mut self, reply: DhcpReply, is_taken: bool, reason: IgnoreReason) {
        let before = (self.client.state(), self.client.lease().copied());
        let count = |client: &DhcpClient| client.ignored().get(&reason).copied().unwrap_or(0);
        let counted = count(&self.client);
        assert_eq!(self.input(DhcpInput::Reply { reply, is_taken }), []);
        assert_eq!(before, (self.client.state(), self.client.lease().copied()));
        assert_eq!(count(&self.client), counted + 1, "{reply:?}");
    }

    /// A client with a lease.
    fn bound(seed: u64) -> Self {
        let mut test = Self::new(seed);
        test.input(DhcpInput::Start(None));
        test.reply(DhcpReplyKind::Offer, LEASED_ADDR);
        let actions = test.reply(DhcpReplyKind::Ack, LEASED_ADDR);
        assert!(matches!(actions[..], [DhcpAction::Assigned(lease)] if lease.addr == LEASED_ADDR));
        test
    }

    fn secs(&self, at: Option<Time>) -> Option<u64> {
        at.map(|at| at.since(Time::from_millis(10_000)).as_secs())
    }
}

fn sent(actions: &[DhcpAction]) -> DhcpRequest {
    match actions {
        [.., DhcpAction::Send(request)] => *request,
        other => panic!("nothing sent: {other:?}"),
    }
}

#[test]
fn a_lease_is_discovered_requested_and_counted_from_the_request() {
    let mut test = TestClient::new(1);
    let discover = sent(&test.input(DhcpInput::Start(None)));
    assert_eq!((discover.kind, discover.to), (DhcpRequestKind::Discover, None));
    let request = sent(&test.reply(DhcpReplyKind::Offer, LEASED_ADDR));
    assert_eq!(request.xid, discover.xid, "one transaction");
    assert_eq!((request.requested, request.server), (Some(LEASED_ADDR), Some(SERVER_ADDR)));
    test.now = test.now + Duration::from_secs(2);
    let actions = test.reply(DhcpReplyKind::Ack, LEASED_ADDR);
    let [DhcpAction::Assigned(lease)] = actions[..] else { panic!("{actions:?}") };
    let times = [lease.renew_at, lease.rebind_at, lease.expires].map(|at| test.secs(at));
    assert_eq!(times, [Some(60), Some(105), Some(120)]);
    assert_eq!(test.client.state(), DhcpState::Bound);
}

#[test]
fn a_discover_is_repeated_ever_more_seldom_and_the_silence_told_once() {
    for seed in 0..50 {
        let mut test = TestClient::new(seed);
        test.input(DhcpInput::Start(None));
        let (mut told, mut before) = (Vec::new(), test.now);
        for expected in [4, 8, 16, 32, 64, 64, 64] {
            let actions = test.wake();
            let waited = test.now.since(before).as_millis() as i64;
            assert!((waited - expected * 1000).abs() <= 1000, "{waited} ms, not {expected} s");
            before = test.now;
            let is_told = |action: &&DhcpAction| matches!(action, DhcpAction::Unserved(_));
            told.extend(actions.iter().find(is_told).map(|_| expected));
            assert_eq!(sent(&actions).kind, DhcpRequestKind::Discover);
        }
        assert_eq!(told, [8], "once 12 s passed");
    }
}

#[test]
fn a_lease_is_renewed_by_its_server_then_by_any_then_it_ends() {
    let mut test = TestClient::bound(3);
    let renew = sent(&test.wake());
    assert_eq!(test.secs(Some(test.now)), Some(60));
    assert_eq!(test.client.state(), DhcpState::Renewing);
    assert_eq!((renew.client_addr, renew.to), (LEASED_ADDR, Some((SERVER_MAC, SERVER_ADDR))));
    assert_eq!((renew.requested, renew.server), (None, None), "RFC 2131 section 4.3.6");
    // At T2 every server is asked.
    let rebind = sent(&test.wake());
    assert_eq!(test.secs(Some(test.now)), Some(105));
    assert_eq!((rebind.client_addr, rebind.to), (LEASED_ADDR, None));
    assert_ne!(rebind.xid, renew.xid);
    let actions = test.wake();
    assert_eq!(test.secs(Some(test.now)), Some(120));
    assert!(matches!(&actions[0], DhcpAction::Lost(why) if why.contains("ended")), "{actions:?}");
    // The next lease should be of the same address.
    assert_eq!(sent(&actions).requested, Some(LEASED_ADDR));
    assert_eq!((test.client.state(), test.client.lease()), (DhcpState::Selecting, None));
}

#[test]
fn a_renewal_by_the_server_and_one_by_another_prolong_the_lease() {
    let mut test = TestClient::bound(4);
    test.wake();
    let mut foreign = test.answer(DhcpReplyKind::Ack, LEASED_ADDR);
    foreign.server = Some(OTHER_SERVER);
    test.ignores(foreign, false, IgnoreReason::OtherServer);
    test.reply(DhcpReplyKind::Ack, LEASED_ADDR);
    assert_eq!(test.secs(test.client.lease().and_then(|lease| lease.expires)), Some(180));
    test.wake();
    test.wake();
    assert_eq!(test.client.state(), DhcpState::Rebinding);
    let mut other = test.answer(DhcpReplyKind::Ack, LEASED_ADDR);
    other.server = Some(OTHER_SERVER);
    test.input(DhcpInput::Reply { reply: other, is_taken: false });
    let lease = test.client.lease().expect("a lease");
    assert_eq!((lease.server, test.client.state()), (OTHER_SERVER, DhcpState::Bound));
}

#[test]
fn long_leases_are_asked_for_at_half_of_the_rest() {
    let mut test = TestClient::new(5);
    test.input(DhcpInput::Start(None));
    test.reply(DhcpReplyKind::Offer, LEASED_ADDR);
    let mut ack = test.answer(DhcpReplyKind::Ack, LEASED_ADDR);
    ack.lease_secs = Some(86_400);
    test.input(DhcpInput::Reply { reply: ack, is_taken: false });
    let mut asked = Vec::new();
    while test.client.lease().is_some() {
        test.wake();
        asked.push(test.now.since(Time::from_millis(10_000)).as_secs());
    }
    // T1 at 43,200 s, T2 at 75,600 s.
    assert_eq!(asked[..3], [43_200, 59_400, 67_500], "{asked:?}");
    assert!(asked.contains(&75_600) && asked.last() == Some(&86_400), "{asked:?}");
    // Only the change from one state to the next may be sooner.
    let soon = asked.windows(2).filter(|two| two[1] - two[0] < 60).count();
    assert!(soon <= 2 && asked.len() < 30, "{asked:?}");
}

#[test]
fn the_next_owner_uses_the_lease_and_has_it_confirmed() {
    let lease = *TestClient::bound(6).client.lease().expect("a lease");
    let mut test = TestClient::new(7);
    let actions = test.input(DhcpInput::Start(Some(lease)));
    assert_eq!(actions[0], DhcpAction::Assigned(lease), "before any answer");
    let reboot = sent(&actions);
    assert_eq!(reboot.requested, Some(LEASED_ADDR));
    assert_eq!((reboot.server, reboot.client_addr), (None, Ipv4Addr::UNSPECIFIED), "INIT-REBOOT");
    let actions = test.reply(DhcpReplyKind::Ack, LEASED_ADDR);
    assert!(matches!(actions[..], [DhcpAction::Assigned(_)]) && !test.client.has_action());
    assert_eq!(test.client.state(), DhcpState::Bound);
    // Without an answer the rest of the lease is used.
    let mut test = TestClient::new(8);
    test.input(DhcpInput::Start(Some(lease)));
    while test.client.state() == DhcpState::Rebooting {
        assert!(test.wake().iter().all(|action| matches!(action, DhcpAction::Send(_))));
    }
    assert_eq!((test.client.state(), test.client.lease()), (DhcpState::Bound, Some(&lease)));
    // One that ended is a hint only.
    let mut test = TestClient::new(9);
    test.now = Time::from_millis(200_000);
    let actions = test.input(DhcpInput::Start(Some(lease)));
    assert_eq!(sent(&actions).kind, DhcpRequestKind::Discover);
    assert_eq!((actions.len(), sent(&actions).requested), (1, Some(LEASED_ADDR)));
}

#[test]
fn a_refusal_ends_the_use_at_once_in_every_state() {
    let lease = *TestClient::bound(1).client.lease().expect("a lease");
    let rebooting = || {
        let mut test = TestClient::new(2);
        test.input(DhcpInput::Start(Some(lease)));
        test
    };
    let renewing = || {
        let mut test = TestClient::bound(2);
        test.wake();
        test
    };
    let rebinding = || {
        let mut test = renewing();
        test.wake();
        test
    };
    for mut test in [rebooting(), renewing(), rebinding()] {
        let state = test.client.state();
        let actions = test.reply(DhcpReplyKind::Nak, Ipv4Addr::UNSPECIFIED);
        let lost = matches!(&actions[0], DhcpAction::Lost(why) if why.contains("refuses"));
        assert!(lost, "{state:?}: {actions:?}");
        let discover = sent(&actions);
        assert_eq!((discover.kind, discover.requested), (DhcpRequestKind::Discover, None));
        assert_eq!(test.client.lease(), None);
    }
}

/// A server that does not know the lease hears the broadcast request, too.
#[test]
fn another_servers_refusal_counts_once_the_one_that_gave_the_lease_is_silent() {
    let lease = *TestClient::bound(1).client.lease().expect("a lease");
    let refused = || {
        let mut test = TestClient::new(2);
        test.input(DhcpInput::Start(Some(lease)));
        let refusal = test.answer(DhcpReplyKind::Nak, Ipv4Addr::UNSPECIFIED);
        let foreign = DhcpReply { server: Some(OTHER_SERVER), ..refusal };
        test.ignores(foreign, false, IgnoreReason::OtherServer);
        test
    };
    let mut test = refused();
    test.reply(DhcpReplyKind::Ack, LEASED_ADDR);
    assert_eq!(test.client.state(), DhcpState::Bound);
    // Nor does it count in a later transaction.
    test.wake();
    assert_eq!(test.client.lease().map(|lease| lease.addr), Some(LEASED_ADDR));
    let mut test = refused();
    let start = test.now;
    let actions = loop {
        let actions = test.wake();
        if test.client.state() != DhcpState::Rebooting {
            break actions;
        }
    };
    let lost = matches!(&actions[0], DhcpAction::Lost(why) if why.contains("10.1.0.2 refuses"));
    assert!(lost, "{actions:?}");
    assert!(test.now.since(start) > Duration::from_secs(50), "four requests");
    assert_eq!(sent(&actions).kind, DhcpRequestKind::Discover);
}

#[test]
fn a_server_that_offers_and_refuses_is_not_asked_in_a_loop() {
    let mut test = TestClient::new(3);
    test.input(DhcpInput::Start(None));
    let start = test.now;
    let mut sent = 0;
    while test.now.since(start) < Duration::from_secs(600) {
        sent += test.reply(DhcpReplyKind::Offer, LEASED_ADDR).len();
        sent += test.reply(DhcpReplyKind::Nak, LEASED_ADDR).len();
        assert_eq!(test.client.state(), DhcpState::Waiting);
        sent += test.wake().len();
    }
    assert!(sent <= 130, "{sent} messages in 10 minutes");
}

#[test]
fn a_conflict_is_declined_and_another_address_asked_for_later() {
    let mut test = TestClient::bound(4);
    let actions = test.input(DhcpInput::Conflict);
    let [DhcpAction::Send(decline), DhcpAction::Lost(why)] = &actions[..] else {
        panic!("{actions:?}")
    };
    assert_eq!(decline.kind, DhcpRequestKind::Decline);
    assert_eq!((decline.requested, decline.server), (Some(LEASED_ADDR), Some(SERVER_ADDR)));
    assert_eq!((decline.client_addr, decline.to), (Ipv4Addr::UNSPECIFIED, None));
    assert!(why.contains("declined"), "{why}");
    // The pause outlives a stop.
    test.input(DhcpInput::Stop);
    assert_eq!(test.input(DhcpInput::Start(None)), []);
    assert_eq!(test.client.state(), DhcpState::Waiting);
    let before = test.now;
    assert_eq!(sent(&test.wake()).requested, None);
    assert_eq!(test.now.since(before), Duration::from_secs(10));
    test.reply(DhcpReplyKind::Offer, OTHER_ADDR);
    let actions = test.reply(DhcpReplyKind::Ack, OTHER_ADDR);
    assert!(matches!(actions[..], [DhcpAction::Assigned(lease)] if lease.addr == OTHER_ADDR));
}

#[test]
fn a_lease_that_nobody_needs_is_released_and_one_that_moves_is_not() {
    let mut test = TestClient::bound(5);
    assert_eq!(test.input(DhcpInput::Stop), [], "the next owner has it");
    assert_eq!((test.client.next_wake(), test.client.lease()), (None, None));
    let mut test = TestClient::bound(5);
    let release = sent(&test.input(DhcpInput::Release));
    assert_eq!(release.kind, DhcpRequestKind::Release);
    assert_eq!((release.client_addr, release.to), (LEASED_ADDR, Some((SERVER_MAC, SERVER_ADDR))));
    assert_eq!((release.server, release.requested), (Some(SERVER_ADDR), None));
    assert_eq!((test.client.state(), test.client.next_wake()), (DhcpState::Stopped, None));
}

#[test]
fn what_a_server_must_not_say_is_ignored_and_counted() {
    use DhcpReplyKind::{Ack, Nak, Offer};
    let mut test = TestClient::new(6);
    test.input(DhcpInput::Start(None));
    let good = test.answer(Offer, LEASED_ADDR);
    let foreign = DhcpReply { xid: good.xid ^ 1, ..good };
    test.ignores(foreign, false, IgnoreReason::Transaction);
    test.ignores(DhcpReply { kind: Ack, ..good }, false, IgnoreReason::Unexpected);
    test.ignores(DhcpReply { kind: Nak, ..good }, false, IgnoreReason::Unexpected);
    for server in [None, Some(Ipv4Addr::UNSPECIFIED), Some(Ipv4Addr::BROADCAST)] {
        test.ignores(DhcpReply { server, ..good }, false, IgnoreReason::NoServer);
    }
    for addr in ["0.0.0.0", "0.1.2.3", "127.0.0.1", "169.254.1.1", "224.0.0.1", "255.255.255.255"] {
        let addr = addr.parse().expect("an address");
        test.ignores(DhcpReply { addr, ..good }, false, IgnoreReason::Address);
    }
    // A server that looks at hardware addresses offers the host's own one.
    test.ignores(good, true, IgnoreReason::Taken);
    test.reply(Offer, LEASED_ADDR);
    test.ignores(test.answer(Offer, OTHER_ADDR), false, IgnoreReason::Unexpected);
    let good = test.answer(Ack, LEASED_ADDR);
    for lease_secs in [None, Some(0), Some(9)] {
        test.ignores(DhcpReply { lease_secs, ..good }, false, IgnoreReason::LeaseTime);
    }
    test.ignores(DhcpReply { addr: OTHER_ADDR, ..good }, false, IgnoreReason::Address);
    let foreign = DhcpReply { server: Some(OTHER_SERVER), ..good };
    test.ignores(foreign, false, IgnoreReason::OtherServer);
    test.ignores(DhcpReply { kind: Nak, ..foreign }, false, IgnoreReason::OtherServer);
    test.reply(Ack, LEASED_ADDR);
    test.ignores(test.answer(Nak, LEASED_ADDR), false, IgnoreReason::Unexpected);
}

#[test]
fn times_out_of_order_are_replaced_and_an_infinite_lease_has_none() {
    let ack = |renew, rebind, secs| {
        let mut test = TestClient::new(7);
        test.input(DhcpInput::Start(None));
        test.reply(DhcpReplyKind::Offer, LEASED_ADDR);
        let mut ack = test.answer(DhcpReplyKind::Ack, LEASED_ADDR);
        (ack.renew_secs, ack.rebind_secs, ack.lease_secs) = (renew, rebind, Some(secs));
        test.input(DhcpInput::Reply { reply: ack, is_taken: false });
        let lease = *test.client.lease().expect("a lease");
        [lease.renew_at, lease.rebind_at, lease.expires].map(|at| test.secs(at))
    };
    let defaults = [Some(500), Some(875), Some(1000)];
    assert_eq!(ack(Some(5), Some(9), 1000), [Some(5), Some(9), Some(1000)]);
    assert_eq!(ack(Some(9), Some(5), 1000), defaults);
    assert_eq!(ack(Some(0), Some(0), 1000), defaults);
    assert_eq!(ack(Some(u32::MAX), Some(u32::MAX), 1000), defaults);
    assert_eq!(ack(Some(5), None, 1000), [Some(5), Some(875), Some(1000)]);
    assert_eq!(ack(None, Some(600), 1000), [Some(500), Some(600), Some(1000)]);
    assert_eq!(ack(Some(5), Some(9), u32::MAX), [None; 3]);
}

fn any_reply() -> impl Strategy<Value = (DhcpReply, bool, bool)> {
    let kind =
        prop_oneof![Just(DhcpReplyKind::Offer), Just(DhcpReplyKind::Ack), Just(DhcpReplyKind::Nak)];
    let addr =
        prop_oneof![Just(LEASED_ADDR), Just(OTHER_ADDR), any::<u32>().prop_map(Ipv4Addr::from)];
    let server = prop_oneof![
        Just(None),
        Just(Some(SERVER_ADDR)),
        Just(Some(OTHER_SERVER)),
        any::<u32>().prop_map(|bits| Some(Ipv4Addr::from(bits)))
    ];
    let secs = || {
        prop_oneof![Just(None), Just(Some(0)), Just(Some(u32::MAX)), any::<u32>().prop_map(Some)]
    };
    (kind, addr, server, (secs(), secs(), secs()), any::<bool>(), any::<bool>()).prop_map(
        |(kind, addr, server, (lease_secs, renew_secs, rebind_secs), is_taken, is_foreign)| {
            let reply = DhcpReply {
                kind,
                xid: 0,
                addr,
                server,
                lease_secs,
                renew_secs,
                rebind_secs,
                from: SERVER_MAC,
            };
            (reply, is_taken, is_foreign)
        },
    )
}

#[derive(Clone, Debug)]
enum Step {
    Reply(DhcpReply, bool, bool),
    Wake,
    Late(u32),
    Input(DhcpInput),
}

fn any_step() -> impl Strategy<Value = Step> {
    let lease = DhcpLease {
        addr: LEASED_ADDR,
        server: SERVER_ADDR,
        server_mac: None,
        obtained: Time::ZERO,
        renew_at: None,
        rebind_at: None,
        expires: Some(Time::from_millis(1_000_000)),
    };
    prop_oneof![
        8 => any_reply().prop_map(|(reply, taken, foreign)| Step::Reply(reply, taken, foreign)),
        4 => Just(Step::Wake),
        1 => any::<u32>().prop_map(Step::Late),
        1 => Just(Step::Input(DhcpInput::Start(None))),
        1 => Just(Step::Input(DhcpInput::Start(Some(lease)))),
        1 => Just(Step::Input(DhcpInput::Stop)),
        1 => Just(Step::Input(DhcpInput::Conflict)),
        1 => Just(Step::Input(DhcpInput::Release)),
    ]
}

proptest! {
    /// Whatever servers send: one answer leads to two actions at most, an address is in use only
    /// under a lease that runs, and the client asks at most once in 3 s by itself.
    #[test]
    fn no_server_confuses_the_client(
        seed in any::<u64>(),
        steps in proptest::collection::vec(any_step(), 1..200),
    ) {
        let mut test = TestClient::new(seed);
        let mut in_use: Option<DhcpLease> = None;
        for step in steps {
            let actions = match step {
                Step::Reply(mut reply, is_taken, is_foreign) => {
                    reply.xid = test.client.xid() ^ u32::from(is_foreign);
                    let actions = test.input(DhcpInput::Reply { reply, is_taken });
                    prop_assert!(!is_foreign || actions.is_empty());
                    actions
                }
                Step::Wake => match test.client.next_wake() {
                    Some(wake) => {
                        test.now = test.now.max(wake);
                        test.input(DhcpInput::Timer)
                    }
                    None => continue,
                },
                Step::Late(millis) => {
                    test.now = test.now + Duration::from_millis(millis.into());
                    test.input(DhcpInput::Timer)
                }
                Step::Input(input) => {
                    let is_end = matches!(input, DhcpInput::Stop | DhcpInput::Release);
                    let actions = test.input(input);
                    if is_end {
                        in_use = None;
                    }
                    actions
                }
            };
            prop_assert!(actions.len() <= 4, "{actions:?}");
            for action in actions {
                match action {
                    DhcpAction::Assigned(lease) => in_use = Some(lease),
                    DhcpAction::Lost(_) => in_use = None,
                    DhcpAction::Send(_) | DhcpAction::Unserved(_) => {}
                }
            }
            prop_assert_eq!(in_use.as_ref(), test.client.lease());
            if let Some(lease) = in_use {
                prop_assert!(lease.is_running(test.now), "{:?}", lease);
                prop_assert!(!lease.addr.is_link_local() && !lease.addr.is_unspecified());
            }
            prop_assert!(test.client.ignored().len() <= 7);
        }
    }
}
