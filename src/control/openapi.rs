//! docs/openapi.json, the OpenAPI document of the control socket, generated from the types of its
//! answers, and the tests that hold it against the server's routes. tests/cli_control holds real
//! answers against it.

#![allow(clippy::unwrap_used)]

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::Path,
};

use schemars::{
    JsonSchema, Schema, SchemaGenerator,
    generate::{Contract, SchemaSettings},
    transform::RecursiveTransform,
};
use serde_json::{Value, json};

use super::{schema, schema::SCHEMA_VERSION, why::EventExplanation};

/// Schema of a type, by the generator of requests or of answers.
type SchemaSource = fn(&mut SchemaGenerator) -> Schema;

/// Body of a request or an answer.
#[derive(Clone, Copy)]
enum ApiBody {
    /// None.
    Nothing,
    /// One JSON object; an answer has the number of the schema, too.
    Json(SchemaSource),
    /// JSON objects, one a line, if the query asks for it; else one object.
    JsonOrLines(SchemaSource, SchemaSource),
    /// Text of this content type.
    Text(&'static str),
}

/// One request that the control socket answers.
struct ApiRequest {
    method: &'static str,
    path: &'static str,
    /// Summary, in the imperative.
    summary: &'static str,
    /// Parameters of the query: name, JSON type, meaning.
    query: &'static [(&'static str, &'static str, &'static str)],
    body: ApiBody,
    answer: ApiBody,
}

const fn get_request(path: &'static str, summary: &'static str, answer: ApiBody) -> ApiRequest {
    ApiRequest { method: "get", path, summary, query: &[], body: ApiBody::Nothing, answer }
}

const fn post_request(
    path: &'static str,
    summary: &'static str,
    body: ApiBody,
    answer: ApiBody,
) -> ApiRequest {
    ApiRequest { method: "post", path, summary, query: &[], body, answer }
}

const fn json_of<T: JsonSchema>() -> ApiBody {
    ApiBody::Json(SchemaGenerator::subschema_for::<T>)
}

