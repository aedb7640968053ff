//! `netft drill`.

use std::{
    fs, io,
    io::{IsTerminal, Write},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use ipnet::IpNet;
use netft::api::drill::{MAX_DRILL_LENGTH, MAX_INJECTED_DELAY, MIN_DRILL_LENGTH, RECOVERY_TIMEOUT};

use super::output::StandardOutput;
use crate::{
    clock,
    clock::parse_duration,
    control::{
        client::DaemonClient,
        schema::{DrillBody, DrillRequest, DrillView, RouteList, VersionedBody},
    },
    exit::ExitError,
    render::{drill, style::OutputStyle},
};

/// Interval of the questions while a drill runs.
const POLL_INTERVAL: Duration = Duration::from_millis(200);
/// How long the answer of a drill may stay out beyond its length and the recovery of its routes.
const REPORT_MARGIN: Duration = Duration::from_secs(5);
/// Longest wait between two drills of a schedule for every route to be up and out of hold-down.
const REST_TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Debug, clap::Args)]
pub(super) struct DrillArgs {
    /// Make this route fail.
    #[arg(long, value_name = "NUMBER", group = "target")]
    pub(super) route: Option<u32>,
    /// Make every route that begins in this network fail, such as 10.1.0.0/24.
    #[arg(long, value_name = "PREFIX", group = "target")]
    pub(super) network: Option<IpNet>,
    /// Make every route over this interface fail.
    #[arg(long, value_name = "NAME", group = "target")]
    pub(super) interface: Option<String>,
    /// Rehearse the loss of each network in turn, for a timer.
    #[arg(long, group = "target")]
    pub(super) schedule: bool,
    /// Show the drill that runs, or the last one.
    #[arg(long, group = "target")]
    pub(super) show: bool,
    /// Failure: blackhole, one-way, loss PERCENT, carrier or delay TIME.
    #[arg(long, value_name = "KIND", num_args = 1..=2, default_value = "blackhole")]
    pub(super) fault: Vec<String>,
    /// How long the failure lasts: 1s–60s.
    #[arg(long = "for", value_name = "TIME", default_value = "5s", value_parser = parse_length)]
    pub(super) length: Duration,
    /// Write the report to this file, one printable page.
    #[arg(long, value_name = "FILE")]
    pub(super) html: Option<PathBuf>,
}

/// Exit codes of `netft drill`, for `--help`.
pub(super) const DRILL_CODES: &str = "Exit codes:
  0  the drill ran, its routes returned, and the objective ([slo]) was met
  1  the objective was missed, a route did not return, or the drill was refused or ended early
  2  invalid input";

fn parse_length(text: &str) -> Result<Duration, String> {
    let length = parse_duration(text)?;
    match (MIN_DRILL_LENGTH..=MAX_DRILL_LENGTH).contains(&length) {
        true => Ok(length),
        false => Err("a drill lasts 1 s to 60 s".to_owned()),
    }
}

/// Sets the fault of a request.
fn parse_fault(words: &[String], request: &mut DrillRequest) -> Result<(), ExitError> {
    let (kind, amount) = match words {
        [kind] => (kind.as_str(), None),
        [kind, amount] => (kind.as_str(), Some(amount.as_str())),
        _ => ("", None),
    };
    kind.clone_into(&mut request.fault);
    match (kind, amount) {
        ("blackhole" | "one-way" | "carrier", None) => Ok(()),
        ("loss", Some(amount)) => {
            let percent = amount.trim_end_matches('%').trim().parse().ok();
            request.percent = percent.filter(|percent| (1..=100).contains(percent));
            let wrong = || ExitError::invalid_input("loss is 1 to 100 %, such as --fault loss 5%");
            request.percent.map(drop).ok_or_else(wrong)
        }
        ("delay", Some(amount)) => {
            let delay = parse_duration(amount).map_err(ExitError::invalid_input)?;
            if delay.as_millis() == 0 || delay > MAX_INJECTED_DELAY {
                return Err(ExitError::invalid_input("a delay is 1 ms to 1 s"));
            }
            request.delay_ms = Some(delay.as_millis() as u64);
            Ok(())
        }
        _ => Err(ExitError::invalid_input(
            "--fault is blackhole, one-way, loss PERCENT, carrier or delay TIME",
        )),
    }
}

pub(super) fn run_drill(
    client: &DaemonClient,
    args: &DrillArgs,
    json: bool,
    style: &OutputStyle,
    out: &mut StandardOutput,
) -> Result<(), ExitError> {
    let mut request = DrillRequest {
        route: args.route,
        network: args.network.map(|prefix| prefix.trunc().to_string()),
        interface: args.interface.clone(),
        length_ms: args.length.as_millis() as u64,
        ..DrillRequest::default()
    };
    parse_fault(&args.fault, &mut request)?;
    let drills = if args.show {
        let shown = read_drill(client)?;
        vec![shown.ok_or_else(|| ExitError::other_error("netftd has run no drill yet"))?]
    } else if args.schedule {
        run_schedule(client, &request)?
    } else if request.route.is_some() || request.network.is_some() || request.interface.is_some() {
        vec![run_one(client, &request)?]
    } else {
        let text = "name what fails: --route, --network or --interface; or --schedule, or --show";
        return Err(ExitError::invalid_input(text));
    };
    if let Some(path) = &args.html {
        write_page(path, &drills)?;
    }
    let text = match &drills[..] {
        [one] => serde_json::to_string(&VersionedBody::new(DrillBody { drill: Some(one.clone()) })),
        all => serde_json::to_string(&VersionedBody::new(serde_json::json!({ "drills": all }))),
    };
    let text = text.map_err(ExitError::other_error)?;
    out.print_response(json, &text, || {
        let texts: Vec<_> = drills.iter().map(|one| drill::drill_text(one, style)).collect();
        texts.join("\n")
    })?;
    match drills.iter().find_map(failure_text) {
        Some(text) if !args.show => Err(ExitError::other_error(text)),
        _ => Ok(()),
    }
}

