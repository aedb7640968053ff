//! `netft top`: the terminal around the live view.

use std::{
    fs::{File, OpenOptions},
    io,
    io::{IsTerminal, Stdout, Write},
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    thread,
    time::{Duration, Instant, SystemTime},
};

use ratatui::{
    Terminal,
    backend::CrosstermBackend,
    crossterm::{
        cursor, event,
        event::{Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers},
        execute, terminal,
    },
};

use super::{args::TopArgs, drain, output::StandardOutput};
use crate::{
    clock::format_rfc3339,
    control::{
        client::DaemonClient,
        schema::{DaemonStatus, DrainResponse, EventList, PeerList, RouteList, VersionedBody},
    },
    exit::ExitError,
    render::{
        style::OutputStyle,
        top,
        top::{TopKey, TopModel, TopOrder, TopSample},
    },
};

/// Time between two samples.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);
/// Longest time without a look at keys and samples.
const KEY_POLL_INTERVAL: Duration = Duration::from_millis(100);
/// Samples and answers that wait for the screen; the reader of the daemon waits beyond that.
const MAX_QUEUED_UPDATES: usize = 8;
/// Orders that wait for the daemon; further ones are refused.
const MAX_QUEUED_ORDERS: usize = 4;

/// A message of the threads to the screen.
enum TopUpdate {
    Sample(Box<TopSample>),
    Failure(ExitError),
    Drained(Result<DrainResponse, String>),
    Terminated,
}

/// Reads samples of a daemon.
struct Sampler {
    client: DaemonClient,
    started: Instant,
    /// Start of the daemon that the last sample came from.
    boot_id: String,
    /// The last event that was read.
    last_event: u64,
    record: Option<(PathBuf, File)>,
}

/// Shows the live view; with `--json`, prints its samples instead.
///
/// # Errors
/// No daemon at the start, no terminal, or a record that cannot be written.
pub(super) fn run_top(
    client: DaemonClient,
    args: &TopArgs,
    json: bool,
    style: OutputStyle,
) -> Result<(), ExitError> {
    let is_terminal = io::stdin().is_terminal() && io::stdout().is_terminal();
    if !json && !is_terminal {
        let text = "`netft top` needs a terminal; `netft top --json` prints a sample a second";
        return Err(ExitError::invalid_input(text));
    }
    let record = args.record.as_deref().map(open_record).transpose()?;
    let mut sampler =
        Sampler { client, started: Instant::now(), boot_id: String::new(), last_event: 0, record };
    let first = sampler.read_sample()?;
    if json {
        return print_samples(&mut sampler, first);
    }
    let mut model = TopModel::new(style);
    model.on_sample(first);
    let (updates, received) = sync_channel(MAX_QUEUED_UPDATES);
    let (orders, ordered) = sync_channel(MAX_QUEUED_ORDERS);
    watch_termination(updates.clone())?;
    thread::spawn(move || serve_screen(&mut sampler, &updates, &ordered));
    let mut screen = Screen::open().map_err(terminal_error)?;
    let ended = screen.run(&mut model, &received, &orders);
    drop(screen);
    ended
}

fn terminal_error(error: io::Error) -> ExitError {
    ExitError::other_error(format!("the terminal failed: {error}"))
}

fn open_record(path: &Path) -> Result<(PathBuf, File), ExitError> {
    let opened = OpenOptions::new().create(true).append(true).open(path);
    let file = opened.map_err(|error| {
        ExitError::bad_environment(format!("cannot write the record {}: {error}", path.display()))
    })?;
    Ok((path.to_owned(), file))
}

/// Prints a sample a line until the reader is gone.
fn print_samples(sampler: &mut Sampler, first: TopSample) -> Result<(), ExitError> {
    let mut out = StandardOutput::default();
    let mut sample = first;
    loop {
        let line = sample_line(&sample)?;
        if !out.print_streamed(true, &line, String::new)? {
            return Ok(());
        }
        thread::sleep(SAMPLE_INTERVAL);
        sample = sampler.read_sample()?;
    }
}

fn sample_line(sample: &TopSample) -> Result<String, ExitError> {
    serde_json::to_string(&VersionedBody::new(sample)).map_err(ExitError::other_error)
}

impl Sampler {
    /// Reads one sample, and records it.
    fn read_sample(&mut self) -> Result<TopSample, ExitError> {
        let (_, status) = self.client.request_json::<DaemonStatus>("GET", "/v1/status", "")?;
        let (_, peers) = self.client.request_json::<PeerList>("GET", "/v1/peers", "")?;
        let (_, routes) = self.client.request_json::<RouteList>("GET", "/v1/routes", "")?;
        let events_after = |seq: u64| {
            let target = format!("/v1/events?after={seq}");
            self.client.request_json::<EventList>("GET", &target, "").map(|answer| answer.1)
        };
        let mut events = events_after(self.last_event)?;
        if self.boot_id != status.node.boot_id {
            self.boot_id.clone_from(&status.node.boot_id);
            // A daemon that started anew without the history of its events counts them from 1.
            let all = events_after(0)?;
            if all.events.last().is_none_or(|event| event.seq < self.last_event) {
                events = all;
                self.last_event = 0;
            }
        }
        self.last_event = events.events.last().map_or(self.last_event, |event| event.seq);
        let sample = TopSample {
            at: format_rfc3339(SystemTime::now()),
            elapsed_ms: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            status,
            peers: peers.peers,
            routes: routes.routes,
            events: events.events,
        };
        if let Some((path, file)) = &mut self.record {
            let line = sample_line(&sample)?;
            file.write_all(format!("{line}\n").as_bytes()).map_err(|error| {
                let path = path.display();
                ExitError::other_error(format!("cannot write the record {path}: {error}"))
            })?;
        }
        Ok(sample)
    }

