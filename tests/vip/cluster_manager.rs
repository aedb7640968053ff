//! Floating addresses whose owner Debian's Pacemaker decides on, by the agent
//! `scripts/ocf/netft-vip`: three nodes and a client. Corosync runs on every node over netft's
//! adapter, Pacemaker on two.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::common::{
    commands::{has_programs, skip_without_server},
    owner_lab::{CLIENT_HOST, Fault, OwnerLab, VIP_ADDRESS},
};
use netft_lab::in_namespace_for;
use rustix::process::{Pid, Signal, kill_process};

/// Nodes with Pacemaker; the third one's Corosync only votes.
const MANAGED_NODES: usize = 2;
/// Three peers on two networks.
const ROUTES_OF_NODE: usize = 6;
const LEASE_SECONDS: u64 = 10;
const TEST_LIMIT: Duration = Duration::from_secs(240);
/// Longest wait for the cluster to form, and for one decision of it.
const CLUSTER_DEADLINE: Duration = Duration::from_secs(90);

/// Folders of the system that each node has for itself.
const OWN_FOLDERS: [&str; 6] = [
    "/run",
    "/dev/shm",
    "/var/lib/corosync",
    "/var/lib/pacemaker",
    "/var/log",
    "/usr/lib/ocf/resource.d",
];

/// What a package's installation leaves; the daemons' user is root, the only one that a user
/// namespace has.
const SET_UP: &str = r#"
mkdir -p /run/crm /run/resource-agents /var/log/corosync /var/log/pacemaker
cd /var/lib/pacemaker
mkdir -p cib pengine cores blackbox /usr/lib/ocf/resource.d/netft
sed 's/^hacluster:x:[0-9]*:[0-9]*/hacluster:x:0:0/' /etc/passwd >/run/passwd
sed 's/^haclient:x:[0-9]*/haclient:x:0/' /etc/group >/run/group
mount --bind /run/passwd /etc/passwd
mount --bind /run/group /etc/group
"#;

const CLUSTER_SETTINGS: &str = r#"
crm_attribute --name stonith-enabled --update false
crm_attribute --name dc-deadtime --update 5s
crm_attribute --type rsc_defaults --name resource-stickiness --update 100
cibadmin --create --scope resources --xml-text '
<primitive id="web" class="ocf" provider="netft" type="netft-vip">
  <instance_attributes id="web-parameters">
    <nvpair id="web-vip" name="vip" value="web"/>
    <nvpair id="web-netft" name="netft" value="/run/netft"/>
  </instance_attributes>
  <operations>
    <op id="web-start" name="start" interval="0" timeout="60s"/>
    <op id="web-stop" name="stop" interval="0" timeout="40s"/>
    <op id="web-monitor" name="monitor" interval="1s" timeout="8s"/>
  </operations>
</primitive>'
"#;

/// Corosync and Pacemaker of one node, in namespaces of their own for files and processes: whatever
/// they start ends with the first process of these.
struct ClusterNode {
    holder: Child,
    /// The first process.
    first: u32,
    folder: PathBuf,
}

impl ClusterNode {
    fn start(test: &OwnerLab, node: usize, folder: PathBuf) -> Self {
        fs::create_dir_all(folder.join("corosync")).unwrap();
        fs::write(folder.join("corosync/corosync.conf"), corosync_config(test)).unwrap();
        let mut script = String::from("mount --make-rprivate /\n");
        for folder in OWN_FOLDERS {
            script += &format!("mount -t tmpfs none {folder}\n");
        }
        script += SET_UP;
        let agent = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/ocf/netft-vip");
        script += &format!("cp {agent} /usr/lib/ocf/resource.d/netft/netft-vip\n");
        script += &format!("mount --bind {} /etc/corosync\n", folder.join("corosync").display());
        script += &format!("cp {} /run/netft\n", netft_program(test, node, &folder).display());
        script += "echo ready; exec sleep infinity\n";
        let mut command = test.lab.node_netns(node).command_inside("unshare").unwrap();
        command
            .args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-ec"])
            .arg(&script)
            .stdout(Stdio::piped());
        let mut holder = command.spawn().unwrap();
        let mut line = String::new();
        let output = holder.stdout.as_mut().unwrap();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(output), &mut line).unwrap();
        assert_eq!(line, "ready\n");
        let is_child = |pid: &u32| parent_of(*pid) == Some(holder.id());
        let first = processes().find(is_child).unwrap();
        let this = Self { holder, first, folder };
        this.spawn("corosync", &["-f"]);
        if node < MANAGED_NODES {
            thread::sleep(Duration::from_secs(1));
            this.spawn("pacemakerd", &["-f"]);
        }
        this
    }

    /// A command in the node's namespaces.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        let first = self.first.to_string();
        command.args(["--target", &first, "--mount", "--pid", "--net", program]);
        command
    }

    fn spawn(&self, program: &str, arguments: &[&str]) {
        let log = fs::File::create(self.folder.join(format!("{program}.log"))).unwrap();
        let mut command = self.command(program);
        command.args(arguments).stdout(log.try_clone().unwrap()).stderr(log);
        // It ends with the node's other processes.
        drop(command.spawn().unwrap());
    }

    /// Runs lines of a shell; their output if all succeed.
    fn run(&self, lines: &str) -> Option<String> {
        let output = self.command("sh").args(["-ec", lines]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        output.status.success().then_some(text)
    }

    /// Every process of the node's cluster manager.
    fn signal_all(&self, signal: Signal) {
        let namespace = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/mnt")).ok();
        let own = namespace(self.first);
        for pid in processes().filter(|pid| own.is_some() && namespace(*pid) == own) {
            if let Some(pid) = Pid::from_raw(pid as i32) {
                let _ = kill_process(pid, signal);
            }
        }
    }

    fn logs(&self) -> String {
        let read = |name: &str| fs::read_to_string(self.folder.join(name)).unwrap_or_default();
        let agent = self.run("grep -E 'netft-vip|web' /var/log/pacemaker/pacemaker.log | tail -40");
        format!("{}\n{}\n{agent:?}", read("corosync.log"), read("pacemakerd.log"))
    }
}

