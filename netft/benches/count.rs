//! Runs one case a number of times and says nothing: what `scripts/instructions` counts.
//!
//!     count NAME TIMES       or without arguments: the names

#![allow(missing_docs, unreachable_pub, clippy::unwrap_used)]

mod cases;

use std::env;

fn main() {
    // Cargo adds a word of its own.
    let words: Vec<String> = env::args().skip(1).filter(|word| word != "--bench").collect();
    let [name, times] = &words[..] else {
        cases::CASES.iter().for_each(|(name, ..)| println!("{name}"));
        return;
    };
    let (_, prepare, _) = cases::CASES.iter().find(|(known, ..)| known == name).expect("a name");
    let mut case = prepare();
    (0..times.parse().expect("a number")).for_each(&mut case);
}
