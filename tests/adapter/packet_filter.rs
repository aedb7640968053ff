//! The adapter's addresses are closed to the physical networks, and packets to peers never leave in
//! the clear.

use std::{
    io,
    io::ErrorKind,
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    process::Stdio,
    time::Duration,
};

use crate::common::{
    NodePair, TEST_TIMEOUT,
    commands::{has_programs, run_ip, run_nft, run_program},
    programs, wait_until,
};
use netft::api::host::{self, PacketFilterState};
use netft_lab::{
    Lab, Netns, NetworkLayout,
    capture::Capture,
    daemon::{ADAPTER_NAME, Daemon, Site, SiteSettings},
    in_namespace, interface_index,
};
use rtnetlink::RouteMessageBuilder;

/// Longest wait for a connection that must not come.
const REFUSED_AFTER: Duration = Duration::from_millis(400);

/// Two nodes with a daemon each, and a third host without one on the same network.
struct ThirdHost {
    daemons: [Daemon; 2],
    site: Site,
    lab: Lab,
}

/// The third host.
const STRANGER: usize = 2;

impl ThirdHost {
    fn start(settings: SiteSettings<'_>) -> Self {
        let lab = Lab::with_layouts(3, &[NetworkLayout::Flat]).unwrap();
        let site = Site::new(&lab, programs(), settings).unwrap();
        Self::start_site(lab, site)
    }

    fn start_site(lab: Lab, site: Site) -> Self {
        let mut daemons = [0, 1].map(|node| site.start_daemon(&lab, node).unwrap());
        for daemon in &mut daemons {
            let is_one_up =
                |routes: &[netft_lab::daemon::RouteRow]| routes.iter().any(|r| r.active);
            daemon.wait_for("an active route", TEST_TIMEOUT, is_one_up).unwrap();
        }
        Self { daemons, site, lab }
    }

    /// Nodes whose virtual addresses are `10.99.0.1`, … and `fd99::1`, …
    fn start_with_own_prefix() -> Self {
        let lab = Lab::with_layouts(3, &[NetworkLayout::Flat]).unwrap();
        let each = [1, 2, 3].map(|n| {
            format!(
                "[adapter]\nprefix = [\"10.99.0.0/24\", \"fd99::/64\"]\n\
                 address = \"10.99.0.{n}\"\naddress6 = \"fd99::{n}\"\n"
            )
        });
        let each: Vec<_> = each.iter().map(String::as_str).collect();
        let settings = SiteSettings { per_node: &each, ..SiteSettings::default() };
        let site = Site::new(&lab, programs(), settings).unwrap();
        for node in 0..3 {
            let mut text = std::fs::read_to_string(site.config_path(node)).unwrap();
            for (peer, n) in (0..3).zip(1..) {
                let entry = format!("[[peer]]\nname = \"{}\"\n", site.name(peer));
                let addresses = format!("address = \"10.99.0.{n}\"\naddress6 = \"fd99::{n}\"\n");
                text = text.replace(&entry, &format!("{entry}{addresses}"));
            }
            std::fs::write(site.config_path(node), text).unwrap();
        }
        Self::start_site(lab, site)
    }

    fn netns(&self, node: usize) -> &Netns {
        self.lab.node_netns(node)
    }

    /// The third host sends what is for `to` to node 0's card.
    fn route_by_node(&self, to: IpAddr) {
        let gateway = self.lab.node_address(0, 0, to.is_ipv6());
        add_host_route(self.netns(STRANGER), to, Some(gateway));
    }

    fn drops(&self, node: usize, reason: &str) -> u64 {
        let status = self.daemons[node].get_json("/v1/status").unwrap();
        status["counters"]["drops"][reason].as_u64().unwrap()
    }
}

