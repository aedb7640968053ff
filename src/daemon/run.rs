//! The daemon's life: open, tell systemd, answer, watch, close.

use std::{future::Future, sync::Arc, time::Duration};

use netft::{config::Config, io::sys::heap};
use sd_notify::NotifyState;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    task::JoinHandle,
    time::Instant,
};

use super::{
    checkup::Checkup,
    clock::WallClock,
    names::NamesFile,
    node::{Node, Running},
    pump::Pump,
    reload,
    reload::Source,
};
use crate::{
    cli::failure::Failure,
    control::{
        convert::Names, journal::Journal, listener::Listener, server, server::Control, socket_path,
    },
};

/// How long closing may take before the process ends without it.
const CLOSING: Duration = Duration::from_secs(5);
/// How often the wall clock is read while no watchdog asks.
const CLOCK: Duration = Duration::from_secs(60);
/// The sessions of the start that others took over from have ended by then.
const SETTLED: Duration = Duration::from_secs(15);

/// The signals that mean something here.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for the one to stop; says its name.
    async fn stop(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// Runs the adapter until a signal ends it.
///
/// # Errors
/// The adapter or its control socket could not be made, or the adapter ended by itself.
pub(super) async fn run(config: Config, source: Source, file: NamesFile) -> Result<(), Failure> {
    let mut signals = Signals::new().map_err(Failure::environment)?;
    // One that comes while the adapter opens waits until it is open.
    let hangups = signal(SignalKind::hangup()).map_err(Failure::environment)?;
    let socket = socket_path(&config.runtime_dir, &config.adapter);
    let name = config.adapter.clone();
    let names = Names::new(config.peers.iter().map(|peer| peer.name.clone()).collect());
    tracing::info!("node {} opens adapter {}", config.name, config.adapter);
    let (adapter, events) = tokio::select! {
        opened = Running::open(config, source) => opened?,
        name = signals.stop() => {
            tracing::info!("{name} before the adapter was open");
            return Ok(());
        }
    };
    let adapter = Arc::new(adapter);
    // The adapter holds the lock: whatever stands at this path is left over.
    let listener = match Listener::bind(&socket) {
        Ok(listener) => listener,
        Err(error) => {
            within(CLOSING, adapter.close()).await;
            return Err(Failure::environment(error));
        }
    };
    let Some(first) = adapter.snapshot().await else {
        return Err(Failure::other("the adapter ended by itself"));
    };
    let clock = Arc::new(WallClock::new(first.now));
    let journal = Arc::new(Journal::default());
    file.sync(&first);
    let pump = Pump {
        file: file.clone(),
        node: Arc::clone(&adapter),
        names,
        journal: Arc::clone(&journal),
        clock: Arc::clone(&clock),
    };
    let mut pump = tokio::spawn(pump.run(events));
    let checkup = Checkup::new(Arc::clone(&adapter), Arc::clone(&journal), Arc::clone(&clock));
    let answers = tokio::spawn(checkup.answer());
    let control = Control { node: Arc::clone(&adapter), journal, clock: Arc::clone(&clock) };
    let server = tokio::spawn(server::serve(listener, control));
    let watchdog = tokio::spawn(watch(Arc::clone(&adapter), clock));
    let tidying = tokio::spawn(tidy_heap());
    let reloads = tokio::spawn(reload::on_hangup(hangups, Arc::clone(&adapter)));
    notify(&[NotifyState::Ready, NotifyState::Status("the adapter is up")]);

    let result = tokio::select! {
        name = signals.stop() => {
            tracing::info!("{name}: closing");
            Ok(())
        }
        _ = &mut pump => Err(Failure::other("the adapter ended by itself")),
    };
    notify(&[NotifyState::Stopping]);
    watchdog.abort();
    tidying.abort();
    reloads.abort();
    answers.abort();
    end(server).await;
    within(CLOSING, adapter.close()).await;
    if result.is_ok() {
        // What closing has to say.
        within(CLOSING, pump).await;
    }
    // Last: the pump writes it.
    file.remove(&name);
    result
}

/// Tells the watchdog that the driver answers, and follows the wall clock. A driver that does not
/// answer is not told of, so systemd restarts this process.
async fn watch<N: Node>(node: Arc<N>, clock: Arc<WallClock>) {
    let watchdog = sd_notify::watchdog_enabled().map(|limit| limit / 2);
    let mut ticks = tokio::time::interval(watchdog.unwrap_or(CLOCK));
    loop {
        ticks.tick().await;
        let Some(snapshot) = node.snapshot().await else { return };
        clock.sync(snapshot.now);
        if watchdog.is_some() {
            notify(&[NotifyState::Watchdog]);
        }
    }
}

/// Gives back what handshakes needed: soon after the start, and after those that follow.
async fn tidy_heap() {
    let mut ticks = tokio::time::interval_at(Instant::now() + SETTLED, CLOCK);
    loop {
        ticks.tick().await;
        heap::trim();
    }
}

fn notify(state: &[NotifyState<'_>]) {
    // Without systemd there is nobody to tell.
    let _ = sd_notify::notify(state);
}

/// Stops a task and waits until it has dropped everything it held.
async fn end(task: JoinHandle<()>) {
    task.abort();
    let _ = task.await;
}

async fn within(limit: Duration, work: impl Future) {
    if tokio::time::timeout(limit, work).await.is_err() {
        tracing::warn!("closing took longer than {} s", limit.as_secs());
    }
}
