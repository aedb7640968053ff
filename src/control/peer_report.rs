//! Parts of a report for support that a node sends to a peer on its control session. Pure.
//!
//! A question names one part, and the reply is its text: JSON of the control socket, or plain text.
//! It fits the bounds of [`Topic::Validate`]; what is left out of it is told.

use netft::api::query::Topic;
use serde_json::Value;

/// Start of the question; the name of the part follows.
const REPORT_QUERY: &str = "report/1 ";
/// Largest part before secrets are removed, bytes: what stands for one may be longer than it.
pub const MAX_PART_BYTES: usize = Topic::Validate.limits().max_reply - 4096;

/// A part of a node's report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerPart {
    /// The daemon's status.
    Status,
    /// Its peers.
    Peers,
    /// Its routes.
    Routes,
    /// Its networks.
    Networks,
    /// Its floating addresses.
    Vips,
    /// Its last events.
    Events,
    /// Its configuration.
    Config,
    /// The end of its log.
    Journal,
    /// Facts of its kernel.
    Kernel,
}

impl PeerPart {
    /// Every part.
    pub const ALL: [Self; 9] = [
        Self::Status,
        Self::Peers,
        Self::Routes,
        Self::Networks,
        Self::Vips,
        Self::Events,
        Self::Config,
        Self::Journal,
        Self::Kernel,
    ];

    /// Its name in questions.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Peers => "peers",
            Self::Routes => "routes",
            Self::Networks => "networks",
            Self::Vips => "vips",
            Self::Events => "events",
            Self::Config => "config",
            Self::Journal => "journal",
            Self::Kernel => "kernel",
        }
    }

    /// Name of its file.
    pub const fn file_name(self) -> &'static str {
        match self {
            Self::Status => "status.json",
            Self::Peers => "peers.json",
            Self::Routes => "routes.json",
            Self::Networks => "networks.json",
            Self::Vips => "vips.json",
            Self::Events => "events.json",
            Self::Config => "netft.toml",
            Self::Journal => "journal.txt",
            Self::Kernel => "kernel.txt",
        }
    }

    /// Its meaning.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Status => "verdict, adapter, counters, drops by reason",
            Self::Peers => "peers, and why a session does not work",
            Self::Routes => "routes with state, RTT, loss, path MTU",
            Self::Networks => "networks that the interfaces form",
            Self::Vips => "floating addresses",
            Self::Events => "the last events",
            Self::Config => "the configuration",
            Self::Journal => "the end of the log of netftd",
            Self::Kernel => "interfaces, addresses, routes, rules, firewall, settings",
        }
    }

    /// The request that answers it on the control socket; `None` for the others.
    pub const fn control_target(self) -> Option<&'static str> {
        match self {
            Self::Status => Some("/v1/status"),
            Self::Peers => Some("/v1/peers"),
            Self::Routes => Some("/v1/routes"),
            Self::Networks => Some("/v1/networks"),
            Self::Vips => Some("/v1/vips"),
            Self::Events => Some("/v1/events"),
            Self::Config | Self::Journal | Self::Kernel => None,
        }
    }

    /// The part of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|part| part.as_str() == name)
    }

    /// The question for it.
    pub fn to_question(self) -> Vec<u8> {
        format!("{REPORT_QUERY}{}", self.as_str()).into_bytes()
    }

    /// The part that a question is for; `None` for other questions, and for those of later
    /// versions.
    pub fn from_question(question: &[u8]) -> Option<Self> {
        let name = std::str::from_utf8(question).ok()?.strip_prefix(REPORT_QUERY)?;
        Self::from_name(name)
    }
}

/// Part of a list or a text that is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeptItems {
    /// The first items.
    First,
    /// The last items.
    Last,
}

