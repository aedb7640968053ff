//! Random numbers of the simulator: SplitMix64 (Steele, Lea, Flood 2014).
//!
//! Every draw of a run comes from one seed, in the order of the event queue, so that a seed and a
//! commit name exactly one run.

use std::time::Duration;

/// A SplitMix64 generator.
#[derive(Clone, Debug)]
pub(crate) struct SplitMix64(u64);

impl SplitMix64 {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`; 0 when `bound` is 0. The bias (below 2^-32 for every bound used
    /// here) does not matter to a fault schedule.
    pub(crate) fn next_below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    /// A number from `low` to `high`, both included.
    pub(crate) fn next_in_range(&mut self, low: u64, high: u64) -> u64 {
        low + self.next_below(high.saturating_sub(low).saturating_add(1))
    }

    /// Returns true with a probability of `permille` / 1000.
    pub(crate) fn chance_permille(&mut self, permille: u16) -> bool {
        // A probability of zero draws nothing: a fault-free network leaves the sequence alone.
        permille > 0 && self.next_below(1000) < u64::from(permille)
    }

    /// A duration from zero to `most`.
    pub(crate) fn duration_up_to(&mut self, most: Duration) -> Duration {
        Duration::from_nanos(self.next_in_range(0, most.as_nanos() as u64))
    }

    /// One of `choices`, which is not empty.
    pub(crate) fn pick_one<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.next_below(choices.len() as u64) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_numbers_of_seed_1234567_are_those_of_the_reference_implementation() {
        let mut rng = SplitMix64::new(1_234_567);
        assert_eq!(rng.next(), 6_457_827_717_110_365_317);
        assert_eq!(rng.next(), 3_203_168_211_198_807_973);
    }

    #[test]
    fn draws_stay_in_range_and_reach_both_ends() {
        let mut rng = SplitMix64::new(1);
        let draws: Vec<u64> = (0..1000).map(|_| rng.next_in_range(3, 7)).collect();
        assert!(draws.iter().all(|d| (3..=7).contains(d)));
        assert!((3..=7).all(|d| draws.contains(&d)));
        assert!((0..1000).all(|_| !rng.chance_permille(0)));
        assert!((0..1000).all(|_| rng.chance_permille(1000)));
        assert_eq!(rng.next_below(0), 0);
    }
}
