#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

const PEER: PeerId = PeerId(3);

fn addr(last: u8) -> SocketAddr {
    ([192, 0, 2, last], 3343).into()
}

fn reflexive(sequence: u32, from: u8) -> PeerReflexive {
    PeerReflexive {
        peer: PEER,
        remote_route: 7,
        local_route: None,
        sequence,
        local: addr(1),
        from: addr(from),
    }
}

fn at(ms: u64) -> Time {
    Time::from_millis(ms)
}

/// Applies a reflexive heartbeat; returns the challenge.
fn challenge_for(
    challenges: &mut PathValidator,
    now: Time,
    reflexive: PeerReflexive,
    token: u64,
) -> Option<Challenge> {
    challenges.on_peer_reflexive(now, reflexive, || Some(token))
}

#[test]
fn an_address_is_adopted_when_its_own_answer_comes_from_there_and_once() {
    let mut challenges = PathValidator::default();
    let challenge = challenge_for(&mut challenges, at(0), reflexive(5, 9), 42).unwrap();
    let expected = Challenge { message: ChallengeMessage::Challenge, route: 7, token: 42 };
    assert_eq!(challenge, expected);
    let mut answered = |peer, local, from, answer| {
        challenges.on_challenge_response(at(1), (peer, addr(local), addr(from)), &answer)
    };
    let answer = challenge.to_response();
    assert_eq!(answered(PEER, 1, 9, challenge), None, "a challenge is no response");
    assert_eq!(answered(PeerId(4), 1, 9, answer), None, "another peer");
    assert_eq!(answered(PEER, 2, 9, answer), None, "at another address here");
    assert_eq!(answered(PEER, 1, 8, answer), None, "from another address");
    assert_eq!(answered(PEER, 1, 9, Challenge { token: 41, ..answer }), None, "a guess");
    assert_eq!(answered(PEER, 1, 9, Challenge { route: 8, ..answer }), None, "another route");
    assert_eq!(answered(PEER, 1, 9, answer), Some(reflexive(5, 9)));
    assert_eq!(answered(PEER, 1, 9, answer), None, "a second time");
}

#[test]
fn an_answer_that_comes_too_late_proves_nothing() {
    let mut challenges = PathValidator::default();
    let answer = challenge_for(&mut challenges, at(0), reflexive(5, 9), 42).unwrap().to_response();
    let late = Time::ZERO + CHALLENGE_TIMEOUT;
    assert_eq!(challenges.on_challenge_response(late, (PEER, addr(1), addr(9)), &answer), None);
    // The next reflexive heartbeat is challenged anew, with another token.
    let again = challenges.on_peer_reflexive(late, reflexive(6, 9), || Some(43)).unwrap();
    assert_eq!(again.token, 43);
}

#[test]
fn a_lost_challenge_is_repeated_with_the_next_heartbeat_and_not_faster() {
    let mut challenges = PathValidator::default();
    challenge_for(&mut challenges, at(0), reflexive(5, 9), 42).unwrap();
    assert_eq!(challenge_for(&mut challenges, at(9), reflexive(6, 9), 43), None, "too soon");
    let again = challenge_for(&mut challenges, at(10), reflexive(7, 9), 44).unwrap();
    assert_eq!(again.token, 42, "the first may still be answered");
}

#[test]
fn a_heartbeat_on_the_configured_path_cancels_the_challenge() {
    let mut challenges = PathValidator::default();
    let answer = challenge_for(&mut challenges, at(0), reflexive(5, 9), 42).unwrap().to_response();
    // On its way before the address changed.
    challenges.on_configured_path_heartbeat(PEER, 7, 4);
    challenges.on_configured_path_heartbeat(PEER, 8, 6);
    assert!(!challenges.is_empty());
    challenges.on_configured_path_heartbeat(PEER, 7, 6);
    assert!(challenges.is_empty());
    assert_eq!(challenges.on_challenge_response(at(1), (PEER, addr(1), addr(9)), &answer), None);
}

