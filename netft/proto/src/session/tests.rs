#![allow(clippy::unwrap_used)]

use std::{
    collections::HashSet,
    net::{Ipv4Addr, Ipv6Addr},
    thread,
};

use proptest::{collection::vec, prelude::*};

use super::*;
use crate::wire::{header::FRAME_OVERHEAD, hello::CipherSupport};

const CIPHERS: [Cipher; 3] = [Cipher::Aegis256X4, Cipher::Aes256Gcm, Cipher::ChaCha20Poly1305];

fn params(cipher: Cipher, end: u8, secrets: u8) -> SessionParams {
    let other = 3 - end;
    SessionParams {
        peer: PeerId(other.into()),
        peer_addrs: VirtualAddrs { v4: Ipv4Addr::LOCALHOST, v6: Ipv6Addr::LOCALHOST },
        local_id: u32::from(end) * 1000,
        remote_id: u32::from(other) * 1000,
        boot_id: 42,
        cipher,
        tx_secret: [secrets + end; 32],
        rx_secret: [secrets + other; 32],
    }
}

/// Both ends of a session; epochs of 2^`epoch_bits` frames.
fn pair_with(cipher: Cipher, epoch_bits: u32, max_frames: u64) -> (Session, Session) {
    let end = |end| Session::with_limits(params(cipher, end, 10), epoch_bits, max_frames);
    (end(1), end(2))
}

fn pair() -> (Session, Session) {
    pair_with(Cipher::Aes256Gcm, EPOCH_BITS, MAX_FRAMES)
}

fn sealed(session: &Session, counter: u64, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0xaa; FRAME_OVERHEAD + payload.len()];
    frame[HEADER_LEN..HEADER_LEN + payload.len()].copy_from_slice(payload);
    session.seal_frame(FrameKind::Data, 0, counter, &mut frame).unwrap();
    frame
}

/// Decodes and opens a frame, as a receiver does.
fn opened(session: &Session, frame: &[u8]) -> Result<Vec<u8>, DropReason> {
    let header = FrameHeader::decode(frame)?;
    session.open_frame(&header, &mut frame.to_vec()).map(|payload| payload.to_vec())
}

fn refused(session: &Session, frame: &[u8]) -> DropReason {
    opened(session, frame).unwrap_err()
}

#[test]
fn every_kind_and_size_makes_the_round_trip() {
    for cipher in CIPHERS {
        let (here, there) = pair_with(cipher, EPOCH_BITS, MAX_FRAMES);
        for len in (0..2000).chain([9000, 65_000]) {
            let payload: Vec<u8> = (0..len).map(|index| (index * 7 + len) as u8).collect();
            let kind =
                [FrameKind::Data, FrameKind::Heartbeat, FrameKind::Ack, FrameKind::Probe][len % 4];
            let flags = u8::from(kind == FrameKind::Data && len % 2 == 0);
            let counter = here.reserve_counters(1).unwrap();
            let mut frame = vec![0; FRAME_OVERHEAD + len];
            frame[HEADER_LEN..HEADER_LEN + len].copy_from_slice(&payload);
            here.seal_frame(kind, flags, counter, &mut frame).unwrap();
            if len > 32 {
                assert_ne!(frame[HEADER_LEN..HEADER_LEN + len], payload);
            }
            let header = FrameHeader::decode(&frame).unwrap();
            assert_eq!(
                header,
                FrameHeader { kind, flags, queue: 0, session_id: there.local_id(), counter }
            );
            assert_eq!(there.open_frame(&header, &mut frame).unwrap(), payload);
        }
    }
}

