//! State of the engine, for those who ask.

use netft::Time;

/// Part of this node in the engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EngineRole {
    /// It votes on nothing: it asks the leader for its leases.
    #[default]
    Holder,
    /// It votes, and follows a leader.
    Follower,
    /// It asks for votes.
    Candidate,
    /// It grants the leases.
    Leader,
}

impl EngineRole {
    /// The word in output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Holder => "holder",
            Self::Follower => "follower",
            Self::Candidate => "candidate",
            Self::Leader => "leader",
        }
    }
}

/// State of the engine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EngineStatus {
    /// Part of this node.
    pub role: EngineRole,
    /// The leader, if known.
    pub leader: Option<String>,
    /// The term of this node's vote.
    pub term: u64,
    /// The voters by name; true: netft reaches the node.
    pub voters: Vec<(String, bool)>,
    /// Why this node does not vote though it should.
    pub problem: Option<String>,
    /// The last error, and when it happened.
    pub last_error: Option<(Time, String)>,
}
