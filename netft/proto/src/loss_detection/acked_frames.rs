//! The frames of every path that are acknowledged, whichever copy arrived.

use crate::{ids::RouteId, loss_detection::sent_frames::SentFrames};

/// Passes on, by route, the frames sent there that were acknowledged since the last call.
pub fn take_acked_frames<P>(sent_frames: &mut SentFrames<P>, mut count: impl FnMut(RouteId, u64)) {
    for path in sent_frames.paths.iter_mut().filter(|path| path.acked_frames > 0) {
        count(path.route, std::mem::take(&mut path.acked_frames));
    }
}
