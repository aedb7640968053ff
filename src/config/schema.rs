//! docs/netft.schema.json, the JSON Schema of netft.toml for editors, generated from the table of
//! keys, and the tests that hold it against the keys' examples.

#![allow(clippy::unwrap_used)]

use std::{env, fs, path::Path};

use netft::config::{
    ChangeEffect, ConfigKey, KeyDefault, KeySyntax, NumberLimits,
    keys::{CONFIG_KEYS, CONFIG_TABLES},
};
use serde_json::{Map, Value, json};

/// The schema of the file.
fn render_schema() -> Value {
    let mut schema = table_schema("", "Configuration of netftd.");
    schema["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    schema["title"] = json!("netft.toml");
    schema
}

/// The schema of one table: its keys, and the tables below it.
fn table_schema(path: &str, doc: &str) -> Value {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for key in CONFIG_KEYS.iter().filter(|key| key.table() == path) {
        properties.insert(key.name().to_owned(), key_schema(key));
        if key.default == KeyDefault::Required {
            required.push(key.name());
        }
    }
    for table in CONFIG_TABLES {
        let (above, name) = table.path.rsplit_once('.').unwrap_or(("", table.path));
        if above != path {
            continue;
        }
        let below = table_schema(table.path, table.doc);
        let below = match table.repeated {
            true => json!({ "type": "array", "description": table.doc, "items": below }),
            false => below,
        };
        properties.insert(name.to_owned(), below);
    }
    if path.is_empty() {
        required.push("node");
    }
    json!({
        "type": "object",
        "description": doc,
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}

fn number_schema(limits: NumberLimits) -> Value {
    let NumberLimits { min, max, .. } = limits;
    json!({ "type": "integer", "minimum": min, "maximum": max })
}

fn key_schema(key: &ConfigKey) -> Value {
    let text = json!({ "type": "string" });
    let list = json!({ "type": "array", "items": text });
    let mut schema = match key.syntax {
        KeySyntax::Number(limits) => number_schema(limits),
        KeySyntax::NumberOrText(limits, _) => json!({ "anyOf": [number_schema(limits), text] }),
        KeySyntax::Choice(words) => json!({ "enum": words }),
        KeySyntax::Text(_) | KeySyntax::SecretFile(_) | KeySyntax::PublicFile(_) => text,
        KeySyntax::TextList(_) | KeySyntax::Command(_) => list,
        KeySyntax::TextOrList(_) => json!({ "anyOf": [text, list] }),
        KeySyntax::Flag => json!({ "type": "boolean" }),
    };
    let restart = match key.effect {
        ChangeEffect::Live => "",
        ChangeEffect::Restart => " A change needs a restart.",
    };
    schema["description"] = json!(format!("{} Value: {}.{restart}", key.doc, key.syntax));
    match key.default {
        KeyDefault::Number(number) => schema["default"] = json!(number),
        KeyDefault::Text(text) => schema["default"] = json!(text),
        KeyDefault::Flag(flag) => schema["default"] = json!(flag),
        KeyDefault::Required | KeyDefault::Described(_) => {}
    }
    schema["examples"] = json!([example_value(key)]);
    schema
}

/// The example of a key, as JSON.
fn example_value(key: &ConfigKey) -> Value {
    let table: toml::Table = toml::from_str(&format!("example = {}", key.example)).unwrap();
    serde_json::to_value(&table["example"]).unwrap()
}

/// Validates the part of JSON Schema that this schema uses.
fn accepts(schema: &Value, value: &Value) -> bool {
    if let Some(words) = schema["enum"].as_array() {
        return words.contains(value);
    }
    if let Some(any) = schema["anyOf"].as_array() {
        return any.iter().any(|one| accepts(one, value));
    }
    match schema["type"].as_str() {
        Some("integer") => value.as_u64().is_some_and(|number| {
            let limit = |name: &str| schema[name].as_u64().unwrap();
            (limit("minimum")..=limit("maximum")).contains(&number)
        }),
        Some("string") => value.is_string(),
        Some("boolean") => value.is_boolean(),
        Some("array") => value
            .as_array()
            .is_some_and(|items| items.iter().all(|item| accepts(&schema["items"], item))),
        Some("object") => value.as_object().is_some_and(|object| {
            let required = schema["required"].as_array().unwrap();
            let is_there = |name: &Value| object.contains_key(name.as_str().unwrap());
            required.iter().all(is_there)
                && object.iter().all(|(name, value)| {
                    schema["properties"].get(name).is_some_and(|below| accepts(below, value))
                })
        }),
        other => panic!("a schema of type {other:?}"),
    }
}

#[test]
fn the_schema_is_the_table_of_keys() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/netft.schema.json");
    let text = serde_json::to_string_pretty(&render_schema()).unwrap() + "\n";
    if env::var_os("NETFT_WRITE_DOCS").is_some() {
        fs::write(&path, &text).unwrap();
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == text,
        "docs/netft.schema.json differs from the table of keys; rewrite it: \
         NETFT_WRITE_DOCS=1 cargo test -p netftd --lib config"
    );
}

#[test]
fn the_schema_takes_every_example_and_refuses_mistakes() {
    for key in CONFIG_KEYS {
        let (schema, example) = (key_schema(key), example_value(key));
        assert!(accepts(&schema, &example), "{}: {example}", key.path);
        assert!(!accepts(&schema, &json!({})), "{}", key.path);
        if let KeySyntax::Number(limits) = key.syntax {
            assert!(!accepts(&schema, &json!(limits.max + 1)), "{}", key.path);
        }
    }
    let schema = render_schema();
    let read = |text: &str| {
        let table: toml::Table = toml::from_str(text).unwrap();
        accepts(&schema, &serde_json::to_value(table).unwrap())
    };
    let node = "[node]\nname = \"a\"\nkey = \"key\"\n";
    assert!(read(&format!("{node}[heartbeat.cross_site]\ndelay = 500\n")));
    assert!(read(&format!(
        "{node}[[peer]]\nname = \"b\"\nkey = \"k\"\n[[peer.class]]\npolicy = \"balance\"\n"
    )));
    assert!(!read("[node]\nname = \"a\"\n"), "a required key is missing");
    assert!(!read(&format!("{node}color = 1\n")), "an unknown key");
    assert!(!read(&format!("{node}[peer]\nname = \"b\"\nkey = \"k\"\n")), "no list of tables");
    assert!(!read(&format!("{node}[[peer]]\nname = \"b\"\nkey = \"k\"\npolicy = \"fast\"\n")));
}