/// A route to `to` over the card of network 0, by `gateway` or directly.
fn add_host_route(netns: &Netns, to: IpAddr, gateway: Option<IpAddr>) {
    netns
        .run_netlink("add a route", |netlink| async move {
            let card = interface_index(&netlink, &Lab::nic_name(0)).await?;
            let route = match (to, gateway) {
                (IpAddr::V4(to), Some(IpAddr::V4(gateway))) => {
                    let route = RouteMessageBuilder::<std::net::Ipv4Addr>::new();
                    route.destination_prefix(to, 32).gateway(gateway).output_interface(card).build()
                }
                (IpAddr::V6(to), Some(IpAddr::V6(gateway))) => {
                    let route = RouteMessageBuilder::<std::net::Ipv6Addr>::new();
                    route
                        .destination_prefix(to, 128)
                        .gateway(gateway)
                        .output_interface(card)
                        .build()
                }
                (IpAddr::V4(to), _) => {
                    let route = RouteMessageBuilder::<std::net::Ipv4Addr>::new();
                    route.destination_prefix(to, 32).output_interface(card).build()
                }
                (IpAddr::V6(to), _) => {
                    let route = RouteMessageBuilder::<std::net::Ipv6Addr>::new();
                    route.destination_prefix(to, 128).output_interface(card).build()
                }
            };
            netlink.route().add(route).replace().execute().await
        })
        .unwrap();
}

/// A TCP service of node 0 at `addr`, and what a client in `client` gets from it.
fn connect(server: &Netns, client: &Netns, addr: IpAddr) -> io::Result<()> {
    let listener = server.run_inside(|| TcpListener::bind((addr, 0)).unwrap());
    let at = listener.local_addr().unwrap();
    client.run_inside(|| TcpStream::connect_timeout(&at, REFUSED_AFTER).map(drop))
}

/// Sends a datagram from `source` and says whether it arrived at `addr` of the server.
fn arrives(server: &Netns, client: &Netns, source: IpAddr, addr: IpAddr) -> bool {
    let socket = server.run_inside(|| UdpSocket::bind((addr, 0)).unwrap());
    socket.set_read_timeout(Some(REFUSED_AFTER)).unwrap();
    let at = socket.local_addr().unwrap();
    client.run_inside(|| {
        // Duplicate address detection may be under way.
        wait_until("the address", || UdpSocket::bind((source, 0)).is_ok());
        let sender = UdpSocket::bind((source, 0)).unwrap();
        sender.send_to(b"plaintext", at).unwrap();
    });
    socket.recv_from(&mut [0; 16]).is_ok()
}

fn add_address(netns: &Netns, addr: IpAddr) {
    let len = if addr.is_ipv4() { 32 } else { 128 };
    netns
        .run_netlink("add an address", |netlink| async move {
            let card = interface_index(&netlink, "lo").await?;
            netlink.address().add(card, addr, len).execute().await
        })
        .unwrap();
}

/// State of the tables in a node's kernel.
fn filter_state(netns: &Netns) -> PacketFilterState {
    netns.run_inside(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(host::packet_filter_state(ADAPTER_NAME)).unwrap()
    })
}

#[test]
fn f_43_a_third_host_reaches_nothing_of_the_adapter() {
    in_namespace("f_43_a_third_host_reaches_nothing_of_the_adapter", || {
        let three = ThirdHost::start(SiteSettings::default());
        let (node, stranger) = (three.netns(0), three.netns(STRANGER));
        let (own, peer) = (three.site.virtual_addrs(0).v4, three.site.virtual_addrs(1).v4);
        let card = three.lab.node_address(0, 0, false);
        // The lab itself: the third host reaches the card.
        connect(node, stranger, card).unwrap();
        three.route_by_node(own.into());
        connect(node, stranger, own.into()).unwrap_err();
        // In the peer's name, to the adapter's address and to the card's.
        add_address(stranger, peer.into());
        assert!(!arrives(node, stranger, peer.into(), own.into()));
        assert!(!arrives(node, stranger, peer.into(), card));
        // No answer to ARP either: the address is no neighbour.
        add_host_route(stranger, own.into(), None);
        let error = connect(node, stranger, own.into()).unwrap_err();
        assert_ne!(error.kind(), ErrorKind::ConnectionRefused, "{error}");
        // The peer gets through.
        connect(node, three.netns(1), own.into()).unwrap();
        wait_until("the drops in the status", || three.drops(0, "outside_adapter") >= 4);
        let metrics = three.site.operator_command(&three.lab, 0).unwrap().arg("metrics").output();
        let metrics = String::from_utf8(metrics.unwrap().stdout).unwrap();
        assert!(metrics.contains("outside_adapter"), "{metrics}");
    });
}

