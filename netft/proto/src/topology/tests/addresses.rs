//! Addresses that routes start from, and the interface list.

use super::*;
use crate::config::HostName;
use crate::topology::advertisement::interface_numbers;

fn listed(config: &Config, interfaces: &[Interface], running: &[PlannedRoute]) -> Vec<String> {
    let list = build_advertisement(config, interfaces, running, &KernelWays::new());
    list.endpoints.iter().map(|endpoint| endpoint.addr.to_string()).collect()
}

/// A running route from `local`.
fn running_from(local: &str) -> PlannedRoute {
    let config = config(&[&["10.1.0.2"]]);
    let mut route = plan(&config, &three(), &SourceAddresses::new(), &[]).routes.remove(0);
    route.spec.real_local = end(local);
    route
}

/// 300 interfaces with one address each, the wanted ones with the worst metric.
fn many() -> Vec<Interface> {
    let mut interfaces: Vec<_> = (0..300u32)
        .map(|n| {
            interface(n + 2, &format!("vl{n}"), &[&format!("10.{}.{}.2/24", n / 250, n % 250)])
        })
        .collect();
    for interface in &mut interfaces[270..273] {
        interface.default_route = Some(0);
    }
    interfaces
}

/// F-62: unrelated addresses never push out one that is in use, nor one the config names.
#[test]
fn a_list_that_is_cut_keeps_what_is_in_use_and_what_the_config_names() {
    let mut config = config(&[&["10.1.0.2"]]);
    let interfaces = many();
    let (in_use, named, other) = ("10.1.20.2", "10.1.21.2", "10.1.22.2");
    let all = listed(&config, &interfaces, &[]);
    assert_eq!(all.len(), 256);
    assert!([in_use, named, other].iter().all(|addr| !all.contains(&(*addr).to_owned())));
    config.peers[0].routes.push(RouteOverride::to_remote(end("10.9.0.2")).with_local(ip(named)));
    let kept = listed(&config, &interfaces, &[running_from(in_use)]);
    assert_eq!(kept.len(), 256);
    assert!(kept.contains(&in_use.to_owned()) && kept.contains(&named.to_owned()));
    assert!(!kept.contains(&other.to_owned()));
    let ranked = ranked_endpoints(&config, &interfaces, &[running_from(in_use)]);
    assert_eq!(ranked[..2].iter().map(|it| it.addr).collect::<Vec<_>>(), [ip(in_use), ip(named)]);
    assert_eq!(listening_addresses(&config, &interfaces, &[]).len(), 300, "sockets on every one");
}

/// F-63: an address that moves between nodes is no end of a route beside the host's own.
#[test]
fn a_host_address_is_used_only_where_there_is_no_other_or_the_config_names_it() {
    let mut config = config(&[&["10.1.0.2"]]);
    let eth0 = |addrs: &[&str]| vec![interface(2, "eth0", addrs)];
    let beside = eth0(&["10.1.0.5/32", "10.1.0.11/24", "fd00::5/128", "fd00::11/64"]);
    assert_eq!(listed(&config, &beside, &[]), ["10.1.0.11", "fd00::11"]);
    assert_eq!(listening_addresses(&config, &beside, &[]).len(), 4, "a peer may dial it");
    let alone = eth0(&["10.1.0.5/32", "10.1.0.6/32", "fd00::11/64", "fd00::5/128"]);
    assert_eq!(listed(&config, &alone, &[]), ["10.1.0.5", "fd00::11"]);
    assert_eq!(listed(&config, &eth0(&["10.1.0.6/32"]), &[]), ["10.1.0.6"]);
    // The other end of a cable, not an address that moves.
    let mut cable = eth0(&["10.1.0.5/32", "10.1.0.11/24"]);
    cable[0].addrs[0].prefix = "10.1.0.6/32".parse().unwrap();
    assert_eq!(listed(&config, &cable, &[]), ["10.1.0.5", "10.1.0.11"]);
    let in_use = [running_from("10.1.0.5")];
    assert_eq!(listed(&config, &beside, &in_use), ["10.1.0.5", "10.1.0.11", "fd00::11"]);
    let network = network("10.1.0.0/24", NetworkRole::Cluster, None);
    config.networks = vec![network];
    assert_eq!(listed(&config, &beside, &[]), ["10.1.0.11"], "its subnet does not name it");
    let route = RouteOverride::to_remote(end("10.1.0.2")).with_local(ip("10.1.0.5"));
    config.peers[0].routes.push(route);
    assert_eq!(listed(&config, &beside, &[]), ["10.1.0.5", "10.1.0.11"]);
}

/// F-64: `s` marks what the kernel does not choose first, such as a deprecated address.
#[test]
fn a_deprecated_address_stays_while_in_use_and_is_not_chosen_anew() {
    let config = config(&[&["10.1.0.2"]]);
    let interfaces = [interface(2, "eth0", &["fd00:1::1/64s", "fd00:2::1/64"])];
    assert_eq!(listed(&config, &interfaces, &[]), ["fd00:2::1"]);
    let in_use = [running_from("[fd00:1::1]:3343")];
    assert_eq!(listed(&config, &interfaces, &in_use), ["fd00:1::1", "fd00:2::1"]);
    let one_subnet = [interface(2, "eth0", &["fd00:1::1/64s", "fd00:1::2/64"])];
    assert_eq!(listed(&config, &one_subnet, &in_use), ["fd00:1::1"], "one per subnet");
    let listed_last = [interface(2, "eth0", &["fd00:1::2/64", "fd00:1::1/64s"])];
    assert_eq!(listed(&config, &listed_last, &in_use), ["fd00:1::1"], "whatever the order");
}

