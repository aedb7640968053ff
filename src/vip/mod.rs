//! The address service: takes the floating addresses that this node was given, and lets them go.
//!
//! One task holds a [`VipMachine`](netft::vip::VipMachine) for each address and carries out what
//! it decides. An engine (`crate::ownership`) or the operator (`ownership = "manual"`) decides on
//! the owner.

mod actions;
mod checks;
mod cleanup;
mod command;
mod commands;
mod entry;
mod hand_over;
mod handle;
mod interface;
mod kernel;
mod manual;
mod service;
mod view;

pub use self::{
    cleanup::remove_leftover_vips,
    hand_over::{HAND_OVER_TIMEOUT, HandOverRequest, VipPeers, answer_hand_over, move_address},
    handle::{VipCommand, VipError, VipHandle, VipReply},
    service::{VipReport, VipService, VipServiceParts},
    view::{VipHistoryLine, VipView},
};
