//! Data between one node and one peer, as the node's packet path holds it: the real sent-frame
//! table, replay window and acknowledgement schedule.

use std::time::Duration;

use crate::{
    engine::RouteTally,
    loss_detection::{AckSchedule, RetransmitLimits, STALL_REPORT_PERIOD, SentFrames},
    session::replay::ReplayWindow,
    sim::{node::BootIdPair, scenario::MAX_NETWORKS},
    time::Time,
    wire::ack::{Ack, MAX_RANGES},
};

/// Data of one session, both directions.
pub(crate) struct DataStream {
    pub(crate) session: BootIdPair,
    /// Counter of the next frame: data and acknowledgements share it.
    next_counter: u64,
    /// Unacknowledged sends, each named by its first packet.
    pub(crate) sent_frames: SentFrames<usize>,
    pub(crate) replay_window: ReplayWindow,
    /// Per network: data sent and reported to have arrived.
    pub(crate) tallies: [RouteTally; MAX_NETWORKS],
    /// Per network: data received.
    pub(crate) received: [u64; MAX_NETWORKS],
    /// The network whose segmented sends vanish and that carries some, and since when.
    pub(crate) vanishing_since: Option<(usize, Time)>,
    /// Highest data counter received.
    highest_received: Option<u64>,
    /// Acknowledgement to send, with the networks its data came on.
    ack_schedule: Option<AckSchedule<usize>>,
}

impl DataStream {
    pub(crate) fn new(session: BootIdPair) -> Self {
        Self {
            session,
            next_counter: 0,
            sent_frames: SentFrames::new(RetransmitLimits::default()),
            replay_window: ReplayWindow::new(),
            tallies: [RouteTally::default(); MAX_NETWORKS],
            received: [0; MAX_NETWORKS],
            vanishing_since: None,
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

    /// Schedules the acknowledgement of a data frame that came over a network.
    pub(crate) fn note_received(&mut self, network: usize, counter: u64, is_new: bool, now: Time) {
        self.received[network] += 1;
        let schedule = self.ack_schedule.get_or_insert_with(|| AckSchedule::new(network, now));
        if is_new {
            self.highest_received = self.highest_received.max(Some(counter));
            schedule.on_new_data(1, network);
        } else {
            schedule.on_duplicate(network);
        }
    }

    /// The acknowledgement that is due, and the networks its data came on.
    pub(crate) fn take_due_ack(
        &mut self,
        now: Time,
        last_stall: Option<(Duration, Time)>,
    ) -> Option<(Ack, AckSchedule<usize>)> {
        let schedule = self.ack_schedule.take_if(|schedule| schedule.is_due(now))?;
        self.highest_received?;
        let reported = last_stall.filter(|(_, ended)| now.since(*ended) < STALL_REPORT_PERIOD);
        let stalled_ms = reported.map_or(0, |(length, _)| length.as_millis());
        let stalled_ms = u16::try_from(stalled_ms).unwrap_or(u16::MAX);
        Some((Ack { stalled_ms, ..self.build_ack() }, schedule))
    }

    /// An acknowledgement of everything received.
    pub(crate) fn build_ack(&self) -> Ack {
        let Some(highest) = self.highest_received else { return Ack::default() };
        let ranges = self.replay_window.accepted_ranges(highest, MAX_RANGES);
        Ack { highest, ranges, ..Ack::default() }
    }

    /// Time until an acknowledgement or a retransmission timeout is due.
    pub(crate) fn time_until_due(&self, now: Time) -> Option<Duration> {
        let ack = self.ack_schedule.as_ref().map(|schedule| schedule.until_due(now));
        [ack, self.sent_frames.until_next_timeout(now)].into_iter().flatten().min()
    }
}
