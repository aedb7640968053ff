//! In-flight limit of a transport connection.
//!
//! Tunnelled traffic has its own congestion control; a second control loop below it would add delay
//! and hide losses from the first. So QUIC itself has no congestion window and no pacing: frames
//! are sent at once and never queue, where bulk data would delay heartbeats. The only bound is on
//! bulk data before it enters QUIC: [`InflightLimit::available_bytes`].

use std::{
    any::Any,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use quinn_proto::{
    RttEstimator,
    congestion::{Controller, ControllerFactory},
};

/// Unacknowledged bytes up to which bulk data is sent: 25 ms at 10 Gbit/s, or 250 ms at 1 Gbit/s.
/// It also bounds the memory of QUIC's sent packets.
const MAX_INFLIGHT_BYTES: u64 = 32 << 20;
/// Congestion window of QUIC: unlimited. Above 2^32 it does not pace either.
const UNLIMITED_WINDOW: u64 = 1 << 40;

/// Bytes in flight of a connection, shared with its congestion controller.
#[derive(Debug, Default)]
pub(in crate::io) struct InflightLimit(AtomicU64);

impl InflightLimit {
    /// Bytes of bulk data that may be sent now.
    pub(in crate::io) fn available_bytes(&self) -> u64 {
        MAX_INFLIGHT_BYTES.saturating_sub(self.0.load(Relaxed))
    }
}

/// Factory of the congestion controller of one connection.
pub(in crate::io) struct InflightControllerFactory(pub(in crate::io) Arc<InflightLimit>);

impl ControllerFactory for InflightControllerFactory {
    fn build(self: Arc<Self>, _now: Instant, _mtu: u16) -> Box<dyn Controller> {
        Box::new(InflightController(self.0.clone()))
    }
}

struct InflightController(Arc<InflightLimit>);

impl Controller for InflightController {
    fn on_sent(&mut self, _now: Instant, bytes: u64, _last_packet: u64) {
        self.0.0.fetch_add(bytes, Relaxed);
    }

    /// Sets the exact bytes in flight, without lost packets.
    fn on_end_acks(
        &mut self,
        _now: Instant,
        in_flight: u64,
        _app_limited: bool,
        _largest_acked: Option<u64>,
    ) {
        self.0.0.store(in_flight, Relaxed);
    }

    fn on_ack(
        &mut self,
        _now: Instant,
        _sent: Instant,
        _bytes: u64,
        _app_limited: bool,
        _rtt: &RttEstimator,
    ) {
    }

    fn on_congestion_event(&mut self, _now: Instant, _sent: Instant, _long: bool, lost: u64) {
        let taken = |bytes: u64| Some(bytes.saturating_sub(lost));
        // It never fails: the closure always returns a value.
        let _ = self.0.0.fetch_update(Relaxed, Relaxed, taken);
    }

    fn on_mtu_update(&mut self, _new_mtu: u16) {}

    fn window(&self) -> u64 {
        UNLIMITED_WINDOW
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Self(self.0.clone()))
    }

    fn initial_window(&self) -> u64 {
        UNLIMITED_WINDOW
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
