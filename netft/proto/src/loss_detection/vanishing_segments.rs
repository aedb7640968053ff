//! The evidence of [`segmentation`](crate::loss_detection::segmentation), path by path.

use crate::{ids::RouteId, loss_detection::sent_frames::SentFrames};

/// Records a PTO of a path, if only segmented sends were silent there.
pub(crate) fn note_silent_segments<P>(sent_frames: &mut SentFrames<P>, from: usize) {
    if sent_frames.silent_batches(from).any(|batch| batch.layout.count == 1) {
        return;
    }
    let silent = sent_frames.silent_batches(from);
    let smallest = silent.map(|batch| (batch.wire_bytes(), batch.send_number)).min();
    if let Some((bytes, send_number)) = smallest {
        sent_frames.paths.get_mut(from).segments.on_lost(send_number, bytes);
    }
}

/// A route on which segmented sends vanish while single datagrams arrive, once per proof.
pub fn take_vanishing_segments<P>(sent_frames: &mut SentFrames<P>) -> Option<RouteId> {
    let place = sent_frames.paths.find_index(|path| path.segments.is_proven())?;
    let path = sent_frames.paths.get_mut(place);
    path.segments = Default::default();
    Some(path.route)
}
