//! The context of every transmit: the worker's counters and its driver queue.

use netft_proto::wire::DropReason;

use crate::io::{
    counters::Counters, datapath::driver_queue::DriverQueue, path::Path, sys::udp::SendFault,
};

/// The parts of a worker that a transmit counts in and reports to.
pub(super) struct TxContext<'a> {
    pub(super) counters: &'a Counters,
    pub(super) driver_queue: &'a mut DriverQueue,
}

impl TxContext<'_> {
    /// Counts data frames that the kernel took.
    #[inline]
    pub(super) fn count_sent(&self, path: &Path, bytes: usize, frames: u64) {
        Counters::add(&self.counters.tx_frames, frames);
        path.counters.count_frames(frames, bytes as u64);
    }

    /// Counts data frames that the kernel refused, and reports the error unless it is transient.
    #[cold]
    pub(super) fn on_send_failed(
        &mut self,
        path: &Path,
        frames: u64,
        (fault, errno): (SendFault, i32),
    ) {
        let reason = match fault {
            SendFault::TooBig => DropReason::TooBig,
            _ => DropReason::SendFailed,
        };
        self.counters.count_drops(reason, frames);
        if fault != SendFault::Transient {
            self.driver_queue.report_send_error(path.route, errno, self.counters);
        }
    }
}
