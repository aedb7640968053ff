//! Floating addresses: which node answers for an address, and how it takes it and lets it go.
//!
//! An engine that exists decides on the owner and grants it a lease with a [`FencingToken`]; the
//! kernel enforces the lease. [`VipMachine`] is one address on one node: it takes grants, interface
//! states and neighbors' messages, and says what to configure, to permit and to announce.

pub mod dhcp;
mod health;
mod machine;
pub mod ownership;
mod partner;
mod registrar;
mod timing;
mod token;
mod types;

#[cfg(test)]
mod tests;

pub use crate::vip::{
    health::HealthCounter,
    machine::VipMachine,
    partner::{Partner, PartnerState, compare_definitions},
    registrar::{
        DnsRecord, DnsRegistrar, DnsUpdate, GroupState, MemberState, RecordState, is_registrable,
    },
    timing::DEFEND_INTERVAL,
    token::FencingToken,
    types::{
        MacAddress, NeighborKind, NeighborMessage, VipAction, VipGrant, VipInput, VipLink, VipState,
    },
};
