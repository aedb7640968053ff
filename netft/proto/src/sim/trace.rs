//! The trace of a run: a hash over every fault, event and delivery.

use std::{fmt, fmt::Write};

use crate::time::Time;

/// FNV-1a, 64 bits. The standard library's hashers promise no stable value across releases, and
/// trace hashes are compared across builds of one commit.
#[derive(Clone, Debug)]
pub(crate) struct RunTrace {
    hash: u64,
    /// Every step as a line, when the scenario keeps it.
    text: Option<String>,
}

impl RunTrace {
    pub(crate) fn new(keep_text: bool) -> Self {
        Self { hash: 0xcbf2_9ce4_8422_2325, text: keep_text.then(String::new) }
    }

    /// Adds a step with its text.
    pub(crate) fn add_step(&mut self, at: Time, line: fmt::Arguments<'_>) {
        self.add_number(at.as_nanos());
        // Writing into the hasher cannot fail.
        let _ = self.write_fmt(line);
        if let Some(text) = &mut self.text {
            let _ = writeln!(text, "{at} {line}");
        }
    }

    /// Adds a number without text, for frequent steps.
    pub(crate) fn add_number(&mut self, number: u64) {
        for byte in number.to_le_bytes() {
            self.hash_byte(byte);
        }
    }

    pub(crate) fn into_parts(self) -> (u64, Option<String>) {
        (self.hash, self.text)
    }

    fn hash_byte(&mut self, byte: u8) {
        self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
}

impl Write for RunTrace {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        s.bytes().for_each(|byte| self.hash_byte(byte));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_fnv_1a() {
        let mut trace = RunTrace::new(false);
        trace.write_str("foobar").expect("hashing does not fail");
        assert_eq!(trace.into_parts().0, 0x8594_4171_f739_67e8);
    }
}
