#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;
use crate::{
    session::fragment::reassembly::{FragmentOutcome, MAX_PARTIAL_PACKETS, ReassemblyBuffer},
    time::Time,
};

const NOW: Time = Time::from_millis(5);

fn packet(total: usize) -> Vec<u8> {
    (0..total).map(|at| (at * 31 % 251) as u8).collect()
}

/// The payloads of a packet's frames.
fn split_packet(packet: &[u8], layout: FragmentLayout) -> Vec<Vec<u8>> {
    (0..layout.fragment_count())
        .map(|index| {
            let mut payload = vec![0; FRAGMENT_HEADER_LEN + layout.byte_range(index).len()];
            layout.write_fragment(index, packet, &mut payload);
            payload
        })
        .collect()
}

fn add(
    buffer: &mut ReassemblyBuffer,
    now: Time,
    counter: u64,
    payload: &[u8],
) -> Result<FragmentOutcome, DropReason> {
    let fragment = Fragment::decode(counter, payload)?;
    buffer.add_fragment(now, &fragment, 0, &payload[FRAGMENT_HEADER_LEN..])
}

proptest! {
    #[test]
    fn what_is_cut_is_put_together_in_any_order(
        total in 2usize..=MAX_PACKET_LEN,
        room in 600usize..9000,
        counter in 0u64..1 << 40,
        seed: u64,
    ) {
        let layout = FragmentLayout::new(total, room).unwrap();
        let bytes = packet(total);
        let mut parts: Vec<_> = split_packet(&bytes, layout).into_iter().enumerate().collect();
        let fits = |len: usize| len <= room && len > FRAGMENT_HEADER_LEN;
        prop_assert!(parts.iter().all(|(_, part)| fits(part.len())));
        let equal = parts[..parts.len() - 1].iter().all(|(_, part)| part.len() == parts[0].1.len());
        prop_assert!(equal, "one segmented send takes them");
        // A permutation by a linear congruence.
        parts.sort_by_key(|(at, _)| (*at as u64 + 1).wrapping_mul(seed | 1) >> 7);
        let mut buffer = ReassemblyBuffer::default();
        let mut got = None;
        for (place, (index, part)) in parts.iter().enumerate() {
            let added = add(&mut buffer, NOW, counter + *index as u64, part).unwrap();
            prop_assert_eq!(added.discarded, 0);
            prop_assert_eq!(added.completed.is_some(), place + 1 == parts.len());
            got = added.completed;
        }
        prop_assert_eq!(got, Some(bytes));
        prop_assert!(buffer.is_empty());
    }

    #[test]
    fn what_decodes_has_one_encoding_and_lies_inside(
        counter: u64,
        head: [u8; FRAGMENT_HEADER_LEN],
        body in 0usize..2000,
    ) {
        let payload = [head.as_slice(), &packet(body)].concat();
        if let Ok(fragment) = Fragment::decode(counter, &payload) {
            let count = fragment.layout.fragment_count();
            prop_assert!(fragment.index < count && count <= MAX_FRAGMENTS);
            let last = fragment.layout.byte_range(fragment.layout.fragment_count() - 1);
            prop_assert!(!last.is_empty() && last.end == fragment.layout.packet_len());
            prop_assert_eq!(fragment.first_counter + fragment.index as u64, counter);
            let mut whole = vec![0; fragment.layout.packet_len()];
            let range = fragment.layout.byte_range(fragment.index);
            whole[range].copy_from_slice(&payload[FRAGMENT_HEADER_LEN..]);
            let mut again = vec![0; payload.len()];
            fragment.layout.write_fragment(fragment.index, &whole, &mut again);
            prop_assert_eq!(again, payload);
        }
    }

    /// W-06: whatever arrives, memory and number stay bounded.
    #[test]
    fn hostile_slices_stay_inside_the_bounds(
        inputs in prop::collection::vec(
            (0u64..400, 0u8..12, 0u8..12, 0u16..3000, 0usize..600, 0u64..2000),
            1..300,
        ),
    ) {
        let mut buffer = ReassemblyBuffer::default();
        let mut now = Time::ZERO;
        for (counter, index, count, total, body, wait) in inputs {
            now = Time::from_millis(now.as_millis() + wait / 40);
            let [t0, t1] = total.to_be_bytes();
            let payload = [[index, count, t0, t1].as_slice(), &packet(body)].concat();
            let _ = add(&mut buffer, now, counter, &payload);
            prop_assert!(buffer.memory_usage().0 <= MAX_PARTIAL_PACKETS);
            prop_assert!(buffer.memory_usage().1 <= 1 << 20);
        }
    }
}

