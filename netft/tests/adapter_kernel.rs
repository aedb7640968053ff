//! The adapter in a real kernel: opened, configured, guarded and cleaned up.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, UdpSocket},
    time::{Duration, Instant},
};

use common::{in_namespace, ip};
use netft::{
    Time,
    config::AdapterBackend,
    ids::{NodeKey, virtual_addrs::VirtualAddrs},
    test_support::{
        adapter::{
            lock::AdapterLock,
            reconciler::AdapterReconciler,
            repairs::{DesiredState, Repair},
            tun,
            tun::OpenedAdapter,
            types::{CleanupError, CleanupOutcome, DeviceOrigin, TunOpenError},
        },
        netlink::{Netlink, NetlinkMonitor},
        sys::{glink, speed, tun as sys},
    },
};

const NAME: &str = "netft0";
const MTU: u16 = 1420;

fn addrs(seed: u8) -> VirtualAddrs {
    VirtualAddrs::derive_from_key(&NodeKey([seed; 32]))
}

fn peer_routes() -> BTreeMap<IpAddr, u32> {
    let peer = addrs(2);
    [(peer.v4.into(), 1400), (peer.v6.into(), 1380)].into()
}

/// The adapter, configured, with the routes to one peer; what keeps it so.
async fn adapter(
    netlink: &Netlink,
    backend: AdapterBackend,
    queues: usize,
) -> (OpenedAdapter, AdapterReconciler) {
    let opened = tun::open_adapter(netlink, NAME, backend, queues).await.unwrap();
    let configured = netlink.configure_adapter(NAME, addrs(1), MTU).await.unwrap();
    assert_eq!(configured.ifindex, opened.ifindex);
    let wanted = DesiredState {
        name: NAME.into(),
        addrs: addrs(1),
        mtu: MTU,
        routes: peer_routes(),
        speed: None,
    };
    let mut guard = AdapterReconciler::new(wanted, opened.ifindex);
    let report = guard.reconcile(netlink, Time::ZERO).await;
    assert!(report.errors.is_empty(), "{report:?}");
    assert_eq!(report.repairs.len(), 2, "{report:?}");
    (opened, guard)
}

/// U8: TUN reports 10 Gbit/s by itself, over anything.
#[test]
fn the_adapter_reports_the_speed_of_its_routes() {
    in_namespace("the_adapter_reports_the_speed_of_its_routes", async || {
        let netlink = Netlink::open().unwrap();
        let (_opened, mut guard) = adapter(&netlink, AdapterBackend::Offload, 1).await;
        let socket = glink::open_socket().unwrap();
        assert_eq!(speed::link_speed(&socket, NAME), None, "no route, no speed");
        for (speed, at) in [(Some(1000), 1000), (Some(100_000), 2000), (None, 3000)] {
            guard.set_desired_state(DesiredState { speed, ..guard.desired_state().clone() });
            let report = guard.reconcile(&netlink, Time::from_millis(at)).await;
            assert!(report.repairs.is_empty() && report.errors.is_empty(), "{report:?}");
            assert_eq!(speed::link_speed(&socket, NAME), speed);
        }
    });
}

/// Everything that has to be there, as ip(8) sees it.
fn assert_well() {
    let VirtualAddrs { v4, v6 } = addrs(1);
    let lines = ip(&format!("-o addr show dev {NAME}"));
    let shown: Vec<&str> =
        lines.lines().map(|line| line.split_whitespace().nth(3).unwrap()).collect();
    assert_eq!(shown, [format!("{v4}/32"), format!("{v6}/128")], "{lines}");
    let link = ip(&format!("-d link show dev {NAME}"));
    for word in ["POINTOPOINT", ",UP", "mtu 1420", "qlen 4000", "persist on", "addrgenmode none"] {
        assert!(link.contains(word), "{word} is not in {link}");
    }
    let peer = addrs(2);
    // A device that nobody has open says so in its routes, which stay.
    let route = ip(&format!("route show dev {NAME}")).replace(" linkdown", "");
    let wanted = format!("{} proto 194 scope link src {v4} mtu 1400", peer.v4);
    assert!(route.contains(&wanted), "{wanted} is not in {route}");
    let route = ip(&format!("-6 route show dev {NAME}"));
    assert!(route.contains(&peer.v6.to_string()) && route.contains("mtu 1380"), "{route}");
    assert!(!route.contains("fe80::/64"), "{route}");
}

