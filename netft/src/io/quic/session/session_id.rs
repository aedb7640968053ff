//! Session ids: random, never 0, unique among the sessions in use.

use std::sync::Arc;

use dashmap::DashSet;
use ring::rand::{SecureRandom, SystemRandom};

/// Allocator of a node's session ids, shared by the tasks of all peers.
#[derive(Clone, Debug, Default)]
pub(in crate::io) struct SessionIdAllocator(Arc<DashSet<u32>>);

/// A session id in use; released when dropped.
#[derive(Debug)]
pub(in crate::io) struct SessionId {
    value: u32,
    allocator: SessionIdAllocator,
}

impl SessionIdAllocator {
    /// Allocates an id; `None` when the kernel has no random bytes.
    pub(in crate::io) fn allocate_id(&self) -> Option<SessionId> {
        loop {
            let value = random_u32()?;
            // A few per peer are in use, so the first try nearly always succeeds.
            if value != 0 && self.0.insert(value) {
                return Some(SessionId { value, allocator: self.clone() });
            }
        }
    }

    /// The id of a session that a predecessor process agreed on.
    pub(in crate::io) fn reserve_id(&self, value: u32) -> SessionId {
        self.0.insert(value);
        SessionId { value, allocator: self.clone() }
    }
}

impl SessionId {
    pub(in crate::io) fn get(&self) -> u32 {
        self.value
    }
}

impl Drop for SessionId {
    fn drop(&mut self) {
        self.allocator.0.remove(&self.value);
    }
}

/// A random number; `None` when the kernel has no random bytes.
pub(in crate::io) fn random_u32() -> Option<u32> {
    let mut bytes = [0; 4];
    SystemRandom::new().fill(&mut bytes).ok()?;
    Some(u32::from_be_bytes(bytes))
}

/// A random number in [0, 1), for jitter; one half when the kernel has no random bytes.
pub(in crate::io) fn random_fraction() -> f64 {
    random_u32().map_or(0.5, |n| f64::from(n) / (f64::from(u32::MAX) + 1.0))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn ids_in_use_differ_and_are_released() {
        let allocator = SessionIdAllocator::default();
        let taken: Vec<SessionId> = (0..1000).map(|_| allocator.allocate_id().unwrap()).collect();
        let distinct: BTreeSet<u32> = taken.iter().map(SessionId::get).collect();
        assert_eq!(distinct.len(), 1000);
        assert!(!distinct.contains(&0));
        drop(taken);
        assert!(allocator.0.is_empty());
    }
}
