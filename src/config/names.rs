//! Words, addresses and host names in the config file. Pure; a function that refuses a text says
//! why.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use netft::{
    config::{AdapterBackend, ClassTimings, HostName, NetworkRole, adapter_name},
    route::Transport,
};

/// The range of derived IPv4 addresses.
pub(super) fn link_local_v4() -> IpNet {
    Ipv4Net::new_assert(Ipv4Addr::new(169, 254, 0, 0), 16).into()
}

/// The range of derived IPv6 addresses.
pub(super) fn link_local_v6() -> IpNet {
    Ipv6Net::new_assert(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10).into()
}

/// True for the address of a cloud's metadata service.
pub(super) fn is_metadata(addr: IpAddr) -> bool {
    const METADATA_V4: [Ipv4Addr; 3] = [
        Ipv4Addr::new(169, 254, 169, 254),
        Ipv4Addr::new(169, 254, 169, 253),
        Ipv4Addr::new(169, 254, 170, 2),
    ];
    const METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);
    match addr {
        IpAddr::V4(v4) => METADATA_V4.contains(&v4),
        IpAddr::V6(v6) => v6 == METADATA_V6,
    }
}

pub(super) fn parse_backend(text: &str) -> Option<AdapterBackend> {
    match text {
        "offload" => Some(AdapterBackend::Offload),
        "plain" => Some(AdapterBackend::Plain),
        _ => None,
    }
}

pub(super) fn parse_profile(text: &str) -> Option<ClassTimings> {
    match text {
        "default" => Some(ClassTimings::default()),
        // NetFT's timings.
        "windows" => Some(ClassTimings::WINDOWS_PROFILE),
        _ => None,
    }
}

pub(super) fn parse_role(text: &str) -> Option<NetworkRole> {
    match text {
        "none" => Some(NetworkRole::None),
        "cluster" => Some(NetworkRole::Cluster),
        "cluster-and-client" => Some(NetworkRole::ClusterAndClient),
        _ => None,
    }
}

pub(super) fn parse_transport(text: &str) -> Option<Transport> {
    match text {
        "udp" => Some(Transport::Udp),
        "quic" => Some(Transport::Quic),
        _ => None,
    }
}

/// A physical address.
pub(super) fn parse_address(text: &str) -> Result<IpAddr, String> {
    let addr = text
        .parse()
        .map_err(|_| "this is no IP address; a name may stand in a peer's `addresses`")?;
    require_unicast(addr)
}

/// A physical address, or a name of some.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum HostOrEndpoint {
    Address(SocketAddr),
    Name(HostName),
}

/// A physical address or a name, with or without a port.
pub(super) fn parse_host_or_endpoint(text: &str, port: u16) -> Result<HostOrEndpoint, String> {
    let is_scoped = text.contains('%');
    if !is_scoped && (text.parse::<IpAddr>().is_ok() || text.parse::<SocketAddr>().is_ok()) {
        let endpoint = parse_endpoint(text, port)?;
        return match endpoint.ip() {
            IpAddr::V6(v6) if v6.is_unicast_link_local() => Err(format!(
                "a link-local address needs the interface of this node that leads there: write \
                 {v6}%eth0"
            )),
            _ => Ok(HostOrEndpoint::Address(endpoint)),
        };
    }
    if let Some(name) = parse_link_local(text, port)? {
        return Ok(HostOrEndpoint::Name(name));
    }
    let (host, port) = match text.rsplit_once(':') {
        None => (text, port),
        Some((host, port)) => match port.parse() {
            Ok(0) => return Err("port 0 cannot be sent to".to_owned()),
            Ok(port) => (host, port),
            Err(_) => return Err(format!("{port:?} is no port")),
        },
    };
    check_host_name(host)?;
    Ok(HostOrEndpoint::Name(HostName { host: host.to_owned(), port }))
}