/// A moment far from every earlier one, so that the guard does not skip the check.
fn later(step: &mut u64) -> Time {
    *step += 10;
    Time::from_millis(*step * 1000)
}

#[test]
fn the_adapter_has_exactly_its_two_addresses_and_host_routes() {
    in_namespace("the_adapter_has_exactly_its_two_addresses_and_host_routes", async || {
        let netlink = Netlink::open().unwrap();
        let (opened, mut guard) = adapter(&netlink, AdapterBackend::Offload, 2).await;
        assert_eq!(opened.origin, DeviceOrigin::Created);
        assert_eq!(opened.queues.len(), 2);
        assert_well();
        let link = ip(&format!("-d link show dev {NAME}"));
        assert!(link.contains("multi_queue") && link.contains("vnet_hdr on"), "{link}");
        assert!(link.contains("gso_max_size 65536"), "{link}");
        let report = guard.reconcile(&netlink, Time::from_millis(1000)).await;
        assert!(report.repairs.is_empty() && report.errors.is_empty(), "{report:?}");

        // A peer leaves while another program is at work: only the latter's change is told.
        let mut desired = guard.desired_state().clone();
        desired.routes.remove(&IpAddr::V4(addrs(2).v4));
        guard.set_desired_state(desired);
        ip(&format!("link set {NAME} txqueuelen 123"));
        let report = guard.reconcile(&netlink, Time::from_millis(1000)).await;
        assert_eq!(report.repairs, [Repair::QueueLenRestored { from: 123 }]);
        assert!(!ip(&format!("route show dev {NAME}")).contains(&addrs(2).v4.to_string()));
        netlink.remove_peer_route(opened.ifindex, 254, addrs(2).v4.into()).await.unwrap();
        assert!(netlink.remove_adapter(NAME).await.unwrap());
        assert!(!netlink.remove_adapter(NAME).await.unwrap());
    });
}

#[test]
fn both_backends_carry_a_packet_in_their_framing() {
    in_namespace("both_backends_carry_a_packet_in_their_framing", async || {
        let netlink = Netlink::open().unwrap();
        for backend in [AdapterBackend::Offload, AdapterBackend::Plain] {
            let (opened, _guard) = adapter(&netlink, backend, 1).await;
            assert_well();
            let queue = &opened.queues[0];
            let (format, header) = (queue.format, queue.format.header_len());
            assert_eq!(format.has_offload(), backend == AdapterBackend::Offload);
            assert_eq!(sys::queue_flags(&queue.fd).unwrap().1.vnet_hdr, format.has_offload());
            if format.has_offload() {
                assert_eq!(sys::vnet_hdr_size(&queue.fd).unwrap() as usize, header);
            }
            let socket = UdpSocket::bind((addrs(1).v4, 0)).unwrap();
            socket.send_to(b"hello", (addrs(2).v4, 9)).unwrap();
            let mut packet = [0; 2048];
            let packet = loop {
                let length = rustix::io::read(&queue.fd, &mut packet).unwrap();
                // The kernel itself says something over IPv6 at start.
                if packet[header] >> 4 == 4 {
                    break &packet[header..length];
                }
            };
            assert_eq!(packet[16..20], addrs(2).v4.octets());
            assert_eq!(&packet[28..], b"hello");
            let mut more = [0; 2048];
            while let Ok(_length) = rustix::io::read(&queue.fd, &mut more) {}
            let empty = rustix::io::read(&queue.fd, &mut more).unwrap_err();
            assert_eq!(empty, rustix::io::Errno::WOULDBLOCK);
        }
    });
}

