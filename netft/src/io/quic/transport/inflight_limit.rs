//! How much data a carrier connection may have in flight.
//!
//! What is tunnelled has a congestion control of its own; a second loop below it only adds delay
//! and hides losses from the first. So QUIC itself is given no limit and no pacing: what it is
//! handed leaves at once, and nothing ever waits in its queue, where bulk data would stand before
//! heartbeats. The one bound is on bulk data, at the door: [`InflightLimit::available_bytes`].

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

/// The most unacknowledged bytes bulk data is added to: what 10 Gbit/s has under way in 25 ms, or
/// 1 Gbit/s in a quarter of a second. It also bounds what QUIC remembers of what it sent.
const MAX_INFLIGHT_BYTES: u64 = 32 << 20;
/// QUIC's own limit: none. Above 2^32 it does not pace either.
const UNLIMITED_WINDOW: u64 = 1 << 40;

/// What a connection has in flight, shared with its congestion controller.
#[derive(Debug, Default)]
pub(in crate::io) struct InflightLimit(AtomicU64);

impl InflightLimit {
    /// Bytes of bulk data that may leave now.
    pub(in crate::io) fn available_bytes(&self) -> u64 {
        MAX_INFLIGHT_BYTES.saturating_sub(self.0.load(Relaxed))
    }
}

/// Makes the controller of one connection.
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

    /// Says exactly what is in flight, with what was lost taken off.
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
        // It never fails: the closure always gives a value.
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
