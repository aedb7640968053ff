//! Session numbers: random, never 0, no two alive at once.

use std::sync::Arc;

use dashmap::DashSet;
use ring::rand::{SecureRandom, SystemRandom};

/// Where a node's session numbers come from: shared by the tasks of all peers.
#[derive(Clone, Debug, Default)]
pub(in crate::io) struct Numbers(Arc<DashSet<u32>>);

/// A number in use; given back when dropped.
#[derive(Debug)]
pub(in crate::io) struct Number {
    value: u32,
    numbers: Numbers,
}

impl Numbers {
    /// Takes a free number; `None` when the kernel has no random bytes.
    pub(in crate::io) fn take(&self) -> Option<Number> {
        loop {
            let value = random_u32()?;
            // At most a few per peer are in use, so a free one is found at once.
            if value != 0 && self.0.insert(value) {
                return Some(Number { value, numbers: self.clone() });
            }
        }
    }
}

impl Number {
    pub(in crate::io) fn get(&self) -> u32 {
        self.value
    }
}

impl Drop for Number {
    fn drop(&mut self) {
        self.numbers.0.remove(&self.value);
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
        let numbers = Numbers::default();
        let taken: Vec<Number> = (0..1000).map(|_| numbers.take().unwrap()).collect();
        let distinct: BTreeSet<u32> = taken.iter().map(Number::get).collect();
        assert_eq!(distinct.len(), 1000);
        assert!(!distinct.contains(&0));
        drop(taken);
        assert!(numbers.0.is_empty());
    }
}