/// W-02: after every refusal the genuine frame still opens, so nothing had changed.
#[test]
fn every_single_bit_flip_is_refused_and_changes_nothing() {
    for cipher in CIPHERS {
        let (here, there) = pair_with(cipher, EPOCH_BITS, MAX_FRAMES);
        for (counter, len) in [(0, 0), (1, 1), (2, 200), (3, 1368)] {
            let genuine = sealed(&here, counter, &vec![0x5a; len]);
            let mut frame = genuine.clone();
            for bit in 0..genuine.len() * 8 {
                frame.copy_from_slice(&genuine);
                frame[bit / 8] ^= 0x80 >> (bit % 8);
                let Ok(header) = FrameHeader::decode(&frame) else { continue };
                let result = there.open_frame(&header, &mut frame);
                // Also where the flipped counter names a frame that was received already.
                assert_eq!(result.unwrap_err(), DropReason::NotAuthentic, "bit {bit}");
            }
            assert_eq!(there.rx.load().current_epoch(), 0);
            for other in (0..128).filter(|other| *other >= counter) {
                assert!(!there.replay.is_replayed(other));
            }
            assert_eq!(opened(&there, &genuine).unwrap().len(), len);
        }
    }
}

/// W-01, W-03.
#[test]
fn every_truncation_and_every_extra_byte_is_refused() {
    let (here, there) = pair();
    let genuine = sealed(&here, 0, &[1; 100]);
    for len in 0..genuine.len() {
        let expected =
            if len < FRAME_OVERHEAD { DropReason::Malformed } else { DropReason::NotAuthentic };
        assert_eq!(refused(&there, &genuine[..len]), expected, "{len}");
    }
    let mut longer = genuine.clone();
    for _ in 0..64 {
        longer.push(0);
        assert_eq!(refused(&there, &longer), DropReason::NotAuthentic);
    }
    longer.resize(65_507, 0);
    assert_eq!(refused(&there, &longer), DropReason::NotAuthentic);
    assert!(opened(&there, &genuine).is_ok());
}

#[test]
fn frames_too_short_to_hold_a_header_and_a_tag_are_neither_sealed_nor_opened() {
    let (here, there) = pair();
    let header =
        FrameHeader { kind: FrameKind::Data, flags: 0, queue: 0, session_id: 1, counter: 0 };
    for len in 0..FRAME_OVERHEAD {
        let mut frame = vec![0; len];
        assert_eq!(here.seal_frame(FrameKind::Data, 0, 0, &mut frame), Err(DropReason::Malformed));
        assert!(there.open_frame(&header, &mut frame).is_err());
    }
}

/// W-07: 10^6 replays at once and later inside the window, none accepted.
#[test]
fn a_replay_is_refused_at_once_and_later() {
    let (here, there) = pair();
    let frames: Vec<Vec<u8>> = (0..1000).map(|n| sealed(&here, n, b"data")).collect();
    for frame in &frames {
        assert!(opened(&there, frame).is_ok());
        assert_eq!(refused(&there, frame), DropReason::Replayed);
    }
    for _ in 0..1000 {
        for frame in &frames {
            assert_eq!(refused(&there, frame), DropReason::Replayed);
        }
    }
}

/// W-07: after the window, after a re-key, and when two epochs have passed.
#[test]
fn a_replay_is_refused_after_the_window_and_after_rekeys() {
    let (here, there) = pair();
    let first = sealed(&here, 5, b"data");
    let delayed = sealed(&here, 6, b"data");
    assert!(opened(&there, &first).is_ok());
    let epoch = 1 << EPOCH_BITS;
    // Counters of slot 0, one lap or more ahead.
    for counter in [1 << 17, epoch, 2 * epoch, 3 * epoch] {
        assert!(opened(&there, &sealed(&here, counter, b"data")).is_ok());
        for old in [&first, &delayed] {
            let reason = refused(&there, old);
            let replayed = counter < 2 * epoch;
            assert_eq!(reason == DropReason::Replayed, replayed, "{counter}");
            assert_eq!(reason == DropReason::NotAuthentic, !replayed, "{counter}");
        }
    }
}

/// W-07: another node, the same node after a restart, and the sender itself.
#[test]
fn a_frame_is_refused_by_another_session_and_by_its_sender() {
    let (here, there) = pair();
    let frame = sealed(&here, 0, b"data");
    let restarted = Session::new(params(Cipher::Aes256Gcm, 2, 20));
    let other_cipher = Session::new(params(Cipher::ChaCha20Poly1305, 2, 10));
    for session in [&restarted, &other_cipher, &here] {
        assert_eq!(refused(session, &frame), DropReason::NotAuthentic);
    }
    assert!(opened(&there, &frame).is_ok());
}

