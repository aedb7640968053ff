//! `[metrics] listen`: who is answered, in which format, and a real Prometheus that scrapes it.

use std::{
    env, fs,
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

use netft::config::{MetricsConfig, TlsFiles};
use netftd::control::metrics_server::{MetricsEndpoint, MetricsServer};

use super::*;

/// Longest wait for Prometheus; it bounds the test and is not asserted.
const PROMETHEUS_TIMEOUT: Duration = Duration::from_secs(60);
const TOKEN: &str = "0123456789abcdef0123456789abcdef";

fn on_loopback() -> MetricsConfig {
    MetricsConfig { listen: Some("127.0.0.1:0".parse().unwrap()), ..MetricsConfig::default() }
}

/// Writes a file that others cannot read.
fn write_secret(daemon: &Daemon, name: &str, text: &str) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let path = daemon.dir.path().join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path
}

fn open(daemon: &Daemon, config: &MetricsConfig) -> Result<MetricsServer, String> {
    let endpoint = MetricsEndpoint::load(config).map_err(|failure| failure.text)?.unwrap();
    daemon.runtime.block_on(endpoint.open()).map_err(|failure| failure.text)
}

fn serve(daemon: &Daemon, config: &MetricsConfig) -> SocketAddr {
    let server = open(daemon, config).unwrap();
    let at = server.local_addr().unwrap();
    let control = ControlContext {
        node: Arc::clone(&daemon.node),
        journal: Arc::clone(&daemon.journal),
        clock: Arc::new(WallClock::new(Time::ZERO)),
        log_counts: Arc::default(),
    };
    daemon.runtime.spawn(server.serve(Arc::new(control)));
    at
}

