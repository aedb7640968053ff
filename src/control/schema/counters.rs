//! The packet counters in JSON, from the library's table of them.

use std::collections::BTreeMap;

use netft::api::counters::{CounterSnapshot, packet_counters};
use serde::{Deserialize, Serialize};

macro_rules! define_packet_counters {
    ($($(#[doc = $help:literal])+ $field:ident, $json:literal, $metric:literal;)+) => {
        /// Packets since the start. A counter that a daemon of another version does not have is 0.
        #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[cfg_attr(test, derive(schemars::JsonSchema))]
        #[serde(default)]
        pub struct PacketCounters {
            $($(#[doc = $help])+ #[serde(rename = $json)] pub $field: u64,)+
            /// Packets dropped, by reason; every reason is there.
            pub drops: BTreeMap<String, u64>,
        }

        impl From<&CounterSnapshot> for PacketCounters {
            fn from(counters: &CounterSnapshot) -> Self {
                let drops = counters.drops.iter();
                Self {
                    $($field: counters.$field,)+
                    drops: drops.map(|(why, n)| (why.as_str().to_owned(), *n)).collect(),
                }
            }
        }
    };
}

packet_counters!(define_packet_counters);
