//! HTTP client of the control socket. Bounds: two seconds for a whole answer, unless the request
//! takes longer by design (for a stream: for its head), 64 MiB per answer.

use std::{
    io,
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use serde::de::DeserializeOwned;
use socket2::{Domain, SockAddr, Socket, Type};

use super::{schema, schema::SCHEMA_VERSION};
use crate::{exit::ExitError, text::escape};

/// Time limit for an answer.
const RESPONSE_TIMEOUT: Duration = Duration::from_millis(1900);
/// Largest answer, bytes.
const MAX_RESPONSE_BYTES: u64 = 64 << 20;
/// Longest line of a head or a stream, bytes.
const MAX_LINE_BYTES: u64 = 1 << 20;

/// The daemon behind one socket.
pub struct DaemonClient {
    path: PathBuf,
    timeout: Duration,
}

impl DaemonClient {
    /// The daemon that listens at `path`.
    pub const fn new(path: PathBuf) -> Self {
        Self { path, timeout: RESPONSE_TIMEOUT }
    }

    /// Returns whether a daemon listens there.
    pub fn is_listening(&self) -> bool {
        UnixStream::connect(&self.path).is_ok()
    }

    /// The same with another time limit.
    pub fn with_timeout(&self, timeout: Duration) -> Self {
        Self { path: self.path.clone(), timeout }
    }

    /// Sends a request with a JSON answer; returns its text and its value.
    ///
    /// # Errors
    /// No daemon, a timeout, a refusal, or another schema.
    pub fn request_json<T: DeserializeOwned>(
        &self,
        method: &str,
        target: &str,
        body: &str,
    ) -> Result<(String, T), ExitError> {
        let mut reader = self.send_request(method, target, body)?;
        let mut text = String::new();
        reader.read_to_string(&mut text).map_err(|error| self.io_exit_error(&error))?;
        Ok((text.clone(), parse_versioned(&text)?))
    }

    /// Sends a request with a plain text answer.
    ///
    /// # Errors
    /// As [`request_json`](Self::request_json).
    pub fn get_text(&self, target: &str) -> Result<String, ExitError> {
        let mut text = String::new();
        let mut reader = self.send_request("GET", target, "")?;
        reader.read_to_string(&mut text).map_err(|error| self.io_exit_error(&error))?;
        Ok(text)
    }

    /// Sends a request with an endless answer, read line by line.
    ///
    /// # Errors
    /// As [`request_json`](Self::request_json).
    pub fn open_stream(&self, target: &str) -> Result<ResponseLines, ExitError> {
        let mut reader = self.send_request("GET", target, "")?;
        reader.get_mut().get_mut().deadline = None;
        Ok(ResponseLines { reader, path: self.path.clone() })
    }

    /// Sends a request and reads the head of its answer.
    fn send_request(
        &self,
        method: &str,
        target: &str,
        body: &str,
    ) -> Result<BufReader<io::Take<DeadlineStream>>, ExitError> {
        let failed = |error| self.io_exit_error(&error);
        let mut stream =
            DeadlineStream::connect_before(&self.path, self.timeout).map_err(failed)?;
        // HTTP/1.0: the answer ends with the stream, not in chunks.
        let length = body.len();
        let request = format!(
            "{method} {target} HTTP/1.0\r\nhost: netft\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        // A daemon that refuses may close before it has read the request; its answer says why.
        let sent = stream.stream.write_all(request.as_bytes());
        let mut reader = BufReader::new(stream.take(MAX_RESPONSE_BYTES));
        let code = match read_head(&mut reader) {
            Ok(code) => code,
            Err(error) => return Err(failed(sent.err().unwrap_or(error))),
        };
        if code == 200 {
            return Ok(reader);
        }
        let mut text = String::new();
        // A daemon that refuses may leave the request unread, which resets the stream after the
        // answer.
        let _ = reader.read_to_string(&mut text);
        let text = parse_versioned::<schema::ErrorBody>(&text).map_or_else(
            |_| format!("netftd answered {code}"),
            |failure| escape_lines(&failure.error),
        );
        Err(match code {
            400 | 404 | 413 => ExitError::invalid_input(text),
            403 => ExitError::bad_environment(text),
            _ => ExitError::other_error(text),
        })
    }

    fn io_exit_error(&self, error: &io::Error) -> ExitError {
        let path = self.path.display();
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                ExitError::other_error(format!(
                    "no netftd listens at {path}: start it, or name another with --adapter or \
                     --socket"
                ))
            }
            io::ErrorKind::PermissionDenied => ExitError::bad_environment(format!(
                "{path} permission denied: run as root, or as a member of \
                     the group netft"
            )),
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => ExitError::other_error(format!(
                "netftd at {path} did not answer within {} s: is it stopped?",
                self.timeout.as_secs_f32().ceil()
            )),
            _ => ExitError::other_error(format!("no answer from netftd at {path}: {error}")),
        }
    }
}

