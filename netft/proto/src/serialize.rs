//! Serialisation of values that have one name in output, JSON and logs.

use serde::{Serialize, Serializer};

use crate::{
    config::{AdapterBackend, NetworkRole},
    ids::NodeKey,
    route::{Policy, Reason, RouteState, Transport, policy::Protocol},
    topology::{InterfaceState, MetricSource, NetworkState},
    wire::DropReason,
};

macro_rules! serialize_by_name {
    ($($name:ty),+ $(,)?) => {
        $(impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        })+
    };
}

serialize_by_name!(
    AdapterBackend,
    DropReason,
    InterfaceState,
    MetricSource,
    NetworkRole,
    NetworkState,
    Policy,
    Protocol,
    Reason,
    RouteState,
);

impl Serialize for Transport {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for NodeKey {
    /// The key in base64.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
