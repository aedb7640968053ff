//! The adapter in a real kernel: comes, stays, is put back, goes.

use std::{
    net::UdpSocket,
    os::unix::net::UnixDatagram,
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use crate::common::{
    InterfaceInfo, NodePair, TEST_RATE, TEST_TIMEOUT, TRAFFIC_CHECK_TIME, assert_flow_alive,
    interface_info, wait_until,
};
use netft_lab::{
    Moment, NetworkLayout,
    daemon::{ADAPTER_NAME, EventLine, SiteSettings},
    in_namespace, interface_index,
};
use rtnetlink::{Handle, LinkUnspec, RouteMessageBuilder};
use rustix::process::{Pid, Signal, kill_process};

#[test]
fn the_adapter_comes_with_its_daemon_and_goes_when_it_stops() {
    in_namespace("the_adapter_comes_with_its_daemon_and_goes_when_it_stops", || {
        let mut pair = NodePair::prepared(&[NetworkLayout::Flat; 2], SiteSettings::default());
        assert_eq!(pair.adapter(0), None);
        pair.start(0);
        pair.start(1);
        pair.wait_routes_up(0);
        let adapter = pair.adapter(0).unwrap();
        let addrs = pair.site.virtual_addrs(0);
        assert!(adapter.up && adapter.carrier, "{adapter:?}");
        for address in [addrs.v4.into(), addrs.v6.into()] {
            assert!(adapter.addresses.contains(&address), "{address} in {adapter:?}");
        }
        let status = pair.daemons[0].take().unwrap().stop().unwrap();
        assert!(status.success(), "{status}");
        assert_eq!(pair.adapter(0), None);
    });
}

/// A peer is authentic, and still no router.
#[test]
fn no_router_is_believed_on_the_adapter() {
    in_namespace("no_router_is_believed_on_the_adapter", || {
        let pair = NodePair::start_up(1);
        for key in ["accept_ra", "accept_redirects"] {
            let file = format!("/proc/sys/net/ipv6/conf/{ADAPTER_NAME}/{key}");
            let value =
                pair.lab.node_netns(0).run_inside(|| std::fs::read_to_string(file).unwrap());
            assert_eq!(value.trim(), "0", "{key}");
        }
    });
}

#[test]
fn a_crash_leaves_the_adapter_and_cleanup_removes_it() {
    in_namespace("a_crash_leaves_the_adapter_and_cleanup_removes_it", || {
        let mut pair = NodePair::start_up(1);
        pair.daemons[0].take().unwrap().kill().unwrap();
        thread::sleep(TRAFFIC_CHECK_TIME);
        let left = pair.adapter(0).expect("TCP over it lives until the next start");
        assert!(left.up && !left.carrier, "{left:?}");
        let mut cleanup = pair.site.daemon_command(&pair.lab, 0).unwrap();
        let output = cleanup.arg("--cleanup").output().unwrap();
        assert!(output.status.success(), "{output:?}");
        assert_eq!(pair.adapter(0), None);
    });
}

#[test]
fn c_11_a_second_daemon_is_refused_and_the_first_goes_on() {
    in_namespace("c_11_a_second_daemon_is_refused_and_the_first_goes_on", || {
        let pair = NodePair::start_up(1);
        let flow = pair.transfer(0, Some(TEST_RATE), false);
        let mut second = pair.site.daemon_command(&pair.lab, 0).unwrap();
        let mut second = second.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let deadline = Instant::now() + TEST_TIMEOUT;
        while second.try_wait().unwrap().is_none() {
            if Instant::now() > deadline {
                second.kill().unwrap();
                panic!("the second daemon runs");
            }
            thread::sleep(TRAFFIC_CHECK_TIME / 25);
        }
        let output = second.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && !text.trim().is_empty(), "{text}");
        assert!(!text.contains("panicked"), "{text}");
        assert_flow_alive(flow);
    });
}

