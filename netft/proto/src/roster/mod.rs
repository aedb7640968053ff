//! The roster: one signed document that names the nodes of a cluster. Pure.
//!
//! It is the same on every node, and there is one writer: who holds the cluster's key. The highest
//! valid serial wins, so it needs no consensus: nodes compare serials whenever a session comes up
//! and at every change, and whoever was away learns the document from any peer.
//!
//! ```text
//! text ── SignedRoster::verify ──▶ Roster ── ClusterView ──▶ peers of the Config
//!   ▲                                │
//!   └── SignedRoster::sign ◀── RosterEdit
//! ```
//!
//! A document is readable TOML. Its signature covers the exact bytes before the `[signature]`
//! table. A key that a newer release added is kept and passed on. Bounds: [`MAX_NODES`] nodes,
//! [`MAX_ROSTER_LEN`] bytes; a document beyond them is refused as a whole.

mod assign;
mod cluster_id;
mod config_view;
mod document;
mod edit;
mod exchange;
mod invites;
mod join_message;
mod join_token;
mod parser;
mod signed;
mod topic_message;

#[cfg(test)]
mod tests;

pub use crate::roster::{
    cluster_id::ClusterId,
    config_view::{ClusterView, Contradiction, ContradictionPlace},
    document::{
        MAX_NODE_ADDRESSES, MAX_NODES, MAX_ROSTER_LEN, NodeAddress, NodeRole, Roster, RosterNode,
        RosterText,
    },
    edit::{EditError, NodeChange, NodeEntry},
    exchange::{ExchangeOutput, ExchangeProblem, PeerKnowledge, RosterExchange},
    invites::{
        Invite, InviteBook, JoinRefusal, MAX_INVITE_TTL, MAX_INVITES, REMEMBER_TIME, source_network,
    },
    join_message::{JoinReply, JoinRequest, MAX_JOIN_REPLY_LEN, MAX_JOIN_REQUEST_LEN},
    join_token::{InviteId, InviteSecret, JoinSession, JoinToken, MAX_TOKEN_ADDRESSES, TokenError},
    parser::RosterError,
    signed::{RosterRefusal, RosterVersion, SignedRoster},
    topic_message::{RefusalCode, RosterReply, RosterRequest},
};
