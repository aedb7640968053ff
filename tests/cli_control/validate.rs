//! Findings of the peers, on the control socket.

use netft::{NodeKey, PeerId, api::query::QueryError};
use serde_json::json;

use super::{Daemon, snapshot};

/// A node with two peers, of which the second is too old to be asked.
fn daemon() -> Daemon {
    let mut snapshot = snapshot();
    let mut old = snapshot.peers[0].clone();
    (old.status.peer, old.name, old.key) = (PeerId(1), "old".to_owned(), NodeKey([9; 32]));
    snapshot.peers.push(old);
    Daemon::new(snapshot)
}

#[test]
fn every_peer_is_asked_and_one_that_cannot_be_says_why() {
    let daemon = daemon();
    let finding = json!({ "id": "firewall", "severity": "error", "place": "x\u{1b}[2J",
        "what": "one\ntwo\u{9b}", "remedy": "\u{202e}do" });
    let path = json!({ "real_local": "10.1.0.2:3343", "real_remote": "10.1.0.1:3343",
        "path_mtu": 1400, "path_mtu_limit": 1500, "path_mtu_probing": false });
    let report = json!({ "findings": [finding], "clock_ms": 0, "paths": [path] });
    *daemon.node.says.lock().unwrap() = Ok(report.to_string().into_bytes());

    let (code, answer) = daemon.ask("POST", "/v1/validate", "");
    assert_eq!(code, 200, "{answer}");
    let (b, old) = (&answer["peers"][0], &answer["peers"][1]);
    assert_eq!((&b["peer"], &b["error"]), (&json!("b"), &json!(null)));
    assert_eq!(b["paths"][0], path);
    let said = &b["findings"][0];
    assert_eq!(said["place"], r"x\u{1b}[2J");
    assert_eq!(
        (&said["what"], &said["remedy"]),
        (&json!("one\ntwo\\u{9b}"), &json!(r"\u{202e}do"))
    );
    // Its clock is at 1970.
    assert!(b["clock_skew_ms"].as_i64().unwrap() < -1_000_000_000_000);
    assert_eq!((&old["peer"], &old["findings"]), (&json!("old"), &json!([])));
    assert!(old["error"].as_str().unwrap().contains("too old"), "{old}");
}

#[test]
fn nonsense_silence_and_local_are_answers_too() {
    let daemon = daemon();
    let error = |daemon: &Daemon| {
        let (code, answer) = daemon.ask("POST", "/v1/validate?local=false", "");
        assert_eq!(code, 200);
        answer["peers"][0]["error"].as_str().unwrap().to_owned()
    };
    assert!(error(&daemon).contains("within 4 s"));
    *daemon.node.says.lock().unwrap() = Ok(b"{\"findings\":7,\"\x1b\":1}".to_vec());
    let said = error(&daemon);
    assert!(said.contains("malformed") && !said.contains(char::is_control), "{said}");
    *daemon.node.says.lock().unwrap() = Err(QueryError::NoSession);
    assert!(error(&daemon).contains("no session"));

    let (code, answer) = daemon.ask("POST", "/v1/validate?local=true", "");
    assert_eq!((code, &answer["peers"]), (200, &json!([])));
    assert_eq!(daemon.ask("POST", "/v1/validate?local=maybe", "").0, 400);
    assert_eq!(daemon.ask("POST", "/v1/validate?remote=true", "").0, 400);
    assert_eq!(daemon.ask("GET", "/v1/validate", "").0, 405);
}
