#![allow(clippy::unwrap_used)]

use super::{super::cause::FailoverReportView, *};

const NOW: &str = "2026-11-21T04:00:00.000Z";

fn at(ms: u64) -> String {
    format!("2026-11-21T03:02:{:02}.{:03}Z", ms / 1000, ms % 1000)
}

fn moved(peer: &str, from: Option<u32>, to: Option<u32>) -> EventDetail {
    let cause = Box::new(FailoverReportView {
        cost: FailoverCostView { resent: 2, ..FailoverCostView::default() },
        ..FailoverReportView::default()
    });
    EventDetail::Moved { peer: peer.to_owned(), from, to, reason: "carrier lost".to_owned(), cause }
}

fn suspect(peer: &str, route: u32) -> EventDetail {
    EventDetail::Suspect { peer: peer.to_owned(), route }
}

fn cost(peer: &str, from: u32, resent: u64) -> EventDetail {
    let cost = FailoverCostView { resent, ..FailoverCostView::default() };
    EventDetail::Cost { peer: peer.to_owned(), from, to: Some(2), cost }
}

fn number(events: Vec<(u64, EventDetail)>) -> Vec<EventView> {
    let events = events.into_iter().zip(7..);
    events.map(|((ms, what), seq)| EventView { seq, at: at(ms), detail: what }).collect()
}

fn sequence(events: &[EventView]) -> Vec<u64> {
    events.iter().map(|event| event.seq).collect()
}

fn sample() -> Vec<EventView> {
    number(vec![
        (0, moved("b", None, Some(1))),
        (20_000, suspect("b", 1)),
        (20_001, suspect("c", 9)),
        (20_100, EventDetail::Stalled { length_ms: 60 }),
        (20_140, moved("b", Some(1), Some(2))),
        (20_150, moved("c", Some(9), Some(8))),
        (21_700, cost("c", 9, 50)),
        (21_701, cost("b", 1, 37)),
        (25_000, moved("b", Some(2), Some(1))),
    ])
}

#[test]
fn a_story_has_what_led_to_the_move_and_what_came_of_it() {
    let events = sample();
    let explanation = explain_event(&events, EventSelector::Event(11), NOW).unwrap();
    assert_eq!(explanation.event, events[4]);
    assert_eq!(sequence(&explanation.before), [8, 10], "same peer, or about this node");
    assert_eq!(sequence(&explanation.after), [14, 15], "up to the next move");
    assert_eq!((explanation.cost.unwrap().resent, explanation.cost_final), (37, true));
    assert_eq!((explanation.oldest, explanation.newest), (7, 15));
}

#[test]
fn the_last_move_and_the_last_of_a_route_are_found() {
    let events = sample();
    let seq = |subject| explain_event(&events, subject, NOW).unwrap().event.seq;
    assert_eq!(seq(EventSelector::Last), 15);
    assert_eq!(seq(EventSelector::Route(9)), 12);
    assert_eq!(seq(EventSelector::Route(2)), 15);
    let quiet = number(vec![(0, suspect("b", 3)), (1, suspect("b", 4))]);
    assert_eq!(explain_event(&quiet, EventSelector::Route(3), NOW).unwrap().event.seq, 7);
}

#[test]
fn a_cost_that_is_not_told_yet_is_what_the_move_knew_and_is_final_by_age() {
    let events = number(vec![(20_000, moved("b", Some(1), Some(2)))]);
    let early = explain_event(&events, EventSelector::Last, &at(21_000)).unwrap();
    assert_eq!((early.cost.unwrap().resent, early.cost_final), (2, false));
    let late = explain_event(&events, EventSelector::Last, &at(22_000)).unwrap();
    assert_eq!((late.cost.unwrap().resent, late.cost_final), (2, true));
    let first = number(vec![(0, moved("b", None, Some(1)))]);
    assert_eq!(explain_event(&first, EventSelector::Last, NOW).unwrap().cost, None);
}

#[test]
fn the_cost_of_another_leave_of_the_same_route_is_not_this_ones() {
    let events = number(vec![
        (1000, moved("b", Some(1), Some(2))),
        (2000, moved("b", Some(2), Some(1))),
        (3000, moved("b", Some(1), Some(2))),
        (4500, cost("b", 1, 99)),
    ]);
    let resent =
        |seq| explain_event(&events, EventSelector::Event(seq), NOW).unwrap().cost.unwrap().resent;
    assert_eq!((resent(7), resent(9)), (2, 99));
}

#[test]
fn what_is_not_kept_is_said_with_what_is() {
    let error = |events: &[EventView], subject| explain_event(events, subject, NOW).unwrap_err();
    assert_eq!(error(&[], EventSelector::Last), "no events yet");
    let events = sample();
    assert_eq!(
        error(&events, EventSelector::Event(3)),
        "event 3 is discarded: events 7 to 15 are kept"
    );
    assert!(
        error(&events, EventSelector::Event(16)).starts_with("there is no event 16 yet: events 7")
    );
    assert!(error(&events, EventSelector::Route(77)).contains("route 77"));
    let mut quiet = number(vec![(0, suspect("b", 1))]);
    assert!(error(&quiet, EventSelector::Last).starts_with("no move is kept"));
    quiet[0].seq = 1;
    assert!(error(&quiet, EventSelector::Last).starts_with("no data has moved yet: events 1 to 1"));
}

#[test]
fn a_story_is_bounded() {
    let mut events = vec![(10_000, suspect("b", 1)); 200];
    events.push((10_001, moved("b", Some(1), Some(2))));
    events.extend(vec![(10_002, suspect("b", 2)); 200]);
    events.push((10_003, moved("b", Some(2), Some(1))));
    let events = number(events);
    let explanation = explain_event(&events, EventSelector::Event(207), NOW).unwrap();
    assert_eq!(
        (explanation.before.len(), explanation.after.len()),
        (MAX_EVENTS_BEFORE, MAX_EVENTS_AFTER + 1)
    );
    assert_eq!(explanation.before.last().unwrap().seq, 206, "the newest ones");
    assert!(is_move(&explanation.after.last().unwrap().detail), "the end of the explanation");
}

#[test]
fn an_earlier_run_has_its_own_routes_and_its_own_story() {
    let start = EventDetail::Restarted { version: "1".to_owned() };
    let events = number(vec![
        (20_000, suspect("b", 1)),
        (20_001, moved("b", Some(1), Some(2))),
        (20_002, suspect("b", 2)),
        (20_003, start.clone()),
        (20_004, suspect("b", 2)),
        (20_005, start),
        (20_006, suspect("b", 3)),
    ]);
    let explain = |subject| explain_event(&events, subject, NOW);
    // No move of this run: the last one before it.
    let last = explain(EventSelector::Last).unwrap();
    assert_eq!((last.event.seq, last.earlier_run, last.cost_final), (8, true, true));
    assert_eq!((sequence(&last.before), sequence(&last.after)), (vec![7], vec![9]));
    let second = explain(EventSelector::Event(11)).unwrap();
    assert_eq!((sequence(&second.before), second.earlier_run), (vec![10], true));
    // The number 2 is another route in this run.
    assert!(explain(EventSelector::Route(2)).is_err());
    let present = explain(EventSelector::Route(3)).unwrap();
    assert_eq!((present.event.seq, present.earlier_run), (13, false));
}
