//! Runs one case a number of times without output, for `scripts/instructions` to count.
//!
//!     count NAME TIMES       or without arguments: the names

#![allow(missing_docs, unreachable_pub, clippy::unwrap_used)]

mod cases;

use std::env;

fn main() {
    // Cargo adds `--bench`.
    let args: Vec<String> = env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let [name, times] = &args[..] else {
        cases::CASES.iter().for_each(|(name, ..)| println!("{name}"));
        return;
    };
    let (_, prepare, _) = cases::CASES.iter().find(|(known, ..)| known == name).expect("a name");
    let mut case = prepare();
    (0..times.parse().expect("a number")).for_each(&mut case);
}
