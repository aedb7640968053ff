//! Inner IP packets: pure byte work for the packet path.
//!
//! On the way out a super-packet is [split](gso) into packets that fit a route; on the way in
//! consecutive packets of a flow are [merged](gro) into one write. Both keep the L4 checksums
//! the kernel left unfinished unfinished: the seal protects the bytes between the two nodes.
//! Called by the workers only. No allocation per packet, no panic on any input.

pub mod busy_poll;
pub mod checksum;
pub mod gro;
pub mod gso;
pub mod ip;
pub mod multicast;
pub mod token_bucket;
pub mod too_big;
pub mod traffic;
pub mod virtio_net;

#[cfg(test)]
mod test_packets;
#[cfg(test)]
mod tests;