/// Runs `work` on the adapter of node 0 under a flow; it must come back as it was.
fn restored<F, Fut>(work: F)
where
    F: FnOnce(Handle, u32) -> Fut + Send,
    Fut: Future<Output = Result<(), rtnetlink::Error>>,
{
    let pair = NodePair::start_up(2);
    let flow = pair.transfer(0, Some(TEST_RATE), false);
    thread::sleep(TRAFFIC_CHECK_TIME);
    let before = pair.adapter(0).unwrap();
    pair.lab
        .node_netns(0)
        .run_netlink("disturb the adapter", |netlink| async move {
            let index = interface_index(&netlink, ADAPTER_NAME).await?;
            work(netlink, index).await
        })
        .unwrap();
    let addrs = pair.site.virtual_addrs(0);
    let same = |link: &InterfaceInfo| {
        let both = [addrs.v4.into(), addrs.v6.into()].iter().all(|a| link.addresses.contains(a));
        both && (link.up, link.mtu) == (before.up, before.mtu)
    };
    wait_until("the adapter as it was", || pair.adapter(0).as_ref().is_some_and(same));
    assert_flow_alive(flow);
}

#[test]
fn f_22_a_deleted_adapter_is_made_again() {
    in_namespace("f_22_a_deleted_adapter_is_made_again", || {
        restored(|netlink, index| async move { netlink.link().del(index).execute().await });
    });
}

#[test]
fn f_23_an_adapter_set_down_is_set_up_again() {
    in_namespace("f_23_an_adapter_set_down_is_set_up_again", || {
        restored(|netlink, index| async move {
            let down = LinkUnspec::new_with_index(index).down().build();
            netlink.link().change(down).execute().await
        });
    });
}

#[test]
fn f_23_a_renamed_adapter_gets_its_name_back() {
    in_namespace("f_23_a_renamed_adapter_gets_its_name_back", || {
        restored(|netlink, index| async move {
            let down = LinkUnspec::new_with_index(index).down().build();
            netlink.link().change(down).execute().await?;
            let other = LinkUnspec::new_with_index(index).name("other0").up().build();
            netlink.link().change(other).execute().await
        });
    });
}

#[test]
fn f_23_an_adapter_without_its_addresses_gets_them_back() {
    in_namespace("f_23_an_adapter_without_its_addresses_gets_them_back", || {
        restored(|netlink, index| async move {
            use futures_util::TryStreamExt;
            let rows = netlink.address().get().set_link_index_filter(index).execute();
            let rows: Vec<_> = rows.try_collect().await?;
            for row in rows {
                netlink.address().del(row).execute().await?;
            }
            Ok(())
        });
    });
}

#[test]
fn f_23_an_adapter_with_another_mtu_gets_its_own_back() {
    in_namespace("f_23_an_adapter_with_another_mtu_gets_its_own_back", || {
        restored(|netlink, index| async move {
            let small = LinkUnspec::new_with_index(index).mtu(1300).build();
            netlink.link().change(small).execute().await
        });
    });
}

#[test]
fn c_04_an_interface_missing_at_start_is_used_when_it_comes() {
    in_namespace("c_04_an_interface_missing_at_start_is_used_when_it_comes", || {
        let mut pair = NodePair::prepared(&[NetworkLayout::Flat; 2], SiteSettings::default());
        pair.lab.delete_nic(1, 0).unwrap();
        pair.start(0);
        pair.start(1);
        pair.daemon(0).wait_ready(1).unwrap();
        let events = pair.events(0);
        let before = Moment::now();
        pair.lab.add_nic(1, 0).unwrap();
        let added = |event: &EventLine| event.name == "route-added";
        let event = events.wait_for("the route", before.wall, TEST_TIMEOUT, added).unwrap();
        let took = event.at.duration_since(before.wall).unwrap_or_default();
        let bound = Duration::from_secs(1);
        netft_lab::scheduling::assert_within("noticing", took, bound, before.monotonic);
        for node in [0, 1] {
            pair.wait_routes_up(node);
        }
    });
}

