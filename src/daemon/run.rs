//! Life cycle of the daemon: open, notify systemd, serve, close.

use std::{future::Future, path::Path, sync::Arc, time::Duration};

use netft::{api::host, route::EventKind};
use sd_notify::NotifyState;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::{Notify, mpsc},
    task::JoinHandle,
    time::Instant,
};

use super::{
    control_server::ControlServer,
    event_history::EventHistory,
    handover::{predecessor, predecessor::RunningHandover, successor::RunningSuccessor},
    log_format::LogFormat,
    names::HostsFile,
    node::RunningNode,
    overrides::OverrideStore,
    pump::EventPump,
    reload,
    reload::ConfigSource,
    report_responder::ReportResponder,
    validate_responder::ValidateResponder,
    vips::RunningVips,
};
use crate::{
    clock::WallClock,
    cluster::service::ClusterService,
    control::{
        backend::ControlBackend, cluster::ClusterHandle, convert::PeerNames, journal::EventJournal,
        listener::ControlListener, log_counts::LogCounts, metrics_server::MetricsEndpoint,
        schema::EventDetail, server::ControlContext, socket_path,
    },
    exit::ExitError,
};

/// Time limit for closing; the process ends without it after that.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// Interval of the wall clock reads without a watchdog.
const HOUSEKEEPING_INTERVAL: Duration = Duration::from_secs(60);
/// By then, sessions that were superseded at the start have ended.
const FIRST_HEAP_TRIM_DELAY: Duration = Duration::from_secs(15);

/// Exit error for an adapter that stopped without a signal.
const DRIVER_STOPPED: &str = "the adapter stopped unexpectedly: see the log above";

