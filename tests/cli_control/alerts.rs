//! The alert rules and the dashboard against the metrics, and `promtool` (package prometheus) on
//! both.

use std::{collections::BTreeSet, env, fs, process::Stdio};

use super::*;

fn read_packaged(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/prometheus");
    fs::read_to_string(folder.join(name)).unwrap()
}

/// Words of a text that are names of netft's metrics.
fn metric_names(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("netft_") || word.starts_with("process_")).collect()
}

#[test]
fn every_metric_of_the_rules_and_the_dashboard_exists() {
    let daemon = Daemon::new(snapshot());
    let page = daemon.shows(&["metrics"]);
    let known: BTreeSet<_> =
        page.lines().filter_map(|line| line.split(['{', ' ']).next()).collect();
    let names = ["netft-alerts.yml", "netft-alerts-test.yml", "netft-dashboard.json"];
    for (file, text) in names.map(|name| (name, read_packaged(name))) {
        let used = metric_names(&text);
        assert!(used.len() > 5, "{file}: {used:?}");
        let unknown: Vec<_> = used.iter().filter(|name| !known.contains(**name)).collect();
        assert!(unknown.is_empty(), "{file} names {unknown:?}");
    }
    let dashboard: Value = serde_json::from_str(&read_packaged("netft-dashboard.json")).unwrap();
    assert!(dashboard["panels"].as_array().unwrap().len() > 10);
}

/// Labels of the routes are those of the network, never a number of this start.
#[test]
fn routes_have_labels_that_stay_over_restarts() {
    let daemon = Daemon::new(snapshot());
    let page = daemon.shows(&["metrics"]);
    let routes = page.lines().filter(|line| line.starts_with("netft_route_"));
    for line in routes.filter(|line| !line.starts_with("netft_route_info")) {
        assert!(line.contains("network=\"") && line.contains("interface=\""), "{line}");
        assert!(!line.contains("route=\""), "{line}");
    }
    assert!(page.contains("netft_peer_routes_up{peer=\"b\"} 2"), "{page}");
}

/// Output of `promtool`; `None` where it is not installed.
fn promtool(args: &[&str], input: &str) -> Option<Output> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/prometheus");
    let program = Command::new("promtool")
        .args(args)
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut program) = program else {
        let required = env::var_os("NETFT_REQUIRE_SERVERS").is_some_and(|it| it == "1");
        assert!(!required, "there is no promtool: install prometheus");
        eprintln!("skipped: there is no promtool (package prometheus)");
        return None;
    };
    program.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    Some(program.wait_with_output().unwrap())
}

#[test]
fn promtool_accepts_the_metrics_and_the_rules_fire_for_faults_only() {
    let daemon = Daemon::new(snapshot());
    let page = daemon.shows(&["metrics"]);
    for (args, input) in [
        (&["check", "metrics"] as &[&str], page.as_str()),
        (&["check", "rules", "netft-alerts.yml"], ""),
        (&["test", "rules", "netft-alerts-test.yml"], ""),
    ] {
        let Some(output) = promtool(args, input) else { return };
        assert!(output.status.success(), "{args:?}: {output:?}");
    }
}

/// The page about the metrics, from the metrics.
#[test]
fn the_reference_of_metrics_names_every_metric() {
    let daemon = Daemon::new(snapshot());
    let page = daemon.shows(&["metrics"]);
    let mut text = String::from(
        "# Reference of metrics\n\nEvery metric of `netft metrics` and `GET /metrics`. Generated \
         from the page itself;\n`NETFT_WRITE_DOCS=1 cargo test --test cli_control metrics` \
         rewrites this one.\n\n\
         | metric | type | labels |\n|---|---|---|\n",
    );
    let (mut help, mut meanings) = ("", String::from("\n"));
    for line in page.lines() {
        if let Some(found) = line.strip_prefix("# HELP ") {
            help = found.split_once(' ').unwrap().1;
        } else if let Some(found) = line.strip_prefix("# TYPE ") {
            let (name, kind) = found.split_once(' ').unwrap();
            let is_sample = |line: &&str| {
                !line.starts_with('#') && line.split(['{', ' ']).next().unwrap().starts_with(name)
            };
            let sample = page.lines().find(is_sample).unwrap_or_default();
            let labels: Vec<_> = sample
                .split("=\"")
                .filter_map(|part| part.rsplit(['{', ',']).next())
                .filter(|part| !part.contains(['"', ' ']))
                .collect();
            text += &format!("| `{name}` | {kind} | {} |\n", labels.join(", "));
            meanings += &format!("* `{name}`: {help}\n");
        }
    }
    text += &meanings;
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
    if env::var_os("NETFT_WRITE_DOCS").is_some() {
        fs::write(&path, &text).unwrap();
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == text,
        "docs/metrics.md is not what the metrics are; rewrite it: \
         NETFT_WRITE_DOCS=1 cargo test --test cli_control metrics"
    );
}
