//! Which datagrams a lossy fault drops.

/// Draws by xorshift64*, so that one seed gives one sequence.
#[derive(Clone, Copy, Debug)]
pub struct DatagramDice {
    state: u64,
}

impl DatagramDice {
    /// Dice of a seed.
    pub const fn new(seed: u64) -> Self {
        Self { state: if seed == 0 { 0x9e37_79b9_7f4a_7c15 } else { seed } }
    }

    /// Returns whether the next datagram is lost, with a probability of `percent` in a hundred.
    pub const fn loses(&mut self, percent: u8) -> bool {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        let drawn = self.state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32;
        drawn * 100 < (percent as u64) << 32
    }
}
