//! A canned node behind a control socket: who is answered, with what, and how `netft` shows it.
#![allow(clippy::unwrap_used, missing_docs)]

mod alerts;
mod answers;
mod api_schema;
mod drains;
mod limits;
mod metrics_listen;
mod networks;
mod report;
mod screens;
mod top;
mod tune;
mod validate;
mod why;

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, Ipv6Addr},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use netft::{
    NodeKey, PeerId, RouteId, Time,
    api::{
        drain::{DrainError, DrainOrder, DrainReport},
        error::{PeerError, RouteError},
        query::QueryError,
        session::{PeerVersion, SessionCause, SessionProblem, WireVersions},
        snapshot::{AdapterInfo, CounterSnapshot, NodeInfo, PeerInfo, RouteTraffic, Snapshot},
    },
    config::{AdapterBackend, ChangeKind, ConfigChange},
    failover::{move_counts::MoveCounts, stall_histogram::StallHistogram},
    ids::virtual_addrs::VirtualAddrs,
    route::{
        Attributes, HeartbeatCounters, HoldDownStatus, PathMtuStatus, PeerChange, PeerPolicies,
        PeerStatus, Priority, Reason, RouteChange, RouteClass, RouteQuality, RouteSpec, RouteState,
        RouteStatus, Transport, drain::DrainWait,
    },
    wire::DropReason,
};
use netftd::{
    clock::WallClock,
    control::{
        backend::ControlBackend, journal::EventJournal, listener::ControlListener, server,
        server::ControlContext,
    },
    exit::ExitError,
};
use serde_json::{Value, json};

/// A backend with prepared answers.
struct Fake {
    snapshot: Mutex<Snapshot>,
    stuck: AtomicBool,
    changes: Mutex<Vec<(RouteId, RouteChange)>>,
    drains: Mutex<Vec<DrainOrder>>,
    /// Answer of the first peer.
    says: Mutex<Result<Vec<u8>, QueryError>>,
    /// Step a drain waits for, until the test removes it.
    waits: Mutex<Result<Option<DrainWait>, DrainError>>,
    /// Why overrides are not on the disk.
    unsaved: Mutex<Option<String>>,
}

impl ControlBackend for Fake {
    async fn take_snapshot(&self) -> Option<Snapshot> {
        if self.stuck.load(SeqCst) {
            std::future::pending::<()>().await;
        }
        Some(self.snapshot.lock().unwrap().clone())
    }

    async fn change_route(&self, route: RouteId, change: RouteChange) -> Result<(), RouteError> {
        self.changes.lock().unwrap().push((route, change));
        Ok(())
    }

    async fn reload_config(&self, dry_run: bool) -> Result<Vec<ConfigChange>, ExitError> {
        match dry_run {
            true => Ok(vec![ConfigChange {
                kind: ChangeKind::Added,
                what: "peer c\x1b: 10.1.0.3".to_owned(),
            }]),
            false => Err(ExitError::invalid_input("error: line 1\n  --> netft.toml:1:2\x1b")),
        }
    }

    async fn change_peer(&self, _: PeerId, change: PeerChange) -> Result<(), PeerError> {
        let peer = &mut self.snapshot.lock().unwrap().peers[0];
        peer.policies = peer.policies.with_change(change)?;
        Ok(())
    }

    async fn query_peer(&self, peer: PeerId, question: Vec<u8>) -> Result<Vec<u8>, QueryError> {
        if question.starts_with(b"report/1 ") {
            return match peer {
                PeerId(0) => Ok(b"told \x1b[2J\n".to_vec()),
                _ => Err(QueryError::TooOld),
            };
        }
        assert_eq!(question, b"validate/1");
        match peer {
            PeerId(0) => self.says.lock().unwrap().clone(),
            _ => Err(QueryError::TooOld),
        }
    }

    async fn recheck_paths(&self) -> Option<Time> {
        // Every route of the snapshot was proven then.
        Some(Time::from_millis(9000))
    }

    async fn unsaved_overrides(&self, _: Duration) -> Option<String> {
        self.unsaved.lock().unwrap().clone()
    }