/// The reason why a drill is a failure, if it is one.
fn failure_text(view: &DrillView) -> Option<String> {
    let target = &view.target;
    if let Some(reason) = &view.reason {
        return Some(format!("the drill of {target} was ended early: {reason}"));
    }
    if !view.recovered {
        return Some(format!("a route of {target} is not up again after the drill"));
    }
    (!view.verdict.met).then(|| format!("the drill of {target} missed the objective"))
}

fn read_drill(client: &DaemonClient) -> Result<Option<DrillView>, ExitError> {
    let (_, body) = client.request_json::<DrillBody>("GET", "/v1/drill", "")?;
    Ok(body.drill)
}

/// Begins a drill and waits for its report. It ends by itself when this program is stopped.
fn run_one(client: &DaemonClient, request: &DrillRequest) -> Result<DrillView, ExitError> {
    let body = serde_json::to_string(request).map_err(ExitError::other_error)?;
    let (_, begun) = client.request_json::<DrillBody>("POST", "/v1/drill", &body)?;
    let begun = begun.drill;
    let length = Duration::from_millis(request.length_ms);
    let deadline = Instant::now() + length + RECOVERY_TIMEOUT + REPORT_MARGIN;
    let mut shown = String::new();
    while Instant::now() < deadline {
        thread::sleep(POLL_INTERVAL);
        let Some(view) = read_drill(client)? else { break };
        show_progress(&view, &mut shown);
        if view.is_final() {
            return Ok(view);
        }
    }
    let target = begun.map(|view| view.target).unwrap_or_default();
    let text = format!("no report of the drill of {target}: was netftd restarted?");
    Err(ExitError::other_error(text))
}

/// Tells on a terminal what the drill does.
fn show_progress(view: &DrillView, shown: &mut String) {
    if *shown != view.outcome && io::stderr().is_terminal() {
        let line = drill::progress_text(view);
        let _ = writeln!(io::stderr(), "{line}");
        shown.clone_from(&view.outcome);
    }
}

/// Rehearses the fault on each network with a route that is up, one after the other.
fn run_schedule(
    client: &DaemonClient,
    request: &DrillRequest,
) -> Result<Vec<DrillView>, ExitError> {
    let mut networks: Vec<_> = list_routes(client)?
        .routes
        .into_iter()
        .filter(|route| route.via.is_none())
        .filter_map(|route| route.network)
        .collect();
    networks.sort_unstable();
    networks.dedup();
    if networks.is_empty() {
        return Err(ExitError::other_error("there is no network to rehearse: see `netft routes`"));
    }
    let mut drills = Vec::new();
    for network in networks {
        wait_at_rest(client)?;
        let request = DrillRequest { network: Some(network.clone()), ..request.clone() };
        let done = run_one(client, &request);
        let named = |failure: ExitError| ExitError {
            text: format!("the drill of network {network}: {}", failure.text),
            ..failure
        };
        drills.push(done.map_err(named)?);
    }
    Ok(drills)
}

fn list_routes(client: &DaemonClient) -> Result<RouteList, ExitError> {
    Ok(client.request_json::<RouteList>("GET", "/v1/routes", "")?.1)
}

/// Waits until no route is held down or suspect after the drill before.
fn wait_at_rest(client: &DaemonClient) -> Result<(), ExitError> {
    let deadline = Instant::now() + REST_TIMEOUT;
    while list_routes(client)?.routes.iter().any(|route| route.hold_ms > 0 || route.suspect) {
        if Instant::now() >= deadline {
            return Err(ExitError::other_error(
                "a route stays held down or suspect: no further drill",
            ));
        }
        thread::sleep(POLL_INTERVAL);
    }
    Ok(())
}

fn write_page(path: &Path, drills: &[DrillView]) -> Result<(), ExitError> {
    let page = drill::drill_page(drills, &clock::format_rfc3339(std::time::SystemTime::now()));
    let failed =
        |error| ExitError::other_error(format!("cannot write {}: {error}", path.display()));
    fs::write(path, page).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Option<DrillRequest> {
        let mut request = DrillRequest::default();
        let words: Vec<_> = words.iter().map(ToString::to_string).collect();
        parse_fault(&words, &mut request).ok().map(|()| request)
    }

    #[test]
    fn a_fault_is_a_word_and_its_amount() {
        let loss = parse(&["loss", "5%"]);
        assert_eq!(loss.and_then(|request| request.percent), Some(5));
        let delay = parse(&["delay", "20ms"]);
        assert_eq!(delay.and_then(|request| request.delay_ms), Some(20));
        assert!(parse(&["carrier"]).is_some());
        for wrong in [&["loss"][..], &["loss", "101"], &["delay", "2s"], &["carrier", "1"], &["x"]]
        {
            assert!(parse(wrong).is_none(), "{wrong:?}");
        }
    }
}
