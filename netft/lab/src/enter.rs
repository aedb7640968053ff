//! Re-execution of the process as root of its own namespaces.

use std::{
    env,
    fs::OpenOptions,
    io,
    io::{BufRead, BufReader},
    process::{Command, ExitCode, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::{build::set_up, daemon, error::LabError, netns, scheduling, sys};

/// Environment variable of a process inside the namespaces.
const INSIDE_ENV: &str = "NETFT_LAB";
/// Environment variable: `1` makes missing privilege fail a test instead of skipping it.
const REQUIRE_NETNS_ENV: &str = "NETFT_REQUIRE_NETNS";
/// Runs of a test whose machine is too busy to judge it.
const MAX_RUNS: u32 = 5;
/// Time limit of a test.
const TEST_LIMIT: Duration = Duration::from_secs(90);

/// Side of the namespaces this process is on.
#[derive(Debug)]
pub enum EnterOutcome {
    /// Inside: continue.
    Inside,
    /// Outside, and the run inside has ended: exit with its code.
    Outside(ExitCode),
}

/// Runs this program again, with the same arguments, as root of its own user, network and mount
/// namespace, and waits for it. In that second run it sets `lo` up and returns
/// [`EnterOutcome::Inside`].
///
/// # Errors
/// [`LabError::Namespaces`] or [`LabError::Tun`] when the system refuses.
pub fn enter_namespaces() -> Result<EnterOutcome, LabError> {
    if env::var_os(INSIDE_ENV).is_some() {
        netns::run_netlink_here(
            "set lo up",
            |netlink| async move { set_up(&netlink, "lo").await },
        )?;
        return Ok(EnterOutcome::Inside);
    }
    let status = run_inside(|| {
        let mut again = Command::new("/proc/self/exe");
        again.args(env::args_os().skip(1));
        again
    })?;
    Ok(EnterOutcome::Outside(exit_code(status)))
}

/// Runs the body of a test inside namespaces of its own.
///
/// Called by the test `name` (its path, or the end of it): outside, the test binary is run again
/// for this test alone, and must pass; inside, `body` runs. Where the system refuses namespaces the
/// test is skipped with a line that says so, unless `NETFT_REQUIRE_NETNS=1`. A test in a module
/// `quic` or `mixed` runs with that as `NETFT_TRANSPORT`. A run that [`scheduling`] could not judge
/// is repeated, and after the last repetition the test says so and is not judged.
///
/// # Panics
/// When the run inside fails, or when namespaces are required and refused.
pub fn in_namespace(name: &str, body: impl FnOnce()) {
    in_namespace_for(name, TEST_LIMIT, body);
}

/// The same for a test with a time limit of its own. Its output is printed as it comes.
///
/// # Panics
/// As [`in_namespace`].
pub fn in_namespace_for(name: &str, limit: Duration, body: impl FnOnce()) {
    if env::var_os(INSIDE_ENV).is_some() {
        let start = Instant::now();
        thread::spawn(move || {
            thread::sleep(limit);
            daemon::print_logs();
            let text = format!("the test did not end within {limit:?}");
            eprintln!("{}", scheduling::blame_wait(start, limit, text));
            #[expect(clippy::disallowed_methods, reason = "the test that hangs cannot return")]
            std::process::exit(101);
        });
        scheduling::start_measuring();
        return body();
    }
    let name = &full_path(name);
    for run in 1..=MAX_RUNS {
        match run_inside_captured(name) {
            // A filter that matches no test succeeds too.
            Ok((status, output))
                if status.success() && output.contains("test result: ok. 1 passed") =>
            {
                return;
            }
            Ok((status, output)) => {
                assert!(
                    output.contains(scheduling::NOT_JUDGED),
                    "{name} failed inside its namespaces ({status}); its output is above"
                );
                println!("{} {name}: run {run} of {MAX_RUNS}", scheduling::NOT_JUDGED);
            }
            Err(refused) => {
                let required = env::var_os(REQUIRE_NETNS_ENV).is_some_and(|v| v == "1");
                assert!(!required, "{name}: {refused}");
                return println!("SKIP {name}: {refused}");
            }
        }
    }
}

/// The full path of the calling test, which ends with `name`. libtest names its threads by path,
/// except with one test thread; then the list of tests has it.
fn full_path(name: &str) -> String {
    let ends = |path: &str| path == name || path.ends_with(&format!("::{name}"));
    if let Some(path) = thread::current().name().filter(|path| ends(path)) {
        return path.to_owned();
    }
    let listed = Command::new("/proc/self/exe").args(["--list", "--format", "terse"]).output();
    let listed = listed.map(|list| list.stdout).unwrap_or_default();
    let listed = String::from_utf8_lossy(&listed);
    let mut paths = listed.lines().filter_map(|line| line.strip_suffix(": test"));
    paths.find(|path| ends(path)).unwrap_or(name).to_owned()
}

fn run_inside_captured(name: &str) -> Result<(ExitStatus, String), LabError> {
    check_tun()?;
    let failed = || LabError::io_error("read the output of the run inside");
    // One pipe for both streams keeps panics and logs in order.
    let (reader, writer) = io::pipe().map_err(failed())?;
    let make = || {
        let mut again = Command::new("/proc/self/exe");
        again.args(["--exact", name, "--include-ignored", "--nocapture", "--test-threads=1"]);
        if let Some((transport @ ("quic" | "mixed"), _)) = name.split_once("::") {
            again.env(daemon::TRANSPORT_ENV, transport);
        }
        // Without output the run counts as failed.
        let stream = || writer.try_clone().map_or_else(|_| Stdio::null(), Stdio::from);
        again.stdout(stream()).stderr(stream());
        again
    };
    let mut child = spawn_inside(make)?;
    // Only the child may hold the write end, or the read below never ends.
    drop(writer);
    let mut output = String::new();
    let mut reader = BufReader::new(reader);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line).map_err(failed())? > 0 {
        let text = String::from_utf8_lossy(&line);
        print!("{text}");
        output.push_str(&text);
        line.clear();
    }
    let status = child.wait().map_err(LabError::io_error("wait for the run inside"))?;
    Ok((status, output))
}

fn run_inside(make: impl Fn() -> Command) -> Result<ExitStatus, LabError> {
    check_tun()?;
    let mut child = spawn_inside(make)?;
    child.wait().map_err(LabError::io_error("wait for the run inside"))
}

fn spawn_inside(make: impl Fn() -> Command) -> Result<std::process::Child, LabError> {
    let start = |user| {
        let mut command = make();
        command.env(INSIDE_ENV, "1");
        sys::unshare_at_spawn(&mut command, user);
        command.spawn()
    };
    match start(true) {
        // Real root needs no user namespace where those are disabled.
        Err(_) if rustix::process::geteuid().is_root() => start(false),
        other => other,
    }
    .map_err(LabError::Namespaces)
}

fn check_tun() -> Result<(), LabError> {
    let open = OpenOptions::new().read(true).write(true).open("/dev/net/tun");
    open.map(drop).map_err(LabError::Tun)
}

fn exit_code(status: ExitStatus) -> ExitCode {
    // A run that was killed by a signal has no code: report failure.
    let code = status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
    ExitCode::from(code)
}
