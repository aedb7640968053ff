//! Floating addresses whose owner etcd decides on: three nodes, a client, and Debian's etcd.

use std::{
    net::TcpStream,
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::common::{
    commands::{has_programs, skip_without_server},
    owner_lab::{CLIENT_HOST, EVENT_DEADLINE, Fault, OwnerLab, VIP_ADDRESS},
};
use netft_lab::{Lab, in_namespace};

const ETCD_PORT: u16 = 2379;
const PEER_PORT: u16 = 2380;

/// A server of Debian's package, on the client's host.
struct EtcdServer {
    process: Option<Child>,
    folder: PathBuf,
    url: String,
    /// It speaks TLS, and asks for certificates, with the files in its folder.
    is_secure: bool,
}

impl EtcdServer {
    fn start(lab: &Lab, folder: PathBuf, is_secure: bool) -> Self {
        let addr = lab.node_address(0, CLIENT_HOST, false);
        let scheme = if is_secure { "https" } else { "http" };
        let url = format!("{scheme}://{addr}:{ETCD_PORT}");
        let mut this = Self { process: None, folder, url, is_secure };
        this.spawn(lab);
        this
    }

    fn spawn(&mut self, lab: &Lab) {
        let netns = lab.node_netns(CLIENT_HOST);
        let log = std::fs::File::create(self.folder.join("log")).unwrap();
        let peer = format!("http://127.0.0.1:{PEER_PORT}");
        let mut command = netns.command_inside("etcd").unwrap();
        command
            .args(["--name", "one", "--data-dir"])
            .arg(self.folder.join("data"))
            .args(["--listen-client-urls", &self.url, "--advertise-client-urls", &self.url])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("one={peer}")])
            .stdout(Stdio::null())
            .stderr(log);
        if self.is_secure {
            let file = |name: &str| self.folder.join(name).display().to_string();
            command.args(["--client-cert-auth", "--trusted-ca-file", &file("authority.pem")]);
            command.args(["--cert-file", &file("leaf.pem"), "--key-file", &file("leaf.key")]);
        }
        self.process = Some(command.spawn().unwrap());
        let at = self.url.split_once("://").unwrap().1.to_owned();
        let start = Instant::now();
        while netns.run_inside(|| TcpStream::connect(&at).is_err()) {
            assert!(start.elapsed() < EVENT_DEADLINE, "etcd does not listen at {at}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }
}

impl Drop for EtcdServer {
    fn drop(&mut self) {
        self.kill();
    }
}

fn has_etcd() -> bool {
    let version = Command::new("etcd").arg("--version").stdout(Stdio::null()).status();
    !skip_without_server(version.is_ok(), "etcd-server")
}

/// The nodes and their etcd; the server ends with its variable.
fn start_nodes(folder: &std::path::Path) -> (OwnerLab, EtcdServer) {
    let lab = OwnerLab::hosts();
    let etcd = EtcdServer::start(&lab, folder.to_owned(), false);
    let common = format!(
        "[[vip]]\nname = \"web\"\naddress = \"{VIP_ADDRESS}/24\"\nownership = \"etcd\"\n\n\
         [ownership.etcd]\nendpoints = [\"{}\"]\n",
        etcd.url
    );
    (OwnerLab::start(lab, &common, &[]), etcd)
}

/// Two authorities, and a certificate of the first one for an address, in a folder.
const CERTIFICATE_SCRIPT: &str = r#"
new() {
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$1.key" \
        -subj "/CN=$1" -days 2 "${@:2}"
}
new authority -x509 -out authority.pem
new stranger -x509 -out stranger.pem
new leaf -addext "subjectAltName=IP:$ADDRESS" -out leaf.csr
openssl x509 -req -in leaf.csr -CA authority.pem -CAkey authority.key -CAcreateserial -days 2 \
    -copy_extensions copy -out leaf.pem
"#;

fn make_certificates(folder: &std::path::Path, address: &str) {
    let mut command = Command::new("bash");
    command.args(["-euc", CERTIFICATE_SCRIPT]).env("ADDRESS", address).current_dir(folder);
    let made = command.output().unwrap();
    assert!(made.status.success(), "{made:?}");
}

/// F-73.
#[test]
fn f_73_tls_with_the_right_authority_and_certificate_alone_gives_a_lease() {
    in_namespace("f_73_tls_with_the_right_authority_and_certificate_alone_gives_a_lease", || {
        let is_there = Command::new("openssl").arg("version").stdout(Stdio::null()).status();
        if !has_programs(&["nft", "ip"])
            || !has_etcd()
            || skip_without_server(is_there.is_ok(), "openssl")
        {
            return;
        }
        let (folder, lab) = (tempfile::tempdir().unwrap(), OwnerLab::hosts());
        make_certificates(folder.path(), &lab.node_address(0, CLIENT_HOST, false).to_string());
        let etcd = EtcdServer::start(&lab, folder.path().to_owned(), true);
        let common = format!(
            "[[vip]]\nname = \"web\"\naddress = \"{VIP_ADDRESS}/24\"\nownership = \"etcd\"\n\n\
             [ownership.etcd]\nendpoints = [\"{}\"]\n",
            etcd.url
        );
        let file = |key: &str, name: &str| format!("{key} = {:?}\n", folder.path().join(name));
        let client = file("certificate_file", "leaf.pem") + &file("key_file", "leaf.key");
        let right = file("ca_file", "authority.pem") + &client;
        let wrong = [file("ca_file", "stranger.pem") + &client, file("ca_file", "authority.pem")];
        let test = OwnerLab::start(lab, &common, &[&wrong[0], &right, &wrong[1]]);
        test.await_owner(|node| node == 1);
        let list = test.run_netft(1, &["vip", "list"]);
        assert!(list.contains("answered") && list.contains("lease of 2.0 s"), "{list}");
        for node in [0, 2] {
            let list = test.run_netft(node, &["vip", "list"]);
            assert!(list.contains("no etcd server answers"), "{list}");
            let metrics = test.run_netft(node, &["metrics"]);
            assert!(metrics.contains("netft_etcd_answers 0"), "{metrics}");
        }
        let why = test.run_netft(0, &["vip", "why", "web"]);
        assert!(why.contains("no TLS: invalid peer certificate"), "{why}");
        let metrics = test.run_netft(1, &["metrics"]);
        assert!(metrics.contains("netft_etcd_answers 1"), "{metrics}");
        assert!(metrics.contains("netft_vip_renewed_seconds{vip=\"web\"}"), "{metrics}");
    });
}

/// F-70: owner killed, stopped and cut off from etcd.
#[test]
fn f_70_the_address_goes_on_by_etcds_leases_and_never_has_two_owners() {
    in_namespace("f_70_the_address_goes_on_by_etcds_leases_and_never_has_two_owners", || {
        if !has_programs(&["nft", "ip"]) || !has_etcd() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let (mut test, _etcd) = start_nodes(folder.path());
        test.await_owner(|_| true);
        thread::sleep(Duration::from_secs(1));
        for fault in [Fault::Killed, Fault::Stopped, Fault::CutOff, Fault::Stopped] {
            test.lose_owner(fault);
        }
        test.assert_one_owner(20);
    });
}

/// F-71: a move needs no lease to end, and without etcd the owner lets go and says so.
#[test]
fn f_71_a_move_hands_over_and_an_outage_of_etcd_heals() {
    in_namespace("f_71_a_move_hands_over_and_an_outage_of_etcd_heals", || {
        if !has_programs(&["nft", "ip"]) || !has_etcd() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let (test, mut etcd) = start_nodes(folder.path());
        let mut owner = test.await_owner(|_| true);
        thread::sleep(Duration::from_secs(1));
        for _ in 0..3 {
            let next = (owner + 1) % 3;
            let began = Instant::now();
            let name = ["a", "b", "c"][usize::from(next)];
            test.run_netft(usize::from(owner), &["vip", "move", "web", "--to", name]);
            let told = began.elapsed();
            test.await_owner(|number| number == next);
            println!("n{owner} to n{next}: told after {told:?}, seen after {:?}", began.elapsed());
            owner = next;
        }

        etcd.kill();
        test.await_silence();
        let why = test.run_netft(usize::from(owner), &["vip", "why", "web"]);
        assert!(why.contains("no etcd server answers"), "{why}");
        assert!(why.contains("the lease ended"), "{why}");
        etcd.spawn(&test.lab);
        let owner = test.await_owner(|_| true);
        let why = test.run_netft(usize::from(owner), &["vip", "why", "web"]);
        assert!(why.contains("answers again"), "{why}");
        // Each owner's first at least.
        test.assert_one_owner(4);
    });
}
