//! Requests from node to node on the control session.

pub use crate::io::quic::{PeerRequest, QueryError};
pub use netft_proto::wire::topic::{Topic, TopicLimits};
