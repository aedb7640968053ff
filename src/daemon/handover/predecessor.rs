//! `netft upgrade`, in the daemon that runs: starts a successor and hands the adapter over to it.

use std::{
    env, fs, io,
    os::unix::{
        fs::{MetadataExt, PermissionsExt},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use netft::{
    Time,
    api::{
        handover::{
            FrozenAdapter, HandoverSocket, Predecessor, PredecessorAction, PredecessorInput,
            SuccessorMessage,
        },
        host,
    },
};
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    process::{Child, Command},
    sync::{mpsc, oneshot},
    time::sleep,
};

use super::{HANDOVER_ENV, receive_packet};
use crate::control::backend::UpgradeOrder;

/// The path under which this process's program can be started again, whatever became of its file.
const OWN_PROGRAM: &str = "/proc/self/exe";
/// Mark of the kernel at the path of a program whose file was replaced (proc(5)).
const REPLACED_MARK: &str = " (deleted)";
/// Writable by the group or by others.
const FOREIGN_WRITE_BITS: u32 = 0o022;
/// Only its owner may replace a file of the directory.
const STICKY_BIT: u32 = 0o1000;
/// Time for the answer to leave before the control socket closes.
const ANSWER_TIME: Duration = Duration::from_millis(50);

/// A request to hand over, and the channel of its answer: the successor's process id once it is
/// ready.
pub(in crate::daemon) struct PendingUpgrade {
    pub(in crate::daemon) order: UpgradeOrder,
    pub(in crate::daemon) reply: oneshot::Sender<Result<u32, String>>,
}

/// A hand-over under way. The successor is killed when it is dropped before its end.
pub(in crate::daemon) struct RunningHandover {
    child: Option<Child>,
    pid: u32,
    socket: HandoverSocket,
    machine: Predecessor,
    started_at: Instant,
    is_socket_closed: bool,
}

impl Drop for RunningHandover {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // It fails only when it has ended.
            let _ = child.start_kill();
        }
    }
}

/// Waits until a successor is ready to serve `adapter`; failures are answered and change nothing.
pub(in crate::daemon) async fn next_ready(
    requests: &mut mpsc::Receiver<PendingUpgrade>,
    check_freezable: impl AsyncFn() -> Result<(), String>,
    adapter: &str,
) -> RunningHandover {
    loop {
        let Some(PendingUpgrade { order, reply }) = requests.recv().await else {
            // The control socket is gone; so is this daemon soon.
            return std::future::pending().await;
        };
        match prepare(&order, &check_freezable, adapter).await {
            Ok(handover) => {
                tracing::info!(pid = handover.pid, "the successor is ready: handing over");
                let _ = reply.send(Ok(handover.pid));
                sleep(ANSWER_TIME).await;
                return handover;
            }
            Err(reason) => {
                tracing::warn!("not handed over, this netftd serves on: {reason}");
                let _ = reply.send(Err(reason));
            }
        }
    }
}

/// Starts a successor and waits until it is ready, with an adapter that can be handed over.
async fn prepare(
    order: &UpgradeOrder,
    check_freezable: &impl AsyncFn() -> Result<(), String>,
    adapter: &str,
) -> Result<RunningHandover, String> {
    check_freezable().await?;
    let mut handover = RunningHandover::start(order, adapter)?;
    handover.wait_ready().await?;
    check_freezable().await?;
    Ok(handover)
}

impl RunningHandover {
    /// Starts the successor with this process's own arguments.
    fn start(order: &UpgradeOrder, adapter: &str) -> Result<Self, String> {
        let program = match &order.binary {
            Some(path) => check_program(path)?,
            None => own_program(),
        };
        let (socket, other) = HandoverSocket::pair().map_err(|error| error.to_string())?;
        let child = Command::new(&program)
            .args(env::args_os().skip(1))
            .env(HANDOVER_ENV, adapter)
            // It names this process; without it the successor notifies the watchdog too.
            .env_remove("WATCHDOG_PID")
            .stdin(Stdio::from(other))
            .spawn()
            .map_err(|error| format!("cannot start {}: {error}", program.display()))?;
        let pid = child.id().unwrap_or_default();
        tracing::info!(pid, "successor started: {}", program.display());
        Ok(Self {
            child: Some(child),
            pid,
            socket,
            machine: Predecessor::new(Time::ZERO, order.timeout),
            started_at: Instant::now(),
            is_socket_closed: false,
        })
    }