/// Status code, head and body of the answer to `GET target` with further header lines.
fn fetch(at: SocketAddr, target: &str, headers: &str) -> (u16, String, String) {
    let mut stream = TcpStream::connect(at).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let request = format!("GET {target} HTTP/1.1\r\nhost: netft\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    let text = String::from_utf8(bytes).unwrap();
    let code = text.get(9..12).and_then(|code| code.parse().ok()).unwrap_or(0);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or(("", ""));
    (code, head.to_owned(), body.to_owned())
}

#[test]
fn metrics_over_tcp_are_those_of_the_socket_in_two_formats() {
    let daemon = Daemon::new(snapshot());
    let at = serve(&daemon, &on_loopback());
    let (code, head, plain) = fetch(at, "/metrics", "");
    assert_eq!(code, 200, "{head}");
    assert!(head.contains("text/plain; version=0.0.4"), "{head}");
    let own = |text: &str| {
        let lines = text.lines().filter(|line| line.starts_with("netft_"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(own(&plain), own(&daemon.shows(&["metrics"])));
    let accept = "accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5\r\n";
    let (_, head, open) = fetch(at, "/metrics", accept);
    assert!(head.contains("application/openmetrics-text; version=1.0.0"), "{head}");
    assert_eq!(own(&open), own(&plain), "the samples are the same");
    assert!(open.ends_with("# EOF\n"), "{open}");
    assert!(open.contains("# TYPE netft_sent_bytes counter\n"), "{open}");
    assert!(open.contains("_bucket{le=\"0.001\"}"), "{open}");
    assert_eq!(fetch(at, "/", "").0, 404);
    assert_eq!(fetch(at, "/v1/status", "").0, 404, "nothing but the metrics");
    daemon.node.stuck.store(true, SeqCst);
    assert_eq!(fetch(at, "/metrics", "").0, 503);
}

#[test]
fn a_token_is_asked_for_and_files_that_others_read_are_refused() {
    let daemon = Daemon::new(snapshot());
    let path = write_secret(&daemon, "token", &format!("{TOKEN}\n"));
    let config = MetricsConfig { token_file: Some(path.clone()), ..on_loopback() };
    let at = serve(&daemon, &config);
    let with = |line: &str| fetch(at, "/metrics", &format!("authorization: {line}\r\n"));
    assert_eq!(with(&format!("Bearer {TOKEN}")).0, 200);
    assert_eq!(with(&format!("bearer {TOKEN}")).0, 200);
    for wrong in [format!("Bearer {TOKEN}0"), format!("Basic {TOKEN}"), "Bearer".to_owned()] {
        let (code, head, body) = with(&wrong);
        assert_eq!(code, 401, "{wrong}");
        assert!(head.contains("www-authenticate: Bearer") && !body.contains("netft_"), "{head}");
    }
    assert_eq!(fetch(at, "/metrics", "").0, 401);
    for (text, word) in [("short", "16 to 256"), ("0123456789abcdef\n0123", "on one line")] {
        write_secret(&daemon, "token", text);
        let refused = open(&daemon, &config).unwrap_err();
        assert!(refused.contains(word), "{refused}");
    }
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(open(&daemon, &config).unwrap_err().contains("others may read it"));
    fs::remove_file(&path).unwrap();
    assert!(open(&daemon, &config).unwrap_err().contains("metrics.token_file"));
    let taken = MetricsConfig { listen: Some(at), ..MetricsConfig::default() };
    assert!(open(&daemon, &taken).unwrap_err().contains("change `metrics.listen`"));
}

/// Clients that say nothing, or too much, leave room for the next one.
#[test]
fn stalled_and_endless_clients_are_cut() {
    let daemon = Daemon::new(snapshot());
    let at = serve(&daemon, &on_loopback());
    let mut stalled: Vec<_> = (0..20)
        .map(|number| {
            let mut stream = TcpStream::connect(at).unwrap();
            if number % 2 == 0 {
                stream.write_all(b"GET /metrics HTTP/1.1\r\nhost:").unwrap();
            }
            stream
        })
        .collect();
    for stream in &mut stalled {
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        assert!(!bytes.starts_with(b"HTTP/1.1 200"));
    }
    assert_eq!(fetch(at, "/metrics", "").0, 200);
    let long = format!("x: {}\r\n", "a".repeat(1 << 20));
    let mut endless = TcpStream::connect(at).unwrap();
    let _ = endless.write_all(format!("GET /metrics HTTP/1.1\r\nhost: x\r\n{long}").as_bytes());
    let mut bytes = Vec::new();
    let _ = endless.read_to_end(&mut bytes);
    assert!(!bytes.starts_with(b"HTTP/1.1 200"));
    assert_eq!(fetch(at, "/metrics", "").0, 200);
}

/// A child that ends with the test.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The value of a query of Prometheus; `None` until there is one.
fn query(at: SocketAddr, expression: &str) -> Option<f64> {
    TcpStream::connect(at).ok()?;
    let (_, _, body) =
        fetch(at, &format!("/api/v1/query?query={expression}"), "connection: close\r\n");
    // The body may come in chunks: the answer is one line of JSON among them.
    let line = body.lines().find(|line| line.starts_with('{'))?;
    let answer: Value = serde_json::from_str(line).ok()?;
    answer["data"]["result"][0]["value"][1].as_str()?.parse().ok()
}

/// Prometheus of Debian scrapes over TLS with a token, and knows every kind of figure.
#[test]
fn prometheus_scrapes_over_tls_with_a_token() {
    let daemon = Daemon::new(snapshot());
    let folder = daemon.dir.path();
    let missing = |program: &str| {
        let required = env::var_os("NETFT_REQUIRE_SERVERS").is_some_and(|it| it == "1");
        assert!(!required, "there is no {program}");
        eprintln!("skipped: there is no {program}");
    };
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]);
    openssl.args([
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=a",
        "-addext",
        "subjectAltName=IP:127.0.0.1",
    ]);
    openssl.args(["-keyout", "key.pem", "-out", "cert.pem"]).current_dir(folder);
    let Ok(made) = openssl.output() else { return missing("openssl") };
    assert!(made.status.success(), "{made:?}");
    let key = fs::read_to_string(folder.join("key.pem")).unwrap();
    let key = write_secret(&daemon, "key.pem", &key);
    let token_file = Some(write_secret(&daemon, "token", TOKEN));
    let tls = Some(TlsFiles { certificate: folder.join("cert.pem"), key });
    let at = serve(&daemon, &MetricsConfig { token_file, tls, ..on_loopback() });
    assert_eq!(fetch(at, "/metrics", "").0, 0, "nothing in the clear");
    let config = format!(
        "scrape_configs:\n- job_name: netft\n  scrape_interval: 1s\n  scheme: https\n  \
         authorization: {{credentials_file: token}}\n  tls_config: {{ca_file: cert.pem}}\n  \
         static_configs: [{{targets: ['{at}']}}]\n"
    );
    fs::write(folder.join("prometheus.yml"), config).unwrap();
    // A free port, which nobody else takes within a moment.
    let web = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let log = fs::File::create(folder.join("prometheus.log")).unwrap();
    let prometheus = Command::new("prometheus")
        .args(["--config.file=prometheus.yml", "--storage.tsdb.path=data"])
        .arg(format!("--web.listen-address={web}"))
        .current_dir(folder)
        .stdout(Stdio::null())
        .stderr(log)
        .spawn();
    let Ok(prometheus) = prometheus else { return missing("prometheus") };
    let _prometheus = Program(prometheus);
    let deadline = Instant::now() + PROMETHEUS_TIMEOUT;
    while query(web, "up") != Some(1.0) {
        let log = || fs::read_to_string(folder.join("prometheus.log")).unwrap();
        assert!(Instant::now() < deadline, "{:?}\n{}", query(web, "up"), log());
        thread::sleep(Duration::from_millis(200));
    }
    for (expression, value) in [
        ("netft_route_received_bytes_total", 2900.0),
        ("netft_adapter_up", 1.0),
        ("netft_failover_stall_seconds_count", 0.0),
        ("count(netft_dropped_packets_total)", DropReason::ALL.len() as f64),
    ] {
        assert_eq!(query(web, expression), Some(value), "{expression}");
    }
}