    async fn drain_routes(
        &self,
        order: DrainOrder,
        _: Duration,
    ) -> Result<DrainReport, DrainError> {
        let waits = self.waits.lock().unwrap().clone()?;
        let routes = vec![RouteId(1)];
        self.drains.lock().unwrap().push(order);
        Ok(DrainReport {
            routes,
            waits: waits.map(|wait| (RouteId(1), wait)).into_iter().collect(),
        })
    }
}

fn route(id: u32, local: &str, remote: &str) -> RouteStatus {
    RouteStatus {
        id: RouteId(id),
        spec: RouteSpec {
            peer: PeerId(0),
            real_local: local.parse().unwrap(),
            real_remote: remote.parse().unwrap(),
            virtual_local: "169.254.1.1".parse().unwrap(),
            virtual_remote: "169.254.1.2".parse().unwrap(),
            timing: RouteClass::SameSubnet.default_timing(),
            priority: Priority(2000),
            attributes: Attributes(Attributes::SAME_SUBNET),
            transport: Transport::Udp,
        },
        state: RouteState::Up,
        tx: true,
        rx: true,
        suspect: false,
        hold_down: HoldDownStatus::default(),
        drain: None,
        active: id == 1,
        quality: RouteQuality {
            rtt: Some(Duration::from_micros(215)),
            jitter: Some(Duration::from_micros(40)),
            loss_in: 0.125,
            loss_out: 0.03,
            data_loss: 0.02,
        },
        brown_out: false,
        heartbeats: HeartbeatCounters { sent: 1000, missed: 2, ..HeartbeatCounters::default() },
        last_change: Time::from_millis(4000),
        reason: Reason::BothWays,
        path_mtu: PathMtuStatus {
            size: Some(1500),
            limit: Some(1500),
            proven: Some(Time::from_millis(9000)),
            probing: false,
        },
    }
}

fn snapshot() -> Snapshot {
    let addrs = VirtualAddrs { v4: Ipv4Addr::new(169, 254, 1, 2), v6: "fe80::2".parse().unwrap() };
    Snapshot {
        now: Time::from_millis(10_000),
        node: NodeInfo {
            name: "a".to_owned(),
            key: NodeKey([7; 32]),
            boot_id: u64::MAX,
            uptime: Duration::from_secs(3661),
        },
        adapter: AdapterInfo {
            name: "netft0".to_owned(),
            ifindex: 9,
            up: true,
            v4: Ipv4Addr::new(169, 254, 1, 1),
            v6: Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1),
            addrs: vec!["169.254.1.1/32".parse().unwrap(), "10.0.0.9/24".parse().unwrap()],
            mtu: 1420,
            queue_len: Some(4000),
            backend: AdapterBackend::Offload,
            tunnel_offload: true,
        },
        peers: vec![PeerInfo {
            overlay_problem: None,
            is_gone: false,
            status: PeerStatus {
                peer: PeerId(0),
                session: true,
                reachable: true,
                active: Some(RouteId(1)),
                moves: MoveCounts { failovers: 3, ..MoveCounts::default() },
                heard: true,
                last_heard: Some(Time::from_millis(9990)),
            },
            name: "b".to_owned(),
            key: NodeKey([8; 32]),
            addrs,
            peer_adapter_up: Some(true),
            version: Some(PeerVersion {
                wire: WireVersions { lowest: 1, highest: 2 },
                release: "0.1.0".to_owned(),
            }),
            cipher: Some("AES-256-GCM"),
            session_problem: None,
            session_end: None,
            policies: PeerPolicies::default(),
        }],
        routes: vec![
            route(2, "10.2.0.1:3343", "10.2.0.2:3343"),
            route(1, "10.1.0.1:3343", "10.1.0.2:3343"),
        ],
        networks: Vec::new(),
        stalls: StallHistogram::default(),
        sent_by_route: [(RouteId(1), RouteTraffic { frames: 3, bytes: 4000 })].into(),
        received_by_route: [(RouteId(1), RouteTraffic { frames: 2, bytes: 2900 })].into(),
        relay_of: Default::default(),
        plain_sends: Default::default(),
        overrides: Default::default(),
        counters: CounterSnapshot {
            tx_bytes: 1 << 40,
            drops: DropReason::ALL.iter().map(|reason| (*reason, *reason as u64)).collect(),
            ..CounterSnapshot::default()
        },
    }
}