#[test]
fn a_name_that_is_taken_is_refused_with_a_remedy() {
    in_namespace("a_name_that_is_taken_is_refused_with_a_remedy", async || {
        let netlink = Netlink::open().unwrap();
        for backend in [AdapterBackend::Offload, AdapterBackend::Plain] {
            let (_opened, _guard) = adapter(&netlink, backend, 1).await;
            for other in [AdapterBackend::Offload, AdapterBackend::Plain] {
                let result = tun::open_adapter(&netlink, NAME, other, 1).await;
                let Err(error) = result else { panic!("{backend:?} then {other:?}: opened") };
                assert!(matches!(error, TunOpenError::Taken { .. }), "{error}");
            }
            assert_well();
        }
        for (add, name) in [
            ("link add br7 type bridge", "br7"),
            ("link add v7 type veth peer name w7", "v7"),
            ("tuntap add t7 mode tap", "t7"),
        ] {
            ip(add);
            let Err(error) = tun::open_adapter(&netlink, name, AdapterBackend::Offload, 1).await
            else {
                panic!("{name}: opened")
            };
            assert!(error.to_string().contains(&format!("ip link del {name}")), "{error}");
            ip(&format!("link show {name}"));
        }
        assert!(matches!(
            tun::open_adapter(&netlink, "tun%d", AdapterBackend::Plain, 1).await,
            Err(TunOpenError::BadName(_))
        ));
    });
}

#[test]
fn the_guard_undoes_whatever_is_done_to_the_adapter() {
    in_namespace("the_guard_undoes_whatever_is_done_to_the_adapter", async || {
        let netlink = Netlink::open().unwrap();
        let (_opened, mut guard) = adapter(&netlink, AdapterBackend::Offload, 1).await;
        let VirtualAddrs { v4, v6 } = addrs(1);
        let peer = addrs(2);
        let mut step = 0;
        let damages = [
            format!("link set {NAME} down"),
            format!("link set {NAME} name other0"),
            format!("link set {NAME} mtu 1300"),
            // Below the least MTU of IPv6, which the kernel then forgets.
            format!("link set {NAME} mtu 1000"),
            format!("addr del {v4}/32 dev {NAME}"),
            format!("addr del {v6}/128 dev {NAME}"),
            format!("addr flush dev {NAME}"),
            format!("addr add {v4}/16 dev {NAME}"),
            format!("addr add fe80::77/64 dev {NAME} nodad"),
            format!("route del {}/32 dev {NAME}", peer.v4),
            format!("-6 route del {}/128 dev {NAME}", peer.v6),
            format!("route replace {}/32 dev {NAME} mtu 900", peer.v4),
            format!("route flush dev {NAME}"),
            format!("addr change {v4}/32 dev {NAME} preferred_lft forever"),
            format!("addr change {v6}/128 dev {NAME} preferred_lft forever"),
        ];
        for damage in damages {
            ip(&damage);
            let report = guard.reconcile(&netlink, later(&mut step)).await;
            assert!(report.errors.is_empty() && !report.is_adapter_missing, "{damage}: {report:?}");
            assert!(!report.repairs.is_empty(), "{damage}: not noticed");
            let again = guard.reconcile(&netlink, later(&mut step)).await;
            assert!(again.repairs.is_empty(), "{damage}: {again:?}");
            eprintln!("{damage}: {:?}", report.repairs);
            assert_well();
        }
        ip(&format!("addr add 10.99.0.1/24 dev {NAME}"));
        ip(&format!("route add 10.98.0.0/24 dev {NAME}"));
        let report = guard.reconcile(&netlink, later(&mut step)).await;
        assert!(report.repairs.is_empty(), "what an operator added is his: {report:?}");
    });
}

#[test]
fn a_deleted_adapter_is_created_anew() {
    in_namespace("a_deleted_adapter_is_created_anew", async || {
        let netlink = Netlink::open().unwrap();
        let mut monitor = NetlinkMonitor::open().unwrap();
        let (mut opened, mut guard) = adapter(&netlink, AdapterBackend::Offload, 2).await;
        let mut step = 0;
        for _ in 0..20 {
            while tokio::time::timeout(Duration::from_millis(20), monitor.next()).await.is_ok() {}
            ip(&format!("link del {NAME}"));
            let changes =
                tokio::time::timeout(Duration::from_secs(5), monitor.next()).await.unwrap();
            assert!(changes.links || changes.addresses || changes.routes, "{changes:?}");
            let began = Instant::now();
            let report = guard.reconcile(&netlink, later(&mut step)).await;
            assert!(report.is_adapter_missing, "{report:?}");
            opened = tun::open_adapter(&netlink, NAME, AdapterBackend::Offload, 2).await.unwrap();
            netlink.configure_adapter(NAME, addrs(1), MTU).await.unwrap();
            guard.on_recreated(opened.ifindex);
            let report = guard.reconcile(&netlink, later(&mut step)).await;
            eprintln!("restored in {:?}", began.elapsed());
            assert_eq!(report.repairs.len(), 2, "{report:?}");
            assert!(guard.reconcile(&netlink, later(&mut step)).await.repairs.is_empty());
            assert_well();
        }
        drop(opened);
    });
}

