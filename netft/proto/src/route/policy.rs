//! How data to a peer uses its routes: by default, and by class of traffic. Pure.
//!
//! A peer has one [`PeerPolicies`]: a default and an ordered list of at most [`MAX_CLASSES`]
//! classes. The first class that matches a packet applies, else the default does. A class matches
//! single packets, so one that distinguishes packets of one flow (by size, by DSCP) may reorder
//! them.

use std::{fmt, net::IpAddr, str::FromStr};

use crate::route::params::ParamError;

/// Classes one peer can have.
pub const MAX_CLASSES: usize = 16;

/// Protocol number of ICMP for IPv4.
const ICMP_V4: u8 = 1;
/// Protocol number of ICMP for IPv6.
const ICMP_V6: u8 = 58;

/// Use of the routes that are up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Policy {
    /// All of it goes over the best route.
    #[default]
    Failover,
    /// Every frame goes over the two best routes; the receiver delivers the first of the two.
    Duplicate,
    /// Each flow goes over one route, the flows over all routes by their capacity.
    Balance,
}

impl Policy {
    /// The name in configs and output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Failover => "failover",
            Self::Duplicate => "duplicate",
            Self::Balance => "balance",
        }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Error of a text that names no policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a policy is `failover`, `duplicate` or `balance`")]
pub struct UnknownPolicy;

impl FromStr for Policy {
    type Err = UnknownPolicy;

    fn from_str(text: &str) -> Result<Self, UnknownPolicy> {
        let all = [Self::Failover, Self::Duplicate, Self::Balance];
        all.into_iter().find(|policy| policy.as_str() == text).ok_or(UnknownPolicy)
    }
}

/// A differentiated services code point (RFC 2474): 0–63.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Dscp(u8);

impl Dscp {
    /// A code point by its number.
    ///
    /// # Errors
    /// Above 63.
    pub fn new(value: u64) -> Result<Self, ParamError> {
        let error = ParamError { name: "dscp", value, min: 0, max: 63, unit: "" };
        u8::try_from(value).ok().filter(|value| *value <= 63).map(Self).ok_or(error)
    }

    /// A code point by its name: `ef`, `cs0`–`cs7`, `af11`–`af43`, `va`, `le`, in any case.
    pub fn from_name(name: &str) -> Option<Self> {
        let name = name.to_ascii_lowercase();
        let digit = |at: usize, max: u8| {
            let digit = name.as_bytes().get(at)?.checked_sub(b'0')?;
            (digit <= max).then_some(digit)
        };
        let value = match name.get(..2)? {
            // RFC 3246, RFC 5865, RFC 8622.
            "ef" if name.len() == 2 => 46,
            "va" if name.len() == 2 => 44,
            "le" if name.len() == 2 => 1,
            // RFC 2474 section 4.2.2.
            "cs" if name.len() == 3 => digit(2, 7)? * 8,
            // RFC 2597 section 6.
            "af" if name.len() == 4 => match (digit(2, 4)?, digit(3, 3)?) {
                (class @ 1.., drop @ 1..) => class * 8 + drop * 2,
                _ => return None,
            },
            _ => return None,
        };
        Some(Self(value))
    }

    /// The number.
    pub const fn get(self) -> u8 {
        self.0
    }
}

/// The IP protocol of a class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP, for IPv4 or IPv6.
    Icmp,
}

impl Protocol {
    /// The name in configs and output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Icmp => "icmp",
        }
    }

    /// The protocol of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Tcp, Self::Udp, Self::Icmp].into_iter().find(|protocol| protocol.as_str() == name)
    }

    const fn matches_number(self, number: u8) -> bool {
        match self {
            Self::Tcp => number == 6,
            Self::Udp => number == 17,
            Self::Icmp => matches!(number, ICMP_V4 | ICMP_V6),
        }
    }
}

/// A range of TCP or UDP ports, its ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// The ports from `first` to `last`; `None` when `last` is lower, or port 0 is among them.
    pub const fn new(first: u16, last: u16) -> Option<Self> {
        if first == 0 || last < first { None } else { Some(Self { first, last }) }
    }

    const fn contains_port(self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self { first, last } if first == last => first.fmt(f),
            Self { first, last } => write!(f, "{first}-{last}"),
        }
    }
}

/// Error of a text that is no range of ports.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a port from 1 to 65535, or two with `-` between, the smaller first")]
pub struct InvalidPortRange;

impl FromStr for PortRange {
    type Err = InvalidPortRange;

    fn from_str(text: &str) -> Result<Self, InvalidPortRange> {
        let port = |text: &str| text.trim().parse::<u16>().map_err(|_| InvalidPortRange);
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        Self::new(port(first)?, port(last)?).ok_or(InvalidPortRange)
    }
}

