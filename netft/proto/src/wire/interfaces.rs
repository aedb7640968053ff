//! The interface list: physical addresses that a node advertises to each peer on the control
//! session, at its start and at every change (as NetFT's interface manager). Pure.
//!
//! The body of one message on the control stream, all numbers big-endian:
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +---------------------------------------------------------------+
//! |                            serial                             |  0
//! +-------------------------------+-----------+-+-+---------------+
//! |             port              |0 0 0 0 0 0|R|A| length of site|  4
//! +-------------------------------+-----------+-+-+---------------+
//! | site ...            then per address:                         |
//! +-+-------------+---------------+-------------------------------+
//! |6|W|0 0 0 0 0 0| prefix length |          interface            |
//! +-+-------------+---------------+-------------------------------+
//! |                            metric                             |
//! +---------------------------------------------------------------+
//! | the address, 4 or 16 bytes ...                                |
//! +---------------------------------------------------------------+
//! ```
//!
//! A = all cross-subnet routes, R = the node relays between its peers, 6 = an IPv6 address, W = the
//! sender's kernel has a way out of that interface to other subnets of the peers. An invalid list
//! is refused whole: half a list would create routes that only one end knows.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;

use crate::wire::{
    DropReason,
    hello::{MAX_NAME_LEN, is_valid_name},
    reader::{ByteReader, check_reserved},
};

/// Maximum number of addresses in a list.
pub const MAX_ADVERTISED_ENDPOINTS: usize = 256;
/// Maximum length of a list, bytes.
pub const MAX_ADVERTISEMENT_LEN: usize = 8 + MAX_NAME_LEN + MAX_ADVERTISED_ENDPOINTS * (8 + 16);

const FLAG_ALL_CROSS_SUBNET: u8 = 0x01;
const FLAG_OFFERS_RELAY: u8 = 0x02;
const FLAG_IPV6: u8 = 0x80;
const FLAG_ROUTED: u8 = 0x40;

/// Interface list of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Advertisement {
    /// Incremented with every list of one process (serial arithmetic, RFC 1982).
    pub serial: u32,
    /// The UDP port of every address.
    pub port: u16,
    /// Routes between all pairs of addresses on different subnets (NetFT's
    /// PlumbAllCrossSubnetRoutes).
    pub all_cross_subnet: bool,
    /// The node relays datagrams between its peers.
    pub offers_relay: bool,
    /// Site of the node: a valid name, or empty.
    pub site: String,
    /// The addresses, each once, at most [`MAX_ADVERTISED_ENDPOINTS`].
    pub endpoints: Vec<AdvertisedEndpoint>,
}

/// One physical address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AdvertisedEndpoint {
    /// The address: unicast, and not IPv6 link-local.
    pub addr: IpAddr,
    /// Prefix length, bits.
    pub prefix_len: u8,
    /// Addresses with the same value are on the same interface of the sender.
    pub interface: u16,
    /// The metric of its network; lower is preferred.
    pub metric: u32,
    /// The sender's kernel has a way out of the interface, from this address to another subnet of a
    /// peer. Without one only neighbours are reached there.
    pub is_routed: bool,
}

impl AdvertisedEndpoint {
    /// The subnet.
    pub fn subnet_prefix(&self) -> IpNet {
        let whole = IpNet::from(self.addr);
        IpNet::new(self.addr, self.prefix_len).unwrap_or(whole).trunc()
    }

    fn is_valid(&self) -> bool {
        let (most, usable) = match self.addr {
            IpAddr::V4(v4) => (32, !v4.is_broadcast()),
            IpAddr::V6(v6) => (128, !v6.is_unicast_link_local() && v6.to_ipv4_mapped().is_none()),
        };
        usable
            && self.prefix_len <= most
            && !self.addr.is_unspecified()
            && !self.addr.is_multicast()
    }
}