/// Every request, by path.
fn api_requests() -> Vec<ApiRequest> {
    use ApiBody::{JsonOrLines, Nothing, Text};
    let events = JsonOrLines(
        SchemaGenerator::subschema_for::<schema::EventList>,
        SchemaGenerator::subschema_for::<schema::EventView>,
    );
    vec![
        get_request("/metrics", "Show every figure", Text("text/plain; version=0.0.4")),
        get_request("/v1/cluster", "Show the roster", json_of::<schema::ClusterStatus>()),
        post_request(
            "/v1/cluster/invite",
            "Open an invite",
            json_of::<schema::InviteOrder>(),
            json_of::<schema::InviteAnswer>(),
        ),
        post_request(
            "/v1/cluster/key",
            "Have a node store the key that will replace its own",
            json_of::<schema::NextKeyOrder>(),
            json_of::<schema::NextKeyAnswer>(),
        ),
        post_request(
            "/v1/cluster/roster",
            "Go over to a signed roster",
            Text("text/plain"),
            json_of::<schema::ClusterStatus>(),
        ),
        post_request(
            "/v1/drain",
            "Drain a route or an interface, or end its drain",
            json_of::<schema::DrainRequest>(),
            json_of::<schema::DrainResponse>(),
        ),
        get_request(
            "/v1/drill",
            "Show the drill that runs, or the last one",
            json_of::<schema::DrillBody>(),
        ),
        post_request(
            "/v1/drill",
            "Rehearse a failure",
            json_of::<schema::DrillRequest>(),
            json_of::<schema::DrillBody>(),
        ),
        ApiRequest {
            query: &[
                ("after", "integer", "Number of the last event that is known; default: 0."),
                ("follow", "boolean", "Keep sending new events, one a line."),
            ],
            ..get_request("/v1/events", "List the recent events", events)
        },
        get_request("/v1/networks", "List the networks", json_of::<schema::NetworkList>()),
        get_request("/v1/peers", "List the peers", json_of::<schema::PeerList>()),
        get_request("/v1/peers/{name}", "Show a peer", json_of::<schema::PeerBody>()),
        ApiRequest {
            method: "patch",
            ..post_request(
                "/v1/peers/{name}",
                "Change the traffic policies of a peer",
                json_of::<schema::PeerPatch>(),
                json_of::<schema::PeerBody>(),
            )
        },
        ApiRequest {
            query: &[("dry_run", "boolean", "List the changes without applying them.")],
            ..post_request(
                "/v1/reload",
                "Reload the configuration file",
                Nothing,
                json_of::<schema::ReloadResult>(),
            )
        },
        ApiRequest {
            query: &[("part", "string", "Name of the part, such as status or kernel.")],
            ..post_request(
                "/v1/report",
                "Ask the peers for a part of their reports for support",
                Nothing,
                json_of::<schema::PeerReports>(),
            )
        },
        get_request("/v1/routes", "List the routes", json_of::<schema::RouteList>()),
        get_request("/v1/routes/{id}", "Show a route", json_of::<schema::RouteBody>()),
        ApiRequest {
            method: "patch",
            ..post_request(
                "/v1/routes/{id}",
                "Change a route",
                json_of::<schema::RoutePatch>(),
                json_of::<schema::RouteBody>(),
            )
        },
        get_request("/v1/status", "Show this node", json_of::<schema::DaemonStatus>()),
        post_request(
            "/v1/upgrade",
            "Hand the adapter over to a successor",
            json_of::<schema::UpgradeRequest>(),
            json_of::<schema::UpgradeStarted>(),
        ),
        ApiRequest {
            query: &[("local", "boolean", "Ask no peer.")],
            ..post_request(
                "/v1/validate",
                "Probe every path again and ask the peers for their findings",
                Nothing,
                json_of::<schema::PeerValidations>(),
            )
        },
        get_request("/v1/vips", "List the floating addresses", json_of::<schema::VipList>()),
        post_request(
            "/v1/vips/{name}",
            "Order a floating address",
            json_of::<schema::VipOrder>(),
            json_of::<schema::VipOrderDone>(),
        ),
        ApiRequest {
            query: &[
                ("event", "integer", "Number of the event; default: the last move of data."),
                ("route", "integer", "Number of a route: its last move or change."),
            ],
            ..get_request("/v1/why", "Explain an event", json_of::<EventExplanation>())
        },
    ]
}

/// A generator whose types are kept among the document's.
fn answer_generator() -> SchemaGenerator {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
        settings.contract = Contract::Serialize;
    });
    // A default is for readers of an older daemon; this one sends every field.
    let no_default = RecursiveTransform(|schema: &mut Schema| {
        schema.remove("default");
    });
    settings.with_transform(no_default).into_generator()
}

/// A generator of whole schemas: what a request may leave out, an answer has.
fn request_generator() -> SchemaGenerator {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.meta_schema = None;
        settings.inline_subschemas = true;
    });
    settings.into_generator()
}

/// The document.
fn render_document() -> Value {
    let (mut answers, mut bodies) = (answer_generator(), request_generator());
    let mut paths: BTreeMap<&str, Value> = BTreeMap::new();
    for request in api_requests() {
        let operation = render_operation(&request, &mut answers, &mut bodies);
        paths.entry(request.path).or_insert_with(|| json!({}))[request.method] = operation;
    }
    let failed = answers.subschema_for::<schema::ErrorBody>();
    let failed = json_content(versioned(failed));
    let mut schemas = serde_json::to_value(answers.take_definitions(true)).unwrap();
    schemas["Versioned"] = json!({
        "type": "object",
        "description": "The number of the schema: a change of meaning increments it.",
        "properties": { "schema": { "const": SCHEMA_VERSION } },
        "required": ["schema"],
    });
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "netftd",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "HTTP/1.1 and JSON on the control socket of netftd, by default \
                /run/netft/netft0.sock. Answers gain fields: ignore those that you do not know.",
            "license": { "name": "Apache-2.0 OR MIT" },
        },
        "servers": [{ "url": "http://localhost", "description": "The control socket." }],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "responses": {
                "Failed": {
                    "description": "The request failed: 400 it is wrong, 403 this user may not, \
                        404 there is no such thing, 405 no such method, 409 it cannot be done, \
                        503 netftd cannot answer.",
                    "content": failed,
                },
            },
        },
    })
}

