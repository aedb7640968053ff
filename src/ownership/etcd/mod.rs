//! Ownership by the leases of an etcd v3 cluster, over its JSON gateway. The decisions are those of
//! [`EtcdHolder`](netft::vip::ownership::EtcdHolder); the argument why two nodes never answer
//! stands in `docs/design/vip-ownership.md`.

mod engine;
mod gateway;
mod messages;
mod tls;
mod watcher;

pub use self::engine::{EtcdEngine, EtcdSettings, EtcdStatus};
