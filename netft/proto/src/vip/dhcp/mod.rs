//! An address that a DHCP server assigns to a floating address (RFC 2131). Pure.
//!
//! The lease belongs to the resource: its client identifier is derived from the name and the
//! cluster, so that whichever node owns the address asks for the same lease, and gets it.
//! [`DhcpClient`] is the client on one node; it runs while the node is to have the address.

mod client;
mod identifier;
mod types;

#[cfg(test)]
mod tests;

pub use crate::vip::dhcp::{
    client::DhcpClient,
    identifier::{ClientIdentifier, client_identifier},
    types::{
        DhcpAction, DhcpInput, DhcpLease, DhcpReply, DhcpReplyKind, DhcpRequest, DhcpRequestKind,
        DhcpState, IgnoreReason,
    },
};