#[test]
fn f_43_addresses_of_an_own_prefix_are_closed_too() {
    in_namespace("f_43_addresses_of_an_own_prefix_are_closed_too", || {
        let three = ThirdHost::start_with_own_prefix();
        let (node, stranger) = (three.netns(0), three.netns(STRANGER));
        for (own, peer) in [("10.99.0.1", "10.99.0.2"), ("fd99::1", "fd99::2")] {
            let (own, peer): (IpAddr, IpAddr) = (own.parse().unwrap(), peer.parse().unwrap());
            let card = three.lab.node_address(0, 0, own.is_ipv6());
            connect(node, stranger, card).unwrap();
            three.route_by_node(own);
            connect(node, stranger, own).unwrap_err();
            add_address(stranger, peer);
            assert!(!arrives(node, stranger, peer, own), "{own}");
            connect(node, three.netns(1), own).unwrap();
        }
    });
}

/// Sends from the third host to `peer` through node 0, which forwards.
fn send_through(three: &ThirdHost, peer: IpAddr) {
    three.netns(0).run_inside(|| {
        for switch in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
            std::fs::write(format!("/proc/sys/net/{switch}"), "1").unwrap();
        }
    });
    three.route_by_node(peer);
    let any = if peer.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" };
    three.netns(STRANGER).run_inside(|| {
        let sender = UdpSocket::bind(any).unwrap();
        sender.send_to(b"plaintext", (peer, 9)).unwrap();
    });
}

#[test]
fn f_43_a_node_is_no_way_into_the_overlay() {
    in_namespace("f_43_a_node_is_no_way_into_the_overlay", || {
        let three = ThirdHost::start(SiteSettings::default());
        send_through(&three, three.site.virtual_addrs(1).v4.into());
        wait_until("the drop", || three.drops(0, "not_forwarded") == 1);
        assert_eq!(three.drops(0, "foreign_source"), 0);
    });
}

/// Link-local addresses are never forwarded; those of an own prefix would be.
#[test]
fn f_43_a_node_is_no_way_into_the_overlay_over_ipv6() {
    in_namespace("f_43_a_node_is_no_way_into_the_overlay_over_ipv6", || {
        let three = ThirdHost::start_with_own_prefix();
        let peer: IpAddr = "fd99::2".parse().unwrap();
        let service = three.netns(1).run_inside(|| UdpSocket::bind((peer, 9)).unwrap());
        service.set_read_timeout(Some(REFUSED_AFTER)).unwrap();
        send_through(&three, peer);
        wait_until("the drop", || three.drops(0, "not_forwarded") == 1);
        service.recv_from(&mut [0; 16]).unwrap_err();
        // The lab itself: this node's own packets arrive.
        three.netns(0).run_inside(|| {
            UdpSocket::bind("[::]:0").unwrap().send_to(b"own", (peer, 9)).unwrap();
        });
        service.set_read_timeout(Some(TEST_TIMEOUT)).unwrap();
        assert_eq!(service.recv_from(&mut [0; 16]).unwrap().0, 3);
    });
}

/// As Docker does it: a bridge with a container behind it, masqueraded by the host.
#[test]
fn containers_of_a_bridge_reach_a_peer_of_an_own_prefix() {
    in_namespace("containers_of_a_bridge_reach_a_peer_of_an_own_prefix", || {
        if !has_programs(&["nft"]) {
            return;
        }
        let three = ThirdHost::start_with_own_prefix();
        let node = three.netns(0);
        let container = Netns::new("container").unwrap();
        let mut holder = container.command_inside("sleep").unwrap().arg("60").spawn().unwrap();
        let in_container = format!("link set eth0c netns {}", holder.id());
        for line in [
            "link add docker0 type bridge",
            "addr add 172.30.0.1/24 dev docker0",
            "link set docker0 up",
            "link add veth0 type veth peer name eth0c",
            "link set veth0 master docker0 up",
            &in_container,
        ] {
            run_ip(node, line);
        }
        for line in [
            "link set eth0c up",
            "addr add 172.30.0.2/24 dev eth0c",
            "route add default via 172.30.0.1",
        ] {
            run_ip(&container, line);
        }
        node.run_inside(|| std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap());
        run_nft(
            node,
            "table ip nat { chain post { type nat hook postrouting priority 100; \
             ip saddr 172.30.0.0/24 oifname != docker0 masquerade; }; }",
        );
        let (own, peer): (IpAddr, IpAddr) =
            ("10.99.0.1".parse().unwrap(), "10.99.0.2".parse().unwrap());
        let listener = three.netns(1).run_inside(|| TcpListener::bind((peer, 0)).unwrap());
        let at = listener.local_addr().unwrap();
        wait_until("a connection", || {
            container.run_inside(|| TcpStream::connect_timeout(&at, REFUSED_AFTER).is_ok())
        });
        assert_eq!(listener.accept().unwrap().1.ip(), own);
        assert_eq!(three.drops(0, "foreign_source"), 0);
        // And none of the LAN, which is no container.
        three.route_by_node(peer);
        connect(three.netns(1), three.netns(STRANGER), peer).unwrap_err();
        holder.kill().unwrap();
        holder.wait().unwrap();
    });
}

