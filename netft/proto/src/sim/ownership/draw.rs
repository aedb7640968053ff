//! Draws the faults of a run.

use super::{Fault, LAST_FAULT_MS, LEASES_MS, OwnershipWorld, SimEvent};
use crate::time::Time;

/// Nodes get the same lease within this time, milliseconds, as by one reload after the other.
const RELOAD_MS: u64 = 1_500;

impl OwnershipWorld {
    pub(super) fn draw_faults(&mut self) {
        let count = self.nodes.len() as u64;
        let mut at = 1_000;
        while at < LAST_FAULT_MS {
            let node = self.rng.next_below(count) as usize;
            let vip = self.rng.next_below(self.policies.len() as u64) as usize;
            let last = self.rng.next_in_range(20, 2_500);
            let time = Time::from_millis(at);
            let end = Time::from_millis((at + last).min(LAST_FAULT_MS));
            let (fault, undo) = match self.rng.next_below(8) {
                0 => (Fault::Crash(node), Some(Fault::Restart(node))),
                1 | 2 => (Fault::Pause(node, end.since(time)), None),
                3 | 4 => {
                    let groups = (0..count).map(|_| self.rng.next_below(2) as u8).collect();
                    (Fault::Partition(groups), Some(Fault::Partition(vec![0; count as usize])))
                }
                5 => (Fault::Loss(self.rng.next_in_range(50, 400) as u16), Some(Fault::Loss(0))),
                6 => match self.rng.chance_permille(500) {
                    true => (Fault::Able(node, vip, false), Some(Fault::Able(node, vip, true))),
                    false => {
                        (Fault::Late(self.rng.next_in_range(20, 300) as u16), Some(Fault::Late(10)))
                    }
                },
                _ if self.policies[vip].follow => (Fault::Role(vip, node), None),
                _ => (Fault::Move(vip, node), None),
            };
            self.push(time, SimEvent::Fault(fault));
            if let Some(undo) = undo {
                self.push(end, SimEvent::Fault(undo));
            }
            at += self.rng.next_in_range(20, 1_200);
        }
        self.draw_reloads();
    }

    /// The nodes get another lease one after the other. In the end all have the same.
    fn draw_reloads(&mut self) {
        let mut at = self.rng.next_in_range(1_000, 4_000);
        while at < LAST_FAULT_MS - RELOAD_MS {
            let vip = self.rng.next_below(self.policies.len() as u64) as usize;
            let lease = self.rng.pick_one(&LEASES_MS);
            for node in 0..self.nodes.len() {
                let time = Time::from_millis(at + self.rng.next_in_range(0, RELOAD_MS));
                self.push(time, SimEvent::Fault(Fault::Lease(node, vip, lease)));
            }
            at += self.rng.next_in_range(RELOAD_MS, 4_000);
        }
    }
}