#[test]
fn the_bytes_are_these() {
    let layout = FragmentLayout::new(1000, 504).unwrap();
    assert_eq!(layout.fragment_count(), 2);
    let parts = split_packet(&packet(1000), layout);
    assert_eq!(parts[0][..FRAGMENT_HEADER_LEN], [0, 2, 3, 0xe8]);
    assert_eq!(parts[1][..FRAGMENT_HEADER_LEN], [1, 2, 3, 0xe8]);
    assert_eq!((parts[0].len(), parts[1].len()), (504, 504));
}

#[test]
fn a_packet_is_cut_as_far_as_the_frames_reach() {
    for room in [0, 3, 4, 5, 100, 500, 552, 1436, 8940, 70_000] {
        let reach = FragmentLayout::max_packet_len(room);
        assert!(reach >= room);
        if reach > room {
            assert!(FragmentLayout::new(reach, room).is_ok(), "{room}");
        }
        if reach < MAX_PACKET_LEN {
            assert_eq!(FragmentLayout::new(reach + 1, room), Err(DropReason::TooBig), "{room}");
        }
    }
    assert_eq!(FragmentLayout::max_packet_len(552), MAX_PACKET_LEN);
    assert_eq!(FragmentLayout::new(MAX_PACKET_LEN + 1, 9000), Err(DropReason::TooBig));
}

/// W-06: index ≥ count, totals too small and too large, lengths that do not fit.
#[test]
fn slices_that_contradict_themselves_are_malformed() {
    let decode = |head: [u8; 2], total: u16, body: usize, counter: u64| {
        let payload = [head.as_slice(), &total.to_be_bytes(), &packet(body)].concat();
        Fragment::decode(counter, &payload).map(|fragment| fragment.index)
    };
    assert_eq!(decode([0, 2], 1000, 500, 0), Ok(0));
    assert_eq!(decode([1, 2], 1000, 500, 9), Ok(1));
    assert_eq!(decode([1, 2], 1000, 1, 9), Ok(1));
    let bad = Err(DropReason::Malformed);
    for (head, total, body, counter, what) in [
        ([2, 2], 1000, 500, 9, "the index is the count"),
        ([255, 2], 1000, 500, 999, "the index is far above the count"),
        ([0, 0], 1000, 500, 9, "no fragments"),
        ([0, 1], 1000, 1000, 9, "one fragment"),
        ([0, 129], 1000, 8, 9, "too many fragments"),
        ([0, 2], 1000, 499, 9, "total too large for its fragments"),
        ([0, 2], 500, 500, 9, "total too small: the first fragment is all of it"),
        ([0, 3], 1000, 500, 9, "total too small: nothing is left for the last"),
        ([0, 2], 0, 0, 9, "nothing at all"),
        ([0, 2], 1000, 0, 9, "an empty fragment"),
        ([1, 2], 1000, 0, 9, "an empty last fragment"),
        ([1, 2], 1000, 501, 9, "the last is the longest"),
        ([2, 3], 1000, 333, 9, "the others are not equally long"),
        ([1, 2], 1000, 500, 0, "a first counter below 0"),
    ] {
        assert_eq!(decode(head, total, body, counter), bad, "{what}");
    }
    for len in 0..FRAGMENT_HEADER_LEN {
        assert_eq!(
            Fragment::decode(0, &[0; FRAGMENT_HEADER_LEN][..len]).err(),
            Some(DropReason::Malformed)
        );
    }
}