/// What is forwarded needs a source of this node: the peer would refuse it.
#[test]
fn a_foreign_source_is_told_at_the_sender() {
    in_namespace("a_foreign_source_is_told_at_the_sender", || {
        let common = "[adapter]\nforward = true\n";
        let three = ThirdHost::start(SiteSettings { common, ..SiteSettings::default() });
        let events = three.site.follow_events(&three.lab, 0).unwrap();
        let start = std::time::SystemTime::now();
        send_through(&three, three.site.virtual_addrs(1).v4.into());
        wait_until("the drop", || three.drops(0, "foreign_source") == 1);
        assert_eq!(three.drops(0, "not_forwarded"), 0);
        let told = events.wait_for("the fault", start, TEST_TIMEOUT, |event| {
            event.name == "overlay-fault"
                && event.str_field("what").is_some_and(|what| what.contains("masquerade"))
        });
        told.unwrap();
        assert_eq!(three.drops(1, "inner_source"), 0, "it never left");
    });
}

/// The adapter is gone, and a route of the card leads on.
#[test]
fn f_44_nothing_for_a_peer_leaves_in_the_clear() {
    in_namespace("f_44_nothing_for_a_peer_leaves_in_the_clear", || {
        let mut pair = NodePair::start_up(1);
        let peer = SocketAddr::from((pair.site.virtual_addrs(1).v4, 9));
        pair.daemons[0].take().unwrap().kill().unwrap();
        let node = pair.lab.node_netns(0);
        node.run_netlink("delete the adapter", |netlink| async move {
            let index = interface_index(&netlink, ADAPTER_NAME).await?;
            netlink.link().del(index).execute().await
        })
        .unwrap();
        add_host_route(node, peer.ip(), Some(pair.lab.node_address(0, 1, false)));
        let capture = Capture::start(node, &Lab::nic_name(0)).unwrap();
        let (sent, control) = node.run_inside(|| {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            let sent = socket.send_to(b"to the peer", peer);
            let card = pair.lab.node_address(0, 1, false);
            (sent, socket.send_to(b"to its card", (card, 9)))
        });
        assert_eq!(sent.unwrap_err().kind(), ErrorKind::PermissionDenied);
        control.unwrap();
        let holds = |frame: &[u8], text: &[u8]| frame.windows(text.len()).any(|part| part == text);
        wait_until("the control", || {
            capture.frames().iter().any(|frame| holds(frame, b"to its card"))
        });
        let (frames, _) = capture.finish();
        assert!(!frames.iter().any(|frame| holds(frame, b"to the peer")), "it left in the clear");
    });
}

#[test]
fn the_tables_stay_after_a_crash_and_go_with_a_clean_stop() {
    in_namespace("the_tables_stay_after_a_crash_and_go_with_a_clean_stop", || {
        let mut pair = NodePair::start_up(1);
        let state = |pair: &NodePair, node| filter_state(pair.lab.node_netns(node));
        for node in [0, 1] {
            assert_eq!(state(&pair, node), PacketFilterState::Installed);
        }
        pair.daemons[0].take().unwrap().kill().unwrap();
        assert_eq!(state(&pair, 0), PacketFilterState::Installed);
        let mut cleanup = pair.site.daemon_command(&pair.lab, 0).unwrap();
        let output = cleanup.arg("--cleanup").output().unwrap();
        assert!(output.status.success(), "{output:?}");
        assert_eq!(state(&pair, 0), PacketFilterState::Missing);
        assert!(pair.daemons[1].take().unwrap().stop().unwrap().success());
        assert_eq!(state(&pair, 1), PacketFilterState::Missing);
    });
}

