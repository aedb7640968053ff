//! The carrier monitor: polls the carrier of interfaces, on a thread of its own.
//!
//! `ETHTOOL_GLINK` waits for the kernel's RTNL lock, which others hold as long as they need: while
//! a card is reset, or a namespace of a thousand interfaces is removed. No heartbeat may wait for
//! it, so the driver, which sends them, only requests polls.

use std::{io, sync::mpsc, thread};

use crate::io::sys::glink;

/// Interfaces by index, and the state of their carrier.
pub(crate) type CarrierStates = Vec<(u32, bool)>;

/// The requests to the monitor's thread, which ends with it.
pub(crate) struct CarrierMonitor {
    requests: mpsc::SyncSender<CarrierStates>,
}

impl CarrierMonitor {
    /// Starts the thread, which calls `report` with the carriers that differ from a request's.
    ///
    /// # Errors
    /// Of `socket` and of starting a thread: no more descriptors or memory.
    pub(crate) fn start(report: impl Fn(CarrierStates) + Send + 'static) -> io::Result<Self> {
        let socket = glink::open_socket()?;
        let (requests, inbox) = mpsc::sync_channel(1);
        let poll_loop = move || {
            for known in inbox {
                let seen =
                    changed_carriers(known, |index| glink::carrier_by_index(&socket, index).ok());
                if !seen.is_empty() {
                    report(seen);
                }
            }
        };
        thread::Builder::new().name("netft-carrier".into()).spawn(poll_loop)?;
        Ok(Self { requests })
    }

    /// Polls the interfaces of `known`. While the kernel blocks the monitor, one request waits and
    /// further ones are dropped: it is polled later and sees what they would.
    pub(crate) fn request_poll(&self, known: CarrierStates) {
        let _ = self.requests.try_send(known);
    }
}

/// The interfaces whose carrier differs, as it is. One that is gone has none: the netlink watcher
/// reports that.
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
    fn carriers_that_differ_are_reported_and_interfaces_that_are_gone_are_not() {
        let carrier = |index| [None, Some(true), Some(false), Some(true)][index as usize];
        assert_eq!(
            changed_carriers(vec![(0, true), (1, true), (2, true), (3, false)], carrier),
            [(2, false), (3, true)]
        );
        assert_eq!(changed_carriers(vec![(0, false), (1, true), (2, false)], carrier), []);
    }

    #[test]
    fn requests_beyond_the_one_that_waits_are_dropped_and_the_thread_ends_with_its_owner() {
        let (tell, told) = mpsc::channel();
        let (go, wait) = mpsc::channel();
        let monitor = CarrierMonitor::start(move |seen| {
            tell.send(seen).unwrap();
            wait.recv().unwrap();
        });
        let monitor = monitor.unwrap();
        // The loopback interface has number 1 in every namespace.
        let lo = glink::carrier_by_index(&glink::open_socket().unwrap(), 1).unwrap();
        let request = || monitor.request_poll(vec![(1, !lo)]);
        let limit = Duration::from_secs(20);
        request();
        assert_eq!(told.recv_timeout(limit).unwrap(), [(1, lo)]);
        (0..3).for_each(|_| request());
        go.send(()).unwrap();
        assert_eq!(told.recv_timeout(limit).unwrap(), [(1, lo)]);
        go.send(()).unwrap();
        drop(monitor);
        assert_eq!(told.recv_timeout(limit), Err(mpsc::RecvTimeoutError::Disconnected));
    }
}
