//! Asks the daemon. Bounds: two seconds until a whole answer is there, unless it takes longer by
//! its nature (until its head is, for a stream), 64 MiB per answer.

use std::{
    io,
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use serde::de::DeserializeOwned;
use socket2::{Domain, SockAddr, Socket, Type};

use super::failure::Failure;
use crate::{
    control::{schema, schema::SCHEMA},
    render::text::escape,
};

/// How long the daemon may take.
const PATIENCE: Duration = Duration::from_millis(1900);
/// The largest answer, bytes.
const ANSWER: u64 = 64 << 20;
/// The largest line of a head or a stream, bytes.
const LINE: u64 = 1 << 20;

/// The daemon behind one socket.
pub(super) struct Client {
    path: PathBuf,
    patience: Duration,
}

impl Client {
    /// The daemon that listens at `path`.
    pub(super) const fn new(path: PathBuf) -> Self {
        Self { path, patience: PATIENCE }
    }

    /// The same, for answers that take longer.
    pub(super) fn patient(&self, patience: Duration) -> Self {
        Self { path: self.path.clone(), patience }
    }

    /// A question with a JSON answer: the text, and what it means.
    ///
    /// # Errors
    /// No daemon, no answer in time, a refusal, another schema.
    pub(super) fn ask<T: DeserializeOwned>(
        &self,
        method: &str,
        target: &str,
        body: &str,
    ) -> Result<(String, T), Failure> {
        let mut reader = self.open(method, target, body)?;
        let mut text = String::new();
        reader.read_to_string(&mut text).map_err(|error| self.failed(&error))?;
        Ok((text.clone(), parse(&text)?))
    }

    /// A question with an answer that is text for programs.
    ///
    /// # Errors
    /// As [`ask`](Self::ask).
    pub(super) fn text(&self, target: &str) -> Result<String, Failure> {
        let mut text = String::new();
        let mut reader = self.open("GET", target, "")?;
        reader.read_to_string(&mut text).map_err(|error| self.failed(&error))?;
        Ok(text)
    }

    /// A question with an endless answer, a line at a time.
    ///
    /// # Errors
    /// As [`ask`](Self::ask).
    pub(super) fn follow(&self, target: &str) -> Result<Lines, Failure> {
        let mut reader = self.open("GET", target, "")?;
        reader.get_mut().get_mut().deadline = None;
        Ok(Lines { reader, path: self.path.clone() })
    }

    /// Sends a request and reads the head of its answer.
    fn open(
        &self,
        method: &str,
        target: &str,
        body: &str,
    ) -> Result<BufReader<io::Take<Timed>>, Failure> {
        let failed = |error| self.failed(&error);
        let mut stream = Timed::connect(&self.path, self.patience).map_err(failed)?;
        // HTTP/1.0: the answer ends with the stream, not in chunks.
        let length = body.len();
        let request = format!(
            "{method} {target} HTTP/1.0\r\nhost: netft\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        // A daemon that refuses may close before it has read; its answer says why.
        let sent = stream.stream.write_all(request.as_bytes());
        let mut reader = BufReader::new(stream.take(ANSWER));
        let code = match head(&mut reader) {
            Ok(code) => code,
            Err(error) => return Err(failed(sent.err().unwrap_or(error))),
        };
        if code == 200 {
            return Ok(reader);
        }
        let mut text = String::new();
        // A daemon that refuses may leave the question unread, which resets the stream behind the
        // answer.
        let _ = reader.read_to_string(&mut text);
        let text = parse::<schema::Failure>(&text)
            .map_or_else(|_| format!("netftd answered {code}"), |failure| lines(&failure.error));
        Err(match code {
            400 | 404 | 413 => Failure::input(text),
            403 => Failure::environment(text),
            _ => Failure::other(text),
        })
    }

    fn failed(&self, error: &io::Error) -> Failure {
        let path = self.path.display();
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Failure::other(format!(
                "no netftd listens at {path}: start it, or name another with --adapter or --socket"
            )),
            io::ErrorKind::PermissionDenied => {
                Failure::environment(format!("{path} is not yours to ask: run as root"))
            }
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => Failure::other(format!(
                "netftd at {path} did not answer within {} s: is it stopped?",
                self.patience.as_secs_f32().ceil()
            )),
            _ => Failure::other(format!("no answer from netftd at {path}: {error}")),
        }
    }
}

/// An error of several lines, such as a config's, keeps them.
fn lines(text: &str) -> String {
    text.lines().map(escape).collect::<Vec<_>>().join("\n")
}

/// Reads a head up to its empty line; returns the status code.
fn head(reader: &mut BufReader<io::Take<Timed>>) -> io::Result<u16> {
    let mut code = None;
    loop {
        let mut line = String::new();
        if reader.by_ref().take(LINE).read_line(&mut line)? == 0 {
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

/// The body of an answer of this schema.
fn parse<T: DeserializeOwned>(text: &str) -> Result<T, Failure> {
    #[derive(serde::Deserialize)]
    struct Version {
        schema: u32,
    }
    let strange = |error| Failure::other(format!("netftd's answer makes no sense: {error}"));
    let version: Version = serde_json::from_str(text).map_err(strange)?;
    if version.schema != SCHEMA {
        let theirs = version.schema;
        return Err(Failure::other(format!(
            "netftd speaks schema {theirs}, this netft speaks {SCHEMA}: install the same version"
        )));
    }
    serde_json::from_str(text).map_err(strange)
}

/// Lines of an endless answer.
pub(super) struct Lines {
    reader: BufReader<io::Take<Timed>>,
    path: PathBuf,
}

impl Lines {
    /// The next line: its text, and what it means.
    ///
    /// # Errors
    /// The daemon is gone, or sent no event.
    pub(super) fn next<T: DeserializeOwned>(&mut self) -> Result<(String, T), Failure> {
        // The limit is for one answer; a stream has one per line.
        self.reader.get_mut().set_limit(ANSWER);
        let mut line = String::new();
        match self.reader.by_ref().take(LINE).read_line(&mut line) {
            Ok(0) => {
                let path = self.path.display();
                Err(Failure::other(format!("netftd at {path} closed the stream")))
            }
            Ok(_) => {
                let value = parse(&line)?;
                Ok((line, value))
            }
            Err(error) => Err(Failure::other(format!("the stream broke: {error}"))),
        }
    }
}

/// A stream whose reads together end at a deadline.
struct Timed {
    stream: UnixStream,
    deadline: Option<Instant>,
}

impl Timed {
    fn connect(path: &Path, patience: Duration) -> io::Result<Self> {
        let deadline = Instant::now() + patience;
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        // A stopped daemon's backlog fills up; the send timeout bounds connect too.
        socket.set_write_timeout(Some(PATIENCE))?;
        socket.connect(&SockAddr::unix(path)?)?;
        Ok(Self { stream: socket.into(), deadline: Some(deadline) })
    }
}

impl Read for Timed {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = match self.deadline {
            Some(deadline) => match deadline.checked_duration_since(Instant::now()) {
                Some(left) if !left.is_zero() => Some(left),
                _ => return Err(io::ErrorKind::TimedOut.into()),
            },
            None => None,
        };
        self.stream.set_read_timeout(left)?;
        self.stream.read(buf)
    }
}