#[test]
fn f_43_a_flushed_ruleset_is_restored() {
    in_namespace("f_43_a_flushed_ruleset_is_restored", || {
        if !has_programs(&["nft"]) {
            return;
        }
        let pair = NodePair::start_up(1);
        let events = pair.events(0);
        let node = pair.lab.node_netns(0);
        for rules in ["flush ruleset", "flush chain inet netft_netft0 inbound"] {
            let start = std::time::SystemTime::now();
            run_nft(node, rules);
            let restored = events.wait_for("the restoration", start, TEST_TIMEOUT, |event| {
                event.name == "adapter-restored"
                    && event.str_field("what").is_some_and(|what| what.contains("nftables"))
            });
            restored.unwrap();
            assert_eq!(filter_state(node), PacketFilterState::Installed);
        }
        let text = run_program(node, "nft", &["list", "ruleset"]);
        assert_eq!(text.matches("ip daddr @own4").count(), 1, "{text}");
    });
}

/// A reload changes whose packets are dropped.
#[test]
fn the_tables_follow_the_peers() {
    in_namespace("the_tables_follow_the_peers", || {
        if !has_programs(&["nft"]) {
            return;
        }
        let three = ThirdHost::start(SiteSettings::default());
        let other = three.site.virtual_addrs(STRANGER).v4.to_string();
        let holds = || {
            let list = ["list", "set", "inet", "netft_netft0", "peers4"];
            run_program(three.netns(0), "nft", &list).contains(&other)
        };
        assert!(holds());
        let text = std::fs::read_to_string(three.site.config_path(0)).unwrap();
        let entry = format!("[[peer]]\nname = \"{}\"", three.site.name(STRANGER));
        let (before, _) = text.split_once(&entry).unwrap();
        std::fs::write(three.site.config_path(0), before).unwrap();
        let reload = three.site.operator_command(&three.lab, 0).unwrap().arg("reload").output();
        assert!(reload.unwrap().status.success());
        wait_until("the peer is gone from the set", || !holds());
    });
}

/// Another program owns a table of this name, so that the kernel refuses netft's.
#[test]
fn f_43_a_refused_filter_is_told_and_tried_again() {
    in_namespace("f_43_a_refused_filter_is_told_and_tried_again", || {
        if !has_programs(&["nft"]) {
            return;
        }
        let mut pair = NodePair::prepared_for(1, SiteSettings::default());
        let node = pair.lab.node_netns(0);
        let mut owner = node.command_inside("nft").unwrap();
        let mut owner =
            owner.arg("-i").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let mut input = owner.stdin.take().unwrap();
        let table = "add table inet netft_netft0 { flags owner; }\n";
        io::Write::write_all(&mut input, table.as_bytes()).unwrap();
        wait_until("the other table", || {
            let listed = node.command_inside("nft").unwrap().args(["list", "tables"]).output();
            !listed.unwrap().stdout.is_empty()
        });
        pair.start(0);
        pair.start(1);
        pair.wait_routes_up(0);
        let events = pair.events(0);
        let start = std::time::UNIX_EPOCH;
        let is_fault = |event: &netft_lab::daemon::EventLine| {
            event.name == "overlay-fault"
                && event.str_field("what").is_some_and(|what| what.contains("nftables refuses"))
        };
        events.wait_for("the fault", start, TEST_TIMEOUT, is_fault).unwrap();
        let mut validate = pair.site.operator_command(&pair.lab, 0).unwrap();
        validate.args(["validate", "--json", "--config"]).arg(pair.site.config_path(0));
        let output = validate.output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stdout).contains("exposed-adapter"), "{output:?}");
        // The table goes with its owner.
        drop(input);
        let _ = owner.wait();
        wait_until("netft's tables", || {
            filter_state(pair.lab.node_netns(0)) == PacketFilterState::Installed
        });
    });
}