/// W-06: overlapping packets, a layout that changes midway, a fragment that comes twice.
#[test]
fn slices_that_contradict_each_other_are_refused_and_the_packet_survives() {
    let layout = FragmentLayout::new(3000, 1004).unwrap();
    let bytes = packet(3000);
    let parts = split_packet(&bytes, layout);
    let mut buffer = ReassemblyBuffer::default();
    assert_eq!(add(&mut buffer, NOW, 10, &parts[0]), Ok(FragmentOutcome::default()));
    let bad = Err(DropReason::Malformed);
    assert_eq!(add(&mut buffer, NOW, 10, &parts[0]), bad, "twice");
    assert_eq!(add(&mut buffer, NOW, 11, &parts[0]), bad, "another packet's counter");
    assert_eq!(add(&mut buffer, NOW, 12, &parts[0]), bad, "another packet's counter");
    assert_eq!(add(&mut buffer, NOW, 8, &parts[0]), bad, "it would end inside this one");
    let four = split_packet(&packet(3500), FragmentLayout::new(3500, 1004).unwrap());
    assert_eq!(add(&mut buffer, NOW, 11, &four[1]), bad, "the count changed");
    let longer = split_packet(&packet(2999), FragmentLayout::new(2999, 1004).unwrap());
    assert_eq!(add(&mut buffer, NOW, 11, &longer[1]), bad, "the total changed");
    let fragment = Fragment::decode(11, &parts[1]).unwrap();
    let flagged = buffer.add_fragment(NOW, &fragment, 1, &parts[1][FRAGMENT_HEADER_LEN..]);
    assert_eq!(flagged, bad, "the flags changed");
    assert_eq!(add(&mut buffer, NOW, 12, &parts[2]), Ok(FragmentOutcome::default()));
    let done = add(&mut buffer, NOW, 11, &parts[1]).unwrap();
    assert_eq!(done, FragmentOutcome { completed: Some(bytes), discarded: 0 });
}

/// W-06: 10^6 packets that never become whole.
#[test]
fn a_million_incomplete_packets_leave_at_most_a_mebibyte() {
    let layout = FragmentLayout::new(MAX_PACKET_LEN, 1436).unwrap();
    let part = &split_packet(&packet(MAX_PACKET_LEN), layout)[0];
    let mut buffer = ReassemblyBuffer::default();
    let mut lost = 0;
    for counter in 0..1_000_000 {
        lost += add(&mut buffer, NOW, counter * 64, part).unwrap().discarded;
    }
    assert_eq!(lost, 1_000_000 - MAX_PARTIAL_PACKETS as u64);
    let (packets, bytes) = buffer.memory_usage();
    assert_eq!(packets, MAX_PARTIAL_PACKETS);
    assert!(bytes <= 1 << 20, "{bytes}");
}

#[test]
fn a_packet_waits_a_second_and_no_longer() {
    let layout = FragmentLayout::new(2000, 1004).unwrap();
    let parts = split_packet(&packet(2000), layout);
    let end = Time::from_millis(NOW.as_millis() + 1000);
    let late = Time::from_millis(NOW.as_millis() + 1001);
    let mut buffer = ReassemblyBuffer::default();
    add(&mut buffer, NOW, 0, &parts[0]).unwrap();
    assert_eq!(buffer.expire_partial_packets(end), 0);
    let done = add(&mut buffer, end, 1, &parts[1]).unwrap();
    assert_eq!(done.completed.as_deref(), Some(packet(2000).as_slice()));
    add(&mut buffer, NOW, 2, &parts[0]).unwrap();
    let added = add(&mut buffer, late, 3, &parts[1]).unwrap();
    assert_eq!(
        added,
        FragmentOutcome { completed: None, discarded: 1 },
        "the first fragment is forgotten"
    );
}
