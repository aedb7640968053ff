//! The outstanding frames of a session as one process leaves them to the next. Pure.

use crate::{
    ids::RouteId,
    loss_detection::{
        sent_frame::{BatchLayout, SentBatch},
        sent_frames::SentFrames,
        types::UsablePath,
    },
    time::Time,
};

/// Adds a batch that a predecessor process sent, as [`SentFrames::on_sent`] does. Bit n of `acked`:
/// frame n is acknowledged.
pub fn resume_sent<P>(
    frames: &mut SentFrames<P>,
    (payload, layout): (P, BatchLayout),
    path: UsablePath,
    (duplicate, acked): (Option<RouteId>, u64),
    now: Time,
) {
    frames.on_sent(payload, layout, path, duplicate, now);
    if let Some(batch) = frames.batches.back_mut() {
        batch.acked = acked;
    }
}

/// The outstanding batches, oldest first, with the route each was sent on.
pub fn outstanding_batches<P>(
    frames: &SentFrames<P>,
) -> impl Iterator<Item = (RouteId, &SentBatch<P>)> {
    frames.batches.iter().map(|batch| (frames.paths.get(batch.path_index).route, batch))
}
