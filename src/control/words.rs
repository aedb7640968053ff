//! JSON of the library's enums: each variant is the word that it has everywhere else.

use super::session_state::SessionState;
use netft::{
    api::session::SessionCause,
    config::{AdapterBackend, NetworkRole},
    failover::{report::SelectionOutcome, stall_histogram::StallSource},
    route::{DrainStage, NetworkChange, RouteState, Transport},
    topology::{InterfaceState, MetricSource, NetworkState},
};
use serde::{Deserialize, Deserializer, Serializer, de::Error};

/// An enum with a word for each variant.
pub trait Word: Copy + 'static {
    /// Every variant.
    const ALL: &'static [Self];

    /// The word.
    fn word(self) -> &'static str;

    /// The variant of a word.
    fn from_word(word: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|known| known.word() == word)
    }
}

/// Words of enums whose `as_str` gives them.
macro_rules! words {
    ($($name:ident: $($variant:ident)+;)+) => {
        $(impl Word for $name {
            const ALL: &'static [Self] = &[$(Self::$variant),+];

            fn word(self) -> &'static str {
                self.as_str()
            }
        })+
    };
}

words! {
    RouteState: Down Init Up AdminDown;
    DrainStage: Draining Drained Undrained;
    SelectionOutcome: Chosen LowerRank HeldDown HalfProven NotUp AdminDown Drained BrownOut;
    StallSource: Data Heartbeats;
    NetworkChange: Added Removed Up Partitioned Down Unavailable;
    NetworkState: Up Partitioned Down Unavailable;
    SessionCause: Silent NoAddress NoNetwork NoAnswer SmallMtu
        WrongKey KeyRefused Duplicate Refused;
    SessionState: Up Silent None;
    InterfaceState: Up Unreachable Failed Unavailable;
    MetricSource: Config Interface Peer Remembered;
}

impl Word for Transport {
    const ALL: &'static [Self] = &[Self::Udp, Self::Quic];

    fn word(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Quic => "quic",
        }
    }
}

impl Word for AdapterBackend {
    const ALL: &'static [Self] = &[Self::Offload, Self::Plain, Self::None];

    fn word(self) -> &'static str {
        match self {
            Self::Offload => "offload",
            Self::Plain => "plain",
            Self::None => "none",
        }
    }
}

impl Word for NetworkRole {
    const ALL: &'static [Self] = &[Self::None, Self::Cluster, Self::ClusterAndClient];

    fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Cluster => "cluster",
            Self::ClusterAndClient => "cluster-and-client",
        }
    }
}

/// Schema of an enum's words.
#[cfg(test)]
pub struct WordSchema<T>(std::marker::PhantomData<T>);

#[cfg(test)]
impl<T: Word> schemars::JsonSchema for WordSchema<T> {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Word".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let words: Vec<_> = T::ALL.iter().map(|value| value.word()).collect();
        schemars::json_schema!({ "type": "string", "enum": words })
    }
}

/// For `#[serde(with)]`: writes the word.
pub fn serialize<T: Word, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(value.word())
}

/// For `#[serde(with)]`: reads the word.
///
/// # Errors
/// An unknown word.
pub fn deserialize<'de, T: Word, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    let word = String::deserialize(deserializer)?;
    T::from_word(&word).ok_or_else(|| D::Error::custom(format_args!("unknown word {word:?}")))
}

/// The same for an optional word.
pub mod optional {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    use super::Word;

    /// For `#[serde(with)]`: writes the word or null.
    pub fn serialize<T: Word, S: Serializer>(
        value: &Option<T>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        value.map(Word::word).serialize(serializer)
    }

    /// For `#[serde(with)]`: reads the word or null.
    ///
    /// # Errors
    /// An unknown word.
    pub fn deserialize<'de, T: Word, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<T>, D::Error> {
        let Some(word) = Option::<String>::deserialize(deserializer)? else { return Ok(None) };
        let value = T::from_word(&word);
        value.map(Some).ok_or_else(|| D::Error::custom(format_args!("unknown word {word:?}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_one_to_one<T: Word + PartialEq>() -> bool {
        T::ALL.iter().all(|value| T::from_word(value.word()) == Some(*value))
    }

    #[test]
    fn every_word_reads_back_as_its_variant() {
        assert!(is_one_to_one::<RouteState>() && is_one_to_one::<DrainStage>());
        assert!(is_one_to_one::<SelectionOutcome>() && is_one_to_one::<StallSource>());
        assert!(is_one_to_one::<NetworkState>() && is_one_to_one::<InterfaceState>());
        assert!(is_one_to_one::<MetricSource>() && is_one_to_one::<NetworkRole>());
        assert!(is_one_to_one::<Transport>() && is_one_to_one::<AdapterBackend>());
        assert_eq!(RouteState::from_word("sideways"), None);
    }
}
