//! The address service: takes the floating addresses that this node was given, and lets them go.
//!
//! One task holds a [`VipMachine`](netft::vip::VipMachine) for each address and carries out what
//! it decides. An engine (`crate::ownership`) or the operator (`ownership = "manual"`) decides on
//! the owner.

mod actions;
mod agent_order;
mod assigned;
mod checks;
mod cleanup;
mod command;
mod commands;
mod dhcp;
mod dns_key;
mod dns_message;
mod entry;
mod external;
mod hand_over;
mod handle;
mod interface;
mod kernel;
mod lease_record;
mod manual;
mod names;
mod partners;
mod service;
mod view;

pub use self::{
    agent_order::AgentOrder,
    cleanup::remove_leftover_vips,
    external::{ask_free, carry_out_agent_order},
    hand_over::{
        AnsweredHandOver, HAND_OVER_TIMEOUT, HandOverRequest, LeaseNews, VipPeers,
        answer_hand_over, ask_definitions, move_address, read_definitions,
    },
    handle::{VipCommand, VipError, VipHandle, VipReply, peer_addrs_of},
    names::{NameBoard, NameDesk, owner_of_answers},
    partners::{Definitions, PartnerBook, digest_of_all},
    service::{VipReport, VipService, VipServiceParts},
    view::{
        DhcpView, NameRecordView, NameView, PartnerView, VipHistoryLine, VipLeaseView, VipView,
    },
};
