//! Messages of etcd's JSON gateway. Bytes are base64, and 64-bit numbers are texts; a field that is
//! zero is left out.

use base64::{Engine, prelude::BASE64_STANDARD};
use netft::vip::ownership::{EtcdEntry, EtcdServer, EtcdView, EtcdWrite};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

/// A number that is written as a text, or missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct TextNumber<T>(pub(super) T);

impl<'de, T: std::str::FromStr> Deserialize<'de> for TextNumber<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let refused = |_| serde::de::Error::custom(format!("{text:?} is no number"));
        text.parse().map(Self).map_err(refused)
    }
}

/// Server and term, which prove a lease: an answer without them is refused.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(super) struct ResponseHeader {
    pub(super) member_id: TextNumber<u64>,
    pub(super) raft_term: TextNumber<u64>,
}

#[derive(Debug, Deserialize)]
pub(super) struct LeaseResponse {
    #[serde(rename = "ID", default)]
    pub(super) id: TextNumber<i64>,
    /// Missing for a lease that ended.
    #[serde(rename = "TTL", default)]
    pub(super) ttl: TextNumber<u64>,
}

/// One message of a stream.
#[derive(Debug, Deserialize)]
pub(super) struct StreamMessage<T> {
    pub(super) result: T,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct KeyValue {
    key: String,
    value: String,
    create_revision: TextNumber<u64>,
    lease: TextNumber<i64>,
}

#[derive(Debug, Deserialize)]
pub(super) struct RangeResponse {
    header: ResponseHeader,
    #[serde(default)]
    kvs: Vec<KeyValue>,
}

impl RangeResponse {
    /// The keys without their prefix; those that are no text are left out.
    pub(super) fn into_view(self, prefix: &str) -> EtcdView {
        let server = EtcdServer { member: self.header.member_id.0, term: self.header.raft_term.0 };
        let entries = self.kvs.into_iter().filter_map(|entry| {
            Some(EtcdEntry {
                key: decode_text(&entry.key)?.strip_prefix(prefix)?.to_owned(),
                value: decode_text(&entry.value)?,
                created: entry.create_revision.0,
                lease: entry.lease.0,
            })
        });
        EtcdView::new(server, entries)
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct TransactionResponse {
    pub(super) succeeded: bool,
}

#[derive(Debug, Deserialize)]
pub(super) struct AuthResponse {
    pub(super) token: String,
}

/// A refusal.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ErrorResponse {
    pub(super) error: String,
    pub(super) message: String,
}

fn decode_text(text: &str) -> Option<String> {
    String::from_utf8(BASE64_STANDARD.decode(text).ok()?).ok()
}

fn encode_text(text: &str) -> String {
    BASE64_STANDARD.encode(text)
}

/// All keys that begin with `prefix`: from it to the text after all of those.
pub(super) fn prefix_range(prefix: &str) -> Value {
    let mut end = prefix.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    json!({ "key": encode_text(prefix), "range_end": BASE64_STANDARD.encode(end) })
}

/// A transaction of the gateway.
pub(super) fn to_transaction(prefix: &str, write: &EtcdWrite) -> Value {
    let full = |key: &str| encode_text(&format!("{prefix}{key}"));
    let put = |key: &str, value: &str, lease: i64| {
        let value = encode_text(value);
        json!([{ "request_put": { "key": full(key), "value": value, "lease": lease.to_string() } }])
    };
    let is_created = |key: &str, revision: u64| {
        let revision = revision.to_string();
        json!({
            "key": full(key), "result": "EQUAL", "target": "CREATE", "create_revision": revision
        })
    };
    match write {
        EtcdWrite::Put { key, value, lease } => json!({ "success": put(key, value, *lease) }),
        EtcdWrite::Create { key, value, lease } => {
            json!({ "compare": [is_created(key, 0)], "success": put(key, value, *lease) })
        }
        EtcdWrite::Adopt { key, value, created, old_lease, lease } => {
            let old_lease = old_lease.to_string();
            let same_lease = json!({
                "key": full(key), "result": "EQUAL", "target": "LEASE", "lease": old_lease
            });
            json!({
                "compare": [is_created(key, *created), same_lease],
                "success": put(key, value, *lease)
            })
        }
        EtcdWrite::Delete { key, created } => json!({
            "compare": [is_created(key, *created)],
            "success": [{ "request_delete_range": { "key": full(key) } }]
        }),
    }
}
