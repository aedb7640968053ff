//! Inner IP packets: pure byte work for the packet path.
//!
//! On transmit a super-packet is [segmented](gso) into packets that fit a route; on receive
//! consecutive packets of a flow are [coalesced](gro) into one write. Both keep partial L4
//! checksums partial: the AEAD tag protects the bytes between the two nodes. No allocation per
//! packet, no panic on any input.

pub mod busy_poll;
pub mod checksum;
pub mod gro;
pub mod gso;
pub mod handshake_limit;
pub mod icmp_error;
pub mod ip;
pub mod multicast;
mod repeated_headers;
pub mod token_bucket;
pub mod traffic;
mod tunnel;
pub mod virtio_net;

#[cfg(test)]
mod test_packets;
#[cfg(test)]
mod tests;
