//! Floating addresses on the control socket.

use std::time::Duration;

use axum::http::StatusCode;
use netft::{
    Time,
    config::{DHCP_WORD, VipConfig, adapter_name, node_name, vip_address},
};

use super::{
    backend::ControlBackend,
    schema::{DaemonStatus, PeerView, VipCounts, VipList, VipOrder, VipOrderDone},
};
use crate::vip::{AgentOrder, VipError};

/// Every floating address, by name, and the engine that decides on owners.
pub(super) async fn to_vip_list<N: ControlBackend>(node: &N) -> VipList {
    let vips = match node.vip_handle().await {
        Some(handle) => handle.list().await,
        None => Vec::new(),
    };
    let engines: Vec<_> = [node.ownership_view(), node.etcd_view()].into_iter().flatten().collect();
    let ownership = engines.first().cloned();
    let (partners, names) = (node.partner_views(), node.name_views());
    VipList { vips, ownership, engines, partners, names }
}

/// Adds their states as partners to peers, if there are floating addresses.
pub(super) async fn add_to_peers<N: ControlBackend>(node: &N, peers: &mut [PeerView]) {
    let VipList { vips, partners, .. } = to_vip_list(node).await;
    for peer in peers.iter_mut().filter(|_| !vips.is_empty()) {
        let partner = partners.iter().find(|partner| partner.name == peer.name);
        peer.partner_state = partner.map(|partner| partner.state.clone());
    }
}

/// Adds the floating addresses to the state of the daemon.
pub(super) async fn add_to_status<N: ControlBackend>(node: &N, status: &mut DaemonStatus) {
    let VipList { vips, ownership, engines, names, .. } = to_vip_list(node).await;
    status.vips = VipCounts::of(&vips);
    status.names = names;
    status.ownership = ownership;
    status.engines = engines;
}

/// Carries out an order on the floating address `name`.
///
/// # Errors
/// The order is malformed, or was not carried out.
pub(super) async fn carry_out_order<N: ControlBackend>(
    node: &N,
    name: &str,
    order: VipOrder,
) -> Result<VipOrderDone, VipError> {
    let handle = node.vip_handle().await.ok_or(VipError::Closed)?;
    let done = match order.action.as_str() {
        "online" | "renew" if order.asked_ms.is_some() => {
            let asked = Time::ZERO + Duration::from_millis(order.asked_ms.unwrap_or_default());
            let is_start = order.action == "online";
            node.order_vip(name, AgentOrder { asked, is_start }).await?
        }
        "online" => {
            handle.set_online(name).await?;
            format!("{name} is wanted on this node")
        }
        "offline" => {
            handle.set_offline(name).await?;
            format!("{name} is not wanted on this node")
        }
        "announce" => {
            handle.announce(name).await?;
            format!("{name} is announced again")
        }
        "move" => {
            let node = node.move_vip(name, order.to.as_deref()).await?;
            format!("{name} is on {node}")
        }
        "add" => {
            handle.add(read_definition(name, &order)?).await?;
            format!("{name} is added until netftd stops")
        }
        "remove" => {
            handle.remove(name).await?;
            format!("{name} is removed")
        }
        other => return Err(VipError::Refused(format!("{other:?} is no action"))),
    };
    Ok(VipOrderDone { done, vip: handle.view(name).await.ok() })
}

fn read_definition(name: &str, order: &VipOrder) -> Result<VipConfig, VipError> {
    let refused = |what: &str, why: String| VipError::Refused(format!("{what}: {why}"));
    let name = node_name(name).map_err(|why| refused("the name", why))?;
    let given = match &order.addresses[..] {
        [word] if word == DHCP_WORD => &[],
        given => given,
    };
    let addresses = given.iter().map(|text| vip_address(text).map_err(|why| refused(text, why)));
    let mut config = VipConfig::new(name, addresses.collect::<Result<_, _>>()?);
    if let Some(interface) = &order.interface {
        config.interface =
            Some(adapter_name(interface).map_err(|why| refused("the interface", why))?);
    }
    config.check().map_err(|error| VipError::Refused(error.to_string()))?;
    Ok(config)
}

/// HTTP status of a refusal.
pub(super) const fn error_code(error: &VipError) -> StatusCode {
    match error {
        VipError::Unknown(_) => StatusCode::NOT_FOUND,
        VipError::Refused(_) => StatusCode::CONFLICT,
        VipError::Closed => StatusCode::SERVICE_UNAVAILABLE,
    }
}