/// Escapes a text line by line.
fn escape_lines(text: &str) -> String {
    text.lines().map(escape).collect::<Vec<_>>().join("\n")
}

/// Reads a head up to its empty line; returns the status code.
fn read_head(reader: &mut BufReader<io::Take<DeadlineStream>>) -> io::Result<u16> {
    let mut code = None;
    loop {
        let mut line = String::new();
        if reader.by_ref().take(MAX_LINE_BYTES).read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let line = line.trim_end();
        match code {
            None => {
                let number = line.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5));
                let number = number.and_then(|number| number.parse().ok());
                code = Some(number.ok_or(io::ErrorKind::InvalidData)?);
            }
            Some(code) if line.is_empty() => return Ok(code),
            Some(_) => {}
        }
    }
}

/// Parses an answer of this schema.
fn parse_versioned<T: DeserializeOwned>(text: &str) -> Result<T, ExitError> {
    #[derive(serde::Deserialize)]
    struct SchemaVersion {
        schema: u32,
    }
    let malformed =
        |error| ExitError::other_error(format!("malformed answer from netftd: {error}"));
    let version: SchemaVersion = serde_json::from_str(text).map_err(malformed)?;
    if version.schema != SCHEMA_VERSION {
        let theirs = version.schema;
        return Err(ExitError::other_error(format!(
            "netftd uses schema {theirs}, this netft uses {SCHEMA_VERSION}: install the \
             same version"
        )));
    }
    serde_json::from_str(text).map_err(malformed)
}

/// Lines of an endless answer.
pub struct ResponseLines {
    reader: BufReader<io::Take<DeadlineStream>>,
    path: PathBuf,
}

impl ResponseLines {
    /// The next line: its text and its value.
    ///
    /// # Errors
    /// The daemon is gone, or the line is malformed.
    pub fn next_line<T: DeserializeOwned>(&mut self) -> Result<(String, T), ExitError> {
        // The limit is for one answer; a stream has one per line.
        self.reader.get_mut().set_limit(MAX_RESPONSE_BYTES);
        let mut line = String::new();
        match self.reader.by_ref().take(MAX_LINE_BYTES).read_line(&mut line) {
            Ok(0) => {
                let path = self.path.display();
                Err(ExitError::other_error(format!("netftd at {path} closed the stream")))
            }
            Ok(_) => {
                let value = parse_versioned(&line)?;
                Ok((line, value))
            }
            Err(error) => Err(ExitError::other_error(format!("the event stream failed: {error}"))),
        }
    }
}

/// A stream with one deadline for all reads.
struct DeadlineStream {
    stream: UnixStream,
    deadline: Option<Instant>,
}

impl DeadlineStream {
    fn connect_before(path: &Path, timeout: Duration) -> io::Result<Self> {
        let deadline = Instant::now() + timeout;
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        // A stopped daemon's backlog fills up; the send timeout bounds connect too.
        socket.set_write_timeout(Some(RESPONSE_TIMEOUT))?;
        socket.connect(&SockAddr::unix(path)?)?;
        Ok(Self { stream: socket.into(), deadline: Some(deadline) })
    }
}

impl Read for DeadlineStream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let remaining = match self.deadline {
            Some(deadline) => match deadline.checked_duration_since(Instant::now()) {
                Some(left) if !left.is_zero() => Some(left),
                _ => return Err(io::ErrorKind::TimedOut.into()),
            },
            None => None,
        };
        self.stream.set_read_timeout(remaining)?;
        self.stream.read(buf)
    }
}