/// An IPv6 link-local address with its interface: `fe80::1%eth0` or `[fe80::1%eth0]:3343`. `None`
/// for every other text.
fn parse_link_local(text: &str, port: u16) -> Result<Option<HostName>, String> {
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.rsplit_once("]:")) {
        None => (text, port),
        Some((host, port)) => match port.parse() {
            Ok(0) => return Err("port 0 cannot be sent to".to_owned()),
            Ok(port) => (host, port),
            Err(_) => return Err(format!("{port:?} is no port")),
        },
    };
    let Some((addr, interface)) = host.split_once('%') else { return Ok(None) };
    let Ok(addr) = addr.parse::<Ipv6Addr>() else {
        return Err("an interface can follow an IPv6 link-local address only".to_owned());
    };
    if !addr.is_unicast_link_local() {
        return Err(format!("{addr} is no link-local address: leave out the interface"));
    }
    adapter_name(interface)?;
    Ok(Some(HostName { host: format!("{addr}%{interface}"), port }))
}

/// Accepts names that DNS can resolve (RFC 1123 section 2.1): the last of its labels is no number,
/// so that an address with a slip in it is none.
fn check_host_name(text: &str) -> Result<(), String> {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let name = text.strip_suffix('.').unwrap_or(text);
    let last = name.rsplit('.').next().unwrap_or_default();
    if last.bytes().all(|byte| byte.is_ascii_digit()) || !name.split('.').all(label) {
        return Err("this is no IP address and no host name".to_owned());
    }
    if name.len() > 253 {
        return Err(format!("it is {} bytes long, 253 are allowed", name.len()));
    }
    match name {
        "localhost" => Err("this is the node itself".to_owned()),
        _ => Ok(()),
    }
}

/// A physical address with or without a port.
pub(super) fn parse_endpoint(text: &str, port: u16) -> Result<SocketAddr, String> {
    if let Ok(addr) = text.parse::<IpAddr>() {
        return Ok(SocketAddr::new(require_unicast(addr)?, port));
    }
    match text.parse::<SocketAddr>() {
        Ok(addr) if addr.port() == 0 => Err("port 0 cannot be sent to".to_owned()),
        Ok(addr) => Ok(SocketAddr::new(require_unicast(addr.ip())?, addr.port())),
        Err(_) => {
            Err("this is no IP address with a port; a name may stand in `addresses`".to_owned())
        }
    }
}

fn require_unicast(addr: IpAddr) -> Result<IpAddr, String> {
    let why = match addr {
        _ if addr.is_unspecified() => "this is no node's address",
        _ if addr.is_multicast() => "this is a multicast address",
        _ if addr.is_loopback() => "this is a loopback address",
        _ if is_metadata(addr) => "a cloud's metadata service answers there",
        IpAddr::V4(v4) if v4.is_broadcast() => "this is the broadcast address",
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => "write the IPv4 address itself",
        _ => return Ok(addr),
    };
    Err(why.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_local_address_stands_with_its_interface() {
        let shown = |text| {
            parse_host_or_endpoint(text, 3343).map(|found| match found {
                HostOrEndpoint::Name(name) => name.to_string(),
                HostOrEndpoint::Address(addr) => format!("address {addr}"),
            })
        };
        for (text, expected) in [
            ("fe80::2%eth0", "[fe80::2%eth0]:3343"),
            ("[fe80::3%eth1]:99", "[fe80::3%eth1]:99"),
            ("[fe80::3%2]:99", "[fe80::3%2]:99"),
        ] {
            assert_eq!(shown(text), Ok(expected.to_owned()), "{text}");
        }
        for (text, word) in [
            ("fe80::1", "write fe80::1%eth0"),
            ("fd00::1%eth0", "leave out the interface"),
            ("10.1.0.2%eth0", "IPv6 link-local address only"),
            ("fe80::1%", "empty"),
            ("[fe80::1%eth0]:0", "port 0"),
        ] {
            assert!(shown(text).is_err_and(|why| why.contains(word)), "{text}");
        }
    }
}