impl Drop for ClusterNode {
    fn drop(&mut self) {
        self.signal_all(Signal::KILL);
        let _ = self.holder.wait();
    }
}

fn processes() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn parent_of(pid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
}

fn corosync_config(test: &OwnerLab) -> String {
    let nodes: String = (0..3)
        .map(|node| {
            let (name, addr) = (test.site.name(node), test.site.virtual_addrs(node).v4);
            let id = node + 1;
            format!("  node {{\n    name: {name}\n    nodeid: {id}\n    ring0_addr: {addr}\n  }}\n")
        })
        .collect();
    format!(
        "totem {{\n  version: 2\n  cluster_name: t\n  transport: udpu\n  token: 3000\n}}\n\
         nodelist {{\n{nodes}}}\nquorum {{\n  provider: corosync_votequorum\n}}\n\
         logging {{\n  to_stderr: yes\n  to_syslog: no\n}}\n"
    )
}

/// A program that runs `netft` with the arguments that lead to a node's daemon.
fn netft_program(test: &OwnerLab, node: usize, folder: &Path) -> PathBuf {
    let command = test.site.operator_command(&test.lab, node).unwrap();
    let words = [command.get_program()].into_iter().chain(command.get_args());
    let words: Vec<String> = words.map(|word| format!("'{}'", word.to_str().unwrap())).collect();
    let path = folder.join("netft");
    fs::write(&path, format!("#!/bin/sh\nexec {} \"$@\"\n", words.join(" "))).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn has_cluster() -> bool {
    let is_there = |path: &str| Path::new(path).exists();
    !skip_without_server(is_there("/usr/sbin/corosync"), "corosync")
        && !skip_without_server(is_there("/usr/sbin/pacemakerd"), "pacemaker")
        && !skip_without_server(is_there("/usr/sbin/crm_resource"), "pacemaker-cli-utils")
        && !skip_without_server(is_there("/usr/lib/ocf/lib/heartbeat"), "resource-agents")
}

/// The three nodes with their cluster manager.
struct ManagedLab {
    cluster: Vec<ClusterNode>,
    test: OwnerLab,
}

impl ManagedLab {
    fn start(folder: &Path) -> Self {
        let common = format!(
            "[[vip]]\nname = \"web\"\naddress = \"{VIP_ADDRESS}/24\"\nownership = \"external\"\n\
             lease = {}\n",
            LEASE_SECONDS * 1000
        );
        let mut test = OwnerLab::start(OwnerLab::hosts(), &common, &[]);
        // A start waits for a node that does not answer.
        test.daemons.push(Some(test.spawn_daemon(CLIENT_HOST)));
        // Corosync ends at once on a host without its address.
        for daemon in test.daemons.iter_mut().flatten() {
            daemon.wait_ready(ROUTES_OF_NODE).unwrap();
        }
        let start = |node: usize| ClusterNode::start(&test, node, folder.join(node.to_string()));
        let this = Self { cluster: (0..3).map(start).collect(), test };
        this.await_both_nodes();
        this.cluster[0].run(CLUSTER_SETTINGS).unwrap();
        this
    }

    fn wait<T>(&self, what: &str, look: impl Fn(&Self) -> Option<T>) -> T {
        let begun = Instant::now();
        loop {
            if let Some(found) = look(self) {
                return found;
            }
            let logs = || self.cluster.iter().map(ClusterNode::logs).collect::<Vec<_>>();
            if begun.elapsed() > CLUSTER_DEADLINE {
                panic!(
                    "{what}: not in time\n{}\n{}",
                    logs().join("\n====\n"),
                    self.test.all_logs()
                );
            }
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// Waits until Pacemaker has both of its nodes.
    fn await_both_nodes(&self) {
        self.wait("both nodes", |this| {
            let listed = this.cluster[0].run("crm_mon -1")?;
            listed.contains("Online: [ a b ]").then_some(())
        });
    }

    /// Waits until a node that `is_good` answers.
    fn await_owner(&self, is_good: impl Fn(u8) -> bool) -> u8 {
        self.wait("an owner", |this| this.test.ask_once().filter(|owner| is_good(*owner)))
    }

    /// Waits until some node answers, and its start is over: Pacemaker does not try a node again
    /// whose start failed.
    fn await_started(&self) -> u8 {
        let owner = self.await_owner(|_| true);
        let started = format!("Started {}", self.test.site.name(usize::from(owner)));
        self.wait("the end of the start", |this| {
            this.cluster[usize::from(owner)].run("crm_mon -1")?.contains(&started).then_some(())
        });
        owner
    }
}

/// Runs a test with the cluster, where its programs are.
fn with_cluster(name: &str, body: impl FnOnce(ManagedLab)) {
    in_namespace_for(name, TEST_LIMIT, || {
        if has_programs(&["nft", "ip"]) && has_cluster() {
            let folder = tempfile::tempdir().unwrap();
            body(ManagedLab::start(folder.path()));
        }
    });
}

/// F-72: a planned move, and an owner whose manager is stopped; at no time two owners.
#[test]
fn f_72_pacemaker_moves_the_address_and_a_stopped_manager_loses_it() {
    with_cluster("f_72_pacemaker_moves_the_address_and_a_stopped_manager_loses_it", |lab| {
        let owner = lab.await_started();
        println!("n{owner} has it");

        let begun = Instant::now();
        let next = 1 - owner;
        let name = lab.test.site.name(usize::from(next)).to_owned();
        lab.cluster[0].run(&format!("crm_resource --resource web --move --node {name}")).unwrap();
        lab.await_owner(|number| number == next);
        println!("moved to n{next} after {:?}", begun.elapsed());
        lab.cluster[0].run("crm_resource --resource web --clear").unwrap();
        let why = lab.test.run_netft(usize::from(next), &["vip", "why", "web"]);
        assert!(why.contains("the cluster manager started it here"), "{why}");

        // Its monitor renews the lease.
        thread::sleep(Duration::from_secs(LEASE_SECONDS + 2));
        assert_eq!(lab.test.ask_once(), Some(next));
        let why = lab.test.run_netft(usize::from(next), &["vip", "why", "web"]);
        assert!(!why.contains("without a renewal"), "{why}");

        // The manager of the owner does not run: nothing renews, the others take it for dead.
        let (owner, begun) = (usize::from(next), Instant::now());
        lab.cluster[owner].signal_all(Signal::STOP);
        lab.await_owner(|number| usize::from(number) == 1 - owner);
        println!("manager of n{owner} stopped: the other answers after {:?}", begun.elapsed());
        lab.cluster[owner].signal_all(Signal::CONT);
        lab.await_both_nodes();
        lab.test.assert_one_owner(6);
    });
}

/// F-72: an owner that is cut off from everything, and one that dies with its manager; at no time
/// two owners.
#[test]
fn f_72_an_owner_that_is_cut_off_or_dead_loses_the_address() {
    with_cluster("f_72_an_owner_that_is_cut_off_or_dead_loses_the_address", |mut lab| {
        let (owner, begun) = (usize::from(lab.await_started()), Instant::now());
        lab.test.inject_fault(owner, Fault::CutOff);
        lab.await_owner(|number| usize::from(number) == 1 - owner);
        println!("n{owner} cut off: the other answers after {:?}", begun.elapsed());
        let why = lab.test.run_netft(1 - owner, &["vip", "why", "web"]);
        assert!(why.contains("does not answer, and may hold a lease"), "{why}");
        lab.test.repair(owner, Fault::CutOff);
        lab.await_both_nodes();
        let why = lab.test.run_netft(owner, &["vip", "why", "web"]);
        assert!(why.contains("interface eth0 is down"), "{why}");

        assert_eq!(usize::from(lab.await_started()), 1 - owner);
        let (owner, begun) = (1 - owner, Instant::now());
        lab.cluster[owner].signal_all(Signal::KILL);
        lab.test.inject_fault(owner, Fault::Killed);
        lab.await_owner(|number| usize::from(number) == 1 - owner);
        println!("n{owner} dead: the other answers after {:?}", begun.elapsed());
        lab.test.assert_one_owner(2);
    });
}
