//! Frames padded to whole cipher blocks.

use super::*;

/// The lengths of the datagrams that a node sends for packets of its adapter.
fn datagram_lengths(packets: &[AdapterPacket]) -> Vec<usize> {
    let (one, remote) = (socket(), socket());
    let left = node(one, remote.local, LEFT, session(RIGHT, (1, 2)), VnetFormat::Tunnel, None);
    packets.iter().for_each(|(hdr, packet)| left.write_packet(hdr, packet));
    left.start_adapter();
    await_readable(&remote.fd);
    let mut buf = vec![0; 65_536];
    let received = udp::recv_batch(remote.fd.as_fd(), &mut buf).unwrap().unwrap();
    let starts = (0..received.len).step_by(received.segment);
    starts.map(|start| received.segment.min(received.len - start)).collect()
}

#[test]
fn frames_are_padded_to_whole_cipher_blocks_where_there_is_room() {
    let small = |payload| build(&Shape { flags: 0, ..plain(true, payload) });
    assert_eq!(datagram_lengths(&[small(1)]), [64], "29 bytes and 32 around them");
    assert_eq!(
        datagram_lengths(&[small(1), small(1)]),
        [96],
        "padded once, behind the last packet"
    );
    assert_eq!(datagram_lengths(&[small(4)]), [64]);
    let segments = datagram_lengths(&[build(&plain(false, 60_000))]);
    assert!(segments.len() > 40 && segments.iter().all(|len| len % 16 == 0), "{segments:?}");
    let large = build(&plain(true, MAX_DATAGRAM - 32 - 28)).1;
    assert_eq!(datagram_lengths(&[(VnetHdr::default(), large)]), [MAX_DATAGRAM]);
}