    fn carry_out(&self, route: u32, on: bool) -> Result<DrainResponse, String> {
        let body = serde_json::to_string(&drain::route_request(route, on));
        let body = body.map_err(|error| error.to_string())?;
        let answer = self.client.request_json::<DrainResponse>("POST", "/v1/drain", &body);
        answer.map(|(_, answer)| answer).map_err(|failure| failure.text)
    }
}

/// Reads a sample a second and carries out orders, until the screen is gone.
fn serve_screen(
    sampler: &mut Sampler,
    updates: &SyncSender<TopUpdate>,
    orders: &Receiver<TopOrder>,
) {
    let mut next_sample = Instant::now() + SAMPLE_INTERVAL;
    loop {
        let update =
            match orders.recv_timeout(next_sample.saturating_duration_since(Instant::now())) {
                Ok(TopOrder::Drain { route, on }) => {
                    let answer = sampler.carry_out(route, on);
                    // Its effect is shown at once.
                    next_sample = Instant::now();
                    TopUpdate::Drained(answer)
                }
                Ok(TopOrder::Quit) | Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {
                    next_sample = Instant::now() + SAMPLE_INTERVAL;
                    match sampler.read_sample() {
                        Ok(sample) => TopUpdate::Sample(Box::new(sample)),
                        Err(failure) => TopUpdate::Failure(failure),
                    }
                }
            };
        if updates.send(update).is_err() {
            return;
        }
    }
}

/// Ends the view on SIGTERM, so that the terminal is put back.
fn watch_termination(updates: SyncSender<TopUpdate>) -> Result<(), ExitError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(ExitError::bad_environment)?;
    let mut terminate = {
        let _inside = runtime.enter();
        let kind = tokio::signal::unix::SignalKind::terminate();
        tokio::signal::unix::signal(kind).map_err(ExitError::bad_environment)?
    };
    thread::spawn(move || {
        runtime.block_on(terminate.recv());
        // Without a screen there is nothing to put back.
        let _ = updates.send(TopUpdate::Terminated);
    });
    Ok(())
}

/// The terminal in raw mode, with the view on its second page; put back when dropped.
struct Screen {
    terminal: Terminal<CrosstermBackend<Stdout>>,
}

impl Screen {
    fn open() -> io::Result<Self> {
        terminal::enable_raw_mode()?;
        let opened = execute!(io::stdout(), terminal::EnterAlternateScreen, cursor::Hide)
            .and_then(|()| Terminal::new(CrosstermBackend::new(io::stdout())));
        match opened {
            Ok(terminal) => Ok(Self { terminal }),
            Err(error) => {
                put_terminal_back();
                Err(error)
            }
        }
    }

    /// Draws, reads keys and takes updates until the operator ends the view.
    fn run(
        &mut self,
        model: &mut TopModel,
        updates: &Receiver<TopUpdate>,
        orders: &SyncSender<TopOrder>,
    ) -> Result<(), ExitError> {
        loop {
            let drawn = self.terminal.draw(|frame| top::draw_screen(model, frame));
            drawn.map_err(terminal_error)?;
            if event::poll(KEY_POLL_INTERVAL).map_err(terminal_error)?
                && let Event::Key(key) = event::read().map_err(terminal_error)?
                && key.kind == KeyEventKind::Press
            {
                match model.on_key(key_meaning(key)) {
                    Some(TopOrder::Quit) => return Ok(()),
                    Some(order) if orders.try_send(order).is_err() => {
                        model.on_drained(Err("netftd has not answered the last orders".to_owned()));
                    }
                    _ => {}
                }
            }
            for update in updates.try_iter() {
                match update {
                    TopUpdate::Sample(sample) => model.on_sample(*sample),
                    TopUpdate::Failure(failure) => model.on_failure(&failure.text),
                    TopUpdate::Drained(answer) => model.on_drained(answer),
                    TopUpdate::Terminated => return Ok(()),
                }
            }
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        put_terminal_back();
    }
}

fn put_terminal_back() {
    // A terminal that is gone needs nothing.
    let _ = execute!(io::stdout(), terminal::LeaveAlternateScreen, cursor::Show);
    let _ = terminal::disable_raw_mode();
}

fn key_meaning(key: KeyEvent) -> TopKey {
    match key.code {
        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => TopKey::Quit,
        KeyCode::Char('q') | KeyCode::Esc => TopKey::Quit,
        KeyCode::Up | KeyCode::Char('k') => TopKey::Up,
        KeyCode::Down | KeyCode::Char('j') => TopKey::Down,
        KeyCode::Char('d') => TopKey::Drain,
        KeyCode::Char('u') => TopKey::Undrain,
        KeyCode::Char('y') => TopKey::Confirm,
        _ => TopKey::Other,
    }
}
