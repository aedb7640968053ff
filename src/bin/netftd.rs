//! netftd
fn main() {}
