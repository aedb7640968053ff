//! Configs: one that uses every key, and every way to write a wrong one.
#![allow(clippy::unwrap_used, missing_docs)]

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    time::Duration,
};

use netft::{
    NodeKey,
    api::host::identity,
    config::{AdapterBackend, AdapterConfig, Config, NetworkRole, RelayConfig},
    route::{
        Policy, TrafficClass, Transport,
        policy::{Dscp, PortRange, Protocol},
    },
};
use netftd::config;

/// Ed25519 base point and two more: any 32 bytes that are no low-order point do.
const KEY_B: &str = "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=";
const KEY_C: &str = "AwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwM=";

struct Folder {
    dir: tempfile::TempDir,
    public: NodeKey,
}

impl Folder {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let key = identity::generate_key().unwrap();
        identity::write_key_file(&dir.path().join("key"), &key).unwrap();
        Self { dir, public: identity::public_key(&key).unwrap() }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("n.toml")
    }

    fn load(&self, text: impl AsRef<[u8]>) -> Result<Config, String> {
        fs::write(self.path(), text).unwrap();
        self.load_file()
    }

    fn load_file(&self) -> Result<Config, String> {
        load(&self.path())
    }

    /// The rendered error of a config that must be refused.
    fn refused(&self, text: impl AsRef<[u8]>) -> String {
        match self.load(text) {
            Ok(_) => panic!("accepted"),
            Err(error) => error,
        }
    }
}

fn load(path: &Path) -> Result<Config, String> {
    config::load_config(path, Path::new("/run/netft")).map_err(|error| error.to_string())
}

/// The classes of the peer of [`every_key_is_understood`].
fn classes() -> [TrafficClass; 2] {
    let first = TrafficClass {
        policy: Policy::Duplicate,
        dscp: Dscp::from_name("ef"),
        protocol: Some(Protocol::Udp),
        ports: PortRange::new(16_384, 32_767),
        min_size: Some(40),
        max_size: Some(400),
    };
    let second = TrafficClass {
        ports: PortRange::new(22, 22),
        dscp: Dscp::new(8).ok(),
        ..TrafficClass::new(Policy::Failover)
    };
    [first, second]
}

/// Node `a`, three lines.
const NODE: &str = "[node]\nname = \"a\"\nkey = \"key\"\n";

fn with_peer(lines: &str) -> String {
    format!("{NODE}[[peer]]\nname = \"b\"\nkey = \"{KEY_B}\"\naddresses = [\"10.1.0.2\"]\n{lines}")
}