/// W-08: a jump of the counter is believed only when it is authentic.
#[test]
fn a_counter_jump_is_accepted_only_if_authentic() {
    // Epochs so long that the jump stays next to the current one.
    let (here, there) = pair_with(Cipher::Aes256Gcm, 46, MAX_FRAMES);
    assert!(opened(&there, &sealed(&here, 0, b"data")).is_ok());
    for counter in [1 << 46, (1 << 47) - 1, 1 << 47, (1 << 48) - 1, 1 << 48, 1 << 63, u64::MAX] {
        let mut forged = sealed(&here, 1, b"data");
        forged[8..16].copy_from_slice(&counter.to_be_bytes());
        assert_eq!(refused(&there, &forged), DropReason::NotAuthentic, "{counter:#x}");
    }
    assert_eq!(there.rx.load().current_epoch(), 0);
    assert!(opened(&there, &sealed(&here, 1, b"data")).is_ok(), "the forgeries moved nothing");

    assert_eq!(opened(&there, &sealed(&here, 1 << 46, b"data")).unwrap(), b"data");
    assert_eq!(there.rx.load().current_epoch(), 1);
    assert_eq!(
        refused(&there, &sealed(&here, 2, b"data")),
        DropReason::Replayed,
        "behind the replay window"
    );
    assert!(opened(&there, &sealed(&here, (1 << 46) + 1, b"data")).is_ok());
}

/// W-08: a jump over a whole epoch has no key, authentic or not.
#[test]
fn a_jump_over_an_epoch_is_refused_without_deriving_anything() {
    let (here, there) = pair_with(Cipher::Aes256Gcm, 8, MAX_FRAMES);
    assert_eq!(refused(&there, &sealed(&here, 512, b"data")), DropReason::NotAuthentic);
    assert_eq!(there.rx.load().current_epoch(), 0);
    let (here, _) = pair_with(Cipher::Aes256Gcm, 8, MAX_FRAMES);
    assert!(opened(&there, &sealed(&here, 511, b"data")).is_ok());
    assert!(opened(&there, &sealed(&here, 512, b"data")).is_ok());
    assert_eq!(there.rx.load().current_epoch(), 2);
}

/// S-03: the ratchet fires at each epoch, and no frame is lost to it.
#[test]
fn the_ratchet_loses_nothing_when_frames_cross_its_edge_out_of_order() {
    for cipher in CIPHERS {
        let (here, there) = pair_with(cipher, 6, MAX_FRAMES);
        let first = here.reserve_counters(64 * 4).unwrap();
        assert_eq!(first, 0);
        let mut frames: Vec<_> = (0..256).map(|n| (n, sealed(&here, n, &[n as u8; 20]))).collect();
        assert_eq!(here.tx.load().current_epoch(), 3, "three ratchets");
        // Runs of 40 reversed: each edge is crossed by newer frames before older ones.
        for run in frames.chunks_mut(40) {
            run.reverse();
        }
        for (counter, frame) in &frames {
            assert_eq!(opened(&there, frame).unwrap(), [*counter as u8; 20], "{counter}");
        }
        assert_eq!(there.rx.load().current_epoch(), 3);
        for (_, frame) in &frames {
            assert!(opened(&there, frame).is_err());
        }
    }
}

#[test]
fn a_forged_frame_of_the_next_epoch_does_not_ratchet() {
    let (here, there) = pair_with(Cipher::Aes256Gcm, 6, MAX_FRAMES);
    let late = sealed(&here, 0, b"late");
    let mut forged = sealed(&here, 64, b"next");
    forged[20] ^= 1;
    assert_eq!(refused(&there, &forged), DropReason::NotAuthentic);
    assert_eq!(there.rx.load().current_epoch(), 0);
    forged[20] ^= 1;
    assert!(opened(&there, &forged).is_ok());
    assert_eq!(there.rx.load().current_epoch(), 1);
    assert!(opened(&there, &late).is_ok(), "the previous epoch is still open");
}

