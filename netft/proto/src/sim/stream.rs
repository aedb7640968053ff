//! The data between one node and one peer, as the node's packet path holds it: the real flight,
//! the real replay window, the real debt.

use std::time::Duration;

use crate::{
    loss_detection::{Debt, Flight, Limits, STALL_TOLD},
    session::replay::ReplayWindow,
    sim::node::Session,
    time::Time,
    wire::ack::{Ack, MAX_RANGES},
};

/// Data of one session, both directions.
pub(crate) struct Stream {
    pub(crate) session: Session,
    /// The next counter out: data and acknowledgements share it.
    counter: u64,
    /// What waits; each send is known by its first packet.
    pub(crate) flight: Flight<usize>,
    pub(crate) window: ReplayWindow,
    /// The highest data counter in.
    heard: Option<u64>,
    /// What is owed, with the networks it came on.
    pub(crate) debt: Option<Debt<usize>>,
}

impl Stream {
    pub(crate) fn new(session: Session) -> Self {
        Self {
            session,
            counter: 0,
            flight: Flight::new(Limits::default()),
            window: ReplayWindow::new(),
            heard: None,
            debt: None,
        }
    }

    /// Takes the next counters; returns the first.
    pub(crate) fn reserve(&mut self, count: u64) -> u64 {
        let first = self.counter;
        self.counter += count;
        first
    }

    /// A data frame came over a network: notes what is owed for it.
    pub(crate) fn owe(&mut self, network: usize, counter: u64, fresh: bool, now: Time) {
        let debt = self.debt.get_or_insert_with(|| Debt::new(network, now));
        if fresh {
            self.heard = self.heard.max(Some(counter));
            debt.add(1, network);
        } else {
            debt.repeat(network);
        }
    }

    /// The acknowledgement that is due, and the networks it takes.
    pub(crate) fn pay(
        &mut self,
        now: Time,
        stalled: Option<(Duration, Time)>,
    ) -> Option<(Ack, Debt<usize>)> {
        let debt = self.debt.take_if(|debt| debt.due(now))?;
        self.heard?;
        let stalled = stalled.filter(|(_, ended)| now.since(*ended) < STALL_TOLD);
        let stalled = stalled.map_or(0, |(length, _)| length.as_millis());
        let stalled_ms = u16::try_from(stalled).unwrap_or(u16::MAX);
        Some((Ack { stalled_ms, ..self.ack() }, debt))
    }

    /// What arrived.
    pub(crate) fn ack(&self) -> Ack {
        let Some(highest) = self.heard else { return Ack::default() };
        let ranges = self.window.runs(highest, MAX_RANGES);
        Ack { highest, ranges, ..Ack::default() }
    }

    /// How long until something is due by itself.
    pub(crate) fn wait(&self, now: Time) -> Option<Duration> {
        let debt = self.debt.as_ref().map(|debt| debt.wait(now));
        [debt, self.flight.wait(now)].into_iter().flatten().min()
    }
}