/// The fields of a packet that classes match and that identify its flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketFields {
    /// The source.
    pub src: IpAddr,
    /// The destination.
    pub dst: IpAddr,
    /// The IP protocol number, if known; of a fragment too.
    pub protocol: Option<u8>,
    /// Source and destination port; of a whole TCP or UDP packet only, not of a fragment.
    pub ports: Option<(u16, u16)>,
    /// The code point, 0–63.
    pub dscp: u8,
    /// Size of the packet with its IP header on the wire, bytes (for a GSO packet: of one segment).
    pub size: usize,
}

/// A class of traffic, and its policy. A criterion left out matches everything; all that are
/// given must match.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct TrafficClass {
    /// Its policy.
    pub policy: Policy,
    /// Its code point.
    pub dscp: Option<Dscp>,
    /// Its IP protocol.
    pub protocol: Option<Protocol>,
    /// The port at either end. Fragments and protocols without ports do not match.
    pub ports: Option<PortRange>,
    /// Bytes of the smallest packet, its IP header included.
    pub min_size: Option<u32>,
    /// Bytes of the largest packet, its IP header included.
    pub max_size: Option<u32>,
}

impl TrafficClass {
    /// A class that matches everything, to be narrowed by its fields.
    pub fn new(policy: Policy) -> Self {
        Self { policy, ..Self::default() }
    }

    /// The contradiction in the class, if any.
    pub fn find_mistake(&self) -> Option<&'static str> {
        if let (Some(min), Some(max)) = (self.min_size, self.max_size)
            && min > max
        {
            return Some("`min_size` is more than `max_size`: no packet matches");
        }
        if self.ports.is_some() && self.protocol == Some(Protocol::Icmp) {
            return Some("ICMP has no ports");
        }
        if *self == Self::new(self.policy) {
            return Some("it matches everything: that is what the peer's own policy is for");
        }
        None
    }

    /// Returns whether a packet belongs to it.
    pub fn matches(&self, traffic: &PacketFields) -> bool {
        let size = u32::try_from(traffic.size).unwrap_or(u32::MAX);
        self.dscp.is_none_or(|dscp| dscp.get() == traffic.dscp)
            && self
                .protocol
                .is_none_or(|own| traffic.protocol.is_some_and(|other| own.matches_number(other)))
            && self.ports.is_none_or(|own| {
                traffic
                    .ports
                    .is_some_and(|(src, dst)| own.contains_port(src) || own.contains_port(dst))
            })
            && self.min_size.is_none_or(|min| min <= size)
            && self.max_size.is_none_or(|max| size <= max)
    }
}

/// All policies of one peer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct PeerPolicies {
    default: Policy,
    classes: Vec<TrafficClass>,
}

/// Classes that cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClassError {
    /// More than [`MAX_CLASSES`].
    #[error("{0} classes, more than the {MAX_CLASSES} a peer can have")]
    TooMany(usize),
    /// A contradictory class.
    #[error("class {place}: {what}")]
    Mistake {
        /// Its place, from 1.
        place: usize,
        /// The contradiction.
        what: &'static str,
    },
}

impl PeerPolicies {
    /// `default` for everything.
    pub fn new(default: Policy) -> Self {
        Self { default, classes: Vec::new() }
    }

    /// The same with these classes in place of its own, the first match deciding.
    ///
    /// # Errors
    /// See [`ClassError`].
    pub fn with_classes(self, classes: Vec<TrafficClass>) -> Result<Self, ClassError> {
        if classes.len() > MAX_CLASSES {
            return Err(ClassError::TooMany(classes.len()));
        }
        let mistake = |(place, class): (usize, &TrafficClass)| {
            class.find_mistake().map(|what| ClassError::Mistake { place: place + 1, what })
        };
        match classes.iter().enumerate().find_map(mistake) {
            Some(error) => Err(error),
            None => Ok(Self { default: self.default, classes }),
        }
    }

    /// The same with a change.
    ///
    /// # Errors
    /// See [`ClassError`].
    pub fn with_change(&self, change: PeerChange) -> Result<Self, ClassError> {
        let default = change.policy.unwrap_or(self.default);
        Self::new(default).with_classes(change.classes.unwrap_or_else(|| self.classes.clone()))
    }

    /// The policy of traffic without a class.
    pub const fn default_policy(&self) -> Policy {
        self.default
    }

    /// The classes, in the order they are tried.
    pub fn classes(&self) -> &[TrafficClass] {
        &self.classes
    }

    /// Returns whether every policy is failover, so that no packet has to be classified.
    pub fn is_failover_only(&self) -> bool {
        let plain = |policy| policy == Policy::Failover;
        plain(self.default) && self.classes.iter().all(|class| plain(class.policy))
    }

    /// The policy for a packet.
    #[inline]
    pub fn policy_for(&self, traffic: &PacketFields) -> Policy {
        let class = self.classes.iter().find(|class| class.matches(traffic));
        class.map_or(self.default, |class| class.policy)
    }
}

