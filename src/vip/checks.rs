//! Checks of the services behind the addresses.

use std::{sync::Arc, time::Duration};

use netft::{
    config::{VipCheck, VipProbe},
    vip::HealthCounter,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
    time::MissedTickBehavior,
};

use super::command::run_command;

/// Longest head of an HTTP answer that is read.
const MAX_STATUS_LINE: u64 = 512;

/// Health of a service, by the name of its address.
pub(super) type HealthReport = (Arc<str>, Result<(), String>);

/// Runs a check until the service is gone or the task is aborted; reports each change.
pub(super) async fn run_check(
    name: Arc<str>,
    check: VipCheck,
    reports: mpsc::Sender<HealthReport>,
) {
    let mut health = HealthCounter::new(check.rise, check.fall);
    let mut ticks = tokio::time::interval(check.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let result = run_probe(&check.probe, check.timeout).await;
        let Some(_) = health.on_result(result.is_ok()) else { continue };
        let result = result.map_err(|why| format!("its check fails: {why}"));
        tracing::debug!(vip = %name, ?result, "health changed");
        if reports.send((Arc::clone(&name), result)).await.is_err() {
            return;
        }
    }
}

async fn run_probe(probe: &VipProbe, timeout: Duration) -> Result<(), String> {
    let exchange = async {
        match probe {
            VipProbe::Tcp(at) => match TcpStream::connect(at).await {
                Ok(_) => Ok(()),
                Err(error) => Err(format!("{at}: {error}")),
            },
            VipProbe::Http { at, host, path, status } => {
                let found = fetch_status(*at, host, path).await;
                match found.map_err(|error| format!("{at}: {error}"))? {
                    Some(found) if found == *status => Ok(()),
                    Some(found) => Err(format!("{at}{path}: status {found}, not {status}")),
                    None => Err(format!("{at}: the answer is not HTTP")),
                }
            }
            VipProbe::Exec(command) => run_command(command, &[], timeout).await.map(drop),
        }
    };
    match tokio::time::timeout(timeout, exchange).await {
        Ok(result) => result,
        Err(_) => Err(format!("no answer within {} ms", timeout.as_millis())),
    }
}

/// Status code of the answer to a GET; `None` if it is no HTTP.
async fn fetch_status(
    at: std::net::SocketAddr,
    host: &str,
    path: &str,
) -> std::io::Result<Option<u16>> {
    let mut stream = TcpStream::connect(at).await?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut head = Vec::new();
    (&mut stream).take(MAX_STATUS_LINE).read_to_end(&mut head).await?;
    let text = String::from_utf8_lossy(&head);
    let code = text.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5));
    Ok(code.and_then(|code| code.parse().ok()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use tokio::net::TcpListener;

    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn a_tcp_check_passes_where_a_service_listens() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        assert_eq!(run_probe(&VipProbe::Tcp(at), LONG).await, Ok(()));
        drop(listener);
        assert!(run_probe(&VipProbe::Tcp(at), LONG).await.unwrap_err().contains("refused"));
    }

    #[tokio::test]
    async fn an_http_check_compares_the_status() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        tokio::spawn(async move {
            for answer in ["HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.0 503 No\r\n\r\n", "SSH-2.0-x\r\n"] {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = [0; 256];
                let len = stream.read(&mut request).await.unwrap();
                assert!(request[..len].starts_with(b"GET /up HTTP/1.0\r\nHost: h\r\n"));
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        let (host, path) = ("h".to_owned(), "/up".to_owned());
        let probe = VipProbe::Http { at, host, path, status: 200 };
        assert_eq!(run_probe(&probe, LONG).await, Ok(()));
        assert!(run_probe(&probe, LONG).await.unwrap_err().contains("status 503, not 200"));
        assert!(run_probe(&probe, LONG).await.unwrap_err().contains("not HTTP"));
    }

    #[tokio::test]
    async fn a_service_that_does_not_answer_fails_in_time() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let (host, path) = ("h".to_owned(), "/".to_owned());
        let probe = VipProbe::Http { at, host, path, status: 200 };
        let result = run_probe(&probe, Duration::from_millis(30)).await;
        assert_eq!(result, Err("no answer within 30 ms".to_owned()));
        let probe = VipProbe::Exec(vec!["/bin/true".to_owned()]);
        assert_eq!(run_probe(&probe, LONG).await, Ok(()));
    }
}
