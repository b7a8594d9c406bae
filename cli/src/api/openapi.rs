//! The OpenAPI document of the HTTP interface, made of the table of routes.

use serde_json::{Map, Value, json};

use super::{Field, Kind, ROUTES, Route, Shape};

/// The document, as JSON.
pub(crate) fn document() -> String {
    let mut paths: Map<String, Value> = Map::new();
    for route in ROUTES {
        let path = route.path.replace("{*", "{");
        let method = route.method.as_str().to_ascii_lowercase();
        let methods = paths.entry(path).or_insert_with(|| json!({}));
        methods[method] = operation(route);
    }
    for (path, summary) in OPEN {
        let answers = json!({"200": {"description": "yes"}, "503": {"description": "no"}});
        paths.insert(
            path.into(),
            json!({"get": {
                "summary": summary, "operationId": path[1..], "security": [], "responses": answers,
            }}),
        );
    }
    paths.insert("/metrics".into(), json!({"get": {
        "summary": "The metrics, in the text format of Prometheus",
        "operationId": "metrics",
        "responses": {"200": {"description": "the metrics", "content": {"text/plain": {"schema": {"type": "string"}}}}},
    }}));
    let document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "gossipmonger",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "The HTTP interface of an agent. docs/http.md describes it, docs/cli.md the objects.",
            "license": {"name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0"},
        },
        "servers": [{"url": "/", "description": "This agent"}],
        "security": [{"token": []}, {"certificate": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "certificate": {"type": "mutualTLS"},
            },
            "schemas": {"Error": {
                "type": "object",
                "required": ["error"],
                "properties": {"error": {
                    "type": "object",
                    "required": ["code", "message"],
                    "properties": {
                        "code": {"enum": ["failed", "usage", "not_found", "forbidden", "credentials"]},
                        "message": {"type": "string"},
                    },
                }},
            }},
        },
    });
    format!("{document:#}\n")
}

/// The probes.
const OPEN: [(&str, &str); 2] = [
    ("/livez", "Whether the node runs"),
    ("/readyz", "Whether the node has met the cluster, stores writes and has a valid certificate"),
];

fn operation(route: &Route) -> Value {
    let in_path = |field: &&Field| {
        ["{", "{*"].iter().any(|open| route.path.contains(&format!("{open}{}}}", field.name)))
    };
    let others: Vec<_> = route.fields.iter().filter(|field| !in_path(field)).collect();
    let mut parameters: Vec<_> =
        route.fields.iter().filter(in_path).map(|field| parameter(field, "path", true)).collect();
    let mut operation = json!({
        "summary": route.summary,
        "operationId": route.name,
        "responses": {
            "200": {"description": "done", "content": answer(route.answer)},
            "default": {
                "description": "refused or failed",
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
            },
        },
    });
    if route.has_body() {
        let needed: Vec<_> = others
            .iter()
            .filter(|field| field.needed && field.kind != Kind::Value)
            .map(|field| field.name)
            .collect();
        let mut properties = Map::new();
        for field in &others {
            properties.insert(field.name.to_owned(), schema(field));
            if field.kind == Kind::Value {
                let base64 = json!({"type": "string", "contentEncoding": "base64"});
                properties.insert(super::BASE64.to_owned(), base64);
            }
        }
        let object = json!({"type": "object", "required": needed, "properties": properties});
        let mut content = json!({"application/json": {"schema": object}});
        if route.name == "set" {
            content["application/octet-stream"] = json!({"schema": {}});
            parameters.extend(
                others
                    .iter()
                    .filter(|f| f.kind != Kind::Value)
                    .map(|f| parameter(f, "query", false)),
            );
        }
        if !others.is_empty() {
            operation["requestBody"] = json!({"required": true, "content": content});
        }
    } else {
        parameters.extend(others.iter().map(|field| parameter(field, "query", field.needed)));
    }
    operation["parameters"] = parameters.into();
    operation
}

fn parameter(field: &Field, place: &str, required: bool) -> Value {
    json!({
        "name": field.name,
        "in": place,
        "required": required,
        "description": field.about,
        "schema": schema(field),
    })
}

fn schema(field: &Field) -> Value {
    let mut schema = match field.kind {
        Kind::Text | Kind::Value => json!({"type": "string"}),
        Kind::Number => json!({"type": "integer", "minimum": 0}),
        Kind::Flag => json!({"type": "boolean", "default": false}),
        Kind::Texts => json!({"type": "object", "additionalProperties": {"type": "string"}}),
        Kind::List => json!({"type": "array", "items": {"type": "string"}}),
    };
    schema["description"] = field.about.into();
    schema
}

fn answer(shape: Shape) -> Value {
    let object = json!({"type": "object"});
    match shape {
        Shape::One => json!({"application/json": {"schema": object}}),
        Shape::List => json!({"application/json": {"schema": {"type": "array", "items": object}}}),
        Shape::Stream => json!({"text/event-stream": {"schema": {"type": "string"}}}),
    }
}
