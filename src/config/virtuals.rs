//! The adapter's own addresses and ranges: given or derived, and apart from every physical one.
//! Pure.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use netft::{
    config::{ConfigKey, keys, network_prefix},
    ids::virtual_addrs::VirtualAddrs,
};

use super::{
    check::VirtualAddrSpans,
    names,
    problem::ConfigProblem,
    raw,
    reader::{ByteSpan, FieldReader},
};

/// The ranges the user gave the adapter, by family.
pub(super) struct AdapterPrefixes {
    v4: Option<(IpNet, ByteSpan)>,
    v6: Option<(IpNet, ByteSpan)>,
}

/// True when two prefixes share an address.
pub(super) fn prefixes_overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(b) || b.contains(a)
}

impl AdapterPrefixes {
    fn configured_prefixes(&self) -> impl Iterator<Item = &(IpNet, ByteSpan)> {
        self.v4.iter().chain(&self.v6)
    }

    /// Reports a physical network that overlaps a range of the adapter.
    pub(super) fn refuse_overlap(&self, reader: &mut FieldReader, prefix: IpNet, span: &ByteSpan) {
        for (own, own_span) in
            self.configured_prefixes().filter(|(own, _)| prefixes_overlap(own, &prefix))
        {
            let message = format!("network {prefix} overlaps the adapter's prefix {own}");
            reader.report_problem(
                ConfigProblem::at_span(span.clone(), message, "a physical network")
                    .with_mark(own_span.clone(), "the adapter's prefix")
                    .with_help("give the adapter a prefix that no physical network uses"),
            );
        }
        let derived = [names::link_local_v4(), names::link_local_v6()];
        if let Some(own) = derived.iter().find(|own| prefixes_overlap(own, &prefix)) {
            let message = format!("network {prefix} overlaps {own}, the adapter's own range");
            let label = "link-local addresses belong to the adapter";
            reader.report_problem(ConfigProblem::at_span(span.clone(), message, label));
        }
    }

    /// Reports a physical address inside a range of the adapter: its packets would go into the
    /// adapter that they carry.
    pub(super) fn refuse_inside(
        &self,
        reader: &mut FieldReader,
        addr: IpAddr,
        span: &ByteSpan,
    ) -> bool {
        if let Some((own, own_span)) =
            self.configured_prefixes().find(|(own, _)| own.contains(&addr))
        {
            let message = format!("address {addr} is inside the adapter's prefix {own}");
            reader.report_problem(
                ConfigProblem::at_span(span.clone(), message, "a physical address is needed here")
                    .with_mark(own_span.clone(), "the adapter's prefix"),
            );
            return true;
        }
        let derived = [names::link_local_v4(), names::link_local_v6()];
        if let Some(own) = derived.iter().find(|own| own.contains(&addr)) {
            let message = format!("address {addr} is inside {own}, the adapter's own range");
            let label = "a physical address is needed here";
            reader.report_problem(ConfigProblem::at_span(span.clone(), message, label));
            return true;
        }
        false
    }
}

/// The adapter's `prefix`: none, one, or one of each family.
pub(super) fn read_prefixes(
    reader: &mut FieldReader,
    adapter: &raw::AdapterTable,
) -> AdapterPrefixes {
    let mut prefixes = AdapterPrefixes { v4: None, v6: None };
    let list = reader.read_list(&adapter.prefix, &keys::ADAPTER_PREFIX, network_prefix);
    for (prefix, span) in list {
        let (slot, field, name) = match prefix {
            IpNet::V4(_) => (&mut prefixes.v4, &adapter.address, "address"),
            IpNet::V6(_) => (&mut prefixes.v6, &adapter.address6, "address6"),
        };
        if let Some((_, first)) = slot {
            let message = "the adapter has two prefixes of one family";
            let problem = ConfigProblem::at_span(span, message, "this one")
                .with_mark(first.clone(), "and this one");
            reader.report_problem(problem);
            continue;
        }
        if field.is_none() {
            let message = format!("the adapter has a prefix, but no `{name}` in it");
            let help = format!("give this node's own address: `{name} = \"…\"`");
            reader.report_problem(
                ConfigProblem::at_span(span.clone(), message, "this prefix").with_help(help),
            );
        }
        *slot = Some((prefix, span));
    }
    prefixes
}

