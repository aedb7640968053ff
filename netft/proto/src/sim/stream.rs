//! The data between one node and one peer, as the node's packet path holds it: the real flight,
//! the real replay window, the real debt.

use std::time::Duration;

use crate::{
    loss_detection::{AckSchedule, RetransmitLimits, STALL_REPORT_PERIOD, SentFrames},
    session::replay::ReplayWindow,
    sim::node::BootIdPair,
    time::Time,
    wire::ack::{Ack, MAX_RANGES},
};

/// Data of one session, both directions.
pub(crate) struct DataStream {
    pub(crate) session: BootIdPair,
    /// The next counter out: data and acknowledgements share it.
    next_counter: u64,
    /// What waits; each send is known by its first packet.
    pub(crate) sent_frames: SentFrames<usize>,
    pub(crate) replay_window: ReplayWindow,
    /// The highest data counter in.
    highest_received: Option<u64>,
    /// What is owed, with the networks it came on.
    pub(crate) ack_schedule: Option<AckSchedule<usize>>,
}

impl DataStream {
    pub(crate) fn new(session: BootIdPair) -> Self {
        Self {
            session,
            next_counter: 0,
            sent_frames: SentFrames::new(RetransmitLimits::default()),
            replay_window: ReplayWindow::new(),
            highest_received: None,
            ack_schedule: None,
        }
    }

    /// Takes the next counters; returns the first.
    pub(crate) fn reserve_counters(&mut self, count: u64) -> u64 {
        let first = self.next_counter;
        self.next_counter += count;
        first
    }

    /// A data frame came over a network: notes what is owed for it.
    pub(crate) fn note_received(&mut self, network: usize, counter: u64, fresh: bool, now: Time) {
        let debt = self.ack_schedule.get_or_insert_with(|| AckSchedule::new(network, now));
        if fresh {
            self.highest_received = self.highest_received.max(Some(counter));
            debt.on_new_data(1, network);
        } else {
            debt.on_duplicate(network);
        }
    }

    /// The acknowledgement that is due, and the networks it takes.
    pub(crate) fn take_due_ack(
        &mut self,
        now: Time,
        stalled: Option<(Duration, Time)>,
    ) -> Option<(Ack, AckSchedule<usize>)> {
        let debt = self.ack_schedule.take_if(|debt| debt.is_due(now))?;
        self.highest_received?;
        let stalled = stalled.filter(|(_, ended)| now.since(*ended) < STALL_REPORT_PERIOD);
        let stalled = stalled.map_or(0, |(length, _)| length.as_millis());
        let stalled_ms = u16::try_from(stalled).unwrap_or(u16::MAX);
        Some((Ack { stalled_ms, ..self.build_ack() }, debt))
    }

    /// What arrived.
    pub(crate) fn build_ack(&self) -> Ack {
        let Some(highest) = self.highest_received else { return Ack::default() };
        let ranges = self.replay_window.accepted_ranges(highest, MAX_RANGES);
        Ack { highest, ranges, ..Ack::default() }
    }

    /// How long until something is due by itself.
    pub(crate) fn time_until_due(&self, now: Time) -> Option<Duration> {
        let debt = self.ack_schedule.as_ref().map(|debt| debt.until_due(now));
        [debt, self.sent_frames.until_next_timeout(now)].into_iter().flatten().min()
    }
}
