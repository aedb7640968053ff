//! Follows the other nodes for the floating addresses: who is reachable, and whether they define
//! the same addresses.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

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

/// Comparisons under way: one of each partner. What asks for another one meanwhile is answered by
/// one more after it.
#[derive(Debug, Default)]
struct ComparisonSlots(BTreeMap<String, bool>);

impl ComparisonSlots {
    /// True if a comparison with the partner begins now.
    fn try_begin(&mut self, name: &str) -> bool {
        match self.0.get_mut(name) {
            Some(is_asked_again) => {
                *is_asked_again = true;
                false
            }
            None => {
                self.0.insert(name.to_owned(), false);
                true
            }
        }
    }

    /// The comparison is over; true if another one is to begin.
    fn end(&mut self, name: &str) -> bool {
        self.0.remove(name).unwrap_or_default()
    }
}

/// Follows the partners until the node is closed. `asked` has the names of nodes whose definitions
/// changed.
pub(super) async fn follow_partners(
    node: Arc<RunningNode>,
    book: Arc<PartnerBook>,
    mut asked: mpsc::Receiver<String>,
    reports: mpsc::Sender<VipReport>,
) {
    let (Some(mut events), mut reloads) = (node.new_events().await, node.reloads()) else { return };
    let (mut comparing, mut slots) = (JoinSet::<Compared>::new(), ComparisonSlots::default());
    let compare = |comparing: &mut JoinSet<Compared>, slots: &mut ComparisonSlots, name: String| {
        if slots.try_begin(&name) {
            comparing.spawn(compare_with(Arc::clone(&node), Arc::clone(&book), name));
        }
    };
    for name in read_partners(&node, &book).await {
        compare(&mut comparing, &mut slots, name);
    }
    loop {
        tokio::select! {
            event = events.next() => match event.map(|event| event.map(|event| event.kind)) {
                Some(Ok(EventKind::RemoteReachable { peer, .. })) => {
                    let Some(name) = peer_name(&node, peer).await else { continue };
                    book.set_reachable(clock::now(), &name, true);
                    compare(&mut comparing, &mut slots, name);
                }
                Some(Ok(EventKind::RemoteUnreachable { peer })) => {
                    let Some(name) = peer_name(&node, peer).await else { continue };
                    book.set_reachable(clock::now(), &name, false);
                }
                Some(Ok(_)) => {}
                // Events were missed.
                Some(Err(_)) => {
                    for name in read_partners(&node, &book).await {
                        compare(&mut comparing, &mut slots, name);
                    }
                }
                None => return,
            },
            changed = reloads.changed() => {
                if changed.is_err() {
                    return;
                }
                for name in read_partners(&node, &book).await {
                    compare(&mut comparing, &mut slots, name);
                }
            }
            Some(name) = asked.recv() => compare(&mut comparing, &mut slots, name),
            Some(Ok((name, theirs))) = comparing.join_next() => {
                if slots.end(&name) {
                    compare(&mut comparing, &mut slots, name.clone());
                }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partner_is_compared_once_at_a_time_however_often_it_asks() {
        let mut slots = ComparisonSlots::default();
        let begun = (0..1000).filter(|_| slots.try_begin("b")).count();
        assert_eq!(begun, 1);
        assert!(slots.try_begin("c"), "another one has its own");
        assert!(slots.end("b"), "asked for meanwhile");
        assert!(slots.try_begin("b"));
        assert!(!slots.end("b") && !slots.end("c"));
    }
}
