//! Heartbeats do not wait for the kernel's RTNL lock, however long it is held.

use std::{
    thread,
    time::{Duration, Instant, SystemTime},
};

use crate::common::{NodePair, TEST_TIMEOUT};
use netft::test_support::sys::glink;
use netft_lab::{Netns, daemon::EventLine, in_namespace};
use rtnetlink::LinkVeth;

/// Pairs of interfaces that go at once in the first attempt, and more of them in each further one.
const PAIRS: usize = 2000;
/// One and a half times the longest interval between carrier polls of an idle driver.
const HELD: Duration = Duration::from_millis(180);
/// A busy machine may not schedule a daemon for its own reasons.
const ATTEMPTS: usize = 6;

/// A namespace full of interfaces. When it goes, the kernel holds the lock until all of them have.
fn crowd(pairs: usize) -> Netns {
    let crowd = Netns::new("the crowd").unwrap();
    crowd
        .run_netlink("add many interfaces", |netlink| async move {
            for pair in 0..pairs {
                let link = LinkVeth::new(&format!("a{pair}"), &format!("b{pair}"));
                netlink.link().add(link.build()).execute().await?;
            }
            Ok(())
        })
        .unwrap();
    crowd
}

/// The longest wait for the lock, until it has been free for a second.
fn longest_wait() -> Duration {
    let (socket, deadline) = (glink::open_socket().unwrap(), Instant::now() + TEST_TIMEOUT);
    let (mut longest, mut last_wait) = (Duration::ZERO, Instant::now());
    while last_wait.elapsed() < Duration::from_secs(1) && Instant::now() < deadline {
        let asked = Instant::now();
        // The loopback interface has number 1 in every namespace.
        glink::carrier_by_index(&socket, 1).unwrap();
        longest = longest.max(asked.elapsed());
        if asked.elapsed() > Duration::from_millis(5) {
            last_wait = Instant::now();
        }
        thread::sleep(Duration::from_millis(1));
    }
    longest
}

#[test]
fn heartbeats_go_on_while_others_hold_the_kernels_lock() {
    in_namespace("heartbeats_go_on_while_others_hold_the_kernels_lock", || {
        let mut pair = NodePair::start_up(3);
        for attempt in 1..=ATTEMPTS {
            let crowd = crowd(PAIRS * attempt);
            let events = [0, 1].map(|node| pair.events(node));
            let began = SystemTime::now();
            // The kernel takes the interfaces away later, on a thread of its own.
            drop(crowd);
            let held = longest_wait();
            let stalls = |node: usize| {
                let seen = events[node].events_so_far();
                let stalled =
                    |event: &&EventLine| event.name == "stalled" && event.is_at_or_after(began);
                seen.iter().filter(stalled).count()
            };
            let stalls = [stalls(0), stalls(1)];
            println!("attempt {attempt}: the lock was held for {held:?}; stalls {stalls:?}");
            if held > HELD && stalls == [0, 0] {
                return [0, 1].into_iter().for_each(|node| drop(pair.wait_routes_up(node)));
            }
        }
        panic!("in every attempt a daemon stood still, or the lock was never held for {HELD:?}");
    });
}
