//! The adapter's addresses beside the host's own: not its name's, and fit for masquerading.

use std::{
    net::{Ipv4Addr, UdpSocket},
    path::Path,
    time::SystemTime,
};

use crate::common::{
    NodePair, TEST_TIMEOUT,
    commands::{has_programs, run_program, skip_without},
    programs, wait_until,
};
use netft_lab::{
    Lab, Netns, NetworkLayout,
    daemon::{ADAPTER_NAME, EventFollower, EventLine, RouteRow, Site, SiteSettings},
    in_namespace, interface_index,
};
use rtnetlink::RouteMessageBuilder;

fn address_lines(netns: &Netns) -> Vec<String> {
    let text = run_program(netns, "ip", &["-o", "addr", "show", ADAPTER_NAME]);
    text.lines().map(str::to_owned).collect()
}

#[test]
fn u_1_addresses_are_deprecated_and_kept_so() {
    in_namespace("u_1_addresses_are_deprecated_and_kept_so", || {
        let pair = NodePair::start_up(1);
        let node = pair.lab.node_netns(0);
        let is_right = || {
            let lines = address_lines(node);
            let deprecated = lines.iter().all(|line| line.contains(" deprecated "));
            let global = lines.iter().any(|line| line.contains("inet 169.254"))
                && lines.iter().all(|l| !l.contains("inet 169.254") || l.contains("scope global"));
            lines.len() == 2 && deprecated && global
        };
        assert!(is_right(), "{:?}", address_lines(node));
        let addrs = pair.site.virtual_addrs(0);
        for own in [format!("{}/32", addrs.v4), format!("{}/128", addrs.v6)] {
            let forever = ["addr", "change", &own, "dev", ADAPTER_NAME, "preferred_lft", "forever"];
            run_program(node, "ip", &forever);
            wait_until("deprecated addresses", is_right);
        }
        // Another scope, as an earlier version set it.
        let own = format!("{}/32", addrs.v4);
        run_program(node, "ip", &["addr", "del", &own, "dev", ADAPTER_NAME]);
        let link = ["addr", "replace", &own, "dev", ADAPTER_NAME, "scope", "link"];
        run_program(node, "ip", &link);
        wait_until("an address of global scope", is_right);
        // Its routes came back, and traffic to the peer has the adapter's address.
        for six in [false, true] {
            let mut to = pair.endpoint(1, six);
            to.set_port(9);
            if let std::net::SocketAddr::V6(to) = &mut to {
                to.set_scope_id(pair.adapter(0).unwrap().index);
            }
            wait_until("the route's source", || {
                let source = node.run_inside(|| {
                    let any = if six { "[::]:0" } else { "0.0.0.0:0" };
                    let socket = UdpSocket::bind(any).unwrap();
                    socket.connect(to).map(|()| socket.local_addr().unwrap().ip())
                });
                source.is_ok_and(|source| addrs.contains(source))
            });
        }
    });
}

/// With the real NSS module.
#[test]
fn u_1_the_own_host_name_does_not_lead_to_the_adapter() {
    in_namespace("u_1_the_own_host_name_does_not_lead_to_the_adapter", || {
        let folders = std::fs::read_dir("/usr/lib").unwrap().flatten();
        let module = "libnss_myhostname.so.2";
        let is_there = folders.map(|folder| folder.path().join(module)).any(|path| path.exists())
            || Path::new("/usr/lib").join(module).exists();
        if skip_without(is_there, "libnss-myhostname") {
            return;
        }
        let pair = NodePair::start_up(1);
        let node = pair.lab.node_netns(0);
        let folder = pair.site.runtime_dir(0);
        let (switch, hosts) = (folder.join("nsswitch.conf"), folder.join("hosts"));
        std::fs::write(&switch, "hosts: myhostname files\n").unwrap();
        std::fs::write(&hosts, "127.0.0.1 localhost\n").unwrap();
        let script = format!(
            "hostname netft-test && mount --bind {} /etc/nsswitch.conf && \
             mount --bind {} /etc/hosts && getent ahosts netft-test",
            switch.display(),
            hosts.display()
        );
        let text = run_program(node, "unshare", &["-u", "-m", "sh", "-c", &script]);
        let card = pair.lab.node_address(0, 0, false).to_string();
        assert!(text.contains(&card), "{text}");
        let addrs = pair.site.virtual_addrs(0);
        for own in [addrs.v4.to_string(), addrs.v6.to_string()] {
            assert!(!text.contains(&own), "{text}");
        }
    });
}