/// Signals that stop the daemon.
struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for a signal to stop; returns its name.
    async fn wait_for_stop(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// Runs the adapter until a signal stops it, or a successor has taken it over.
///
/// # Errors
/// The adapter or its control socket could not be opened, or the adapter stopped unexpectedly.
pub(super) async fn run_adapter(
    source: ConfigSource,
    state_dir: &Path,
    file: HostsFile,
    log_counts: Arc<LogCounts>,
    log_format: LogFormat,
    readers: Option<u32>,
) -> Result<(), ExitError> {
    let mut signals = StopSignals::new().map_err(ExitError::bad_environment)?;
    // A signal during the opening stays pending until the adapter is open.
    let hangups = signal(SignalKind::hangup()).map_err(ExitError::bad_environment)?;
    host::release_stop_signals();
    let (config, cluster) = (source.config(), source.cluster());
    let socket = socket_path(&config.access.runtime_dir, &config.adapter.name);
    let name = config.adapter.name.clone();
    // Before the adapter: a wrong file, and below a wrong address, ends the start at once.
    let metrics = MetricsEndpoint::load(&config.access.metrics)?;
    let names = PeerNames::new(config.peers.iter().map(|peer| peer.name.clone()).collect());
    let mut successor = RunningSuccessor::from_environment(&name)?;
    if successor.is_some() {
        // The predecessor's netftd goes on with a file that this one cannot read.
        OverrideStore::check(state_dir, &name).map_err(ExitError::invalid_input)?;
    }
    let opening = async {
        let inherited = match &mut successor {
            Some(successor) => Some(successor.take_adapter().await?),
            None => None,
        };
        // The predecessor has closed its endpoint by then.
        let metrics = match metrics {
            Some(endpoint) => Some(endpoint.open().await?),
            None => None,
        };
        // The predecessor has saved its last override by then.
        let overrides = OverrideStore::open(state_dir, &name);
        let refused = overrides.problem.clone();
        tracing::debug!("opening adapter {name}");
        let opened = RunningNode::open_adapter(source, overrides, inherited).await;
        opened.map(|(adapter, events)| (adapter, events, refused, metrics))
    };
    let (adapter, events, refused, metrics) = tokio::select! {
        opened = opening => opened?,
        signal = signals.wait_for_stop() => {
            tracing::info!("{signal} while the adapter was opening: stopped");
            // A successor's adapter is the predecessor's.
            if successor.is_none() {
                // One that another daemon runs stays.
                drop(host::remove_leftover_adapter(&name, &config.access.runtime_dir).await);
            }
            return Ok(());
        }
    };
    let adapter = Arc::new(adapter);
    let (commands, service) = ClusterHandle::new();
    adapter.set_cluster(commands);
    let service = ClusterService::new(Arc::clone(&adapter), cluster.0, cluster.1, service);
    let cluster = tokio::spawn(service.run());
    // The adapter holds the lock: a socket at this path is a leftover.
    let listener = match ControlListener::bind(&socket, readers) {
        Ok(listener) => listener,
        Err(error) => {
            // An adapter that was handed over is the predecessor's again.
            match successor {
                Some(_) => close_within(CLOSE_TIMEOUT, adapter.release()).await,
                None => close_within(CLOSE_TIMEOUT, adapter.close()).await,
            };
            return Err(ExitError::bad_environment(error));
        }
    };
    let Some(first) = adapter.take_snapshot().await else {
        return Err(ExitError::other_error(DRIVER_STOPPED));
    };
    tracing::info!(
        index = first.adapter.ifindex,
        boot_id = %format_args!("{:016x}", first.node.boot_id),
        "adapter {name} is up; control socket {}",
        socket.display()
    );
    let clock = Arc::new(WallClock::new(first.now));
    let history = EventHistory::new(state_dir, &name);
    let journal = Arc::new(EventJournal::with_history(history.load().await));
    let saved = *journal.subscribe().borrow();
    if saved > 0 && successor.is_none() {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        journal.push(clock.to_rfc3339(first.now), EventDetail::Restarted { version });
    }
    let history = history.keep_saved(Arc::clone(&journal), saved);
    file.update_hosts(&first);
    let pump = EventPump {
        file: file.clone(),
        node: Arc::clone(&adapter),
        names,
        journal: Arc::clone(&journal),
        clock: Arc::clone(&clock),
        log_counts: Arc::clone(&log_counts),
        log_format,
    };
    let mut pump = tokio::spawn(pump.forward_events(events));
    if let Some(reason) = refused {
        adapter.report_event(EventKind::OverridesRefused { reason }).await;
    }
    let reports =
        ReportResponder { config: adapter.config_path().to_owned(), socket: socket.clone() };
    let (node, events) = (Arc::clone(&adapter), Arc::clone(&journal));
    let responder = ValidateResponder::new(node, events, Arc::clone(&clock), reports);
    let answers = tokio::spawn(responder.serve_queries());
    let control = ControlContext {
        node: Arc::clone(&adapter),
        journal,
        clock: Arc::clone(&clock),
        log_counts,
    };
    let check_socket = Arc::new(Notify::new());
    let server = ControlServer::new(socket, readers, listener, control);
    let metrics = metrics.map(|metrics| tokio::spawn(metrics.serve(server.context())));
    let server = tokio::spawn(server.keep_socket(Arc::clone(&check_socket)));
    let watchdog = tokio::spawn(run_watchdog(Arc::clone(&adapter), clock));
    let heap_trimmer = tokio::spawn(trim_heap_periodically());
    let reloads =
        tokio::spawn(reload::reload_on_hangup(hangups, Arc::clone(&adapter), check_socket));
    let vips = RunningVips::start(&adapter).await;
    notify_systemd(&[NotifyState::Ready, NotifyState::Status("adapter up")]);
    if let Some(successor) = successor {
        successor.report_serving();
    }
    let (upgrades_tx, mut upgrades) = mpsc::channel(1);
    adapter.set_upgrades(upgrades_tx);

    let mut handover = None;
    let freezable = async || adapter.check_freezable().await;
    let successor_ready = predecessor::next_ready(&mut upgrades, freezable, &name);
    let result = tokio::select! {
        name = signals.wait_for_stop() => {
            tracing::info!("{name}: stopping");
            Ok(())
        }
        ready = successor_ready => {
            handover = Some(ready);
            Ok(())
        }
        _ = &mut pump => Err(ExitError::other_error(DRIVER_STOPPED)),
    };
    notify_systemd(&[match handover {
        // Each step of the hand-over has the whole limit of the watchdog: together they may take
        // longer.
        Some(_) => NotifyState::Watchdog,
        None => NotifyState::Stopping,
    }]);
    watchdog.abort();
    heap_trimmer.abort();
    reloads.abort();
    answers.abort();
    abort_and_wait(cluster).await;
    if let Some(metrics) = metrics {
        abort_and_wait(metrics).await;
    }
    // Before the sessions end: the addresses are silent before the peers learn that this node goes.
    if let Some(vips) = vips {
        close_within(CLOSE_TIMEOUT, vips.stop()).await;
    }
    abort_and_wait(server).await;
    if let Some(handover) = handover {
        notify_systemd(&[NotifyState::Watchdog]);
        // The successor reads the file.
        if let Some(reason) = adapter.unsaved_overrides(CLOSE_TIMEOUT).await {
            tracing::warn!("the successor does not have the latest overrides: {reason}");
        }
        close_within(CLOSE_TIMEOUT, history.finish()).await;
        return give_adapter(handover, &adapter, &name, &mut signals).await;
    }
    close_within(CLOSE_TIMEOUT, adapter.close()).await;
    if result.is_ok() {
        // The events of the closing.
        close_within(CLOSE_TIMEOUT, pump).await;
    }
    close_within(CLOSE_TIMEOUT, history.finish()).await;
    // Last: the pump writes it.
    file.remove_hosts(&name);
    tracing::info!("netftd stopped, adapter {name} closed");
    result
}

/// Gives the adapter to the successor. Where that fails this process becomes a fresh one that
/// serves it again. A signal to stop meanwhile is for the one that serves in the end.
async fn give_adapter(
    handover: RunningHandover,
    adapter: &RunningNode,
    name: &str,
    signals: &mut StopSignals,
) -> Result<(), ExitError> {
    let give = async {
        notify_systemd(&[NotifyState::Watchdog]);
        // Within the time a worker needs for its turn, unless the kernel holds it.
        let frozen = tokio::time::timeout(CLOSE_TIMEOUT, adapter.freeze()).await;
        notify_systemd(&[NotifyState::Watchdog]);
        match frozen.unwrap_or_else(|late| Err(late.into())) {
            // The queues and sockets of this process close with it.
            Ok(frozen) => handover.finish(&frozen).await,
            Err(error) => {
                close_within(CLOSE_TIMEOUT, handover.abandon()).await;
                Err(error.to_string())
            }
        }
    };
    let mut give = std::pin::pin!(give);
    let mut stop_requested = false;
    let given = loop {
        tokio::select! {
            given = &mut give => break given,
            signal = signals.wait_for_stop() => {
                tracing::info!("{signal} during the hand-over: passed on");
                stop_requested = true;
            }
        }
    };
    match given {
        Ok(pid) => {
            // systemd ignored the successor's watchdog notifications until now.
            notify_systemd(&[NotifyState::MainPid(pid), NotifyState::Watchdog]);
            tracing::info!("netftd stopped, adapter {name} handed over to pid {pid}");
            if stop_requested {
                predecessor::stop_process(pid);
            }
            Ok(())
        }
        Err(reason) => {
            tracing::error!("the hand-over failed, this netftd serves again: {reason}");
            notify_systemd(&[NotifyState::Watchdog]);
            if stop_requested {
                // It stays pending over the start of the program, which then stops in order.
                host::hold_stop_signals();
                host::raise_stop_signal();
            }
            Err(ExitError::other_error(predecessor::start_again()))
        }
    }
}

/// Notifies the watchdog while the driver answers, and follows the wall clock. Without an answer
/// systemd restarts this process.
async fn run_watchdog<N: ControlBackend>(node: Arc<N>, clock: Arc<WallClock>) {
    let watchdog = sd_notify::watchdog_enabled().map(|limit| limit / 2);
    let interval = watchdog.unwrap_or(HOUSEKEEPING_INTERVAL);
    tracing::debug!(?interval, systemd = watchdog.is_some(), "watchdog started");
    let mut ticks = tokio::time::interval(interval);
    loop {
        ticks.tick().await;
        let Some(snapshot) = node.take_snapshot().await else { return };
        clock.follow_wall_clock(snapshot.now);
        if watchdog.is_some() {
            notify_systemd(&[NotifyState::Watchdog]);
        }
    }
}

/// Returns heap pages that handshakes needed: soon after the start, then periodically.
async fn trim_heap_periodically() {
    let mut ticks =
        tokio::time::interval_at(Instant::now() + FIRST_HEAP_TRIM_DELAY, HOUSEKEEPING_INTERVAL);
    loop {
        ticks.tick().await;
        host::trim_heap();
        tracing::trace!("unused heap pages returned to the kernel");
    }
}

fn notify_systemd(state: &[NotifyState<'_>]) {
    // Without systemd there is no socket to notify.
    let _ = sd_notify::notify(state);
}

/// Aborts a task and waits until it has released its resources.
async fn abort_and_wait(task: JoinHandle<()>) {
    task.abort();
    let _ = task.await;
}

/// Waits for `work`. Returns whether it was done in time.
async fn close_within(limit: Duration, work: impl Future) -> bool {
    let is_done = tokio::time::timeout(limit, work).await.is_ok();
    if !is_done {
        tracing::warn!("closing took longer than {} s: given up", limit.as_secs());
    }
    is_done
}
