//! Frames of whole blocks.

use super::*;

/// What the node sent: the lengths of its datagrams.
fn lengths(given: &[Given]) -> Vec<usize> {
    let (one, hole) = (socket(), socket());
    let far = hole.local;
    let left = node(one, far, LEFT, session(RIGHT, (1, 2)), true, None);
    given.iter().for_each(|(hdr, packet)| left.give(hdr, packet));
    left.go();
    wait(&hole.fd);
    let mut buf = vec![0; 65_536];
    let received = udp::recv_batch(hole.fd.as_fd(), &mut buf).unwrap().unwrap();
    let starts = (0..received.len).step_by(received.segment);
    starts.map(|start| received.segment.min(received.len - start)).collect()
}

#[test]
fn frames_end_with_a_block_of_the_cipher_where_there_is_room() {
    let small = |payload| build(&Shape { flags: 0, ..plain(true, payload) });
    assert_eq!(lengths(&[small(1)]), [64], "29 bytes and 32 around them");
    assert_eq!(lengths(&[small(1), small(1)]), [96], "filled up once, behind the last");
    assert_eq!(lengths(&[small(4)]), [64]);
    let segments = lengths(&[build(&plain(false, 60_000))]);
    assert!(segments.len() > 40 && segments.iter().all(|len| len % 16 == 0), "{segments:?}");
    let large = build(&plain(true, MAX_DATAGRAM - 32 - 28)).1;
    assert_eq!(lengths(&[(VnetHdr::default(), large)]), [MAX_DATAGRAM]);
}