impl Advertisement {
    /// Appends the list to `out`, at most [`MAX_ADVERTISEMENT_LEN`] bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        debug_assert!(self.is_valid());
        out.extend_from_slice(&self.serial.to_be_bytes());
        out.extend_from_slice(&self.port.to_be_bytes());
        let relays = u8::from(self.offers_relay) * FLAG_OFFERS_RELAY;
        let crossing = u8::from(self.all_cross_subnet) * FLAG_ALL_CROSS_SUBNET;
        out.push(crossing | relays);
        out.push(self.site.len() as u8);
        out.extend_from_slice(self.site.as_bytes());
        for endpoint in &self.endpoints {
            let v6 = endpoint.addr.is_ipv6();
            let routed = u8::from(endpoint.is_routed) * FLAG_ROUTED;
            let flags = (u8::from(v6) * FLAG_IPV6) | routed;
            out.extend_from_slice(&[flags, endpoint.prefix_len]);
            out.extend_from_slice(&endpoint.interface.to_be_bytes());
            out.extend_from_slice(&endpoint.metric.to_be_bytes());
            match endpoint.addr {
                IpAddr::V4(v4) => out.extend_from_slice(&v4.octets()),
                IpAddr::V6(v6) => out.extend_from_slice(&v6.octets()),
            }
        }
    }

    /// Decodes the whole body of a message.
    ///
    /// # Errors
    /// [`DropReason::Unsupported`] for a reserved bit; [`DropReason::Malformed`] for a truncated
    /// list, too many addresses, a repeated or non-unicast address, port 0 or an invalid site.
    pub fn decode(body: &[u8]) -> Result<Self, DropReason> {
        let mut reader = ByteReader::new(body);
        let serial = reader.read_u32()?;
        let port = reader.read_u16()?;
        let flags = reader.read_u8()?;
        check_reserved(u32::from(flags & !(FLAG_ALL_CROSS_SUBNET | FLAG_OFFERS_RELAY)))?;
        let length = usize::from(reader.read_u8()?);
        if length > MAX_NAME_LEN {
            return Err(DropReason::Malformed);
        }
        let site: Vec<u8> = (0..length).map(|_| reader.read_u8()).collect::<Result<_, _>>()?;
        let site = String::from_utf8(site).map_err(|_| DropReason::Malformed)?;
        let mut endpoints = Vec::new();
        while reader.remaining_len() > 0 {
            if endpoints.len() == MAX_ADVERTISED_ENDPOINTS {
                return Err(DropReason::Malformed);
            }
            endpoints.push(decode_endpoint(&mut reader)?);
        }
        let all_cross_subnet = flags & FLAG_ALL_CROSS_SUBNET != 0;
        let relays = flags & FLAG_OFFERS_RELAY != 0;
        let list = Self { serial, port, all_cross_subnet, offers_relay: relays, site, endpoints };
        if list.is_valid() { Ok(list) } else { Err(DropReason::Malformed) }
    }

    fn is_valid(&self) -> bool {
        let addrs: BTreeSet<_> = self.endpoints.iter().map(|endpoint| endpoint.addr).collect();
        self.port != 0
            && (self.site.is_empty() || is_valid_name(self.site.as_bytes()))
            && self.endpoints.len() <= MAX_ADVERTISED_ENDPOINTS
            && addrs.len() == self.endpoints.len()
            && self.endpoints.iter().all(AdvertisedEndpoint::is_valid)
    }
}

