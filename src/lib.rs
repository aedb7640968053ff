//! The programs around the library: config file, control socket, operator CLI, daemon.
//!
//! | module | job |
//! |---|---|
//! | [`config`] | the TOML file and the key file, checked |
//! | [`control`] | HTTP and JSON on the control socket |
//! | [`daemon`] | `netftd`: start, log, watchdog, stop |
//! | [`cli`] | `netft`: what an operator types |
//! | [`hosts`] | names for the virtual addresses in `/etc/hosts` |
//! | [`render`] | tables and escaped text |
//! | [`validate`] | what is wrong with a node before it hurts |
//! | [`demo`] | the main job in one command |

pub mod cli;
pub mod config;
pub mod control;
pub mod daemon;
pub mod demo;
pub mod hosts;
pub mod render;
pub mod validate;