fn render_operation(
    request: &ApiRequest,
    answers: &mut SchemaGenerator,
    bodies: &mut SchemaGenerator,
) -> Value {
    let in_path = request.path.split('/').filter_map(|part| {
        let name = part.strip_prefix('{')?.strip_suffix('}')?;
        let kind = if name == "id" { "integer" } else { "string" };
        Some(json!({ "name": name, "in": "path", "required": true, "schema": { "type": kind } }))
    });
    let in_query = request.query.iter().map(|(name, kind, about)| {
        json!({ "name": name, "in": "query", "description": about, "schema": { "type": kind } })
    });
    let content = match request.answer {
        ApiBody::Nothing => json!({}),
        ApiBody::Json(source) => json_content(versioned(source(answers))),
        ApiBody::JsonOrLines(whole, line) => {
            let mut content = json_content(versioned(whole(answers)));
            content["application/x-ndjson"] = json!({ "schema": versioned(line(answers)) });
            content
        }
        ApiBody::Text(kind) => json!({ kind: { "schema": { "type": "string" } } }),
    };
    let mut operation = json!({
        "summary": request.summary,
        "parameters": in_path.chain(in_query).collect::<Vec<_>>(),
        "responses": {
            "200": { "description": "Done.", "content": content },
            "default": { "$ref": "#/components/responses/Failed" },
        },
    });
    match request.body {
        ApiBody::Nothing => {}
        ApiBody::Json(source) | ApiBody::JsonOrLines(source, _) => {
            operation["requestBody"] =
                json!({ "required": true, "content": json_content(source(bodies).to_value()) });
        }
        ApiBody::Text(kind) => {
            let content = json!({ kind: { "schema": { "type": "string" } } });
            operation["requestBody"] = json!({ "required": true, "content": content });
        }
    }
    operation
}

fn json_content(schema: Value) -> Value {
    json!({ "application/json": { "schema": schema } })
}

fn versioned(schema: Schema) -> Value {
    json!({ "allOf": [{ "$ref": "#/components/schemas/Versioned" }, schema] })
}

#[test]
fn the_document_is_that_of_the_types() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/openapi.json");
    let text = serde_json::to_string_pretty(&render_document()).unwrap() + "\n";
    if env::var_os("NETFT_WRITE_DOCS").is_some() {
        fs::write(&path, &text).unwrap();
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == text,
        "docs/openapi.json differs from the types of the answers; rewrite it: \
         NETFT_WRITE_DOCS=1 cargo test -p netftd --lib openapi"
    );
}

/// Methods and paths that the sources of the server route.
fn routed_requests() -> BTreeSet<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/control");
    let below = fs::read_dir(folder.join("server")).unwrap().map(|entry| entry.unwrap().path());
    let mut found = BTreeSet::new();
    for file in below.chain([folder.join("server.rs")]) {
        let source = fs::read_to_string(file).unwrap();
        for route in source.split(".route(\"").skip(1) {
            let (path, rest) = route.split_once('"').unwrap();
            let handlers = rest.lines().next().unwrap();
            for method in ["get", "post", "patch", "put", "delete"] {
                let calls = [format!(" {method}("), format!(".{method}(")];
                if calls.iter().any(|call| handlers.contains(call.as_str())) {
                    found.insert((method.to_owned(), path.to_owned()));
                }
            }
        }
    }
    found
}

#[test]
fn every_request_that_is_routed_is_in_the_document() {
    let listed = api_requests().into_iter();
    let listed: BTreeSet<_> =
        listed.map(|request| (request.method.to_owned(), request.path.to_owned())).collect();
    assert_eq!(listed, routed_requests());
}
