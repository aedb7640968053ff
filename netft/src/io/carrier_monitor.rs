//! The lookout: asks the interfaces for their carrier, on a thread of its own.
//!
//! `ETHTOOL_GLINK` waits for the kernel's RTNL lock, which others hold as long as they need: a card
//! that is reset, a namespace of a thousand interfaces that goes. No heartbeat may wait with it, so
//! the driver, which sends them, only gives orders.

use std::{io, sync::mpsc, thread};

use crate::io::sys::glink;

/// Interfaces by number, and whether they have a carrier.
pub(crate) type CarrierStates = Vec<(u32, bool)>;

/// To the lookout's thread, which ends with it.
pub(crate) struct CarrierMonitor {
    requests: mpsc::SyncSender<CarrierStates>,
}

impl CarrierMonitor {
    /// Starts the thread. `tell` gets what differs from what an order says, from that thread.
    ///
    /// # Errors
    /// Of `socket` and of starting a thread: no more descriptors or memory.
    pub(crate) fn start(tell: impl Fn(CarrierStates) + Send + 'static) -> io::Result<Self> {
        let socket = glink::open_socket()?;
        let (orders, inbox) = mpsc::sync_channel(1);
        let poll_loop = move || {
            for known in inbox {
                let seen =
                    changed_carriers(known, |index| glink::carrier_by_index(&socket, index).ok());
                if !seen.is_empty() {
                    tell(seen);
                }
            }
        };
        thread::Builder::new().name("netft-lookout".into()).spawn(poll_loop)?;
        Ok(Self { requests: orders })
    }

    /// Has the interfaces of `known` asked. While the kernel keeps the lookout waiting, one order
    /// waits with it and the others are left out: that one begins later and sees what they would.
    pub(crate) fn request_poll(&self, known: CarrierStates) {
        let _ = self.requests.try_send(known);
    }
}

/// The interfaces whose carrier is another, as it is. One that is gone has none to tell: that is
/// the keeper's news.
fn changed_carriers(known: CarrierStates, carrier: impl Fn(u32) -> Option<bool>) -> CarrierStates {
    let seen = |(index, before)| Some((index, carrier(index)?)).filter(|seen| seen.1 != before);
    known.into_iter().filter_map(seen).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::Duration;

    use super::*;

    #[test]
    fn what_differs_is_told_and_what_is_gone_is_not() {
        let carrier = |index| [None, Some(true), Some(false), Some(true)][index as usize];
        assert_eq!(
            changed_carriers(vec![(0, true), (1, true), (2, true), (3, false)], carrier),
            [(2, false), (3, true)]
        );
        assert_eq!(changed_carriers(vec![(0, false), (1, true), (2, false)], carrier), []);
    }

    #[test]
    fn orders_beyond_the_one_that_waits_are_left_out_and_the_thread_ends_with_its_owner() {
        let (tell, told) = mpsc::channel();
        let (go, wait) = mpsc::channel();
        let lookout = CarrierMonitor::start(move |seen| {
            tell.send(seen).unwrap();
            wait.recv().unwrap();
        });
        let lookout = lookout.unwrap();
        // The loopback interface has number 1 in every namespace.
        let lo = glink::carrier_by_index(&glink::open_socket().unwrap(), 1).unwrap();
        let order = || lookout.request_poll(vec![(1, !lo)]);
        let patience = Duration::from_secs(20);
        order();
        assert_eq!(told.recv_timeout(patience).unwrap(), [(1, lo)]);
        (0..3).for_each(|_| order());
        go.send(()).unwrap();
        assert_eq!(told.recv_timeout(patience).unwrap(), [(1, lo)]);
        go.send(()).unwrap();
        drop(lookout);
        assert_eq!(told.recv_timeout(patience), Err(mpsc::RecvTimeoutError::Disconnected));
    }
}
