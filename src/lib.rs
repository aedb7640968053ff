//! The programs around the library: config file, control socket, operator CLI, daemon.
//!
//! Imports point one way: `cli` → `daemon`, `demo` → `render`, `validate`, `hosts` → `control` →
//! `clock`, `exit`, `text` (checked by `tests/tidy.rs`).
//!
//! | module | job |
//! |---|---|
//! | [`config`] | the TOML file and the key file, checked |
//! | [`control`] | HTTP and JSON on the control socket: schema, server, client |
//! | [`cluster`] | the roster on disk, applied and exchanged |
//! | [`daemon`] | `netftd`: start, log, watchdog, stop |
//! | [`cli`] | `netft`: the operator's commands |
//! | [`hosts`] | names for the virtual addresses in `/etc/hosts` |
//! | [`ownership`] | what an ownership engine and the address service say to each other |
//! | [`render`] | tables and event lines |
//! | [`vip`] | the service that takes and lets go the floating addresses |
//! | [`support`] | what a report holds: facts of the kernel, and no secret |
//! | [`validate`] | checks of a node and its peers |
//! | `demo` | a failover in namespaces of its own |
//! | [`clock`], [`exit`], [`text`] | wall clock, exit codes, escaped text |

pub mod cli;
pub mod clock;
pub mod cluster;
pub mod config;
pub mod control;
pub mod daemon;
#[cfg(feature = "demo")]
pub mod demo;
pub mod exit;
pub mod hosts;
pub mod ownership;
pub mod render;
pub mod support;
pub mod text;
pub mod validate;
pub mod vip;
