//! Programs that checks and hooks run: argv and environment, never a shell line; a time limit, and
//! bounded output.

use std::{process::Stdio, time::Duration};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::Command,
};

/// Most bytes that are kept of each output.
const MAX_OUTPUT: u64 = 1024;

/// Runs a program; it, and what it started, is killed after `timeout`. Returns its standard output.
///
/// # Errors
/// It could not be started, ended with another code than 0, or took too long.
pub(super) async fn run_command(
    command: &[String],
    environment: &[(&str, String)],
    timeout: Duration,
) -> Result<String, String> {
    let Some((program, arguments)) = command.split_first() else {
        return Err("no program".to_owned());
    };
    let mut process = Command::new(program);
    process.args(arguments).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    process.envs(environment.iter().map(|(key, value)| (key, value)));
    process.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    process.process_group(0).kill_on_drop(true);
    let mut child = process.spawn().map_err(|error| format!("cannot start {program}: {error}"))?;
    let group = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let done = async {
        let (status, stdout, stderr) =
            tokio::join!(child.wait(), read_bounded(stdout), read_bounded(stderr));
        (status, stdout, stderr)
    };
    let result = match tokio::time::timeout(timeout, done).await {
        Ok((Ok(status), stdout, _)) if status.success() => return Ok(stdout),
        Ok((Ok(status), _, stderr)) => match stderr.is_empty() {
            true => format!("{program}: {status}"),
            false => format!("{program}: {status}: {stderr}"),
        },
        Ok((Err(error), ..)) => format!("{program}: {error}"),
        Err(_) => format!("{program} did not end within {} ms", timeout.as_millis()),
    };
    if let Some(group) = group {
        // It may have ended.
        let _ = kill_process_group(group, Signal::KILL);
    }
    Err(result)
}

/// The first line of an output; the rest is read and dropped, so that the program does not wait.
async fn read_bounded(output: Option<impl AsyncRead + Unpin>) -> String {
    let Some(mut output) = output else { return String::new() };
    let mut kept = Vec::new();
    let _ = (&mut output).take(MAX_OUTPUT).read_to_end(&mut kept).await;
    let _ = tokio::io::copy(&mut output, &mut tokio::io::sink()).await;
    let text = String::from_utf8_lossy(&kept);
    text.lines().next().unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[tokio::test]
    async fn a_program_gets_its_words_and_its_environment() {
        let long = Duration::from_secs(20);
        let echo = words(&["/bin/echo", "a b", "$HOME;`id`"]);
        assert_eq!(run_command(&echo, &[], long).await, Ok("a b $HOME;`id`".to_owned()));
        let env = words(&["/usr/bin/env"]);
        let shown = run_command(&env, &[("NETFT_VIP", "web".to_owned())], long).await;
        assert!(shown.is_ok_and(|text| text.starts_with("PATH=") || text.contains("web")));
        assert!(run_command(&words(&["/bin/false"]), &[], long).await.is_err());
        assert!(run_command(&words(&["/no/such"]), &[], long).await.is_err());
    }

    #[tokio::test]
    async fn a_program_that_hangs_is_killed_and_its_output_is_bounded() {
        let hang = words(&["/bin/sh", "-c", "sleep 100 & wait"]);
        let result = run_command(&hang, &[], Duration::from_millis(50)).await;
        assert!(result.is_err_and(|why| why.contains("did not end within 50 ms")));
        let flood = words(&["/bin/sh", "-c", "head -c 200000 /dev/zero | tr '\\0' x"]);
        let result = run_command(&flood, &[], Duration::from_secs(20)).await;
        assert!(result.is_ok_and(|text| text.len() as u64 == MAX_OUTPUT));
    }
}
