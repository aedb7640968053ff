//! Loss detection for the data of one session, path by path, in the terms of RFC 9002. Pure: the
//! packet path keeps the bytes and makes the system calls, the simulator keeps numbers.
//!
//! A frame is sealed once and independently of its path, so frames lost on a failing path are
//! retransmitted byte for byte on another one, and the receiver's replay window delivers each
//! exactly once. Frames are tracked per *batch*: up to 64 frames that left with one system call.
//!
//! * `path`: RTT estimate, backoff and newest deliveries of each path. A batch is *silent* while
//!   neither it nor a later batch of its frame size on the same path is acknowledged.
//! * `reroute`: the path PTO (RFC 9002 section 6.2). When a path has been silent for its probe
//!   timeout it is suspect, and everything outstanding on it is retransmitted on another path.
//!   The PTO doubles with each expiry in a row until a batch that was sent once is acknowledged
//!   (Karn's rule; RFC 9002 section 6.2.1), so a slow peer is not flooded with retransmissions.
//!   A stall that the peer reports is added to it.
//! * `immediate_ack`: before the PTO expires the peer is asked over another path for an immediate
//!   acknowledgement. If that leaves the batch out, the path is suspect without further delay.
//! * `segmentation`: segmented sends that vanish while single datagrams arrive.
//! * A path that the engine excluded has its outstanding frames retransmitted on the best one at
//!   once.
//! * A batch that later batches of its size overtook on its path, longer ago than reordering lasts,
//!   was lost alone. It is declared lost and not retransmitted: the transport protocol above has to
//!   see the loss as congestion. The exception is a batch that was sent on a path already suspect,
//!   before the engine excluded it: it was lost with the path, and is retransmitted.
//!
//! * `data_loss`: the share of frames that a path lost alone, for the engine to compare routes by.
//! * `copies`, `acked_frames`: the frames of each path that are acknowledged, whichever copy
//!   arrived.
//!
//! Bounds: [`RetransmitLimits`]; the oldest batches are discarded first, and counted.

mod ack_request;
mod ack_schedule;
mod acked_frames;
mod copies;
mod data_loss;
mod delivered;
mod immediate_ack;
mod path;
mod path_states;
mod reroute;
mod resumed_frames;
pub mod rtt_estimator;
pub mod segmentation;
mod sent_frame;
mod sent_frames;
mod types;
mod vanishing_segments;

pub use crate::loss_detection::{
    ack_schedule::AckSchedule,
    acked_frames::take_acked_frames,
    data_loss::{DataLoss, LossShare},
    resumed_frames::{outstanding_batches, resume_sent},
    sent_frame::{BatchLayout, MAX_FRAMES, SentBatch},
    sent_frames::SentFrames,
    types::{
        DEFAULT_AGE, DEFAULT_BYTES, DeliveryCounts, ImmediateAckRequest, Reroute, RetransmitLimits,
        STALL_REPORT_PERIOD, UsablePath,
    },
    vanishing_segments::take_vanishing_segments,
};

#[cfg(test)]
mod tests;
