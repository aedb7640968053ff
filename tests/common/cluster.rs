//! Nodes without a word about each other in their configs.

use std::{
    fs::{File, OpenOptions},
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use netft_lab::{Lab, ScratchDir, scheduling};
use serde_json::Value;

/// Longest wait for a condition; it bounds the tests and is not asserted.
pub const CLUSTER_TIMEOUT: Duration = Duration::from_secs(20);

/// Nodes `n0`, `n1`, …, each with a folder of its own.
pub struct ClusterLab {
    pub daemons: Vec<Option<Child>>,
    pub lab: Lab,
    pub folder: ScratchDir,
}

impl Drop for ClusterLab {
    fn drop(&mut self) {
        for daemon in self.daemons.iter_mut().flatten() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
        for node in 0..self.daemons.len() {
            self.kill_started(node);
        }
        if thread::panicking() {
            for node in 0..self.daemons.len() {
                let log = std::fs::read_to_string(self.path(node, "log")).unwrap_or_default();
                eprintln!("--- n{node} ---\n{log}");
            }
        }
    }
}

impl ClusterLab {
    pub fn new(nodes: usize, networks: usize) -> Self {
        let lab = Lab::new(nodes, networks).unwrap();
        let folder = ScratchDir::new("cluster").unwrap();
        for node in 0..nodes {
            std::fs::create_dir(folder.path().join(format!("n{node}"))).unwrap();
        }
        Self { daemons: (0..nodes).map(|_| None).collect(), lab, folder }
    }

    /// A file of a node.
    pub fn path(&self, node: usize, name: &str) -> PathBuf {
        self.folder.path().join(format!("n{node}")).join(name)
    }

    /// `netft` on a node.
    pub fn netft_command(&self, node: usize, args: &[&str]) -> Command {
        let mut command =
            self.lab.node_netns(node).command_inside(env!("CARGO_BIN_EXE_netft")).unwrap();
        command.arg("--runtime-dir").arg(self.path(node, "run"));
        command.arg("--state-dir").arg(self.path(node, "state"));
        command.args(args);
        command
    }

    /// Runs `netft` on a node.
    pub fn try_netft(&self, node: usize, args: &[&str]) -> Output {
        self.netft_command(node, args).stdin(Stdio::null()).output().unwrap()
    }

    /// The same; it must succeed. Returns its output.
    pub fn netft(&self, node: usize, args: &[&str]) -> String {
        let output = self.try_netft(node, args);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "n{node}: netft {args:?}: {error}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// The error of a command that must fail.
    pub fn netft_error(&self, node: usize, args: &[&str]) -> String {
        let output = self.try_netft(node, args);
        assert!(!output.status.success(), "n{node}: netft {args:?} succeeded");
        String::from_utf8(output.stderr).unwrap()
    }

    /// The JSON answer of a command; `Null` while no daemon answers.
    pub fn json(&self, node: usize, args: &[&str]) -> Value {
        let output = self.try_netft(node, &[args, &["--json"]].concat());
        serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)
    }

    /// A config with name and key alone. Returns the public key.
    pub fn write_config(&self, node: usize, more: &str) -> String {
        let key = self.path(node, "key");
        let public = match key.exists() {
            true => self.netft(node, &["pubkey", key.to_str().unwrap()]),
            false => self.netft(node, &["keygen", key.to_str().unwrap()]),
        };
        let text = format!("[node]\nname = \"n{node}\"\nkey = \"key\"\n{more}");
        std::fs::write(self.path(node, "netft.toml"), text).unwrap();
        public.trim().to_owned()
    }

    /// The daemon's command on a node.
    pub fn daemon_command(&self, node: usize, mode: &str) -> Command {
        let mut command =
            self.lab.node_netns(node).command_inside(env!("CARGO_BIN_EXE_netftd")).unwrap();
        command.arg(mode).arg(self.path(node, "netft.toml"));
        command.arg("--runtime-dir").arg(self.path(node, "run"));
        command.arg("--state-dir").arg(self.path(node, "state"));
        command
    }

    pub fn start(&mut self, node: usize) {
        let log = OpenOptions::new().create(true).append(true).open(self.path(node, "log"));
        let log: File = log.unwrap();
        let both = log.try_clone().unwrap();
        let mut command = self.daemon_command(node, "--config");
        command.stdin(Stdio::null()).stdout(log).stderr(both);
        self.daemons[node] = Some(command.spawn().unwrap());
    }

    /// Shell command that starts the daemon of a node, as its service manager would; inside the
    /// node's namespace.
    pub fn start_command(&self, node: usize) -> String {
        let path = |name| self.path(node, name).display().to_string();
        format!(
            "setsid {} --config {} --runtime-dir {} --state-dir {} >>{} 2>&1 & echo $! >{}",
            env!("CARGO_BIN_EXE_netftd"),
            path("netft.toml"),
            path("run"),
            path("state"),
            path("log"),
            path("pid")
        )
    }

    /// Kills a daemon that [`start_command`](Self::start_command) started, if there is one.
    pub fn kill_started(&self, node: usize) {
        let Ok(pid) = std::fs::read_to_string(self.path(node, "pid")) else { return };
        let _ = Command::new("kill").args(["-9", pid.trim()]).status();
        let _ = std::fs::remove_file(self.path(node, "pid"));
    }

    /// Creates a cluster on the first node, and starts its daemon.
    pub fn create_and_start(&self) {
        let (config, start) = (self.path(0, "netft.toml"), self.start_command(0));
        let config = config.to_str().unwrap();
        let create = ["cluster", "create", "prod", "--name", "n0", "--config", config];
        self.netft(0, &[&create[..], &["--start-with", &start]].concat());
    }

    /// A token of the first node.
    pub fn invite(&self, options: &[&str]) -> String {
        let answer = self.json(0, &[&["cluster", "invite"], options].concat());
        answer["token"].as_str().unwrap_or_else(|| panic!("no token: {answer}")).to_owned()
    }

    /// The command that joins a node; its daemon is started by it.
    pub fn join_command(&self, node: usize, token: &str) -> Command {
        let (config, start) = (self.path(node, "netft.toml"), self.start_command(node));
        let name = format!("n{node}");
        let args = ["cluster", "join", token, "--name", &name, "--json", "--start-with", &start];
        let mut command = self.netft_command(node, &args);
        command.arg("--config").arg(config).stdin(Stdio::null());
        command
    }

    /// Joins a node; it must succeed. Returns the answer.
    pub fn join(&self, node: usize, token: &str) -> Value {
        let output = self.join_command(node, token).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "n{node}: join: {error}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// The error of a join that must fail.
    pub fn join_error(&self, node: usize, token: &str) -> String {
        let output = self.join_command(node, token).output().unwrap();
        assert!(!output.status.success(), "n{node}: the join succeeded");
        String::from_utf8(output.stderr).unwrap()
    }

    /// Kills a daemon as a power failure would.
    pub fn kill(&mut self, node: usize) {
        let mut daemon = self.daemons[node].take().unwrap();
        daemon.kill().unwrap();
        daemon.wait().unwrap();
    }

    pub fn log(&self, node: usize) -> String {
        std::fs::read_to_string(self.path(node, "log")).unwrap_or_default()
    }

    /// Waits until `want` holds.
    pub fn wait(&self, what: &str, want: impl Fn(&Self) -> bool) {
        let start = Instant::now();
        while !want(self) {
            if start.elapsed() > CLUSTER_TIMEOUT {
                let text = format!("waited in vain: {what}");
                panic!("{}", scheduling::blame_wait(start, CLUSTER_TIMEOUT, text));
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Routes of a node that are up.
    pub fn routes_up(&self, node: usize) -> usize {
        let answer = self.json(node, &["routes"]);
        let routes = answer["routes"].as_array().cloned().unwrap_or_default();
        routes.iter().filter(|route| route["state"] == "up").count()
    }

    /// Waits until each of these nodes has a route that is up to each of the others on every
    /// network.
    pub fn wait_mesh(&self, nodes: &[usize]) {
        let count = (nodes.len() - 1) * self.lab.network_count();
        for node in nodes {
            let what = format!("{count} routes up at n{node}");
            self.wait(&what, |lab| lab.routes_up(*node) >= count);
        }
    }

    /// Waits until handshakes of `from` were refused at `at`, and `from` has no session with it.
    pub fn wait_refused(&self, from: usize, at: usize) {
        let refused = |lab: &Self| {
            let status = lab.json(at, &["status"]);
            status["counters"]["drops"]["unknown_source"].as_u64().unwrap_or_default()
        };
        let before = refused(self);
        let name = format!("n{at}");
        self.wait("handshakes refused", |lab| {
            let answer = lab.json(from, &["peers"]);
            let peers = answer["peers"].as_array().cloned().unwrap_or_default();
            let is_without = |peer: &Value| peer["name"] == *name && peer["session"] == false;
            refused(lab) > before && peers.iter().any(is_without)
        });
    }

    /// Names of a node's peers.
    pub fn peers(&self, node: usize) -> Vec<String> {
        let answer = self.json(node, &["peers"]);
        let peers = answer["peers"].as_array().cloned().unwrap_or_default();
        peers.iter().map(|peer| peer["name"].as_str().unwrap().to_owned()).collect()
    }

    /// Serial of a node's roster.
    pub fn serial(&self, node: usize) -> Option<u64> {
        self.json(node, &["cluster", "status"])["serial"].as_u64()
    }

    /// A cluster of all nodes, the first one with its key, nothing started.
    pub fn create(&self) {
        self.write_config(0, "");
        let config = self.path(0, "netft.toml");
        self.netft(0, &["cluster", "create", "prod", "--config", config.to_str().unwrap()]);
        for node in 1..self.daemons.len() {
            let key = self.write_config(node, "");
            self.add(node, &key);
        }
        for node in 1..self.daemons.len() {
            self.carry_roster(0, node);
        }
    }

    /// Adds a node at the first one.
    pub fn add(&self, node: usize, key: &str) {
        let name = format!("n{node}");
        let address = self.lab.node_ipv4(0, node).to_string();
        self.netft(0, &["cluster", "add", &name, "--key", key, "--address", &address]);
    }

    /// Exports a roster and imports it on another node, as an operator would.
    pub fn carry_roster(&self, from: usize, to: usize) {
        let file = self.path(from, "exported");
        let file = file.to_str().unwrap();
        self.netft(from, &["cluster", "export", file]);
        self.netft(to, &["cluster", "import", file]);
    }
}
