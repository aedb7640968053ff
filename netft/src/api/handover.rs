//! Hand-over of a running adapter to a successor process: its decisions, and the socket between the
//! two.

pub use netft_proto::handover::{
    HANDOVER_VERSION, Predecessor, PredecessorAction, PredecessorInput, PredecessorMessage,
    Successor, SuccessorAction, SuccessorInput, SuccessorMessage,
};

pub use crate::io::handover::{FrozenAdapter, HandoverSocket};
