//! Real answers against docs/openapi.json: every answer that a test of this folder gets is checked.

use std::{collections::BTreeSet, fs, sync::LazyLock};

use super::*;

static DOCUMENT: LazyLock<Value> = LazyLock::new(|| {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/openapi.json");
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
});

/// Names of an object's keys that a schema knows.
type KnownKeys = BTreeSet<String>;

/// Asserts that an answer, and the request's body if it was accepted, are as the document says.
pub(super) fn assert_documented(
    method: &str,
    target: &str,
    (body, code): (&str, u16),
    answer: &Value,
) {
    let operation = find_operation(method, target);
    let checked = match operation {
        // The answers to a wrong path and to a wrong method are in no operation.
        None => {
            assert!([403, 404, 405].contains(&code), "{method} {target} is not documented: {code}");
            check_whole(&failed_schema(), answer)
        }
        Some(operation) if code == 200 => {
            if let Some(schema) = json_schema_of(&operation["requestBody"]) {
                let body: Value = serde_json::from_str(body).unwrap();
                check_whole(schema, &body)
                    .unwrap_or_else(|error| panic!("{target} {body}: {error}"));
            }
            check_whole(json_schema_of(&operation["responses"]["200"]).unwrap(), answer)
        }
        Some(_) => check_whole(&failed_schema(), answer),
    };
    checked.unwrap_or_else(|error| panic!("{method} {target} {code}: {error}\n{answer:#}"));
}

/// Asserts that a line of a stream of events is as the document says.
fn assert_documented_line(line: &Value) {
    let content = &DOCUMENT["paths"]["/v1/events"]["get"]["responses"]["200"]["content"];
    let schema = &content["application/x-ndjson"]["schema"];
    check_whole(schema, line).unwrap_or_else(|error| panic!("{error}\n{line:#}"));
}

fn json_schema_of(body: &Value) -> Option<&Value> {
    body["content"].get("application/json").map(|content| &content["schema"])
}

fn failed_schema() -> Value {
    let failed = &DOCUMENT["components"]["responses"]["Failed"];
    json_schema_of(failed).unwrap().clone()
}

fn find_operation(method: &str, target: &str) -> Option<&'static Value> {
    let path = target.split('?').next().unwrap();
    let is_same = |template: &str| {
        template.split('/').count() == path.split('/').count()
            && template.split('/').zip(path.split('/')).all(|(t, p)| t.starts_with('{') || t == p)
    };
    let paths = DOCUMENT["paths"].as_object().unwrap();
    let (_, operations) = paths.iter().find(|(template, _)| is_same(template))?;
    operations.get(method.to_ascii_lowercase())
}

/// Checks a value, and that the schema knows every key of it.
fn check_whole(schema: &Value, value: &Value) -> Result<(), String> {
    let known = check_value(schema, value)?;
    let unknown = value.as_object().into_iter().flatten().find(|(key, _)| !known.contains(*key));
    match unknown {
        Some((key, _)) => Err(format!("`{key}` is not documented")),
        None => Ok(()),
    }
}

