//! A running daemon process.

use std::{
    fs::OpenOptions,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::{
    daemon::control::{RouteRow, get_json},
    error::LabError,
    scheduling,
};

/// Interval between two checks of a condition.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// Logs of running daemons, for an exit without unwinding.
static RUNNING_LOGS: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// Prints the logs of all running daemons.
pub(crate) fn print_logs() {
    for log in RUNNING_LOGS.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        eprintln!("--- {} ---\n{}", log.display(), read_log(log));
    }
}

fn read_log(log: &Path) -> String {
    std::fs::read_to_string(log).unwrap_or_default()
}

/// A daemon process; killed when dropped, its log printed when a test fails.
#[derive(Debug)]
pub struct Daemon {
    name: String,
    child: Child,
    runtime_dir: PathBuf,
    log_path: PathBuf,
}

impl Daemon {
    pub(super) fn spawn(
        mut command: Command,
        name: &str,
        runtime_dir: &Path,
        log: &Path,
    ) -> Result<Self, LabError> {
        let failed = || LabError::io_error(format!("start the daemon of {name}"));
        let file = OpenOptions::new().create(true).append(true).open(log).map_err(failed())?;
        let both = file.try_clone().map_err(failed())?;
        command.stdin(Stdio::null()).stdout(file).stderr(both);
        let child = command.spawn().map_err(failed())?;
        let (name, runtime_dir, log) = (name.to_owned(), runtime_dir.into(), log.to_owned());
        RUNNING_LOGS.lock().unwrap_or_else(PoisonError::into_inner).push(log.clone());
        Ok(Self { name, child, runtime_dir, log_path: log })
    }

    /// Its log.
    pub fn log_text(&self) -> String {
        read_log(&self.log_path)
    }

    /// Reads a resource of its control interface, such as `/v1/status`.
    ///
    /// # Errors
    /// When it does not answer 200 with JSON.
    pub fn get_json(&self, path: &str) -> Result<Value, LabError> {
        get_json(&self.runtime_dir, path)
    }

    /// Its route table.
    ///
    /// # Errors
    /// When it does not answer, or not as documented.
    pub fn routes(&self) -> Result<Vec<RouteRow>, LabError> {
        let mut answer = self.get_json("/v1/routes")?;
        let rows = answer.get_mut("routes").map(Value::take).unwrap_or_default();
        serde_json::from_value(rows)
            .map_err(|error| LabError::Daemon(format!("{error} in {answer}")))
    }

    /// Waits until `want` holds for the route table, and returns that table.
    ///
    /// # Errors
    /// After `limit`, or when the daemon exits, with its last answer and its log.
    pub fn wait_for(
        &mut self,
        what: &str,
        limit: Duration,
        want: impl Fn(&[RouteRow]) -> bool,
    ) -> Result<Vec<RouteRow>, LabError> {
        let deadline = Instant::now() + limit;
        loop {
            let routes = self.routes();
            if let Ok(routes) = &routes
                && want(routes)
            {
                return Ok(routes.clone());
            }
            let exited = self.child.try_wait().ok().flatten();
            if exited.is_some() || Instant::now() > deadline {
                let (name, log) = (&self.name, self.log_text());
                let state = exited.map_or_else(|| "runs".to_owned(), |status| status.to_string());
                let text = format!(
                    "{name}: timed out waiting for {what} (daemon: {state})\n{routes:#?}\n{log}"
                );
                return Err(LabError::Daemon(scheduling::blame_wait(
                    deadline - limit,
                    limit,
                    text,
                )));
            }
            thread::sleep(POLL_INTERVAL);
        }
    }

    /// Waits until `count` routes are up in both directions and one of them is active.
    ///
    /// # Errors
    /// As [`Daemon::wait_for`], after 10 s.
    pub fn wait_ready(&mut self, count: usize) -> Result<Vec<RouteRow>, LabError> {
        let what = format!("{count} routes up");
        self.wait_for(&what, Duration::from_secs(10), |routes| {
            let up = routes.iter().filter(|r| r.state == "up" && r.tx && r.rx).count();
            up == count && routes.iter().any(|r| r.active)
        })
    }

    /// CPU time of all its threads so far.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn processor_time(&self) -> Result<Duration, LabError> {
        let failed = || LabError::io_error(format!("read the processor time of {}", self.name));
        let tasks = format!("/proc/{}/task", self.child.id());
        let mut nanos = 0;
        for task in std::fs::read_dir(tasks).map_err(failed())? {
            let file = task.map_err(failed())?.path().join("schedstat");
            // A thread may end meanwhile.
            let text = std::fs::read_to_string(file).unwrap_or_default();
            nanos += text.split(' ').next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
        }
        Ok(Duration::from_nanos(nanos))
    }

    /// Name and scheduler slice, ns, of each of its threads; none where the kernel does not show
    /// them.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn thread_slices(&self) -> Result<Vec<(String, u64)>, LabError> {
        let failed = || LabError::io_error(format!("list the threads of {}", self.name));
        let mut slices = Vec::new();
        for task in std::fs::read_dir(format!("/proc/{}/task", self.child.id())).map_err(failed())?
        {
            let folder = task.map_err(failed())?.path();
            // A thread may end meanwhile.
            let read = |file| std::fs::read_to_string(folder.join(file)).unwrap_or_default();
            let (name, text) = (read("comm").trim().to_owned(), read("sched"));
            let line = text.lines().find(|line| line.starts_with("se.slice"));
            let slice = line.and_then(|line| line.rsplit(' ').next()?.parse().ok());
            slices.extend(slice.map(|slice| (name, slice)));
        }
        Ok(slices)
    }

    /// Anonymous memory (`RssAnon`), bytes.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn anonymous_memory(&self) -> Result<u64, LabError> {
        let file = format!("/proc/{}/status", self.child.id());
        let failed = LabError::io_error(format!("read the memory of {}", self.name));
        let text = std::fs::read_to_string(file).map_err(failed)?;
        let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        let kib = line.and_then(|line| line.trim().split(' ').next()?.parse::<u64>().ok());
        Ok(kib.unwrap_or_default() * 1024)
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn send_signal(&self, signal: Signal) -> Result<(), LabError> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let pid = pid.expect("a process number is positive and fits");
        kill_process(pid, signal)
            .map_err(|errno| LabError::io_error(format!("signal {}", self.name))(errno.into()))
    }

    /// Kills it with SIGKILL.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn kill(mut self) -> Result<(), LabError> {
        self.child.kill().map_err(LabError::io_error("kill"))?;
        self.child.wait().map(drop).map_err(LabError::io_error("wait"))
    }

    /// Stops it with SIGTERM and waits up to 5 s.
    ///
    /// # Errors
    /// When it does not end.
    pub fn stop(mut self) -> Result<ExitStatus, LabError> {
        self.send_signal(Signal::TERM)?;
        self.wait_exit(Duration::from_secs(5))
    }

    /// Waits until it exits by itself.
    ///
    /// # Errors
    /// After `limit`.
    pub fn wait_exit(&mut self, limit: Duration) -> Result<ExitStatus, LabError> {
        let deadline = Instant::now() + limit;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().map_err(LabError::io_error("wait"))? {
                return Ok(status);
            }
            thread::sleep(POLL_INTERVAL);
        }
        Err(LabError::Daemon(format!("{} did not exit within {limit:?}", self.name)))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- log of {} ---\n{}", self.name, self.log_text());
        }
        RUNNING_LOGS
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|log| *log != self.log_path);
        // Both fail only when it has exited already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