    /// Waits until the successor could serve.
    async fn wait_ready(&mut self) -> Result<(), String> {
        loop {
            match self.next_action().await {
                PredecessorAction::Freeze => return Ok(()),
                PredecessorAction::StopSuccessor => self.kill_successor(),
                PredecessorAction::Serve { reason, .. } => return Err(reason),
                PredecessorAction::SendTake | PredecessorAction::Exit => {}
            }
        }
    }

    /// Gives the successor the adapter, which nobody serves, and waits until it serves.
    ///
    /// # Errors
    /// It does not, and is gone: the adapter is this process's again.
    pub(in crate::daemon) async fn finish(mut self, frozen: &FrozenAdapter) -> Result<u32, String> {
        let mut action = self.feed(PredecessorInput::Frozen);
        loop {
            match action {
                Some(PredecessorAction::SendTake) => {
                    let (take, files) = (frozen.take_message(), frozen.to_borrowed());
                    if let Err(error) = self.socket.send_all(&take.encode(), &files) {
                        tracing::warn!(%error, "the successor does not take the adapter");
                        self.kill_successor();
                    }
                }
                Some(PredecessorAction::StopSuccessor) => self.kill_successor(),
                Some(PredecessorAction::Serve { reason, .. }) => return Err(reason),
                Some(PredecessorAction::Exit) => {
                    // It lives on.
                    self.child = None;
                    return Ok(self.pid);
                }
                Some(PredecessorAction::Freeze) | None => {}
            }
            action = Some(self.next_action().await);
        }
    }

    /// Kills the successor, which has nothing of the adapter, and waits for its end: this process
    /// may become a fresh one, which knows no child.
    pub(in crate::daemon) async fn abandon(mut self) {
        if let Some(mut child) = self.child.take()
            && let Err(error) = child.kill().await
        {
            tracing::warn!(%error, "the successor cannot be ended");
        }
    }

    fn kill_successor(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.start_kill();
        }
    }

    fn feed(&mut self, input: PredecessorInput) -> Option<PredecessorAction> {
        tracing::debug!(?input, "hand-over");
        let now = Time::ZERO + self.started_at.elapsed();
        self.machine.on_input(now, input)
    }

    async fn next_action(&mut self) -> PredecessorAction {
        loop {
            let input = self.next_input().await;
            if let Some(action) = self.feed(input) {
                return action;
            }
        }
    }

    /// The next input. What the successor sent before its end is read before it.
    async fn next_input(&mut self) -> PredecessorInput {
        let wake = self.machine.next_wake().map(|at| self.started_at + at.since(Time::ZERO));
        loop {
            let ended = async {
                match &mut self.child {
                    Some(child) => drop(child.wait().await),
                    None => std::future::pending().await,
                }
            };
            let due = async {
                match wake {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                packet = receive_packet(&self.socket), if !self.is_socket_closed => match packet {
                    Ok(Some((bytes, _))) => {
                        return match SuccessorMessage::decode(&bytes) {
                            Ok(message) => PredecessorInput::Message(message),
                            Err(_) => PredecessorInput::Unknown,
                        };
                    }
                    // It closed the socket: it ends soon, or misses its deadline.
                    Ok(None) => self.is_socket_closed = true,
                    Err(error) => {
                        tracing::debug!(%error, "hand-over: no packet");
                        return PredecessorInput::Unknown;
                    }
                },
                () = ended => return PredecessorInput::SuccessorGone,
                () = due => return PredecessorInput::Timer,
            }
        }
    }
}

/// The program that an operator names: root runs it, so nobody else may write it.
fn check_program(path: &Path) -> Result<PathBuf, String> {
    let fail = |what: String| format!("{}: {what}", path.display());
    if !path.is_absolute() {
        return Err(fail("give an absolute path".to_owned()));
    }
    let program = fs::canonicalize(path).map_err(|error| fail(error.to_string()))?;
    let meta = fs::metadata(&program).map_err(|error| fail(error.to_string()))?;
    let mode = meta.permissions().mode();
    if !meta.is_file() || mode & 0o111 == 0 {
        return Err(fail("it is no program".to_owned()));
    }
    if !host::is_trusted_user(meta.uid()) || mode & FOREIGN_WRITE_BITS != 0 {
        return Err(fail("others than root can write it".to_owned()));
    }
    for folder in program.ancestors().skip(1) {
        let meta = fs::metadata(folder).map_err(|error| fail(error.to_string()))?;
        if !is_folder_trusted(&meta)? {
            let folder = folder.display();
            return Err(fail(format!(
                "others than root can replace it: {folder} is theirs to write"
            )));
        }
    }
    Ok(program)
}