/// As Docker does it: the kernel selects the source of masqueraded packets from the adapter.
#[test]
fn masqueraded_packets_reach_the_peer() {
    in_namespace("masqueraded_packets_reach_the_peer", || {
        if !has_programs(&["nft"]) {
            return;
        }
        let lab = Lab::with_layouts(3, &[NetworkLayout::Flat]).unwrap();
        let settings =
            SiteSettings { common: "[adapter]\nforward = true\n", ..SiteSettings::default() };
        let site = Site::new(&lab, programs(), settings).unwrap();
        let mut daemons = [0, 1].map(|node| site.start_daemon(&lab, node).unwrap());
        for daemon in &mut daemons {
            let is_up = |routes: &[RouteRow]| routes.iter().any(|route| route.active);
            daemon.wait_for("an active route", TEST_TIMEOUT, is_up).unwrap();
        }
        let node = lab.node_netns(0);
        node.run_inside(|| std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap());
        let rules = "table ip nat { chain post { type nat hook postrouting priority 100; \
                     oifname netft0 masquerade; }; }";
        run_program(node, "nft", &[rules]);
        let (own, peer) = (site.virtual_addrs(0).v4, site.virtual_addrs(1).v4);
        let gateway = lab.node_ipv4(0, 0);
        let client = lab.node_netns(2);
        client
            .run_netlink("add a route", |netlink| async move {
                let card = interface_index(&netlink, &Lab::nic_name(0)).await?;
                let route = RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(peer, 32);
                let route = route.gateway(gateway).output_interface(card).build();
                netlink.route().add(route).execute().await
            })
            .unwrap();
        let service = lab.node_netns(1).run_inside(|| UdpSocket::bind((peer, 0)).unwrap());
        service.set_read_timeout(Some(TEST_TIMEOUT)).unwrap();
        let at = service.local_addr().unwrap();
        client.run_inside(|| {
            UdpSocket::bind("0.0.0.0:0").unwrap().send_to(b"hello", at).unwrap();
        });
        let (_, from) = service.recv_from(&mut [0; 16]).unwrap();
        assert_eq!(from.ip(), own);
    });
}

/// Runs `netft status` of node 0.
fn status_text(pair: &NodePair) -> String {
    let mut command = pair.site.operator_command(&pair.lab, 0).unwrap();
    String::from_utf8(command.arg("status").output().unwrap().stdout).unwrap()
}

/// Waits for an event of node 0 that says `text`.
fn wait_told(events: &EventFollower, since: SystemTime, name: &str, text: &str) {
    let says = |event: &EventLine| {
        event.name == name && event.str_field("what").is_some_and(|what| what.contains(text))
    };
    events.wait_for(text, since, TEST_TIMEOUT, says).unwrap();
}

fn set_ipv6(netns: &Netns, interface: &str, disabled: bool) {
    let path = format!("/proc/sys/net/ipv6/conf/{interface}/disable_ipv6");
    netns.run_inside(|| std::fs::write(path, u8::from(disabled).to_string()).unwrap());
}

#[test]
fn f_23_ipv6_and_the_queue_length_of_the_adapter_are_put_back() {
    in_namespace("f_23_ipv6_and_the_queue_length_of_the_adapter_are_put_back", || {
        let pair = NodePair::start_up(1);
        let (events, node) = (pair.events(0), pair.lab.node_netns(0));
        let start = SystemTime::now();
        set_ipv6(node, ADAPTER_NAME, true);
        wait_told(&events, start, "adapter-restored", "IPv6 was disabled on the adapter");
        run_program(node, "ip", &["link", "set", ADAPTER_NAME, "txqueuelen", "123"]);
        wait_told(&events, start, "adapter-restored", "queue length was 123");
        let own = pair.site.virtual_addrs(0).v6.to_string();
        wait_until("its address", || address_lines(node).iter().any(|line| line.contains(&own)));
        assert!(run_program(node, "ip", &["link", "show", ADAPTER_NAME]).contains("qlen 4000"));
        crate::common::assert_flow_alive(pair.transfer(0, None, true));
    });
}

/// The choices of another program are told, and shown as they are.
#[test]
fn t_07_status_shows_the_adapter_as_the_kernel_has_it() {
    in_namespace("t_07_status_shows_the_adapter_as_the_kernel_has_it", || {
        let mut pair = NodePair::start_up(1);
        let events = pair.events(0);
        let addrs = pair.site.virtual_addrs(0);
        let before = status_text(&pair);
        let wanted = format!("{}, {}, mtu ", addrs.v4, addrs.v6);
        assert!(before.contains(&wanted) && before.contains("queue 4000"), "{before}");
        let start = SystemTime::now();
        let node = pair.lab.node_netns(0);
        run_program(node, "ip", &["addr", "add", "10.66.0.9/24", "dev", ADAPTER_NAME]);
        wait_told(&events, start, "overlay-fault", "foreign address 10.66.0.9/24");
        set_ipv6(node, "all", true);
        wait_told(&events, start, "overlay-fault", "IPv6 is disabled on this host");
        wait_until("what is there", || {
            let text = status_text(&pair);
            text.contains(&format!("{} (missing)", addrs.v6))
                && text.contains("10.66.0.9/24 (foreign)")
        });
        let status = pair.daemon(0).get_json("/v1/status").unwrap();
        let shown: Vec<_> = status["adapter"]["addresses"].as_array().unwrap().clone();
        assert_eq!(shown, [format!("{}/32", addrs.v4), "10.66.0.9/24".to_owned()]);
        let node = pair.lab.node_netns(0);
        set_ipv6(node, "all", false);
        wait_until("the IPv6 address", || !status_text(&pair).contains("missing"));
        // Nothing was told twice.
        let faults = events.events_so_far();
        let faults = faults.iter().filter(|event| event.name == "overlay-fault");
        assert_eq!(faults.count(), 2);
    });
}