#[test]
fn every_key_is_understood() {
    let folder = Folder::new();
    let config = folder
        .load(format!(
            r#"
[node]
name = "a"
key = "key"
[adapter]
name = "nf1"
backend = "plain"
mtu = 1400
multicast = 0
workers = 3
busy_poll = 20
address = "10.99.0.1"
prefix = ["10.99.0.0/24", "fd99::/64"]
address6 = "fd99::1"
[heartbeat]
profile = "windows"
delay = 50
threshold = 4
cross_subnet = {{ delay = 200 }}
[heartbeat.cross_site]
threshold = 7
[failover]
hold = 500
[session]
port = 4444
rekey = 600
[relay]
offer = true
limit = 500
use = true
[resend]
bytes = 0
age = 2000
[[network]]
prefix = "10.1.0.0/24"
[[network]]
prefix = "10.2.0.0/24"
role = "cluster-and-client"
metric = 7
capacity = 2500
transport = "quic"
[[peer]]
name = "b"
key = "{KEY_B}"
addresses = ["10.1.0.2", "10.2.0.2:3343", "[fd01::2]:3343", "fd02::2", "b.example", "b-2:99"]
address = "10.99.0.2"
policy = "balance"
transport = "quic"
[[peer.class]]
policy = "duplicate"
dscp = "ef"
protocol = "udp"
port = "16384-32767"
min_size = 40
max_size = 400
[[peer.class]]
policy = "failover"
port = 22
dscp = 8
[[peer.route]]
local = "10.1.0.1"
remote = "10.1.0.2"
delay = 50
threshold = 3
priority = 10
transport = "udp"
[[peer]]
name = "c"
key = "{KEY_C}"
addresses = ["10.1.0.3"]
"#
        ))
        .unwrap();
    assert_eq!(config.name, "a");
    assert_eq!(config.public_key, folder.public);
    assert_eq!((config.adapter.name.as_str(), config.adapter.mtu), ("nf1", 1400));
    let AdapterConfig { backend, multicast, workers, busy_poll, .. } = config.adapter;
    assert_eq!((backend, multicast, workers), (AdapterBackend::Plain, 0, 3));
    assert_eq!(busy_poll, Duration::from_micros(20));
    assert_eq!(config.adapter.addrs.v4.to_string(), "10.99.0.1");
    assert_eq!(config.adapter.addrs.v6.to_string(), "fd99::1");
    assert_eq!(config.session.port, 4444);
    assert_eq!(config.failover.hold_down, Duration::from_millis(500));
    assert_eq!(config.session.rekey_interval, Duration::from_secs(600));
    assert_eq!(
        (config.retransmit_limits.bytes, config.retransmit_limits.age),
        (0, Duration::from_secs(2))
    );
    assert_eq!(config.relay, RelayConfig { offer: true, limit: 500, use_relays: true });
    let timings = config.heartbeat.timings;
    let ms = |timing: netft::route::Timing| (timing.delay.as_millis(), timing.threshold.get());
    assert_eq!(ms(timings.same_subnet), (50, 4));
    assert_eq!(ms(timings.cross_subnet), (200, 5));
    assert_eq!(ms(timings.cross_site), (1000, 7));
    assert_eq!(config.networks[0].role, NetworkRole::Cluster);
    assert_eq!(config.networks[1].metric, Some(7));
    assert_eq!(config.networks.iter().map(|n| n.capacity).collect::<Vec<_>>(), [None, Some(2500)]);
    let b = &config.peers[0];
    let addresses: Vec<_> = b.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["10.1.0.2:4444", "10.2.0.2:3343", "[fd01::2]:3343", "[fd02::2]:4444"]);
    let names: Vec<_> = b.names.iter().map(ToString::to_string).collect();
    assert_eq!(names, ["b.example:4444", "b-2:99"]);
    assert_eq!(b.addrs.v4.to_string(), "10.99.0.2");
    assert_eq!(b.policies.default_policy(), Policy::Balance);
    assert_eq!(b.policies.classes(), classes());
    assert_eq!(config.peers[1].policies, Default::default());
    assert_eq!(b.addrs.v6.segments()[0], 0xfe80);
    assert_eq!(b.routes[0].remote.to_string(), "10.1.0.2:4444");
    let carriers = [config.networks[0].transport, config.networks[1].transport, b.transport];
    assert_eq!(carriers, [None, Some(Transport::Quic), Some(Transport::Quic)]);
    assert_eq!((b.routes[0].transport, config.peers[1].transport), (Some(Transport::Udp), None));
    assert_eq!(b.routes[0].threshold.unwrap().get(), 3);
    assert_eq!(config.peers[1].name, "c");
}

#[test]
fn the_smallest_config_gets_the_defaults_with_bom_and_crlf_too() {
    let folder = Folder::new();
    let config = folder.load(NODE).unwrap();
    assert_eq!(
        (config.adapter.name.as_str(), config.adapter.mtu, config.session.port),
        ("netft0", 1420, 3343)
    );
    assert_eq!(config.failover.hold_down, Duration::from_secs(1));
    assert_eq!(
        (config.retransmit_limits.bytes, config.retransmit_limits.age),
        (64 << 20, Duration::from_secs(1))
    );
    assert_eq!(
        (config.heartbeat.history, config.adapter.multicast, config.adapter.workers),
        (10, 1000, 0)
    );
    let windows = format!("\u{feff}{}", NODE.replace('\n', "\r\n"));
    assert_eq!(folder.load(windows).unwrap().name, "a");
}

