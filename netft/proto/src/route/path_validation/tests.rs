#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

const PEER: PeerId = PeerId(3);

fn addr(last: u8) -> SocketAddr {
    ([192, 0, 2, last], 3343).into()
}

fn stray(sequence: u32, from: u8) -> PeerReflexive {
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

/// Asks, and hands out the question.
fn asked(
    challenges: &mut PathValidator,
    now: Time,
    stray: PeerReflexive,
    token: u64,
) -> Option<Challenge> {
    challenges.on_peer_reflexive(now, stray, || Some(token))
}

#[test]
fn an_address_is_adopted_when_its_own_answer_comes_from_there_and_once() {
    let mut challenges = PathValidator::default();
    let question = asked(&mut challenges, at(0), stray(5, 9), 42).unwrap();
    let expected = Challenge { message: ChallengeMessage::Challenge, route: 7, token: 42 };
    assert_eq!(question, expected);
    let mut answered = |peer, local, from, answer| {
        challenges.on_challenge_response(at(1), (peer, addr(local), addr(from)), &answer)
    };
    let answer = question.to_response();
    assert_eq!(answered(PEER, 1, 9, question), None, "a question is no answer");
    assert_eq!(answered(PeerId(4), 1, 9, answer), None, "another peer");
    assert_eq!(answered(PEER, 2, 9, answer), None, "at another address here");
    assert_eq!(answered(PEER, 1, 8, answer), None, "from another address");
    assert_eq!(answered(PEER, 1, 9, Challenge { token: 41, ..answer }), None, "a guess");
    assert_eq!(answered(PEER, 1, 9, Challenge { route: 8, ..answer }), None, "another route");
    assert_eq!(answered(PEER, 1, 9, answer), Some(stray(5, 9)));
    assert_eq!(answered(PEER, 1, 9, answer), None, "a second time");
}

#[test]
fn an_answer_that_comes_too_late_proves_nothing() {
    let mut challenges = PathValidator::default();
    let answer = asked(&mut challenges, at(0), stray(5, 9), 42).unwrap().to_response();
    let late = Time::ZERO + CHALLENGE_TIMEOUT;
    assert_eq!(challenges.on_challenge_response(late, (PEER, addr(1), addr(9)), &answer), None);
    // The next one that strays is asked anew, with another token.
    let again = challenges.on_peer_reflexive(late, stray(6, 9), || Some(43)).unwrap();
    assert_eq!(again.token, 43);
}

#[test]
fn a_lost_question_is_asked_again_with_the_next_heartbeat_and_not_faster() {
    let mut challenges = PathValidator::default();
    asked(&mut challenges, at(0), stray(5, 9), 42).unwrap();
    assert_eq!(asked(&mut challenges, at(9), stray(6, 9), 43), None, "too soon");
    let again = asked(&mut challenges, at(10), stray(7, 9), 44).unwrap();
    assert_eq!(again.token, 42, "the first may still be answered");
}

#[test]
fn what_is_heard_where_the_route_leads_closes_the_question() {
    let mut challenges = PathValidator::default();
    let answer = asked(&mut challenges, at(0), stray(5, 9), 42).unwrap().to_response();
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
    asked(&mut challenges, at(0), stray(u32::MAX, 9), 42).unwrap();
    assert_eq!(asked(&mut challenges, at(20), stray(u32::MAX - 1, 8), 43), None, "older");
    let newer = asked(&mut challenges, at(20), stray(0, 8), 44).unwrap();
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
fn open_questions_are_bounded_per_peer_and_without_randomness_none_is_asked() {
    let mut challenges = PathValidator::default();
    assert_eq!(challenges.on_peer_reflexive(at(0), stray(5, 9), || None), None);
    assert!(challenges.is_empty());
    for route in 0..2 * MAX_PENDING_CHALLENGES as u32 {
        let question =
            asked(&mut challenges, at(0), PeerReflexive { remote_route: route, ..stray(5, 9) }, 42);
        assert_eq!(question.is_some(), (route as usize) < MAX_PENDING_CHALLENGES, "{route}");
    }
    let other = PeerReflexive { peer: PeerId(9), ..stray(5, 9) };
    assert!(asked(&mut challenges, at(0), other, 42).is_some());
}

/// What can happen at a node, with few values so that they meet.
#[derive(Clone, Debug)]
enum Step {
    Stray { from: u8, sequence: u32 },
    Heard { sequence: u32 },
    Answer { from: u8, token: u64 },
    Wait { ms: u64 },
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (8..11u8, 0..6u32).prop_map(|(from, sequence)| Step::Stray { from, sequence }),
        (0..6u32).prop_map(|sequence| Step::Heard { sequence }),
        (8..11u8, 0..6u64).prop_map(|(from, token)| Step::Answer { from, token }),
        (0..1500u64).prop_map(|ms| Step::Wait { ms }),
    ]
}

proptest! {
    /// Whatever happens in whatever order: an address is adopted only with the token that was sent
    /// there, within the time, and while nothing newer came from where the route leads.
    #[test]
    fn nothing_is_adopted_without_its_own_fresh_answer(
        steps in proptest::collection::vec(any_step(), 1..60),
    ) {
        let mut challenges = PathValidator::default();
        let (mut now, mut tokens) = (at(1), 0);
        // (address, token) → the last time it was asked, and by which heartbeat.
        let mut sent: BTreeMap<(u8, u64), (Time, u32)> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Wait { ms } => now = now + Duration::from_millis(ms),
                Step::Stray { from, sequence } => {
                    let question = challenges.on_peer_reflexive(now, stray(sequence, from), || {
                        tokens += 1;
                        Some(tokens)
                    });
                    if let Some(question) = question {
                        let first = sent.get(&(from, question.token)).map_or(now, |known| known.0);
                        sent.insert((from, question.token), (first, sequence));
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
                    if let Some(stray) = adopted {
                        let (since, sequence) = known.unwrap();
                        prop_assert!(now.since(since) < CHALLENGE_TIMEOUT);
                        prop_assert_eq!((stray.from, stray.sequence), (addr(from), sequence));
                        sent.clear();
                    }
                }
            }
            prop_assert!(challenges.pending.len() <= 1, "one per route");
        }
    }
}
