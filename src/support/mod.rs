//! What a report for support holds of a node: facts of its kernel, and no secret.

pub mod scrub;
pub mod secrets;
pub mod system;