/// A change to a peer while it runs; `None` leaves a field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerChange {
    /// New policy for traffic of no class.
    pub policy: Option<Policy>,
    /// New classes in place of all there are.
    pub classes: Option<Vec<TrafficClass>>,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn traffic() -> PacketFields {
        PacketFields {
            src: [10, 0, 0, 1].into(),
            dst: [10, 0, 0, 2].into(),
            protocol: Some(17),
            ports: Some((40_000, 5060)),
            dscp: 46,
            size: 200,
        }
    }

    #[test]
    fn each_criterion_counts_and_all_of_them_must_match() {
        let full = TrafficClass {
            policy: Policy::Duplicate,
            dscp: Some(Dscp::new(46).unwrap()),
            protocol: Some(Protocol::Udp),
            ports: PortRange::new(5000, 5100),
            min_size: Some(200),
            max_size: Some(200),
        };
        assert!(full.matches(&traffic()));
        let swapped = PacketFields { ports: Some((5100, 1)), ..traffic() };
        assert!(full.matches(&swapped), "either end");
        for other in [
            PacketFields { dscp: 0, ..traffic() },
            PacketFields { protocol: Some(6), ..traffic() },
            PacketFields { protocol: None, ..traffic() },
            PacketFields { ports: Some((4999, 5101)), ..traffic() },
            PacketFields { ports: None, ..traffic() },
            PacketFields { size: 199, ..traffic() },
            PacketFields { size: 201, ..traffic() },
        ] {
            assert!(!full.matches(&other), "{other:?}");
        }
    }

    #[test]
    fn code_points_have_their_names() {
        for (name, value) in
            [("EF", 46), ("cs6", 48), ("cs0", 0), ("af11", 10), ("AF43", 38), ("va", 44), ("le", 1)]
        {
            assert_eq!(Dscp::from_name(name), Some(Dscp(value)), "{name}");
        }
        for name in ["", "e", "efx", "cs8", "cs", "af44", "af01", "af50", "af1", "żż", "46"] {
            assert_eq!(Dscp::from_name(name), None, "{name}");
        }
        assert!(Dscp::new(64).is_err() && Dscp::new(63).is_ok());
    }

    #[test]
    fn ports_are_one_or_a_range() {
        assert_eq!("5060".parse(), Ok(PortRange { first: 5060, last: 5060 }));
        assert_eq!("1 - 65535".parse(), Ok(PortRange { first: 1, last: 65_535 }));
        for text in ["", "0", "0-5", "6-5", "65536", "5-", "-5", "a", "1-2-3"] {
            assert_eq!(text.parse::<PortRange>(), Err(InvalidPortRange), "{text}");
        }
        assert_eq!(PortRange::new(7, 9).unwrap().to_string(), "7-9");
        assert_eq!(PortRange::new(7, 7).unwrap().to_string(), "7");
    }

    #[test]
    fn classes_that_cannot_be_meant_so_and_too_many_are_refused() {
        let with = |class| PeerPolicies::default().with_classes(vec![class]);
        let some = TrafficClass { dscp: Some(Dscp(1)), ..TrafficClass::default() };
        assert!(with(some).is_ok());
        let ports = PortRange::new(1, 1);
        for class in [
            TrafficClass::new(Policy::Balance),
            TrafficClass { min_size: Some(2), max_size: Some(1), ..some },
            TrafficClass { protocol: Some(Protocol::Icmp), ports, ..some },
        ] {
            assert!(matches!(with(class), Err(ClassError::Mistake { place: 1, .. })), "{class:?}");
        }
        let many = PeerPolicies::default().with_classes(vec![some; MAX_CLASSES + 1]);
        assert_eq!(many, Err(ClassError::TooMany(17)));
    }

    fn any_class() -> impl Strategy<Value = TrafficClass> {
        let policy =
            prop::sample::select(vec![Policy::Failover, Policy::Duplicate, Policy::Balance]);
        let protocol = prop::sample::select(vec![None, Some(Protocol::Tcp), Some(Protocol::Udp)]);
        (policy, protocol, prop::option::of(0u8..3), 1u16..9, 0u32..4).prop_map(
            |(policy, protocol, dscp, port, size)| TrafficClass {
                policy,
                protocol,
                dscp: dscp.map(Dscp),
                ports: PortRange::new(port, 8),
                min_size: Some(size),
                max_size: None,
            },
        )
    }

    proptest! {
        #[test]
        fn the_first_match_wins_else_the_default(
            classes in prop::collection::vec(any_class(), 0..MAX_CLASSES),
            protocol in prop::sample::select(vec![6u8, 17]),
            (dscp, port, size) in (0u8..3, 1u16..9, 0usize..4),
        ) {
            let traffic = PacketFields {
                protocol: Some(protocol),
                ports: Some((port, 9)),
                dscp,
                size,
                ..traffic()
            };
            let policies = PeerPolicies::new(Policy::Balance);
            let policies = policies.with_classes(classes.clone()).unwrap();
            let mut expected = Policy::Balance;
            for class in classes.iter().rev() {
                if class.matches(&traffic) {
                    expected = class.policy;
                }
            }
            prop_assert_eq!(policies.policy_for(&traffic), expected);
            if policies.is_failover_only() {
                prop_assert_eq!(policies.policy_for(&traffic), Policy::Failover);
            }
        }
    }
}
