//! Identifiers of events, as arguments.

use crate::control::schema::EventDetail;

/// Parses an event's identifier; an unknown one is refused with the list of all.
pub(super) fn parse_event_id(text: &str) -> Result<String, String> {
    let probe = serde_json::json!({ "event": text });
    match serde_json::from_value::<EventDetail>(probe) {
        Err(error) if error.to_string().starts_with("unknown variant") => {
            Err(error.to_string().replacen("variant", "event", 1))
        }
        Ok(_) | Err(_) => Ok(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_id_is_one_of_json() {
        let detail = EventDetail::Stalled { length_ms: 7 };
        assert_eq!(detail.event_id(), "stalled");
        assert_eq!(parse_event_id("stalled"), Ok("stalled".to_owned()));
        assert_eq!(parse_event_id("reconfigured"), Ok("reconfigured".to_owned()));
        let error = parse_event_id("stall").expect_err("no event");
        assert!(error.contains("unknown event `stall`") && error.contains("`moved`"), "{error}");
    }
}
