//! Floating addresses that a DHCP server assigns: Debian's dnsmasq and isc-dhcp-server.

use std::{
    fs,
    io::ErrorKind,
    net::{IpAddr, TcpStream},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use netft_lab::{
    Lab, NetworkLayout,
    daemon::{Daemon, Site, SiteSettings},
    in_namespace,
};
use serde_json::Value;

use crate::common::{
    commands::{has_programs, run_ip},
    programs,
    servers::{ServerProcess, has_servers},
};

/// Node of the lab with the DHCP server.
const SERVER_NODE: usize = 3;
/// Node of the lab with a host that netft does not know.
const STRANGER_NODE: usize = 4;
const CLOSED_PORT: u16 = 7000;
/// Longest wait for what must happen; nothing is asserted about it.
const WAIT_LIMIT: Duration = Duration::from_secs(90);
/// Shortest lease that the tests ask of a server: T1 comes after half of it.
const SHORT_LEASE: u32 = 15;

struct DhcpLab {
    daemons: Vec<Option<Daemon>>,
    server: Option<ServerProcess>,
    site: Site,
    lab: Lab,
    folder: tempfile::TempDir,
}

impl DhcpLab {
    /// Daemons on nodes 0 to `nodes` with the address `web` from a server.
    fn start(nodes: usize, ownership: &str) -> Self {
        let lab = Lab::with_layouts(5, &[NetworkLayout::Flat]).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let common = format!(
            "[ownership]\nvoters = [\"a\", \"b\", \"c\"]\n\n[[vip]]\nname = \"web\"\n\
             address = \"dhcp\"\ninterface = \"eth0\"\nownership = \"{ownership}\"\n"
        );
        let stores: Vec<_> = (0..3)
            .map(|node| folder.path().join(format!("store{node}")).display().to_string())
            .collect();
        let settings = SiteSettings { common: &common, ..SiteSettings::default() };
        let site = Site::new(&lab, programs(), settings).unwrap();
        for (node, store) in stores.iter().enumerate() {
            let text = fs::read_to_string(site.config_path(node)).unwrap();
            let own = format!("[ownership]\nstore = \"{store}\"");
            fs::write(site.config_path(node), text.replace("[ownership]", &own)).unwrap();
        }
        let mut this = Self { daemons: Vec::new(), server: None, site, lab, folder };
        for node in 0..nodes {
            let daemon = this.site.start_daemon(&this.lab, node).unwrap();
            this.daemons.push(Some(daemon));
        }
        this
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts dnsmasq, in place of the server that ran before.
    fn start_dnsmasq(&mut self, range: &str) {
        self.server = None;
        let range = format!("--dhcp-range={range},255.255.255.0,120");
        let leases = format!("--dhcp-leasefile={}", self.file("dnsmasq.leases").display());
        let words = [
            "--no-daemon",
            "--conf-file=/dev/null",
            "--port=0",
            "--interface=eth0",
            "--bind-interfaces",
            "--dhcp-authoritative",
            "--no-ping",
            "--log-dhcp",
            "--pid-file=",
            &range,
            &leases,
        ];
        let netns = self.lab.node_netns(SERVER_NODE);
        let log = self.file("dnsmasq.log");
        self.server = Some(ServerProcess::start(netns, "dnsmasq", &words, &log));
    }

    fn start_dhcpd(&mut self, range: &str) {
        self.server = None;
        let config = format!(
            "authoritative;\nping-check false;\ndefault-lease-time {SHORT_LEASE};\n\
             max-lease-time {SHORT_LEASE};\nmin-lease-time {SHORT_LEASE};\n\
             subnet 10.1.0.0 netmask 255.255.255.0 {{ range {range}; }}\n"
        );
        let [config_file, leases, log] =
            ["dhcpd.conf", "dhcpd.leases", "dhcpd.log"].map(|name| self.file(name));
        fs::write(&config_file, config).unwrap();
        if !leases.exists() {
            fs::write(&leases, "").unwrap();
        }
        let text = |path: &Path| path.display().to_string();
        let (config_file, leases) = (text(&config_file), text(&leases));
        let words = ["-4", "-f", "-d", "--no-pid", "-cf", &config_file, "-lf", &leases, "eth0"];
        let netns = self.lab.node_netns(SERVER_NODE);
        self.server = Some(ServerProcess::start(netns, "dhcpd", &words, &log));
    }

    fn log(&self) -> String {
        self.server.as_ref().unwrap().log()
    }

    fn view(&self, node: usize) -> Value {
        let answer = self.daemons[node].as_ref().map(|daemon| daemon.get_json("/v1/vips"));
        let list = answer.and_then(Result::ok).unwrap_or_default();
        let vips = list["vips"].as_array().cloned().unwrap_or_default();
        vips.into_iter().find(|vip| vip["name"] == "web").unwrap_or_default()
    }

    fn wait_for(&self, what: &str, mut is_done: impl FnMut(&Self) -> bool) {
        let start = Instant::now();
        while !is_done(self) {
            let views: Vec<_> = (0..self.daemons.len()).map(|node| self.view(node)).collect();
            let log = self.server.as_ref().map(ServerProcess::log).unwrap_or_default();
            assert!(start.elapsed() < WAIT_LIMIT, "{what}: {views:#?}\n{log}");
            thread::sleep(Duration::from_millis(30));
        }
    }

    fn owner(&self) -> Option<usize> {
        (0..self.daemons.len()).find(|node| self.view(*node)["state"] == "online")
    }

    /// The owner, once there is one whose lease is confirmed.
    fn wait_bound(&self) -> (usize, String) {
        let is_bound = |test: &Self| {
            test.owner().is_some_and(|node| test.view(node)["dhcp"]["state"] == "bound")
        };
        self.wait_for("an owner with a lease", is_bound);
        let owner = self.owner().unwrap();
        (owner, self.view(owner)["addresses"][0].as_str().unwrap().to_owned())
    }

    /// Runs `netft vip …` on a node.
    fn vip(&self, node: usize, words: &[&str]) -> String {
        let mut command = self.site.operator_command(&self.lab, node).unwrap();
        let output = command.args(words).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// A host at the address answers the stranger.
    fn is_answered(&self, addr: &str) -> bool {
        let at = (addr.parse::<IpAddr>().unwrap(), CLOSED_PORT).into();
        let timeout = Duration::from_millis(300);
        let netns = self.lab.node_netns(STRANGER_NODE);
        let result = netns.run_inside(|| TcpStream::connect_timeout(&at, timeout));
        result.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
    }

    fn has_address(&self, node: usize, addr: &str) -> bool {
        let shown = run_ip(self.lab.node_netns(node), "-4 -o address show dev eth0");
        shown.contains(&format!(" {addr}/32 "))
    }

    fn rewrite(&self, node: usize, from: &str, to: &str) {
        let text = fs::read_to_string(self.site.config_path(node)).unwrap();
        assert!(text.contains(from), "no {from:?} in {text}");
        fs::write(self.site.config_path(node), text.replace(from, to)).unwrap();
        self.vip(node, &["reload"]);
    }
}

fn can_run(servers: &[&str]) -> bool {
    has_programs(&["nft", "ip"]) && has_servers(servers)
}

#[test]
fn f_110_an_assigned_address_moves_with_its_lease_and_does_without_the_server() {
    in_namespace(
        "f_110_an_assigned_address_moves_with_its_lease_and_does_without_the_server",
        || {
            if !can_run(&["dnsmasq"]) {
                return;
            }
            let mut test = DhcpLab::start(3, "raft");
            // Without a server it fails with the reason, on whichever node has it.
            let reason =
                |test: &DhcpLab, node: usize| test.view(node)["dhcp"]["problem"].to_string();
            test.wait_for("the reason", |test| {
                (0..3).any(|node| reason(test, node).contains("no DHCP server answers on eth0"))
            });
            test.start_dnsmasq("10.1.0.100,10.1.0.110");
            let (first, addr) = test.wait_bound();
            assert!(addr.starts_with("10.1.0.1"), "{addr}");
            test.wait_for("an answer", |test| test.is_answered(&addr));
            let identifier = test.view(first)["dhcp"]["client_id"].as_str().unwrap().to_owned();
            let leases = fs::read_to_string(test.file("dnsmasq.leases")).unwrap();
            let shown = leases.replace(':', "");
            assert!(shown.contains(&identifier) && shown.contains(&addr), "{leases}");
            // The others know the lease before they need it.
            test.wait_for("the lease everywhere", |test| {
                (0..3).all(|node| test.view(node)["addresses"][0] == addr.as_str())
            });

            let killed = Instant::now();
            test.daemons[first].take().unwrap().kill().unwrap();
            test.wait_for("the next owner", |test| test.owner().is_some());
            println!("the next owner was online after {:?}", killed.elapsed());
            let second = test.owner().unwrap();
            assert!(second != first && test.has_address(second, &addr));
            test.wait_for("an answer", |test| test.is_answered(&addr));
            let (_, confirmed) = test.wait_bound();
            assert_eq!(confirmed, addr);
            let leases = fs::read_to_string(test.file("dnsmasq.leases")).unwrap();
            assert_eq!(leases.lines().count(), 1, "one lease, the resource's: {leases}");
            assert!(test.log().contains("DHCPREQUEST"), "{}", test.log());

            // The server is away: the next owner uses the lease for the rest of its time.
            test.server = None;
            test.daemons[first] = Some(test.site.start_daemon(&test.lab, first).unwrap());
            test.wait_for("the lease at the third node", |test| {
                (0..3).all(|node| test.view(node)["addresses"][0] == addr.as_str())
            });
            let third = 3 - first - second;
            let to = test.site.name(third);
            test.vip(second, &["vip", "move", "web", "--to", to]);
            test.wait_for("the move", |test| test.owner() == Some(third));
            assert!(test.has_address(third, &addr) && !test.has_address(second, &addr));
            assert_eq!(test.view(third)["dhcp"]["state"], "rebooting");
            test.start_dnsmasq("10.1.0.100,10.1.0.110");
            assert_eq!(test.wait_bound(), (third, addr.clone()));

            // Its pool changed: the server refuses the address, and assigns another one.
            test.start_dnsmasq("10.1.0.120,10.1.0.130");
            let to = test.site.name(second);
            test.vip(third, &["vip", "move", "web", "--to", to]);
            test.wait_for("the new address", |test| {
                let view = test.view(second);
                view["state"] == "online" && view["addresses"][0] != addr.as_str()
            });
            let (_, fresh) = test.wait_bound();
            assert!(fresh.starts_with("10.1.0.12") || fresh == "10.1.0.130", "{fresh}");
            test.wait_for("the old address is gone", |test| {
                !test.is_answered(&addr) && (0..3).all(|node| !test.has_address(node, &addr))
            });
            let why = test.vip(second, &["vip", "why", "web"]);
            assert!(why.contains(&format!("refuses {addr}")), "{why}");
            assert!(why.contains("bound, by 10.1.0.4"), "{why}");

            // Nobody names it any longer: its owner gives the lease back.
            let section = "[[vip]]\nname = \"web\"";
            for node in 0..3 {
                let text = fs::read_to_string(test.site.config_path(node)).unwrap();
                let start = text.find(section).unwrap();
                let end = text[start..].find("[[network]]").unwrap() + start;
                test.rewrite(node, &text[start..end], "");
            }
            test.wait_for("the release", |test| test.log().contains("DHCPRELEASE"));
            test.wait_for("the end of the lease", |test| {
                fs::read_to_string(test.file("dnsmasq.leases")).unwrap().is_empty()
            });
            assert!((0..3).all(|node| !test.has_address(node, &fresh)));
        },
    );
}

#[test]
fn f_111_an_assigned_address_is_fixed_without_losing_it() {
    in_namespace("f_111_an_assigned_address_is_fixed_without_losing_it", || {
        if !can_run(&["dnsmasq"]) {
            return;
        }
        let mut test = DhcpLab::start(1, "manual");
        test.start_dnsmasq("10.1.0.100,10.1.0.110");
        test.wait_for("the daemon", |test| test.view(0)["state"] == "offline");
        test.vip(0, &["vip", "online", "web"]);
        let (_, addr) = test.wait_bound();
        let before = test.view(0)["state_ms"].as_u64().unwrap();
        test.rewrite(0, "address = \"dhcp\"", &format!("address = \"{addr}\""));
        test.wait_for("the new config", |test| test.view(0)["dhcp"].is_null());
        let view = test.view(0);
        assert_eq!(
            (&view["state"], &view["addresses"][0]),
            (&"online".into(), &addr.clone().into())
        );
        assert!(view["state_ms"].as_u64().unwrap() >= before, "it was offline meanwhile: {view}");
        assert!(test.has_address(0, &addr) && test.is_answered(&addr));
        assert!(!test.log().contains("DHCPRELEASE"), "{}", test.log());
        let why = test.vip(0, &["vip", "why", "web"]);
        assert!(why.contains("fixed: DHCP does not renew"), "{why}");
    });
}

#[test]
fn f_112_a_lease_is_renewed_and_ends_with_the_server_and_heals_with_it() {
    in_namespace("f_112_a_lease_is_renewed_and_ends_with_the_server_and_heals_with_it", || {
        if !can_run(&["dhcpd"]) {
            return;
        }
        let mut test = DhcpLab::start(1, "manual");
        test.start_dhcpd("10.1.0.100 10.1.0.110");
        test.wait_for("the daemon", |test| test.view(0)["state"] == "offline");
        test.vip(0, &["vip", "online", "web"]);
        let (_, addr) = test.wait_bound();
        let requests = |test: &DhcpLab| test.log().matches("DHCPACK").count();
        let acknowledged = requests(&test);
        test.wait_for("a renewal", |test| requests(test) > acknowledged + 1);
        assert_eq!(test.wait_bound(), (0, addr.clone()));
        let metrics = test.vip(0, &["metrics"]);
        assert!(metrics.contains("netft_vip_dhcp_assigned{vip=\"web\"} 1"), "{metrics}");
        // The server does not come back in time: the lease ends, and so does the use.
        test.server = None;
        test.wait_for("the end of the lease", |test| test.view(0)["state"] == "failed");
        let reason = test.view(0)["reason"].to_string();
        assert!(reason.contains("its DHCP lease of") && reason.contains("ended"), "{reason}");
        assert!(!test.has_address(0, &addr) && !test.is_answered(&addr));
        test.start_dhcpd("10.1.0.100 10.1.0.110");
        assert_eq!(test.wait_bound(), (0, addr), "the server knows the client");
    });
}

#[test]
fn f_113_an_address_in_use_is_declined_and_another_one_taken() {
    in_namespace("f_113_an_address_in_use_is_declined_and_another_one_taken", || {
        if !can_run(&["dhcpd"]) {
            return;
        }
        let mut test = DhcpLab::start(1, "manual");
        // The server begins with the first address of its pool.
        let stranger = test.lab.node_netns(STRANGER_NODE);
        for host in [108, 109] {
            run_ip(stranger, &format!("address add 10.1.0.{host}/24 dev eth0"));
        }
        test.start_dhcpd("10.1.0.108 10.1.0.110");
        test.wait_for("the daemon", |test| test.view(0)["state"] == "offline");
        test.vip(0, &["vip", "online", "web"]);
        let (_, addr) = test.wait_bound();
        assert_eq!(addr, "10.1.0.110", "the only one that is free");
        let log = test.log();
        assert!(log.contains("DHCPDECLINE") && log.contains("abandoned"), "{log}");
        let why = test.vip(0, &["vip", "why", "web"]);
        assert!(why.contains("declined"), "{why}");
    });
}