/// Returns whether nobody but root can replace what a directory holds. In a sticky one, such as
/// `/tmp`, others can do that to their own files alone (inode(7)).
fn is_folder_trusted(meta: &fs::Metadata) -> Result<bool, String> {
    // In a user namespace that does not map it the owner of everything has another number.
    let root = fs::metadata("/").map_err(|error| error.to_string())?.uid();
    let is_owner_trusted = host::is_trusted_user(meta.uid()) || meta.uid() == root;
    let mode = meta.permissions().mode();
    Ok(is_owner_trusted && (mode & FOREIGN_WRITE_BITS == 0 || mode & STICKY_BIT != 0))
}

/// The file of this program; after a package upgrade that is the new one.
fn own_program() -> PathBuf {
    let path = fs::read_link(OWN_PROGRAM).unwrap_or_else(|_| OWN_PROGRAM.into());
    let text = path.to_string_lossy();
    text.strip_suffix(REPLACED_MARK).map_or_else(|| path.clone(), PathBuf::from)
}

/// Passes a request to stop on to the successor, which serves.
pub(in crate::daemon) fn stop_process(pid: u32) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // It fails only when it has ended.
        let _ = kill_process(pid, Signal::TERM);
    }
}

/// Becomes a fresh process of the same program, which adopts the device that was kept. Returns only
/// if that fails.
pub(in crate::daemon) fn start_again() -> io::Error {
    let mut args = env::args_os();
    let name = args.next().unwrap_or_else(|| "netftd".into());
    let mut command = std::process::Command::new(OWN_PROGRAM);
    command.arg0(name).args(args).env_remove(HANDOVER_ENV).stdin(Stdio::null());
    command.exec()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_program_that_others_can_write_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("netftd");
        let refused = |path: &Path| check_program(path).unwrap_err();
        assert!(refused(Path::new("netftd")).contains("absolute"));
        assert!(refused(&path).contains("No such file"));
        fs::write(&path, "").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(refused(&path).contains("no program"));
        assert!(refused(folder.path()).contains("no program"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o775)).unwrap();
        assert!(refused(&path).contains("others than root"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(check_program(&path).unwrap(), fs::canonicalize(&path).unwrap());
        assert!(own_program().is_file());
    }

    #[test]
    fn a_program_in_a_directory_that_others_can_write_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("inner");
        fs::create_dir(&inner).unwrap();
        let path = inner.join("netftd");
        fs::write(&path, "").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let set_mode = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        for (place, mode, is_trusted) in [
            (inner.as_path(), 0o755, true),
            (&inner, 0o775, false),
            (&inner, 0o757, false),
            (&inner, 0o1777, true),
            (folder.path(), 0o777, false),
        ] {
            set_mode(&inner, 0o755);
            set_mode(place, mode);
            let checked = check_program(&path);
            assert_eq!(checked.is_ok(), is_trusted, "{place:?} {mode:o}: {checked:?}");
            if let Err(reason) = checked {
                assert!(reason.contains("others than root can replace it"), "{reason}");
            }
        }
        // A link leads to the program that is checked.
        set_mode(folder.path(), 0o755);
        set_mode(&inner, 0o777);
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(check_program(&link).is_err());
    }

    /// As after a freeze that failed: this process becomes a fresh one at once.
    #[tokio::test]
    async fn an_abandoned_successor_leaves_no_zombie() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sleeps");
        fs::write(&path, "#!/bin/sh\nexec sleep 60\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let order = UpgradeOrder { binary: Some(path), timeout: Duration::from_secs(4) };
        let handover = RunningHandover::start(&order, "netft0").unwrap();
        let process = PathBuf::from(format!("/proc/{}", handover.pid));
        assert!(process.exists());
        handover.abandon().await;
        assert!(!process.exists(), "it has ended and was waited for");
    }
}