/// A virtual address in the file, and its key.
pub(super) type AddressField<'a> = (&'a raw::OptionalField, &'static ConfigKey);

/// A node's virtual addresses: those given, else those derived from its key at `key_span`.
pub(super) fn read_virtual_addrs(
    reader: &mut FieldReader,
    (address, address6): (AddressField<'_>, AddressField<'_>),
    derived: VirtualAddrs,
    prefixes: &AdapterPrefixes,
    key_span: &ByteSpan,
) -> VirtualAddrSpans {
    let v4 = reader.parse_text(address.0, address.1, |text| {
        text.parse().map_err(|_| "this is no IPv4 address".to_owned())
    });
    let v6 = reader.parse_text(address6.0, address6.1, |text| {
        text.parse().map_err(|_| "this is no IPv6 address".to_owned())
    });
    for (addr, span, prefix) in [
        v4.as_ref().map(|(v4, span)| (IpAddr::V4(*v4), span, &prefixes.v4)),
        v6.as_ref().map(|(v6, span)| (IpAddr::V6(*v6), span, &prefixes.v6)),
    ]
    .into_iter()
    .flatten()
    {
        if let Err(why) = check_virtual_addr(addr, prefix.as_ref()) {
            let message = format!("{addr} cannot be a virtual address");
            let problem = ConfigProblem::at_span(span.clone(), message, why);
            reader.report_problem(match prefix {
                Some((prefix, prefix_span)) if !prefix.contains(&addr) => {
                    problem.with_mark(prefix_span.clone(), "the adapter's prefix")
                }
                Some(_) => problem,
                None => problem.with_help("leave it out: it is then derived from the node's key"),
            });
        }
    }
    let (v4, v4_span) = v4.unwrap_or((derived.v4, key_span.clone()));
    let (v6, v6_span) = v6.unwrap_or((derived.v6, key_span.clone()));
    VirtualAddrSpans { addrs: VirtualAddrs { v4, v6 }, v4_span, v6_span }
}

fn check_virtual_addr(addr: IpAddr, prefix: Option<&(IpNet, ByteSpan)>) -> Result<(), String> {
    if names::is_metadata(addr) {
        return Err("a cloud's metadata service answers there".to_owned());
    }
    match (prefix, addr) {
        (Some((prefix, _)), _) if !prefix.contains(&addr) => {
            Err(format!("it is outside the adapter's prefix {prefix}"))
        }
        (Some((IpNet::V4(prefix), _)), IpAddr::V4(v4))
            if prefix.prefix_len() < 31 && (v4 == prefix.network() || v4 == prefix.broadcast()) =>
        {
            Err(format!("it is the network or broadcast address of {prefix}"))
        }
        (Some(_), _) if addr.is_unspecified() || addr.is_multicast() || addr.is_loopback() => {
            Err("no node can own it".to_owned())
        }
        (Some(_), _) => Ok(()),
        // RFC 3927 section 2.1: the first and last 256 are reserved.
        (None, IpAddr::V4(v4)) => match v4.octets() {
            [169, 254, 1..=254, _] => Ok(()),
            _ => Err(format!(
                "without `prefix` it must be from {} to {}",
                Ipv4Addr::new(169, 254, 1, 0),
                Ipv4Addr::new(169, 254, 254, 255)
            )),
        },
        (None, IpAddr::V6(v6)) => match v6.segments() {
            [0xfe80, 0, 0, 0, ..] => Ok(()),
            _ => Err("without `prefix` it must be in fe80::/64".to_owned()),
        },
    }
}
