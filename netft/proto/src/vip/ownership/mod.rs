//! Who owns which floating address: decisions only. The log that all nodes agree on, elections and
//! messages are an engine's (raft, etcd); the argument why two nodes never answer stands in
//! `docs/design/vip-ownership.md`.
//!
//! | type | job |
//! |---|---|
//! | [`OwnershipState`] | what the log says: the owner of each address and its token |
//! | [`OwnershipLeader`] | at the leader: grants leases, decides what to write to the log |
//! | [`LeaseHolder`] | at every node: asks for leases, and lets addresses go |
//! | [`EtcdHolder`] | with etcd instead of a leader: holds leases, claims addresses, lets them go |
//! | [`ElectionTurns`] | at a voter: when it begins an election because the leader is lost |
//! | [`ExternalLease`] | with a cluster manager: when its word is a lease |
//! | [`AckClock`], [`VoteAges`] | bound the leases that an earlier leader may have granted |

mod able_nodes;
mod ack_age;
mod election_turns;
mod etcd;
mod external;
mod holder;
mod leader;
mod lease;
mod messages;
mod placement;
mod policy;
mod state;
#[cfg(test)]
mod tests;

pub use crate::vip::ownership::{
    ack_age::{AckClock, VoteAges},
    election_turns::ElectionTurns,
    etcd::{EtcdEntry, EtcdHolder, EtcdServer, EtcdView, EtcdWrite, LeaseProof},
    external::{
        ANSWER_TIMEOUT, ExternalAnswer, ExternalLease, ExternalOrder, START_ANSWER_TIMEOUT,
        StartAnswer,
    },
    holder::{HolderUpdate, LeaseHolder},
    leader::OwnershipLeader,
    lease::LeaseRules,
    messages::{LeaseReply, LeaseReport, LeaseVerdict, RoleReport, VipVerdict},
    policy::{Failback, VipPolicy},
    state::{OwnershipCommand, OwnershipState, VipRecord},
};
