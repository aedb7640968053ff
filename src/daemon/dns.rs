//! Keeps the names of floating addresses in DNS.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures_util::future::join_all;
use netft::{
    Time,
    route::EventKind,
    vip::{MemberState, ownership::ExternalAnswer},
};
use tokio::sync::mpsc;

use super::node::RunningNode;
use crate::{
    ownership::clock,
    vip::{
        HAND_OVER_TIMEOUT, NameBoard, NameDesk, PartnerBook, VipHandle, VipPeers, VipReport,
        ask_free, owner_of_answers,
    },
};

/// Interval between two looks at the floating addresses.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Interval between two questions for the owners of addresses that no engine decides on: several in
/// the time until the record of an address that nobody has is removed.
const ASK_INTERVAL: Duration = Duration::from_secs(10);

/// Registers names as long as the node runs.
pub(super) async fn keep_names(
    node: Arc<RunningNode>,
    handle: VipHandle,
    (book, board): (Arc<PartnerBook>, Arc<NameBoard>),
    reports: mpsc::Sender<VipReport>,
) {
    let mut desk: Option<NameDesk> = None;
    let mut ask_at = Time::ZERO;
    let mut ticks = tokio::time::interval(LOOK_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(config) = node.config().await else { return };
        match (config.floating.dns.clone(), desk.as_mut()) {
            (None, _) => desk = None,
            (Some(dns), None) => {
                tracing::info!(zone = dns.zone, server = %dns.server, "names are kept in DNS");
                desk = Some(NameDesk::new(&config.name, dns));
            }
            (Some(dns), Some(desk)) if dns != *desk.config() => desk.configure(dns),
            (Some(_), Some(_)) => {}
        }
        if let Some(desk) = desk.as_mut() {
            let vips = handle.list().await;
            let unknown = desk.unknown_members(&vips);
            if clock::now() >= ask_at || desk.lacks_answer(&unknown) {
                let asked = ask_owners(&node, &book, unknown).await;
                desk.set_asked(asked);
                ask_at = clock::now() + ASK_INTERVAL;
            }
            desk.set_vips(clock::now(), &vips);
            while let Some((exchange, update)) = desk.poll_update(clock::now()) {
                let (added, removed) = (update.added.len(), update.removed.len());
                let result = exchange.send(update, unix_seconds()).await;
                tracing::debug!(added, removed, ?result, "names updated");
                if let Some(what) = desk.on_result(clock::now(), result) {
                    tracing::info!(what);
                    let vip = String::new();
                    // A full queue is a flood of other events; the log has it.
                    let _ = reports.try_send(VipReport::Event(EventKind::VipNotice { vip, what }));
                }
            }
        }
        let views = desk.as_ref().map(|desk| desk.to_views(clock::now())).unwrap_or_default();
        *board.lock().unwrap_or_else(PoisonError::into_inner) = views;
    }
}

/// Owners of these addresses by the words of all other nodes.
async fn ask_owners(
    node: &RunningNode,
    book: &PartnerBook,
    vips: Vec<&str>,
) -> BTreeMap<String, MemberState> {
    if vips.is_empty() {
        return BTreeMap::new();
    }
    let (_, others) = node.node_names().await;
    let asked = vips.into_iter().map(|vip| ask_owner(node, book, &others, vip));
    join_all(asked).await.into_iter().collect()
}

async fn ask_owner(
    node: &RunningNode,
    book: &PartnerBook,
    others: &[String],
    vip: &str,
) -> (String, MemberState) {
    let answers = join_all(others.iter().map(|other| ask_node(node, book, other, vip))).await;
    (vip.to_owned(), owner_of_answers(&answers))
}

/// Asks a node for an address. One that is not reachable has none once its leases have ended.
async fn ask_node(
    node: &RunningNode,
    book: &PartnerBook,
    other: &str,
    vip: &str,
) -> ExternalAnswer {
    match book.is_down(clock::now(), other) {
        true => ExternalAnswer::Free,
        false => ask_free(node, other, vip, HAND_OVER_TIMEOUT).await,
    }
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
