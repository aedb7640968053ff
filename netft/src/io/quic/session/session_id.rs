//! Session numbers: random, never 0, no two alive at once.

use std::sync::Arc;

use dashmap::DashSet;
use ring::rand::{SecureRandom, SystemRandom};

/// Where a node's session numbers come from: shared by the tasks of all peers.
#[derive(Clone, Debug, Default)]
pub(in crate::io) struct SessionIdAllocator(Arc<DashSet<u32>>);

/// A number in use; given back when dropped.
#[derive(Debug)]
pub(in crate::io) struct SessionId {
    value: u32,
    allocator: SessionIdAllocator,
}

impl SessionIdAllocator {
    /// Takes a free number; `None` when the kernel has no random bytes.
    pub(in crate::io) fn allocate_id(&self) -> Option<SessionId> {
        loop {
            let value = random_u32()?;
            // At most a few per peer are in use, so a free one is found at once.
            if value != 0 && self.0.insert(value) {
                return Some(SessionId { value, allocator: self.clone() });
            }
        }
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn numbers_in_use_differ_and_are_given_back() {
        let numbers = SessionIdAllocator::default();
        let taken: Vec<SessionId> = (0..1000).map(|_| numbers.allocate_id().unwrap()).collect();
        let distinct: BTreeSet<u32> = taken.iter().map(SessionId::get).collect();
        assert_eq!(distinct.len(), 1000);
        assert!(!distinct.contains(&0));
        drop(taken);
        assert!(numbers.0.is_empty());
    }
}