#[test]
fn every_epoch_has_its_own_key() {
    let (here, _) = pair_with(Cipher::Aes256Gcm, 6, MAX_FRAMES);
    let (there, other) = pair_with(Cipher::Aes256Gcm, 7, MAX_FRAMES);
    assert_eq!(sealed(&here, 63, b"data"), sealed(&there, 63, b"data"));
    assert_ne!(sealed(&here, 64, b"data"), sealed(&there, 64, b"data"));
    assert_eq!(refused(&other, &sealed(&here, 64, b"data")), DropReason::NotAuthentic);
}

#[test]
fn a_frame_sealed_an_epoch_late_is_refused_not_sent_under_a_wrong_key() {
    let (here, _) = pair_with(Cipher::Aes256Gcm, 6, MAX_FRAMES);
    sealed(&here, 128, b"data");
    let mut frame = vec![0; FRAME_OVERHEAD];
    assert_eq!(here.seal_frame(FrameKind::Data, 0, 63, &mut frame), Err(DropReason::KeyExhausted));
    assert_eq!(here.seal_frame(FrameKind::Data, 0, 64, &mut frame), Ok(()));
    assert_eq!(here.tx.load().current_epoch(), 2, "a late frame does not step back");
}

#[test]
fn the_counter_space_ends_and_stays_ended() {
    let (here, _) = pair_with(Cipher::Aes256Gcm, 6, 100);
    assert!(!here.needs_fresh_handshake());
    assert_eq!(here.reserve_counters(60), Ok(0));
    assert!(here.needs_fresh_handshake());
    assert_eq!(here.reserve_counters(40), Ok(60));
    for count in [1, 40, 100, 101, u64::MAX] {
        assert_eq!(here.reserve_counters(count), Err(DropReason::KeyExhausted), "{count}");
    }
    let mut frame = vec![0; FRAME_OVERHEAD];
    assert_eq!(here.seal_frame(FrameKind::Data, 0, 99, &mut frame), Ok(()));
    assert_eq!(here.seal_frame(FrameKind::Data, 0, 100, &mut frame), Err(DropReason::KeyExhausted));

    let (here, _) = pair();
    here.reserve_counters(MAX_FRAMES - 1).unwrap();
    assert_eq!(here.reserve_counters(2), Err(DropReason::KeyExhausted));
    assert_eq!(
        here.reserve_counters(1),
        Err(DropReason::KeyExhausted),
        "a partial run is not handed out"
    );
}

#[test]
fn workers_that_race_for_the_last_counters_stay_below_the_end() {
    let (here, _) = pair_with(Cipher::Aes256Gcm, 20, 10_000);
    let taken = || {
        let mut taken = 0u64;
        while let Ok(first) = here.reserve_counters(3) {
            assert!(first + 3 <= 10_000);
            taken += 3;
        }
        taken
    };
    let sum = thread::scope(|scope| {
        let workers = [scope.spawn(taken), scope.spawn(taken)];
        workers.map(|worker| worker.join().unwrap()).iter().sum::<u64>()
    });
    assert_eq!(sum, 9_999);
}

#[test]
fn two_workers_that_seal_across_ratchets_never_reuse_a_counter() {
    let (here, there) = pair_with(Cipher::Aes256Gcm, 12, MAX_FRAMES);
    let work = || {
        let mut frames = Vec::new();
        for round in 0..400 {
            let count = round % 45 + 1;
            let first = here.reserve_counters(count).unwrap();
            for counter in first..first + count {
                let mut frame = vec![7; FRAME_OVERHEAD + 8];
                // A worker that was descheduled for a whole (short) epoch gets an error.
                match here.seal_frame(FrameKind::Data, 0, counter, &mut frame) {
                    Ok(()) => frames.push((counter, frame)),
                    Err(reason) => assert_eq!(reason, DropReason::KeyExhausted),
                }
            }
        }
        frames
    };
    let mut frames = thread::scope(|scope| {
        let workers = [scope.spawn(work), scope.spawn(work)];
        workers.map(|worker| worker.join().unwrap()).concat()
    });
    assert!(frames.len() > 8000, "{}", frames.len());
    let counters: HashSet<u64> = frames.iter().map(|(counter, _)| *counter).collect();
    assert_eq!(counters.len(), frames.len(), "each counter once");
    frames.sort();
    for (counter, frame) in frames {
        assert_eq!(opened(&there, &frame).unwrap(), [7; 8], "{counter}");
    }
}