#[test]
fn f_29_packets_to_a_route_led_into_the_adapter_are_counted_as_a_loop() {
    in_namespace("f_29_packets_to_a_route_led_into_the_adapter_are_counted_as_a_loop", || {
        let mut pair = NodePair::start_up(2);
        let flow = pair.transfer(0, Some(TEST_RATE), false);
        let far = pair.lab.node_ipv4(0, 1);
        pair.lab
            .node_netns(0)
            .run_netlink("lead a network into the adapter", |netlink| async move {
                let index = interface_index(&netlink, ADAPTER_NAME).await?;
                let route = RouteMessageBuilder::<std::net::Ipv4Addr>::new()
                    .destination_prefix(far, 32)
                    .output_interface(index)
                    .build();
                netlink.route().add(route).execute().await
            })
            .unwrap();
        let before = pair.drops(0, "loop");
        let socket = pair.lab.node_netns(0).run_inside(|| UdpSocket::bind("0.0.0.0:0").unwrap());
        for _ in 0..20 {
            socket.send_to(b"one of our own, as far as anyone can tell", (far, 3343)).unwrap();
        }
        let deadline = Instant::now() + TEST_TIMEOUT;
        while pair.drops(0, "loop") < before + 20 {
            crate::common::assert_before(deadline, || {
                format!("{} counted", pair.drops(0, "loop") - before)
            });
            thread::sleep(TRAFFIC_CHECK_TIME / 25);
        }
        // netft's own sockets are pinned to their interfaces.
        for node in [0, 1] {
            pair.wait_routes_up(node);
        }
        assert_flow_alive(flow);
    });
}

#[test]
fn systemd_hears_ready_watchdog_and_stopping() {
    in_namespace("systemd_hears_ready_watchdog_and_stopping", || {
        let pair = NodePair::prepared(&[NetworkLayout::Flat], SiteSettings::default());
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let systemd = UnixDatagram::bind(&path).unwrap();
        systemd.set_read_timeout(Some(TEST_TIMEOUT)).unwrap();
        let mut command = pair.site.daemon_command(&pair.lab, 0).unwrap();
        command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "200000");
        let mut daemon = command.env_remove("WATCHDOG_PID").stderr(Stdio::null()).spawn().unwrap();
        let heard = || {
            let mut buffer = [0; 256];
            let length = systemd.recv(&mut buffer).expect("a word in time");
            String::from_utf8_lossy(&buffer[..length]).into_owned()
        };
        // The first watchdog message may come before.
        while !heard().contains("READY=1") {}
        assert!(pair.adapter(0).is_some(), "ready before the adapter is there");
        for _ in 0..3 {
            assert!(heard().contains("WATCHDOG=1"));
        }
        let pid = Pid::from_raw(i32::try_from(daemon.id()).unwrap()).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
        while !heard().contains("STOPPING=1") {}
        assert!(daemon.wait().unwrap().success());
        assert_eq!(pair.adapter(0), None);
    });
}

#[test]
fn other_users_of_link_local_addresses_are_left_alone() {
    in_namespace("other_users_of_link_local_addresses_are_left_alone", || {
        let mut pair = NodePair::prepared(&[NetworkLayout::Flat; 2], SiteSettings::default());
        let own: std::net::Ipv4Addr = "169.254.77.1".parse().unwrap();
        pair.lab
            .node_netns(0)
            .run_netlink("add a link-local address", |netlink| async move {
                let index = interface_index(&netlink, "eth1").await?;
                netlink.address().add(index, own.into(), 16).execute().await
            })
            .unwrap();
        pair.start(0);
        pair.start(1);
        pair.wait_routes_up(0);
        let source = |target: &str| {
            pair.lab.node_netns(0).run_inside(|| {
                let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
                socket.connect(target).unwrap();
                socket.local_addr().unwrap().ip()
            })
        };
        // Asks the kernel's routing; nothing is sent.
        assert_eq!(source("169.254.169.254:80"), own, "cloud metadata goes the way it went");
        let peer = pair.site.virtual_addrs(1).v4;
        assert_eq!(source(&format!("{peer}:80")), pair.site.virtual_addrs(0).v4);
        assert!(interface_info(&pair.lab, 0, "eth1").unwrap().up);
    });
}