#[test]
fn what_a_crash_left_is_adopted_or_cleaned_up() {
    in_namespace("what_a_crash_left_is_adopted_or_cleaned_up", async || {
        let netlink = Netlink::open().unwrap();
        let run = tempfile::tempdir().unwrap();
        let lock = AdapterLock::acquire(run.path(), NAME).unwrap();
        let (opened, _guard) = adapter(&netlink, AdapterBackend::Offload, 2).await;
        let ifindex = opened.ifindex;

        let cleaned = tun::remove_leftover(&netlink, NAME, run.path()).await;
        assert!(matches!(cleaned, Err(CleanupError::Lock(_))), "{cleaned:?}");
        drop(lock);
        let cleaned = tun::remove_leftover(&netlink, NAME, run.path()).await;
        assert!(matches!(cleaned, Err(CleanupError::InUse { .. })), "{cleaned:?}");

        drop(opened);
        let link = ip(&format!("link show dev {NAME}"));
        assert!(link.contains("NO-CARRIER"), "{link}");
        assert_well();
        let opened = tun::open_adapter(&netlink, NAME, AdapterBackend::Offload, 3).await.unwrap();
        assert_eq!((opened.origin, opened.ifindex), (DeviceOrigin::Adopted, ifindex));
        assert_well();
        netlink.configure_adapter(NAME, addrs(1), MTU).await.unwrap();
        assert_well();

        drop(opened);
        let opened = tun::open_adapter(&netlink, NAME, AdapterBackend::Plain, 1).await.unwrap();
        assert_eq!(opened.origin, DeviceOrigin::Replaced);
        assert_ne!(opened.ifindex, ifindex);
        drop(opened);
        let opened = tun::open_adapter(&netlink, NAME, AdapterBackend::Plain, 1).await.unwrap();
        assert_eq!(opened.origin, DeviceOrigin::Adopted);
        drop(opened);
        let opened = tun::open_adapter(&netlink, NAME, AdapterBackend::Offload, 1).await.unwrap();
        assert_eq!(opened.origin, DeviceOrigin::Replaced);
        drop(opened);

        let clean = async || tun::remove_leftover(&netlink, NAME, run.path()).await;
        assert_eq!(clean().await.unwrap(), CleanupOutcome::Removed);
        assert_eq!(clean().await.unwrap(), CleanupOutcome::Nothing);
        ip(&format!("link add {NAME} type bridge"));
        assert!(matches!(clean().await, Err(CleanupError::NotTun { .. })));
        ip(&format!("link show {NAME}"));
    });
}

#[test]
fn a_host_without_ipv6_gets_an_ipv4_adapter() {
    in_namespace("a_host_without_ipv6_gets_an_ipv4_adapter", async || {
        for place in ["all", "default"] {
            fs::write(format!("/proc/sys/net/ipv6/conf/{place}/disable_ipv6"), "1").unwrap();
        }
        let netlink = Netlink::open().unwrap();
        let opened = tun::open_adapter(&netlink, NAME, AdapterBackend::Offload, 1).await.unwrap();
        let configured = netlink.configure_adapter(NAME, addrs(1), MTU).await.unwrap();
        assert!(!configured.has_ipv6);
        let wanted = DesiredState {
            name: NAME.into(),
            addrs: addrs(1),
            mtu: MTU,
            routes: peer_routes(),
            speed: None,
        };
        let mut guard = AdapterReconciler::new(wanted, opened.ifindex);
        let report = guard.reconcile(&netlink, Time::ZERO).await;
        assert_eq!(report.repairs, [Repair::RouteRestored(addrs(2).v4.into())], "{report:?}");
        let report = guard.reconcile(&netlink, Time::from_millis(1000)).await;
        assert!(report.repairs.is_empty() && report.errors.is_empty(), "{report:?}");
        let lines = ip(&format!("-o addr show dev {NAME}"));
        assert_eq!(lines.lines().count(), 1, "{lines}");
    });
}