#[test]
fn a_worker_that_ratchets_late_does_not_step_back() {
    let (here, _) = pair_with(Cipher::Aes256Gcm, 6, MAX_FRAMES);
    let late = here.tx.load_full();
    advance_epoch(&here.tx, 3);
    publish_next_epoch(&here.tx, &late);
    assert_eq!(here.tx.load().current_epoch(), 3);
}

#[test]
fn keys_held_over_a_batch_follow_a_session_that_moved_on() {
    let (here, there) = pair_with(Cipher::Aes256Gcm, 4, 1 << 10);
    let (mut sealer, mut opener) = (here.frame_sealer(0), there.frame_opener());
    // Others move both ends on by four epochs.
    for counter in [16, 32, 48, 64] {
        opened(&there, &sealed(&here, counter, b"others")).unwrap();
    }
    let mut frame = vec![9; FRAME_OVERHEAD + 5];
    sealer.seal(FrameKind::Data, 0, 65, &mut frame).unwrap();
    let header = FrameHeader::decode(&frame).unwrap();
    assert_eq!(opener.open(&header, &mut frame).unwrap(), [9; 5]);
    // And the batch itself moves on.
    sealer.seal(FrameKind::Data, 0, 80, &mut frame).unwrap();
    let header = FrameHeader::decode(&frame).unwrap();
    assert_eq!(opener.open(&header, &mut frame).map(|payload| payload.len()), Ok(5));
    assert!(opener.session().replay.is_replayed(80) && sealer.session().local_id() == 1000);
}

#[test]
fn an_epoch_is_2_to_the_25_frames() {
    let (here, there) = pair();
    for (counter, epoch) in [((1 << 25) - 1, 0), (1 << 25, 1), ((1 << 26) - 1, 1), (1 << 26, 2)] {
        assert!(opened(&there, &sealed(&here, counter, b"data")).is_ok());
        assert_eq!(
            (here.tx.load().current_epoch(), there.rx.load().current_epoch()),
            (epoch, epoch)
        );
    }
}

#[test]
fn two_workers_that_open_the_same_frames_deliver_each_once() {
    let (here, there) = pair_with(Cipher::ChaCha20Poly1305, 11, MAX_FRAMES);
    let frames: Vec<_> = (0..4000).map(|n| sealed(&here, n, b"data")).collect();
    let work = || frames.iter().filter(|frame| opened(&there, frame).is_ok()).count();
    let sum: usize = thread::scope(|scope| {
        let workers = [scope.spawn(work), scope.spawn(work)];
        workers.map(|worker| worker.join().unwrap()).iter().sum()
    });
    assert_eq!(sum, frames.len());
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_open(
        mut frame in vec(any::<u8>(), FRAME_OVERHEAD..200),
        counter in 0..1u64 << 27,
    ) {
        let (_, there) = pair();
        let header =
            FrameHeader {
                kind: FrameKind::Data,
                flags: 0,
                queue: 0,
                session_id: there.local_id(),
                counter,
            };
        frame[..HEADER_LEN].copy_from_slice(&header.encode());
        prop_assert_eq!(refused(&there, &frame), DropReason::NotAuthentic);
        prop_assert!(!there.replay.is_replayed(counter));
    }
}

#[test]
fn both_ends_choose_the_same_cipher() {
    let supports = [(false, false), (true, false), (true, true)]
        .map(|(aes, aegis)| CipherSupport { aes, aegis });
    let expected = |both: CipherSupport| match (both.aegis, both.aes) {
        (true, _) => Cipher::Aegis256X4,
        (false, true) => Cipher::Aes256Gcm,
        (false, false) => Cipher::ChaCha20Poly1305,
    };
    for (local, remote) in supports.into_iter().flat_map(|one| supports.map(|other| (one, other))) {
        let cipher = Cipher::from_support(local, remote);
        assert_eq!(cipher, Cipher::from_support(remote, local));
        let both =
            CipherSupport { aes: local.aes && remote.aes, aegis: local.aegis && remote.aegis };
        assert_eq!(cipher, expected(both));
    }
}

