//! netft
fn main() {}
