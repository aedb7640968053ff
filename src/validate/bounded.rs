//! External programs with a time limit: netftd runs them for queries of its peers.

use std::{
    io,
    io::Read,
    process::{Child, Command, Output, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

/// Time limit of a program.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(2);
/// Most bytes of its output.
const MAX_OUTPUT_BYTES: u64 = 16 << 20;

/// Runs a program and collects its output.
///
/// # Errors
/// It does not start, runs longer than 2 s, or writes more than 16 MiB; it is killed then.
pub(super) fn run_command(command: &mut Command) -> io::Result<Output> {
    run_within(command, COMMAND_TIMEOUT)
}

/// The same with another time limit.
///
/// # Errors
/// As [`run_command`].
pub fn run_within(command: &mut Command, timeout: Duration) -> io::Result<Output> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    let (sender, receiver) = mpsc::channel();
    let pipes = (child.stdout.take(), child.stderr.take());
    // Ends with the program, whose pipes it reads.
    thread::spawn(move || {
        let read = || Ok((read_bounded(pipes.0)?, read_bounded(pipes.1)?));
        let result: io::Result<_> = read();
        // The caller may have timed out.
        let _ = sender.send(result);
    });
    match receiver.recv_timeout(timeout) {
        Ok(Ok((stdout, stderr))) if stdout.len() as u64 <= MAX_OUTPUT_BYTES => {
            let status = child.wait()?;
            Ok(Output { status, stdout, stderr })
        }
        Ok(Ok(_)) => kill_child(&mut child, "more than 16 MiB of output"),
        Ok(Err(error)) => kill_child(&mut child, &error.to_string()),
        Err(_) => kill_child(&mut child, &format!("no result within {} s", timeout.as_secs())),
    }
}

fn read_bounded(pipe: Option<impl Read>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe {
        pipe.take(MAX_OUTPUT_BYTES + 1).read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}

fn kill_child(child: &mut Child, why: &str) -> io::Result<Output> {
    child.kill()?;
    child.wait()?;
    Err(io::Error::other(why))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn sh(script: &str, timeout: Duration) -> io::Result<Output> {
        run_within(Command::new("sh").args(["-c", script]), timeout)
    }

    #[test]
    fn output_is_collected_and_a_program_that_does_not_end_is_killed() {
        let output = sh("echo out; echo err >&2; exit 3", Duration::from_secs(60)).unwrap();
        assert_eq!((&output.stdout[..], &output.stderr[..]), (&b"out\n"[..], &b"err\n"[..]));
        assert_eq!(output.status.code(), Some(3));
        assert!(sh("exec sleep 3600", Duration::from_millis(20)).is_err());
        let much = sh("exec yes", Duration::from_secs(60)).unwrap_err();
        assert!(much.to_string().contains("16 MiB"), "{much}");
    }
}