fn decode_endpoint(reader: &mut ByteReader<'_>) -> Result<AdvertisedEndpoint, DropReason> {
    let flags = reader.read_u8()?;
    check_reserved(u32::from(flags & !(FLAG_IPV6 | FLAG_ROUTED)))?;
    let prefix_len = reader.read_u8()?;
    let interface = reader.read_u16()?;
    let metric = reader.read_u32()?;
    let addr = if flags & FLAG_IPV6 == 0 {
        Ipv4Addr::from(reader.read_array::<4>()?).into()
    } else {
        Ipv6Addr::from(reader.read_array::<16>()?).into()
    };
    let is_routed = flags & FLAG_ROUTED != 0;
    Ok(AdvertisedEndpoint { addr, prefix_len, interface, metric, is_routed })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn encoded(list: &Advertisement) -> Vec<u8> {
        let mut out = Vec::new();
        list.encode(&mut out);
        out
    }

    fn sample() -> Advertisement {
        let endpoint = |addr: &str, prefix_len, interface| AdvertisedEndpoint {
            addr: addr.parse().unwrap(),
            prefix_len,
            interface,
            metric: 1000,
            is_routed: interface == 3,
        };
        Advertisement {
            serial: 0x0102_0304,
            port: 3343,
            all_cross_subnet: true,
            offers_relay: false,
            site: "north".to_owned(),
            endpoints: vec![endpoint("10.1.0.2", 24, 2), endpoint("2001:db8::2", 64, 3)],
        }
    }

    proptest! {
        #[test]
        fn what_decodes_has_one_encoding(bytes in vec(any::<u8>(), 0..80)) {
            if let Ok(list) = Advertisement::decode(&bytes) {
                prop_assert_eq!(encoded(&list), bytes);
            }
        }

        /// Close to a valid list, so that more of it is read.
        #[test]
        fn a_changed_byte_is_refused_or_says_something_else(at in 0..49usize, xor in 1..=255u8) {
            let mut bytes = encoded(&sample());
            bytes[at] ^= xor;
            if let Ok(list) = Advertisement::decode(&bytes) {
                prop_assert_ne!(&list, &sample());
                prop_assert_eq!(encoded(&list), bytes);
            }
        }
    }

    #[test]
    fn a_list_is_read_as_it_was_written() {
        let bytes = encoded(&sample());
        assert_eq!(bytes.len(), 8 + 5 + 12 + 24);
        assert_eq!(Advertisement::decode(&bytes), Ok(sample()));
    }

    /// W-01: truncated between two addresses it is a shorter list, which the stream's framing
    /// detects.
    #[test]
    fn every_truncation_is_malformed_or_a_shorter_list() {
        let bytes = encoded(&sample());
        for len in 0..bytes.len() {
            let shorter = [(13, 0), (25, 1)].iter().find(|(at, _)| *at == len);
            let expected = shorter.map(|(_, count)| {
                let mut list = sample();
                list.endpoints.truncate(*count);
                list
            });
            assert_eq!(Advertisement::decode(&bytes[..len]).ok(), expected, "{len}");
        }
    }

    /// W-15: none of these is an address of a host elsewhere.
    #[test]
    fn addresses_that_are_none_are_malformed() {
        for addr in [
            "0.0.0.0",
            "::",
            "224.0.0.1",
            "ff02::1",
            "255.255.255.255",
            "fe80::1",
            "::ffff:1.2.3.4",
        ] {
            let mut bytes = Vec::new();
            let mut list = sample();
            list.endpoints.clear();
            list.encode(&mut bytes);
            let addr: IpAddr = addr.parse().unwrap();
            bytes.extend_from_slice(&[u8::from(addr.is_ipv6()) * FLAG_IPV6, 24, 0, 1, 0, 0, 0, 1]);
            match addr {
                IpAddr::V4(v4) => bytes.extend_from_slice(&v4.octets()),
                IpAddr::V6(v6) => bytes.extend_from_slice(&v6.octets()),
            }
            assert_eq!(Advertisement::decode(&bytes), Err(DropReason::Malformed), "{addr}");
        }
    }

    #[test]
    fn too_many_or_the_same_address_twice_is_malformed() {
        let list = |count: u16, step: u16| {
            let mut bytes = encoded(&Advertisement { port: 1, ..Advertisement::default() });
            for [high, low] in (0..count).map(|n| (1 + n * step).to_be_bytes()) {
                bytes.extend_from_slice(&[0, 24, 0, 1, 0, 0, 0, 1, 10, 0, high, low]);
            }
            Advertisement::decode(&bytes).map(|list| list.endpoints.len())
        };
        assert_eq!(list(256, 1), Ok(256));
        assert_eq!(list(257, 1), Err(DropReason::Malformed));
        assert_eq!(list(2, 0), Err(DropReason::Malformed));
    }
}