#[test]
fn a_snapshot_serialises_with_the_names_of_the_output() {
    let value = serde_json::to_value(snapshot()).unwrap();
    assert_eq!(value["adapter"]["backend"], "offload");
    assert_eq!(value["adapter"]["addrs"], json!(["169.254.1.1/32", "10.0.0.9/24"]));
    assert_eq!(value["adapter"]["queue_len"], 4000);
    assert_eq!(value["adapter"]["tunnel_offload"], true);
    assert_eq!(value["node"]["key"], NodeKey([7; 32]).to_string());
    assert_eq!(value["peers"][0]["policies"]["default"], "failover");
    assert_eq!(value["sent_by_route"]["1"]["frames"], 3);
}

/// The widest values every column can have.
fn worst() -> Snapshot {
    let mut snapshot = snapshot();
    let end = "[2001:db8:1111:2222:3333:4444:5555:6666]:65535";
    let mut wide = route(u32::MAX, end, end);
    wide.spec.priority = Priority(u32::MAX);
    wide.spec.attributes = Attributes(u32::MAX);
    wide.state = RouteState::AdminDown;
    wide.quality.rtt = Some(Duration::from_secs(100_000));
    wide.quality.loss_in = 1.0;
    wide.heartbeats.sent = u64::MAX;
    snapshot.routes = vec![wide];
    snapshot.peers[0].name = "Q".repeat(64);
    snapshot.peers[0].status.moves.failovers = u64::MAX;
    snapshot.peers[0].status.active = Some(RouteId(u32::MAX));
    snapshot.peers[0].addrs.v6 = "2001:db8:1111:2222:3333:4444:5555:6666".parse().unwrap();
    snapshot
}

/// A control socket in a folder of its own.
struct Daemon {
    dir: tempfile::TempDir,
    node: Arc<Fake>,
    journal: Arc<EventJournal>,
    runtime: tokio::runtime::Runtime,
}

impl Daemon {
    fn new(snapshot: Snapshot) -> Self {
        Self::for_readers(snapshot, None)
    }

    fn for_readers(snapshot: Snapshot, readers: Option<u32>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let node = Arc::new(Fake {
            snapshot: Mutex::new(snapshot),
            stuck: AtomicBool::new(false),
            changes: Mutex::default(),
            drains: Mutex::default(),
            says: Mutex::new(Err(QueryError::TimedOut { seconds: 4 })),
            waits: Mutex::new(Ok(None)),
            unsaved: Mutex::default(),
        });
        let journal = Arc::new(EventJournal::default());
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let listener = {
            let _inside = runtime.enter();
            ControlListener::bind(&dir.path().join("run/n.sock"), readers).unwrap()
        };
        runtime.spawn(server::serve(
            listener,
            Arc::new(ControlContext {
                node: Arc::clone(&node),
                journal: Arc::clone(&journal),
                clock: Arc::new(WallClock::new(Time::ZERO)),
                log_counts: Arc::default(),
            }),
        ));
        Self { dir, node, journal, runtime }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("run/n.sock")
    }

    fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(self.path()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }

    /// The status code and the body of the answer to raw bytes.
    fn raw(&self, request: &[u8]) -> (u16, String) {
        let mut stream = self.connect();
        let _ = stream.write_all(request);
        read_answer(&mut stream)
    }

    fn ask(&self, method: &str, target: &str, body: &str) -> (u16, Value) {
        let length = body.len();
        let request =
            format!("{method} {target} HTTP/1.0\r\ncontent-length: {length}\r\n\r\n{body}");
        let (code, text) = self.raw(request.as_bytes());
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["schema"], 2, "{text}");
        api_schema::assert_documented(method, target, (body, code), &value);
        (code, value)
    }

    fn netft(&self, args: &[&str]) -> Output {
        netft(&self.path(), args)
    }

    fn shows(&self, args: &[&str]) -> String {
        let output = self.netft(args);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }
}

fn read_answer(stream: &mut UnixStream) -> (u16, String) {
    let mut text = Vec::new();
    let _ = stream.read_to_end(&mut text);
    let text = String::from_utf8(text).unwrap();
    let code = text.get(9..12).and_then(|code| code.parse().ok()).unwrap_or(0);
    let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    (code, body.to_owned())
}

fn netft(socket: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_netft"))
        .arg("--socket")
        .arg(socket)
        .args(args)
        .env("TZ", "UTC")
        .output()
        .unwrap()
}