#[test]
fn interfaces_sources_and_carrier_are_as_the_kernel_has_them() {
    in_namespace("interfaces_sources_and_carrier_are_as_the_kernel_has_them", async || {
        ip("link add a0 type veth peer name a1");
        ip("addr add 10.1.0.1/24 dev a0");
        ip("addr add 10.1.0.7/24 dev a0");
        ip("addr add fd00:1::1/64 dev a0 nodad");
        ip("addr add 10.3.0.1 peer 10.3.0.2/32 dev a0");
        ip("link set a0 up");
        ip("link set a1 up");
        ip("route add 10.9.0.0/16 via 10.1.0.2");
        let netlink = Netlink::open().unwrap();
        let interfaces = netlink.list_interfaces().await.unwrap();
        let a0 = interfaces.iter().find(|interface| interface.name == "a0").unwrap();
        assert_eq!(a0.kind.as_deref(), Some("veth"));
        assert!(a0.up && a0.carrier && !a0.loopback);
        let seen: Vec<_> = a0
            .addrs
            .iter()
            .filter(|local| !local.prefix.to_string().starts_with("fe80"))
            .map(|local| format!("{} {} {}", local.addr, local.prefix, local.is_secondary))
            .collect();
        assert_eq!(
            seen,
            [
                "10.1.0.1 10.1.0.0/24 false",
                "10.3.0.1 10.3.0.2/32 false",
                "10.1.0.7 10.1.0.0/24 true",
                "fd00:1::1 fd00:1::/64 false",
            ]
        );
        let lo = interfaces.iter().find(|interface| interface.name == "lo").unwrap();
        assert!(lo.loopback && !lo.up);

        let source = netlink.source_for("10.9.0.5".parse().unwrap()).await.unwrap();
        assert_eq!(source, Some(("10.1.0.1".parse().unwrap(), a0.index)));
        let source = netlink.source_for("fd00:1::9".parse().unwrap()).await.unwrap();
        assert_eq!(source, Some(("fd00:1::1".parse().unwrap(), a0.index)));
        for unreachable in ["10.77.0.1", "fd77::1"] {
            let source = netlink.source_for(unreachable.parse().unwrap()).await.unwrap();
            assert_eq!(source, None, "{unreachable}");
        }

        let socket = glink::open_socket().unwrap();
        assert!(glink::carrier_by_name(&socket, "a0").unwrap());
        ip("link set a1 down");
        assert!(!glink::carrier_by_name(&socket, "a0").unwrap());
        ip("link set a1 up");
        ip("link set a0 down");
        ip("link set a0 name b0");
        ip("link set b0 up");
        assert!(glink::carrier_by_index(&socket, a0.index).unwrap());
        assert_eq!(glink::interface_name(&socket, a0.index).unwrap(), "b0");
        assert!(glink::carrier_by_name(&socket, "a0").is_err());
        ip("link del b0");
        let gone = glink::carrier_by_index(&socket, a0.index).unwrap_err();
        assert_eq!(gone.raw_os_error(), Some(libc::ENODEV));
    });
}

/// F-36: the kernel drops notices that are not read fast enough.
#[test]
fn notices_that_the_kernel_dropped_are_a_resync() {
    in_namespace("notices_that_the_kernel_dropped_are_a_resync", async || {
        let mut monitor = NetlinkMonitor::open().unwrap();
        let batch = tempfile::NamedTempFile::new().unwrap();
        let pair = "addr add 10.5.0.1/32 dev lo\naddr del 10.5.0.1/32 dev lo\n";
        fs::write(batch.path(), pair.repeat(10_000)).unwrap();
        // The runtime has one thread, so nothing is read meanwhile.
        ip(&format!("-batch {}", batch.path().display()));
        let mut resync = false;
        while let Ok(changes) =
            tokio::time::timeout(Duration::from_millis(500), monitor.next()).await
        {
            resync |= changes.resync;
        }
        assert!(resync);
        ip("addr add 10.5.0.2/32 dev lo");
        let changes = tokio::time::timeout(Duration::from_secs(5), monitor.next()).await.unwrap();
        assert!(changes.addresses, "the monitor still works: {changes:?}");
    });
}