#[test]
fn of_two_addresses_the_newer_heartbeat_decides() {
    let mut challenges = PathValidator::default();
    challenge_for(&mut challenges, at(0), reflexive(u32::MAX, 9), 42).unwrap();
    assert_eq!(
        challenge_for(&mut challenges, at(20), reflexive(u32::MAX - 1, 8), 43),
        None,
        "older"
    );
    let newer = challenge_for(&mut challenges, at(20), reflexive(0, 8), 44).unwrap();
    assert_eq!(newer.token, 44);
    let old = Challenge { token: 42, ..newer.to_response() };
    assert_eq!(challenges.on_challenge_response(at(21), (PEER, addr(1), addr(9)), &old), None);
    assert!(
        challenges
            .on_challenge_response(at(21), (PEER, addr(1), addr(8)), &newer.to_response())
            .is_some()
    );
}

#[test]
fn pending_challenges_are_bounded_per_peer_and_need_randomness() {
    let mut challenges = PathValidator::default();
    assert_eq!(challenges.on_peer_reflexive(at(0), reflexive(5, 9), || None), None);
    assert!(challenges.is_empty());
    for route in 0..2 * MAX_PENDING_CHALLENGES as u32 {
        let challenge = challenge_for(
            &mut challenges,
            at(0),
            PeerReflexive { remote_route: route, ..reflexive(5, 9) },
            42,
        );
        assert_eq!(challenge.is_some(), (route as usize) < MAX_PENDING_CHALLENGES, "{route}");
    }
    let other = PeerReflexive { peer: PeerId(9), ..reflexive(5, 9) };
    assert!(challenge_for(&mut challenges, at(0), other, 42).is_some());
}

/// Inputs of a node, with few values so that they coincide.
#[derive(Clone, Debug)]
enum Step {
    Reflexive { from: u8, sequence: u32 },
    Heard { sequence: u32 },
    Answer { from: u8, token: u64 },
    Wait { ms: u64 },
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (8..11u8, 0..6u32).prop_map(|(from, sequence)| Step::Reflexive { from, sequence }),
        (0..6u32).prop_map(|sequence| Step::Heard { sequence }),
        (8..11u8, 0..6u64).prop_map(|(from, token)| Step::Answer { from, token }),
        (0..1500u64).prop_map(|ms| Step::Wait { ms }),
    ]
}

proptest! {
    /// In every order of inputs an address is adopted only with the token that was sent there, in
    /// time, and while nothing newer arrived from the configured address.
    #[test]
    fn nothing_is_adopted_without_its_own_fresh_answer(
        steps in proptest::collection::vec(any_step(), 1..60),
    ) {
        let mut challenges = PathValidator::default();
        let (mut now, mut tokens) = (at(1), 0);
        // (address, token) → the first challenge, and the newest heartbeat.
        let mut sent: BTreeMap<(u8, u64), (Time, u32)> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Wait { ms } => now = now + Duration::from_millis(ms),
                Step::Reflexive { from, sequence } => {
                    let heartbeat = reflexive(sequence, from);
                    let challenge = challenges.on_peer_reflexive(now, heartbeat, || {
                        tokens += 1;
                        Some(tokens)
                    });
                    if let Some(challenge) = challenge {
                        let first = sent.get(&(from, challenge.token)).map_or(now, |known| known.0);
                        sent.insert((from, challenge.token), (first, sequence));
                    }
                }
                Step::Heard { sequence } => {
                    challenges.on_configured_path_heartbeat(PEER, 7, sequence);
                    sent.retain(|_, (_, asked)| *asked >= sequence);
                }
                Step::Answer { from, token } => {
                    let message = ChallengeMessage::Response;
                    let answer = Challenge { message, route: 7, token };
                    let ends = (PEER, addr(1), addr(from));
                    let adopted = challenges.on_challenge_response(now, ends, &answer);
                    let known = sent.get(&(from, token)).copied();
                    if let Some(proven) = adopted {
                        let (since, sequence) = known.unwrap();
                        prop_assert!(now.since(since) < CHALLENGE_TIMEOUT);
                        prop_assert_eq!((proven.from, proven.sequence), (addr(from), sequence));
                        sent.clear();
                    }
                }
            }
            prop_assert!(challenges.pending.len() <= 1, "one per route");
        }
    }
}