/// A config that must be refused: its text, where, and words of the message.
type Row = (String, &'static str, &'static [&'static str]);

fn check_rows(rows: Vec<Row>) {
    let folder = Folder::new();
    for (text, place, words) in rows {
        let error = folder.refused(&text);
        let shown = format!("--- for\n{text:.400}\n--- got\n{error}\n---");
        assert!(error.starts_with("error: "), "{shown}");
        assert!(error.contains(&format!("n.toml:{place}\n")), "no {place}\n{shown}");
        for word in words {
            assert!(error.contains(word), "no {word:?}\n{shown}");
        }
        assert!(error.lines().any(|line| line.contains('^')), "no caret\n{shown}");
        assert!(!error.contains('\x1b'), "escape\n{shown}");
    }
}

#[test]
fn c_01_what_is_no_config_is_refused_with_its_place() {
    fn row(text: &str, place: &'static str, words: &'static [&'static str]) -> Row {
        (text.to_owned(), place, words)
    }
    check_rows(vec![
        row("", "1:1", &["`[node]` is missing", "netft init"]),
        row("\n# nothing\n", "1:1", &["`[node]` is missing"]),
        row("[node]\nname = \"a\"\n", "1:1", &["`key` is missing"]),
        row("[node]\nname = \"a\0\"\n", "2:10", &["NUL byte"]),
        row("\u{7f}ELF\u{2}\0", "1:6", &["NUL byte"]),
        row("[node]\nname = \"a\nkey = 1", "2:10", &["invalid"]),
        row("[node]\nname = \"a\"\nname = \"b\"\n", "3:1", &["duplicate key"]),
        row("[node]\n[node]\n", "2:2", &["duplicate key"]),
        row("[nod]\n", "1:2", &["unknown field `nod`", "did you mean `node`?"]),
        row("[node]\nnmae = \"a\"\n", "2:1", &["unknown field `nmae`", "did you mean `name`?"]),
        row("[session]\nprot = 1\n", "2:1", &["did you mean `port`?"]),
        row("[[peer]]\ncarrier = \"quic\"\n", "2:1", &["L1 carrier; this key is `transport`"]),
        row("[node]\nname = 3\nkey = \"key\"\n", "2:8", &["`name` is a name of 1 to 64", "not 3"]),
        row("[node]\nname = [1]\nkey = \"key\"\n", "2:8", &["not a list"]),
        row("[node]\nname = 1979-05-27\nkey = \"key\"\n", "2:8", &["a table or a date"]),
        row("node = 3\n", "1:8", &["invalid type: integer `3`", "this is a table"]),
        row("network = 3\n", "1:11", &["[[network]]"]),
        row("[peer]\nname = \"b\"\n", "1:1", &["[[peer]]"]),
        (format!("x = {}", "[".repeat(5000)), "1:85", &["recurse", "nested deeper"]),
        (format!("x = {}", "{a=".repeat(5000)), "1:245", &["recurse"]),
        (format!("[{}]", vec!["a"; 5000].join(".")), "1:1", &["recursion"]),
    ]);
}

#[test]
fn c_01_bytes_that_are_no_text_are_refused_with_their_place() {
    let folder = Folder::new();
    let error = folder.refused(b"[node]\nname = \"\xff\xfe\"\n");
    assert!(error.contains("n.toml:2:9\n"), "{error}");
    assert!(error.contains("UTF-8"), "{error}");
}

#[test]
fn c_01_a_huge_file_is_refused_unread_and_a_large_one_read_once() {
    let folder = Folder::new();
    let file = fs::File::create(folder.path()).unwrap();
    file.set_len(100 << 20).unwrap();
    let error = folder.load_file().unwrap_err();
    assert!(error.contains("104857600 bytes"), "{error}");
    // A parser that is quadratic, or recurses without a limit, would not come back from these.
    folder.refused(vec![b'['; 1 << 20]);
    folder.refused(vec![b'\n'; 1 << 20]);
    folder.refused("a=1\n".repeat(1 << 18));
}

#[test]
fn c_02_numbers_out_of_range_say_what_is_allowed() {
    let mut rows: Vec<Row> = Vec::new();
    let delay: &[&str] = &["`delay` is a whole number from 5 to 60000 ms"];
    for value in ["-1", "0", "4", "60001", "18446744073709551616", "1.5", "\"5 s\"", "true"] {
        rows.push((format!("{NODE}[heartbeat]\ndelay = {value}\n"), "5:9", delay));
    }
    let threshold: &[&str] = &["`threshold` is a whole number from 2 to 120 heartbeats"];
    for value in ["-9223372036854775808", "0", "1", "121", "9223372036854775808"] {
        let text = format!("{NODE}[heartbeat]\ncross_site = {{ threshold = {value} }}\n");
        rows.push((text, "5:28", threshold));
    }
    for (value, words) in [
        ("1e309", &["overflowed"] as &'static [&'static str]),
        ("5 s", &["must be quoted", "its unit is fixed"]),
        ("340282366920938463463374607431768211456", &[]),
    ] {
        rows.push((format!("{NODE}[heartbeat]\ndelay = {value}\n"), "5:9", words));
    }
    let others: [(&str, &str, &'static [&'static str]); 15] = [
        ("[adapter]\nmtu = 1279", "5:7", &["from 1280 to 65535 bytes", "not 1279"]),
        ("[adapter]\nworkers = 17", "5:11", &["from 0 to 16 threads"]),
        ("[adapter]\nbusy_poll = 1001", "5:13", &["from 0 to 1000 µs (0: never)"]),
        ("[adapter]\nmulticast = 1000001", "5:13", &["from 0 to 1000000 packets per second"]),
        ("[relay]\nlimit = 0", "5:9", &["from 1 to 10000000 datagrams per second"]),
        ("[relay]\nuse = 1", "5:7", &["`use` is `true` or `false`", "not 1"]),
        ("[adapter]\nmtu = 65536", "5:7", &["from 1280 to 65535 bytes"]),
        ("[session]\nport = 0", "5:8", &["from 1 to 65535"]),
        ("[session]\nrekey = 59", "5:9", &["from 60 to 86400 seconds"]),
        ("[failover]\nhold = 600001", "5:8", &["from 0 to 600000 ms"]),
        ("[failover]\nmtu_raise = 999", "5:13", &["from 1000 to 3600000 ms"]),
        ("[resend]\nbytes = 4294967297", "5:9", &["from 0 to 4294967296 bytes"]),
        ("[resend]\nage = 9", "5:7", &["from 10 to 60000 ms"]),
        ("[heartbeat]\nhistory = 41", "5:11", &["from 0 to 40 heartbeats"]),
        ("[[network]]\nprefix = \"10.0.0.0/8\"\nmetric = 0", "6:10", &["from 1 to 1000000000"]),
    ];
    for (lines, place, words) in others {
        rows.push((format!("{NODE}{lines}\n"), place, words));
    }
    let route = "[[peer.route]]\nremote = \"10.1.0.2\"\n";
    rows.push((with_peer(&format!("{route}delay = 4\n")), "10:9", delay));
    rows.push((with_peer(&format!("{route}threshold = 1\n")), "10:13", threshold));
    let text = with_peer(&format!("{route}priority = 4294967296\n"));
    rows.push((text, "10:12", &["from 0 to 4294967295"]));
    check_rows(rows);
}

#[test]
fn c_03_what_stands_twice_names_both_lines() {
    let peer = |name: &str, key: &str, addr: &str| {
        with_peer(&format!("[[peer]]\nname = {name:?}\nkey = {key:?}\naddresses = [{addr:?}]\n"))
    };
    let folder = Folder::new();
    let both = |text: String, place: &str, first: &str, words: &[&str]| {
        let error = folder.refused(&text);
        assert!(error.contains(&format!("n.toml:{place}\n")), "{place}\n{error}");
        assert!(error.contains(first), "{first:?}\n{error}");
        for word in words {
            assert!(error.contains(word), "{word:?}\n{error}");
        }
    };
    both(peer("b", KEY_C, "10.1.0.3"), "9:8", "5 | name = \"b\"", &["name \"b\" is used twice"]);
    both(peer("c", KEY_B, "10.1.0.3"), "10:7", "6 | key = \"AgIC", &["the same key", "\"c\""]);
    both(
        peer("c", KEY_C, "10.1.0.2"),
        "11:14",
        "7 | addresses = [\"10.1.0.2\"]",
        &["10.1.0.2:3343 is used twice", "by peer \"b\" and by peer \"c\""],
    );
    both(peer("a", KEY_C, "10.1.0.3"), "9:8", "2 | name = \"a\"", &["this node itself"]);
    let own = folder.public.to_string();
    both(peer("c", &own, "10.1.0.3"), "10:7", "3 | key = \"key\"", &["this node itself"]);
    let peer_address = "address = \"169.254.7.7\"\n";
    let more = format!(
        "{peer_address}[[peer]]\nname = \"c\"\nkey = \"{KEY_C}\"\n\
         addresses = [\"10.1.0.3\"]\n{peer_address}"
    );
    both(with_peer(&more), "13:11", "8 | address = ", &["virtual address 169.254.7.7"]);
    let network = |a: &str, b: &str| {
        format!("{NODE}[[network]]\nprefix = {a:?}\n[[network]]\nprefix = {b:?}\n")
    };
    both(network("10.1.0.0/24", "10.1.0.0/24"), "7:10", "5 | prefix", &["overlaps"]);
    both(network("10.1.0.0/16", "10.1.7.0/24"), "7:10", "5 | prefix", &["overlaps"]);
    let adapter = "[adapter]\nprefix = \"10.9.0.0/16\"\naddress = \"10.9.0.1\"\n";
    let text = format!("{NODE}{adapter}[[network]]\nprefix = \"10.9.8.0/24\"\n");
    both(text, "8:10", "5 | prefix = ", &["overlaps the adapter's prefix 10.9.0.0/16"]);
    let peer = with_peer("").replace("10.1.0.2", "10.9.0.2").replace(NODE, "");
    both(format!("{NODE}{adapter}{peer}"), "10:14", "5 | prefix", &["inside the adapter's prefix"]);
    let route = "[[peer.route]]\nlocal = \"10.1.0.2\"\nremote = \"10.1.0.9\"\n";
    both(with_peer(route), "7:14", "9 | local = \"10.1.0.2\"", &["by this node"]);
    let route = "[[peer.route]]\nlocal = \"fd00::1\"\nremote = \"10.1.0.2\"\n";
    both(with_peer(route), "10:10", "9 | local", &["joins two families"]);
    let route = "[[peer.route]]\nremote = \"10.1.0.2\"\n";
    both(with_peer(&route.repeat(2)), "11:10", "9 | remote", &["route to 10.1.0.2:3343"]);
}

#[test]
fn c_03_addresses_no_route_can_use_are_refused() {
    let mut rows: Vec<Row> = Vec::new();
    for (address, word) in [
        ("169.254.9.9", "the adapter's own range" as &'static str),
        ("fe80::1", "write fe80::1%eth0"),
        ("169.254.169.254", "metadata"),
        ("fd00:ec2::254", "metadata"),
        ("127.0.0.1", "loopback"),
        ("0.0.0.0", "no node's address"),
        ("224.0.0.5", "multicast"),
        ("255.255.255.255", "broadcast"),
        ("::ffff:10.1.0.2", "the IPv4 address itself"),
        ("10.1.0.2:0", "port 0"),
        ("10.1.0.2:99999", "is no port"),
        ("b.example:", "is no port"),
        ("b.example:0", "port 0"),
        ("10.1.0", "no IP address and no host name"),
        ("b..example", "no IP address and no host name"),
        ("-b.example", "no IP address and no host name"),
        ("localhost", "the node itself"),
        ("", "no IP address"),
    ] {
        let text = with_peer("").replace("\"10.1.0.2\"", &format!("{address:?}"));
        rows.push((text, "7:14", Box::leak(Box::new([word]))));
    }
    for (lines, place, word) in [
        ("[adapter]\naddress = \"169.254.169.254\"\n", "5:11", "metadata"),
        ("[adapter]\naddress = \"169.254.0.9\"\n", "5:11", "169.254.1.0"),
        ("[adapter]\naddress = \"10.9.0.1\"\n", "5:11", "without `prefix`"),
        ("[adapter]\naddress6 = \"fd09::1\"\n", "5:12", "fe80::/64"),
        ("[adapter]\naddress6 = \"10.0.0.1\"\n", "5:12", "no IPv6 address"),
        ("[adapter]\nprefix = \"10.9.0.0/16\"\n", "5:10", "no `address` in it"),
        ("[adapter]\nprefix = \"10.9.0.1/16\"\n", "5:10", "did you mean `10.9.0.0/16`"),
        ("[adapter]\nprefix = \"0.0.0.0/0\"\n", "5:10", "every address"),
        (
            "[adapter]\naddress = \"10.8.0.1\"\nprefix = \"10.9.0.0/16\"\n",
            "5:11",
            "outside the adapter's prefix",
        ),
        (
            "[adapter]\naddress = \"10.9.0.0\"\nprefix = \"10.9.0.0/16\"\n",
            "5:11",
            "network or broadcast",
        ),
        ("[[network]]\nprefix = \"169.254.0.0/24\"\n", "5:10", "the adapter's own range"),
        ("[[network]]\nrole = \"cluster\"\n", "4:1", "`prefix` is missing"),
        ("[[network]]\nprefix = \"10.0.0.0/8\"\nrole = \"x\"\n", "6:8", "`cluster-and-client`"),
    ] {
        rows.push((format!("{NODE}{lines}"), place, Box::leak(Box::new([word]))));
    }
    let tcp = "[[peer.route]]\nremote = \"10.1.0.2\"\ntransport = \"tcp\"\n";
    rows.push((with_peer(tcp), "10:13", &["`udp` or `quic`"]));
    rows.push((with_peer("").replace("[\"10.1.0.2\"]", "\"10.1.0.2\""), "7:13", &["a list"]));
    check_rows(rows);
}

#[test]
fn c_05_names_the_kernel_or_a_terminal_would_misread_are_refused() {
    let mut rows: Vec<Row> = Vec::new();
    for name in
        ["abcdefghijklmnop", "", "a/b", "a%d", "a b", "a\\u001b[31m", "a\\tb", ".", "lo", "ä"]
    {
        let text = format!("{NODE}[adapter]\nname = \"{name}\"\n");
        rows.push((text, "5:8", &["an interface name of 1 to 15"]));
        if !["abcdefghijklmnop", ".", "lo"].contains(&name) {
            let text = NODE.replace("\"a\"", &format!("\"{name}\""));
            rows.push((text, "2:8", &["1 to 64 letters"]));
        }
    }
    rows.push((NODE.replace("\"a\"", &format!("{:?}", "x".repeat(65))), "2:8", &["65 bytes"]));
    rows.push((NODE.replace("\"a\"", &format!("{:?}", "x".repeat(10_000))), "2:8", &["10000"]));
    check_rows(rows);
}

#[test]
fn c_06_only_a_regular_file_of_ours_is_a_config() {
    let folder = Folder::new();
    let root = folder.dir.path();
    assert!(load(&root.join("missing")).unwrap_err().contains("netft init"));
    assert!(load(root).unwrap_err().contains("a directory"));
    let fifo = root.join("fifo");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &fifo,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_bits_truncate(0o600),
        0,
    )
    .unwrap();
    assert!(load(&fifo).unwrap_err().contains("FIFO"));
    assert!(load(Path::new("/dev/zero")).unwrap_err().contains("device"));

    folder.load(NODE).unwrap();
    let link = root.join("link");
    symlink(folder.path(), &link).unwrap();
    load(&link).unwrap();
    let me = rustix::process::geteuid();
    if me.is_root() {
        // A child of this process cannot own files as somebody else without root.
        let other = Some(rustix::fs::Uid::from_raw(12_345));
        let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
        if rustix::fs::chownat(rustix::fs::CWD, &link, other, None, flags).is_ok() {
            assert!(load(&link).unwrap_err().contains("symlink made by uid 12345"));
            rustix::fs::chownat(rustix::fs::CWD, folder.path(), other, None, flags).unwrap();
            assert!(folder.load_file().unwrap_err().contains("belongs to uid 12345"));
            rustix::fs::chownat(rustix::fs::CWD, folder.path(), Some(me), None, flags).unwrap();
        }
    }
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o666)).unwrap();
    assert!(folder.load_file().unwrap_err().contains("everyone may write it"));
}

