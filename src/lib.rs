//! netft programs.