/// F-65: numbers of the kernel that are equal modulo 65,536 stay two interfaces.
#[test]
fn interfaces_keep_numbers_of_their_own() {
    let interfaces = [
        interface(2, "eth0", &["10.1.0.1/24"]),
        interface(65_538, "eth1", &["10.2.0.1/24"]),
        interface(131_074, "eth2", &["10.3.0.1/24"]),
    ];
    let numbers: Vec<_> = interface_numbers(&interfaces).into_values().collect();
    assert_eq!(numbers, [2, 3, 4]);
    let config = config(&[&["10.1.0.2"]]);
    let list = build_advertisement(&config, &interfaces, &[], &KernelWays::new());
    let numbers: BTreeSet<_> = list.endpoints.iter().map(|endpoint| endpoint.interface).collect();
    assert_eq!(numbers.len(), 3);
}

/// F-66: what `netft init` and the daemon leave out.
#[test]
fn overlays_and_container_bridges_are_no_physical_network() {
    let config = config(&[&["10.1.0.2"]]);
    let is_listed = |name: &str, kind: Option<&str>| {
        let mut one = interface(2, name, &["10.1.0.1/24"]);
        one.kind = kind.map(str::to_owned);
        !listed(&config, &[one], &[]).is_empty()
    };
    for (name, kind) in [
        ("eth0", None),
        ("br-lan", Some("bridge")),
        ("vmbr0", Some("bridge")),
        ("bond0.7", Some("vlan")),
        ("macvlan0", Some("macvlan")),
        ("veth7", Some("veth")),
        ("wgate", None),
        ("ppp0", Some("ppp")),
    ] {
        assert!(is_listed(name, kind), "{name}");
    }
    for (name, kind) in [
        ("tailscale0", Some("tun")),
        ("wg0", Some("wireguard")),
        ("wg1", None),
        ("office", Some("wireguard")),
        ("ztabcdef12", Some("tun")),
        ("cilium_host", Some("veth")),
        ("vboxnet0", None),
        ("vx7", Some("vxlan")),
        ("gnv0", Some("geneve")),
        ("tap3", Some("tun")),
        ("docker0", Some("bridge")),
        ("br-0123456789ab", Some("bridge")),
        ("virbr0", Some("bridge")),
        ("incusbr0", Some("bridge")),
    ] {
        assert!(!is_listed(name, kind), "{name}");
    }
}

#[test]
fn an_address_on_lo_is_named_as_the_reason() {
    let config = config(&[&["10.255.0.2"]]);
    let mut interfaces = three();
    interfaces[0].addrs.push(LocalAddr {
        addr: ip("10.255.0.1"),
        prefix: "10.255.0.1/32".parse().unwrap(),
        is_secondary: false,
    });
    let sources = SourceAddresses::from([(ip("10.255.0.2"), (ip("10.255.0.1"), 2))]);
    let plan = plan(&config, &interfaces, &sources, &[]);
    assert_eq!(plan.unrouted[0].reason, UnroutedReason::SourceOnLoopback);
}

#[test]
fn a_link_local_peer_is_reached_over_the_interface_it_is_written_with() {
    let mut config = config(&[&[]]);
    let name = |host: &str| HostName { host: host.to_owned(), port: 3343 };
    config.peers[0].names =
        ["fe80::2%eth0", "fe80::3%3", "fe80::4%eth9", "b.example"].map(name).into();
    let interfaces = three();
    let resolved = link_local_addresses(&config, &interfaces);
    let shown: Vec<_> = resolved[&PeerId(0)].iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["[fe80::2%2]:3343", "[fe80::3%3]:3343"]);
    let (ways, offers) = (KernelWays::new(), Advertisements::new());
    let inputs = PlanInputs {
        interfaces: &interfaces,
        sources: &SourceAddresses::new(),
        ways: &ways,
        activities: &RouteActivities::new(),
        advertisements: &offers,
        resolved: &resolved,
    };
    assert_eq!(pairs(&plan_routes(&config, &inputs, &[])), ["fe80::2 <- fe80::1%2"]);
}

/// F-67: by default the kernel answers ARP for the addresses of one card on the other.
#[test]
fn interfaces_on_one_subnet_are_found() {
    let mut config = config(&[&["10.1.0.2"]]);
    let mut interfaces = three();
    assert!(shared_subnets(&config, &interfaces).is_empty());
    interfaces.push(interface(5, "eth3", &["10.1.0.3/24", "10.7.0.1/24"]));
    interfaces.push(interface(6, "docker0", &["10.2.0.9/24"]));
    let names = |shared: &SharedSubnets| {
        shared.iter().map(|((name, _), addrs)| format!("{name} {addrs:?}")).collect::<Vec<_>>()
    };
    assert_eq!(
        names(&shared_subnets(&config, &interfaces)),
        ["eth0 [10.1.0.1]", "eth3 [10.1.0.3]"]
    );
    config.topology.exclude = vec![ExcludeRule::Interface("eth3".into())];
    assert!(shared_subnets(&config, &interfaces).is_empty());
}