/// An answer of the control socket, of whose longest list as many items stay as fit: the last
/// events, and the first of everything else. `left_out` counts the others.
pub fn fit_answer(text: &str) -> String {
    if text.len() <= MAX_PART_BYTES {
        return text.to_owned();
    }
    let too_long = || format!("(an answer of {} bytes)\n", text.len());
    let Ok(Value::Object(mut answer)) = serde_json::from_str(text) else { return too_long() };
    let lists = answer.iter().filter_map(|(name, value)| Some((value.as_array()?.len(), name)));
    let Some(name) = lists.max().map(|(_, name)| name.clone()) else { return too_long() };
    let mut left_out = 0;
    loop {
        let len = Value::Object(answer.clone()).to_string().len();
        let Some(Value::Array(items)) = answer.get_mut(&name).filter(|_| len > MAX_PART_BYTES)
        else {
            return Value::Object(answer).to_string();
        };
        if items.is_empty() {
            return too_long();
        }
        let kept = (items.len() * MAX_PART_BYTES / len).min(items.len() - 1);
        let surplus = items.len() - kept;
        match name.as_str() {
            "events" => drop(items.drain(..surplus)),
            _ => items.truncate(kept),
        }
        left_out += surplus;
        answer.insert("left_out".to_owned(), left_out.into());
    }
}

/// Stands for the lines that do not fit.
const LEFT_OUT: &str = "(left out)\n";

/// The first or the last lines of a text, as many as fit into `max` bytes.
pub fn fit_lines(text: &str, kept: KeptItems, max: usize) -> String {
    if text.len() <= max {
        return text.to_owned();
    }
    let room = max.saturating_sub(LEFT_OUT.len());
    match kept {
        KeptItems::First => {
            let whole = &text[..text.floor_char_boundary(room)];
            let end = whole.rfind('\n').map_or(0, |at| at + 1);
            format!("{}{LEFT_OUT}", &text[..end])
        }
        KeptItems::Last => {
            let from = text.ceil_char_boundary(text.len() - room);
            let start = text[from..].find('\n').map_or(text.len(), |at| from + at + 1);
            format!("{LEFT_OUT}{}", &text[start..])
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::*;

    #[test]
    fn a_question_names_a_part_and_nothing_else() {
        for part in PeerPart::ALL {
            let question = part.to_question();
            assert!(question.len() <= Topic::Validate.limits().max_request);
            assert_eq!(PeerPart::from_question(&question), Some(part));
        }
        for question in
            [&b"validate/1"[..], b"report/1", b"report/1 keys", b"report/2 status", b"\xff"]
        {
            assert_eq!(PeerPart::from_question(question), None);
        }
    }

    #[test]
    fn an_answer_keeps_as_many_items_as_fit() {
        let items: Vec<_> = (0..400).map(|n| json!({"seq": n, "what": "ä".repeat(200)})).collect();
        for (name, kept) in [("events", "\"seq\":399"), ("routes", "\"seq\":0,")] {
            let answer = json!({"schema": 2, name: items, "others": []}).to_string();
            let text = fit_answer(&answer);
            assert!(text.len() <= MAX_PART_BYTES, "{}", text.len());
            assert!(text.len() > MAX_PART_BYTES * 9 / 10, "{}", text.len());
            let read: Value = serde_json::from_str(&text).unwrap();
            let left = read[name].as_array().unwrap().len();
            assert_eq!(read["left_out"], 400 - left);
            assert!(text.contains(kept), "{name}");
        }
        assert_eq!(fit_answer("{\"schema\":2}"), "{\"schema\":2}");
        let no_list = json!({"text": "x".repeat(MAX_PART_BYTES)}).to_string();
        assert!(fit_answer(&no_list).starts_with("(an answer of "));
    }

    #[test]
    fn a_text_keeps_whole_lines() {
        let text = "eins\nzwei\ndrei\nvier und mehr ä\n";
        assert_eq!(fit_lines(text, KeptItems::First, text.len()), text);
        assert_eq!(fit_lines(text, KeptItems::First, 24), "eins\nzwei\n(left out)\n");
        assert_eq!(fit_lines(text, KeptItems::Last, 30), "(left out)\nvier und mehr ä\n");
        assert_eq!(fit_lines("äääääääääääääää", KeptItems::Last, 12), "(left out)\n");
    }
}
