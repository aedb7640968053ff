//! Validation report from peer to peer: bounded JSON, untrusted by its reader. Pure.

use netft::api::query::Topic;
use netft::route::RouteState;
use serde::{Deserialize, Serialize};

use super::schema::{Finding, PeerPath, RouteView};
use crate::text::escape;

/// Query for a validation report.
pub const VALIDATE_QUERY: &[u8] = b"validate/1";
/// Most findings in a report.
const MAX_FINDINGS: usize = 64;
/// Most paths in a report.
const MAX_PATHS: usize = 128;
/// Longest text of a finding, characters.
const MAX_TEXT_CHARS: usize = 600;

/// Findings of a node on itself. Unknown fields are ignored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ValidationReport {
    /// Findings, most severe first.
    pub findings: Vec<Finding>,
    /// Findings left out.
    #[serde(default)]
    pub left_off: usize,
    /// Its wall clock when it answered, milliseconds since 1970.
    pub clock_ms: u64,
    /// Its routes to the asking node in state up.
    #[serde(default)]
    pub paths: Vec<PeerPath>,
}

impl ValidationReport {
    /// A report of `findings` and of those `routes` that lead to the peer of this name.
    pub fn new(findings: Vec<Finding>, routes: &[RouteView], peer: &str, clock_ms: u64) -> Self {
        let ours = routes.iter().filter(|route| route.peer == peer && route.via.is_none());
        let paths = ours.filter(|route| route.state == RouteState::Up).filter_map(|route| {
            let (path_mtu, path_mtu_limit) = (route.path_mtu?, route.path_mtu_limit?);
            let RouteView { real_local, real_remote, .. } = *route;
            let path_mtu_probing = route.path_mtu_probing;
            let path =
                PeerPath { real_local, real_remote, path_mtu, path_mtu_limit, path_mtu_probing };
            Some(path)
        });
        let mut report = Self { findings, left_off: 0, clock_ms, paths: paths.collect() };
        report.truncate_to_limits();
        report
    }

    /// Encodes within the bytes of a reply; findings that do not fit are left out.
    ///
    /// # Errors
    /// None: every key is text.
    pub fn encode(mut self) -> Result<Vec<u8>, serde_json::Error> {
        loop {
            let bytes = serde_json::to_vec(&self)?;
            if bytes.len() <= Topic::Validate.limits().max_reply {
                return Ok(bytes);
            }
            if self.findings.pop().is_some() {
                self.left_off += 1;
            } else {
                self.paths.clear();
            }
        }
    }

    /// Decodes a peer's report: within the same bounds, control characters escaped.
    ///
    /// # Errors
    /// Malformed report.
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        // The error quotes what it read.
        let mut report: Self =
            serde_json::from_slice(bytes).map_err(|error| escape(&error.to_string()))?;
        report.truncate_to_limits();
        for finding in &mut report.findings {
            let Finding { id, place, what, remedy, .. } = finding;
            for text in [id, place, what, remedy] {
                *text = escape_lines(text);
            }
        }
        Ok(report)
    }

    fn truncate_to_limits(&mut self) {
        let left = self.findings.len().saturating_sub(MAX_FINDINGS);
        self.findings.truncate(MAX_FINDINGS);
        self.left_off = self.left_off.saturating_add(left);
        self.paths.truncate(MAX_PATHS);
        for finding in &mut self.findings {
            for text in [&mut finding.place, &mut finding.what, &mut finding.remedy] {
                if let Some((end, _)) = text.char_indices().nth(MAX_TEXT_CHARS) {
                    text.truncate(end);
                    text.push('…');
                }
            }
        }
    }
}

/// Escapes a text line by line.
fn escape_lines(text: &str) -> String {
    text.lines().map(escape).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::control::schema::Severity;

    fn finding(what: &str) -> Finding {
        Finding {
            id: "mtu".to_owned(),
            severity: Severity::Warning,
            place: "eth0".to_owned(),
            what: what.to_owned(),
            remedy: String::new(),
        }
    }

    #[test]
    fn however_much_is_wrong_an_answer_fits_and_says_what_it_left_out() {
        let long = "\u{1}ä".repeat(1000);
        let report = ValidationReport::new(vec![finding(&long); 100], &[], "b", 7);
        assert_eq!((report.findings.len(), report.left_off), (64, 36));
        let bytes = report.encode().unwrap();
        assert!(bytes.len() <= Topic::Validate.limits().max_reply);
        let read = ValidationReport::decode(&bytes).unwrap();
        assert_eq!((read.findings.len() + read.left_off, read.clock_ms), (100, 7));
        assert!(!read.findings.is_empty());
    }

    #[test]
    fn what_a_peer_says_does_nothing_to_a_terminal() {
        let evil = ValidationReport {
            findings: vec![finding("\u{1b}[2J\n\u{9b}31m\u{202e}x")],
            ..ValidationReport::default()
        };
        let read = ValidationReport::decode(&serde_json::to_vec(&evil).unwrap()).unwrap();
        assert_eq!(read.findings[0].what, "\\u{1b}[2J\n\\u{9b}31m\\u{202e}x");
        // Errors quote nothing of the input.
        for bytes in [&b""[..], b"null", b"[]", b"{\"clock_ms\":-1}", &[b'['; 60_000], &[0xff; 9]] {
            let error = ValidationReport::decode(bytes).unwrap_err();
            assert!(!error.contains(char::is_control) && error.len() < 300, "{error}");
        }
        let many =
            ValidationReport { findings: vec![finding("x"); 1000], ..ValidationReport::default() };
        let read = ValidationReport::decode(&serde_json::to_vec(&many).unwrap()).unwrap();
        assert_eq!((read.findings.len(), read.left_off), (64, 936));
    }

    #[test]
    fn a_newer_peers_fields_are_ignored() {
        let text = br#"{"findings":[],"clock_ms":3,"weather":"fine"}"#;
        assert_eq!(ValidationReport::decode(text).unwrap().clock_ms, 3);
    }
}