#[test]
fn aegis_gives_the_test_vector_of_its_draft() {
    assert!(aegis_is_sound());
}

#[test]
fn debug_output_holds_no_secret() {
    let params = params(Cipher::Aes256Gcm, 1, 0xc0);
    let text = format!("{params:?} {:?}", Session::new(self::params(Cipher::Aes256Gcm, 1, 0xc0)));
    for secret in [0xc1u8, 0xc2] {
        assert!(!text.contains(&secret.to_string()) && !text.contains(&format!("{secret:x}")));
    }
    assert!(text.contains("1000") && text.contains("2000"), "{text}");
}

/// The session of the next process.
fn succeeded(former: &Session) -> Session {
    Session::from_saved(&former.to_saved(), former.peer, former.peer_addrs).unwrap()
}

#[test]
fn f_115_a_session_goes_on_in_the_next_process_on_either_end() {
    for cipher in CIPHERS {
        let (mut here, mut there) = pair_with(cipher, EPOCH_BITS, MAX_FRAMES);
        let before = sealed(&here, here.reserve_counters(1).unwrap(), b"before");
        let late = sealed(&here, here.reserve_counters(1).unwrap(), b"late");
        assert_eq!(opened(&there, &before).unwrap(), b"before");
        there.record_received(0);
        there.record_arrivals(RouteId(3), 7);
        for _ in 0..3 {
            (here, there) = (succeeded(&here), succeeded(&there));
            let after = sealed(&here, here.reserve_counters(1).unwrap(), b"after");
            assert_eq!(opened(&there, &after).unwrap(), b"after");
            assert_eq!(refused(&there, &after), DropReason::Replayed);
            assert_eq!(refused(&there, &before), DropReason::Replayed, "the window went along");
        }
        assert_eq!(opened(&there, &late).unwrap(), b"late", "it waited in the socket");
        assert_eq!(there.arrivals_on(RouteId(3)), 7);
        assert!(there.build_ack().is_some());
    }
}

#[test]
fn f_115_a_fragmented_packet_is_completed_by_the_next_process() {
    let (_, there) = pair();
    let layout = fragment::FragmentLayout::new(1000, 504).unwrap();
    let packet: Vec<u8> = (0..1000).map(|at| at as u8).collect();
    let add = |session: &Session, index: usize| {
        let mut payload = vec![0; 4 + layout.byte_range(index).len()];
        layout.write_fragment(index, &packet, &mut payload);
        let fragment = Fragment::decode(5 + index as u64, &payload).unwrap();
        session.add_fragment(Time::ZERO, &fragment, 0, &payload[4..]).unwrap().completed
    };
    assert_eq!(add(&there, 0), None);
    assert_eq!(add(&succeeded(&there), 1), Some(packet.clone()));
}

proptest! {
    /// A counter is sealed under once, whatever the processes do between the hand-overs, also where
    /// the last frames of a process leave after its counters were read.
    #[test]
    fn f_115_no_counter_is_used_twice_over_any_number_of_processes(
        steps in vec((0u64..200, 0u64..COUNTER_RESERVE), 1..20),
    ) {
        let (mut here, _) = pair();
        let mut used = HashSet::new();
        for (before, racing) in steps {
            for _ in 0..before {
                prop_assert!(used.insert(here.reserve_counters(1).unwrap()));
            }
            let saved = here.to_saved();
            for _ in 0..racing {
                prop_assert!(used.insert(here.reserve_counters(1).unwrap()));
            }
            here = Session::from_saved(&saved, here.peer, here.peer_addrs).unwrap();
        }
        prop_assert!(used.insert(here.reserve_counters(1).unwrap()));
    }
}
