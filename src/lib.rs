//! netft programs.

pub mod demo;
pub mod lab;
