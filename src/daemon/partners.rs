//! Follows the other nodes for the floating addresses: who is reachable, and whether they define
//! the same addresses.

use std::{sync::Arc, time::Duration};

use netft::{api::query::Topic, route::EventKind};
use tokio::{sync::mpsc, task::JoinSet, time::sleep};

use super::node::{RunningNode, peer_name};
use crate::{
    ownership::clock,
    vip::{
        Definitions, HAND_OVER_TIMEOUT, PartnerBook, VipReport, ask_definitions, digest_of_all,
        read_definitions,
    },
};

/// Attempts to compare definitions with a node, and the pause between two.
const COMPARE_ATTEMPTS: u32 = 3;
const COMPARE_PAUSE: Duration = Duration::from_secs(2);

/// Definitions of a node; `None` if it does not tell them.
type Compared = (String, Option<Definitions>);

/// Follows the partners until the node is closed. `asked` has the names of nodes whose definitions
/// changed.
pub(super) async fn follow_partners(
    node: Arc<RunningNode>,
    book: Arc<PartnerBook>,
    mut asked: mpsc::Receiver<String>,
    reports: mpsc::Sender<VipReport>,
) {
    let (Some(mut events), mut reloads) = (node.new_events().await, node.reloads()) else { return };
    let mut comparing = JoinSet::<Compared>::new();
    let compare = |comparing: &mut JoinSet<Compared>, name: String| {
        comparing.spawn(compare_with(Arc::clone(&node), Arc::clone(&book), name));
    };
    for name in read_partners(&node, &book).await {
        compare(&mut comparing, name);
    }
    loop {
        tokio::select! {
            event = events.next() => match event.map(|event| event.map(|event| event.kind)) {
                Some(Ok(EventKind::RemoteReachable { peer, .. })) => {
                    let Some(name) = peer_name(&node, peer).await else { continue };
                    book.set_reachable(clock::now(), &name, true);
                    compare(&mut comparing, name);
                }
                Some(Ok(EventKind::RemoteUnreachable { peer })) => {
                    let Some(name) = peer_name(&node, peer).await else { continue };
                    book.set_reachable(clock::now(), &name, false);
                }
                Some(Ok(_)) => {}
                // Events were missed.
                Some(Err(_)) => {
                    for name in read_partners(&node, &book).await {
                        compare(&mut comparing, name);
                    }
                }
                None => return,
            },
            changed = reloads.changed() => {
                if changed.is_err() {
                    return;
                }
                for name in read_partners(&node, &book).await {
                    compare(&mut comparing, name);
                }
            }
            Some(name) = asked.recv() => compare(&mut comparing, name),
            Some(Ok((name, theirs))) = comparing.join_next() => {
                for (vip, what) in book.on_compared(clock::now(), &name, theirs.as_ref()) {
                    // A full queue is a flood of other events, which the log has.
                    let _ = reports.try_send(VipReport::Event(EventKind::VipNotice { vip, what }));
                }
            }
        }
    }
}

/// Reads config and reachability; returns the names of the partners that are reachable.
async fn read_partners(node: &RunningNode, book: &PartnerBook) -> Vec<String> {
    let now = clock::now();
    if let Some(config) = node.config().await {
        let names: Vec<_> = config.peers.iter().map(|peer| peer.name.clone()).collect();
        book.configure(now, &config.floating.vips, &names);
    }
    let mut reachable = Vec::new();
    for (name, is_reachable) in node.reachable_peers().await {
        book.set_reachable(now, &name, is_reachable);
        if is_reachable {
            reachable.push(name);
        }
    }
    reachable
}

async fn compare_with(node: Arc<RunningNode>, book: Arc<PartnerBook>, name: String) -> Compared {
    for attempt in 0..COMPARE_ATTEMPTS {
        if attempt > 0 {
            sleep(COMPARE_PAUSE).await;
        }
        let request = ask_definitions(&digest_of_all(&book.definitions()));
        let ask = node.ask_on(&name, Topic::HandOver, request);
        let answer = tokio::time::timeout(HAND_OVER_TIMEOUT, ask).await;
        if let Ok(Ok(answer)) = answer {
            let theirs = read_definitions(&answer);
            return (name, theirs);
        }
    }
    tracing::debug!(name, "the definitions of floating addresses could not be compared");
    (name, None)
}