/// Checks a value against the part of JSON Schema that the document uses; returns the keys that
/// the schema knows.
fn check_value(schema: &Value, value: &Value) -> Result<KnownKeys, String> {
    let mut known = KnownKeys::new();
    let Some(schema) = schema.as_object() else {
        assert_eq!(schema, true, "a schema is an object or true");
        return Ok(value.as_object().into_iter().flatten().map(|(key, _)| key.clone()).collect());
    };
    for (word, rule) in schema {
        match (word.as_str(), value) {
            ("$ref", _) => {
                let pointer = rule.as_str().unwrap().strip_prefix('#').unwrap();
                known.extend(check_value(DOCUMENT.pointer(pointer).unwrap(), value)?);
            }
            ("allOf", _) => {
                for part in rule.as_array().unwrap() {
                    known.extend(check_value(part, value)?);
                }
            }
            ("anyOf" | "oneOf", _) => {
                let found = rule.as_array().unwrap().iter().map(|part| check_value(part, value));
                let (passed, failed): (Vec<_>, Vec<_>) = found.partition(Result::is_ok);
                if passed.is_empty() {
                    return Err(format!("no alternative holds: {failed:?}"));
                }
                known.extend(passed.into_iter().flatten().flatten());
            }
            ("type", _) => check_type(rule, value)?,
            ("const", _) if rule != value => return Err(format!("{value} is not {rule}")),
            ("enum", _) if !rule.as_array().unwrap().contains(value) => {
                return Err(format!("{value} is none of {rule}"));
            }
            ("minimum", Value::Number(number)) if number.as_f64() < rule.as_f64() => {
                return Err(format!("{value} is below {rule}"));
            }
            ("maximum", Value::Number(number)) if number.as_f64() > rule.as_f64() => {
                return Err(format!("{value} is above {rule}"));
            }
            ("required", Value::Object(object)) => {
                let mut names = rule.as_array().unwrap().iter().map(|name| name.as_str().unwrap());
                if let Some(name) = names.find(|name| !object.contains_key(*name)) {
                    return Err(format!("`{name}` is missing"));
                }
            }
            ("properties", Value::Object(object)) => {
                for (name, below) in rule.as_object().unwrap() {
                    known.insert(name.clone());
                    if let Some(value) = object.get(name) {
                        check_whole(below, value).map_err(|error| format!("{name}: {error}"))?;
                    }
                }
            }
            ("additionalProperties", Value::Object(object)) if rule != false => {
                let properties = schema.get("properties");
                for (name, value) in object {
                    if properties.is_none_or(|properties| properties.get(name).is_none()) {
                        check_whole(rule, value).map_err(|error| format!("{name}: {error}"))?;
                        known.insert(name.clone());
                    }
                }
            }
            ("items", Value::Array(items)) => {
                for (place, item) in items.iter().enumerate() {
                    check_whole(rule, item).map_err(|error| format!("{place}: {error}"))?;
                }
            }
            ("minItems", Value::Array(items)) if (items.len() as u64) < rule.as_u64().unwrap() => {
                return Err(format!("{value} has fewer than {rule} items"));
            }
            ("maxItems", Value::Array(items)) if items.len() as u64 > rule.as_u64().unwrap() => {
                return Err(format!("{value} has more than {rule} items"));
            }
            // Rules for values of another type, and what is no rule.
            ("const" | "enum" | "minimum" | "maximum" | "required" | "properties", _)
            | ("additionalProperties" | "items" | "minItems" | "maxItems", _)
            | ("description" | "format" | "title" | "default", _) => {}
            (other, _) => panic!("the document uses `{other}`, which is not checked here"),
        }
    }
    Ok(known)
}

fn check_type(rule: &Value, value: &Value) -> Result<(), String> {
    let is_of = |name: &Value| match name.as_str().unwrap() {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("a type {other}"),
    };
    let holds = rule.as_array().map_or_else(|| is_of(rule), |names| names.iter().any(is_of));
    if holds { Ok(()) } else { Err(format!("{value} is no {rule}")) }
}

#[test]
fn every_get_request_is_answered_as_documented() {
    let daemon = Daemon::new(screens::busy());
    daemon.journal.push("2026-01-01T00:00:00.000Z".to_owned(), answers::added("b"));
    let mut asked = 0;
    for (path, operations) in DOCUMENT["paths"].as_object().unwrap() {
        // The metrics are text, and this node is in no cluster.
        if operations.get("get").is_some() && !["/metrics", "/v1/cluster"].contains(&path.as_str())
        {
            let peer = daemon.node.snapshot.lock().unwrap().peers[0].name.clone();
            let mut target = path.replace("{id}", "1").replace("{name}", &peer);
            if target == "/v1/why" {
                target += "?event=1";
            }
            let (code, answer) = daemon.ask("GET", &target, "");
            assert_eq!(code, 200, "{target}: {answer}");
            asked += 1;
        }
    }
    assert!(asked > 7, "{asked}");
    let (_, text) = daemon.raw(b"GET /v1/events?follow=false HTTP/1.0\r\n\r\n");
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap()["events"][0]["seq"], 1);
}

/// One event of each kind, as the stream has them.
#[test]
fn the_document_has_every_event_and_refuses_others() {
    let line = |mut event: Value| {
        event["schema"] = 2.into();
        event["seq"] = 1.into();
        event["at"] = "2026-01-01T00:00:00.000Z".into();
        event
    };
    assert_documented_line(&line(json!({"event": "stalled", "length_ms": 7})));
    assert_documented_line(&line(json!({"event": "reconfigured"})));
    let mut added = line(serde_json::to_value(answers::added("b")).unwrap());
    assert_documented_line(&added);
    let content = &DOCUMENT["paths"]["/v1/events"]["get"]["responses"]["200"]["content"];
    let schema = &content["application/x-ndjson"]["schema"];
    for (event, word) in [
        (json!({"event": "stalled"}), "length_ms"),
        (json!({"event": "no-such-event"}), "no alternative"),
        (json!({"event": "stalled", "length_ms": "7"}), "no alternative"),
        (json!({"event": "stalled", "length_ms": 7, "color": 1}), "`color` is not documented"),
    ] {
        let error = check_whole(schema, &line(event)).unwrap_err();
        assert!(error.contains(word), "{error}");
    }
    added["transport"] = "pigeon".into();
    assert!(check_whole(schema, &added).unwrap_err().contains("pigeon"));
    added["transport"] = "udp".into();
    added.as_object_mut().unwrap().remove("schema");
    assert!(check_whole(schema, &added).unwrap_err().contains("schema"));
}
