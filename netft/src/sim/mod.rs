//! The simulator. Pure.