#[test]
fn c_12_unfit_keys_are_refused_at_their_line_and_never_shown() {
    let mut rows: Vec<Row> = Vec::new();
    for (key, word) in [
        ("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", "low-order"),
        ("AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", "low-order"),
        ("AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAg==", "31 bytes"),
        ("", "0 bytes"),
        ("not base64", "not base64"),
    ] {
        let text = with_peer("").replace(KEY_B, key);
        rows.push((text, "6:7", Box::leak(Box::new([word, "44 characters"]))));
    }
    check_rows(rows);

    let folder = Folder::new();
    let secret = fs::read_to_string(folder.dir.path().join("key")).unwrap();
    let hidden = &secret["netft-key:".len()..][..8];
    let key = folder.dir.path().join("key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
    let error = folder.refused(NODE);
    assert!(error.contains("n.toml:3:7\n") && error.contains("mode 0640"), "{error}");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    for content in ["", "AAAA", "\0\0", &secret[..secret.len() - 5], &secret.repeat(50)] {
        fs::write(&key, content).unwrap();
        let error = folder.refused(NODE);
        assert!(error.contains("holds no usable key"), "{error}");
        assert!(!error.contains(hidden), "{error}");
    }
    fs::remove_file(&key).unwrap();
    assert!(folder.refused(NODE).contains("netft keygen"));
    let public = folder.dir.path().join("public");
    fs::write(&public, &secret).unwrap();
    fs::set_permissions(&public, fs::Permissions::from_mode(0o644)).unwrap();
    symlink(&public, &key).unwrap();
    assert!(folder.refused(NODE).contains("mode 0644"), "the target's mode decides");
    fs::remove_file(&key).unwrap();
    fs::create_dir(&key).unwrap();
    assert!(folder.refused(NODE).contains("not a regular file"));
}

#[test]
fn everything_wrong_is_reported_at_once_like_rustc_does() {
    let folder = Folder::new();
    let error = folder.refused(format!("{NODE}[adapter]\nmtu = 7\nname = \"a/b\"\n"));
    assert_eq!(error.matches("error: ").count(), 2, "{error}");
    let expected = "\
error: `mtu` is a whole number from 1280 to 65535 bytes, not 7
 --> PATH:5:7
  |
5 | mtu = 7
  |       ^ out of range";
    let path = folder.path().display().to_string();
    assert!(error.contains(&expected.replace("PATH", &path)), "{error}");
}

#[test]
fn policies_and_classes_that_mean_nothing_are_refused_with_their_place() {
    let mut rows: Vec<Row> = Vec::new();
    rows.push((with_peer("policy = \"fastest\"\n"), "8:10", &["`failover`, `duplicate`"]));
    rows.push((with_peer("policy = 1\n"), "8:10", &["not a text in quotes"]));
    for (lines, place, word) in [
        ("dscp = 46", "8:1", "`policy` is missing"),
        ("policy = \"balance\"", "8:1", "matches everything"),
        ("policy = \"balance\"\ndscp = 64", "10:8", "from 0 to 63"),
        ("policy = \"balance\"\ndscp = \"gold\"", "10:8", "no code point's name"),
        ("policy = \"balance\"\nprotocol = \"gre\"", "10:12", "`tcp`, `udp` or `icmp`"),
        ("policy = \"balance\"\nport = 0", "10:8", "from 1 to 65535"),
        ("policy = \"balance\"\nport = \"9-3\"", "10:8", "the smaller first"),
        ("policy = \"balance\"\nport = [1, 2]", "10:8", "a range such as"),
        ("policy = \"balance\"\nmin_size = 70000", "10:12", "from 1 to 65535 bytes"),
        ("policy = \"balance\"\nmin_size = 9\nmax_size = 8", "8:1", "no packet matches"),
        ("policy = \"balance\"\nprotocol = \"icmp\"\nport = 1", "8:1", "ICMP has no ports"),
        ("policy = \"balance\"\ncolour = 1", "10:1", "colour"),
    ] {
        let text = with_peer(&format!("[[peer.class]]\n{lines}\n"));
        rows.push((text, place, Box::leak(Box::new([word]))));
    }
    let class = "[[peer.class]]\npolicy = \"balance\"\ndscp = 1\n";
    rows.push((with_peer(&class.repeat(17)), "56:1", &["more than the 16 classes"]));
    let network = "[[network]]\nprefix = \"10.0.0.0/8\"\ncapacity = 0\n";
    rows.push((format!("{NODE}{network}"), "6:12", &["from 1 to 10000000 Mbit/s"]));
    check_rows(rows);
    Folder::new().load(with_peer(&class.repeat(16))).unwrap();
}

#[test]
fn c_01_an_unknown_key_hides_no_other_mistake() {
    let shown = Folder::new().refused(format!("{NODE}nmae = 1\n[adapter]\nmtu = 1\n[fialover]\n"));
    let found = ["4:1", "6:7", "7:2"].map(|place| shown.find(&format!("n.toml:{place}")));
    assert!(found.iter().all(Option::is_some) && found.is_sorted(), "{shown}");
}
