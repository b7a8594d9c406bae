//! The HTTP interface of an agent: which request is which route.
//!
//! [`ROUTES`] is the only list. The agent finds a [`Request`] by it, the program makes the HTTP request of a [`Request`]
//! by it, and the [OpenAPI document](openapi) is made of it. The fields of a request that are not part of the path are in
//! the query of a `GET` or `DELETE`, and in the body of the others, as a JSON object. Values of `GET` and `DELETE` are
//! text; [`Kind`] says what becomes of it.

pub(crate) mod openapi;
mod path;

use http::Method;
use serde_json::{Map, Value};

use self::path::Found;
pub(crate) use self::path::{decoded, encoded};
use super::{
    admin::{Line, Request, VERSION},
    error::CliError,
};

/// A route.
#[derive(Debug)]
pub(crate) struct Route {
    /// The name of the request, as in `"do"`.
    pub(crate) name: &'static str,
    pub(crate) method: Method,
    /// `{name}` is one segment, `{*name}` all that are left.
    pub(crate) path: &'static str,
    pub(crate) fields: &'static [Field],
    pub(crate) answer: Shape,
    pub(crate) summary: &'static str,
}

/// A field of a request.
#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) needed: bool,
    pub(crate) about: &'static str,
}

/// The type of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    Number,
    Flag,
    /// An object of texts.
    Texts,
    /// A list of texts.
    List,
    /// The value of a key: `value` if it is UTF-8, otherwise `base64`. As a body of another type than
    /// `application/json` it is the body itself.
    Value,
}

/// What an answer looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// A JSON object.
    One,
    /// A JSON array of objects.
    List,
    /// Server-sent events, each with a JSON object, until the reader or the node ends.
    Stream,
}

/// All routes.
pub(crate) static ROUTES: &[Route] = &[
    get("info", "/v1/info", &[], Shape::One, "What this agent is and has counted"),
    get(
        "members",
        "/v1/members",
        &[],
        Shape::List,
        "The nodes of the cluster, as this agent sees them",
    ),
    get(
        "why",
        "/v1/members/{node}/why",
        &[NODE],
        Shape::One,
        "Why a node is in its state, with the evidence",
    ),
    delete(
        "remove",
        "/v1/members/{node}",
        &[NODE],
        "Forget a dead, departed or unreachable node, everywhere",
    ),
    get(
        "list",
        "/v1/members/{node}/keys",
        &[NODE, text("prefix", "Only keys that begin with it")],
        Shape::List,
        "The keys that a node publishes",
    ),
    get("get", "/v1/members/{node}/keys/{*key}", &[NODE, KEY], Shape::One, "A key of a node"),
    Route {
        name: "set",
        method: Method::PUT,
        path: "/v1/keys/{*key}",
        fields: &[
            KEY,
            VALUE,
            Field {
                needed: false,
                ..number("ttl_ms", "Milliseconds after which the key is deleted; also in the query")
            },
        ],
        answer: Shape::One,
        summary: "Set a key of this node",
    },
    delete("delete", "/v1/keys/{*key}", &[KEY], "Delete a key of this node"),
    get(
        "keys",
        "/v1/keys",
        &[text("node", "Only those of this node"), text("prefix", "Only keys that begin with it")],
        Shape::List,
        "The keys of all nodes, without their values",
    ),
    get("behind", "/v1/behind", &[], Shape::List, "Which nodes lack versions of this node"),
    get(
        "await",
        "/v1/await",
        &[
            number("version", "The version of this node that is waited for"),
            Field { needed: true, ..text("wait", "quorum, all or a number of nodes") },
            number("within_ms", "How long to wait"),
        ],
        Shape::One,
        "Wait until so many nodes have a version of this node",
    ),
    post_list("event", "/v1/event", &[NAME, VALUE], "Send an event to all agents"),
    post_list(
        "query",
        "/v1/query",
        &[NAME, VALUE],
        "Send a query to all agents, and gather their answers",
    ),
    get(
        "paths",
        "/v1/paths",
        &[],
        Shape::List,
        "The connections of this node, with round trips and loss",
    ),
    get("rtt", "/v1/members/{node}/rtt", &[NODE], Shape::One, "The round trip to a node"),
    get(
        "reachability",
        "/v1/reachability",
        &[],
        Shape::List,
        "Which node hears which, as all members say",
    ),
    post(
        "probe",
        "/v1/members/{node}/probe",
        &[NODE, number("calls", "How many calls"), number("bytes", "The bytes of each")],
        "Call the agent of a node, and count at both ends",
    ),
    get(
        "copies",
        "/v1/copies",
        &[text("prefix", "Only keys that begin with it")],
        Shape::List,
        "The copies of this node's keys that all members have",
    ),
    get(
        "config",
        "/v1/config",
        &[],
        Shape::List,
        "The configuration in force, and where each value is from",
    ),
    get(
        "monitor",
        "/v1/monitor",
        &[Field {
            needed: true,
            ..text("level", "What is shown: debug, for example, or directives")
        }],
        Shape::Stream,
        "The log, at a level of its own",
    ),
    get("log_tail", "/v1/log", &[], Shape::List, "The last lines of the log"),
    get("services", "/v1/services", &[], Shape::List, "The services that live nodes offer"),
    get(
        "callers",
        "/v1/callers",
        &[text("service", "NAME/MAJOR; all by default")],
        Shape::List,
        "Who calls the services of this node",
    ),
    get(
        "why_service",
        "/v1/why-service",
        &[Field { needed: true, ..text("service", "NAME/MAJOR") }],
        Shape::List,
        "The providers of a service, and what this node holds of each",
    ),
    post(
        "call",
        "/v1/call",
        &[
            NODE,
            Field { needed: true, ..text("service", "NAME or NAME/MAJOR") },
            number("method", "The number of the method"),
            VALUE,
            number("within_ms", "How long the answer may take"),
        ],
        "Call a method of a service",
    ),
    get(
        "watch",
        "/v1/watch",
        &[
            text("prefix", "Only keys that begin with it"),
            flag("existing", "Begin with the existing keys"),
        ],
        Shape::Stream,
        "Changes of keys, as they arrive",
    ),
    get(
        "events",
        "/v1/events",
        &[
            flag("protocol", "Events of the protocol as well"),
            flag("user", "Only events and queries of operators"),
        ],
        Shape::Stream,
        "All events, as they happen",
    ),
    get("tags", "/v1/tags", &[], Shape::One, "The tags of this node"),
    Route {
        name: "change_tags",
        method: Method::PATCH,
        path: "/v1/tags",
        fields: &[
            Field { name: "set", kind: Kind::Texts, needed: true, about: "Tags to set" },
            Field {
                name: "delete",
                kind: Kind::List,
                needed: true,
                about: "Names of tags to delete",
            },
        ],
        answer: Shape::One,
        summary: "Change tags of this node",
    },
    get("revocations", "/v1/revocations", &[], Shape::List, "The revocations that are in force"),
    post(
        "revoke",
        "/v1/revocations",
        &[
            NODE,
            text("statement", "In hexadecimal; without it the agent signs one, if it is an issuer"),
        ],
        "Revoke the certificates of a node",
    ),
    Route {
        name: "maintain",
        method: Method::PUT,
        path: "/v1/maintenance",
        fields: &[flag("on", "Whether callers are to go to other nodes")],
        answer: Shape::One,
        summary: "Begin or end maintenance of this node",
    },
    post("leave", "/v1/leave", &[], "Take this node out of the cluster for good"),
    post("reload", "/v1/reload", &[], "Read certificate, roots, tags and log level again"),
    post("renew", "/v1/renew", &[], "Renew this node's certificate"),
    get("tokens", "/v1/tokens", &[], Shape::One, "The tokens with which machines may join"),
    post(
        "create_token",
        "/v1/tokens",
        &[
            text("node", "Only this node may join with it"),
            text("datacenter", "Only nodes of this datacenter may"),
            number("ttl_ms", "Milliseconds for which it is valid"),
            number("uses", "How many nodes may join with it"),
        ],
        "Make a token",
    ),
    delete(
        "revoke_token",
        "/v1/tokens/{id}",
        &[Field { needed: true, ..text("id", "The token's id") }],
        "Revoke a token",
    ),
];

const NODE: Field =
    Field { name: "node", kind: Kind::Text, needed: true, about: "The name of a node" };
const KEY: Field =
    Field { name: "key", kind: Kind::Text, needed: true, about: "The key; it may contain slashes" };
const NAME: Field = Field { name: "name", kind: Kind::Text, needed: true, about: "Its name" };
const VALUE: Field = Field {
    name: "value",
    kind: Kind::Value,
    needed: true,
    about: "The value: `value` if it is UTF-8, otherwise `base64`",
};

const fn get(
    name: &'static str,
    path: &'static str,
    fields: &'static [Field],
    answer: Shape,
    summary: &'static str,
) -> Route {
    Route { name, method: Method::GET, path, fields, answer, summary }
}

const fn post(
    name: &'static str,
    path: &'static str,
    fields: &'static [Field],
    summary: &'static str,
) -> Route {
    Route { name, method: Method::POST, path, fields, answer: Shape::One, summary }
}

const fn post_list(
    name: &'static str,
    path: &'static str,
    fields: &'static [Field],
    summary: &'static str,
) -> Route {
    Route { name, method: Method::POST, path, fields, answer: Shape::List, summary }
}

const fn delete(
    name: &'static str,
    path: &'static str,
    fields: &'static [Field],
    summary: &'static str,
) -> Route {
    Route { name, method: Method::DELETE, path, fields, answer: Shape::One, summary }
}

/// A text that may be missing.
const fn text(name: &'static str, about: &'static str) -> Field {
    Field { name, kind: Kind::Text, needed: false, about }
}

const fn number(name: &'static str, about: &'static str) -> Field {
    Field { name, kind: Kind::Number, needed: true, about }
}

/// False by default.
const fn flag(name: &'static str, about: &'static str) -> Field {
    Field { name, kind: Kind::Flag, needed: false, about }
}

/// What a method and a path mean.
#[derive(Debug)]
pub(crate) enum Match {
    /// A route, and the fields in its path.
    Route(&'static Route, Map<String, Value>),
    /// The path has these methods only.
    OtherMethods(Vec<&'static Method>),
    /// No such path.
    Nothing,
}

/// Finds the route of a path, as it was sent.
pub(crate) fn find(method: &Method, path: &str) -> Match {
    let mut others = Vec::new();
    for route in ROUTES {
        match path::matched(route.path, path) {
            Found::No => {}
            Found::Fields(fields) if route.method == *method => return Match::Route(route, fields),
            Found::Fields(_) => others.push(&route.method),
        }
    }
    if others.is_empty() { Match::Nothing } else { Match::OtherMethods(others) }
}

impl Route {
    /// Whether its fields are in the body.
    pub(crate) fn has_body(&self) -> bool {
        matches!(self.method, Method::PUT | Method::POST | Method::PATCH)
    }

    /// The line of the request with these fields: what the agent's other callers send.
    pub(crate) fn line(&self, fields: Map<String, Value>) -> Result<String, CliError> {
        let mut line =
            Map::from_iter([("v".to_owned(), VERSION.into()), ("do".to_owned(), self.name.into())]);
        for field in self.fields.iter().filter(|field| field.kind == Kind::Flag) {
            line.insert(field.name.to_owned(), false.into());
        }
        if ["list", "watch", "keys", "copies"].contains(&self.name) {
            line.insert("prefix".to_owned(), "".into());
        }
        line.extend(fields);
        let mut line = serde_json::to_string(&line).map_err(CliError::failed)?;
        line.push('\n');
        Ok(line)
    }

    /// Adds the fields of a query.
    ///
    /// # Errors
    /// A field that the route does not have, or a value of another type.
    pub(crate) fn read_query(
        &self,
        query: &str,
        fields: &mut Map<String, Value>,
    ) -> Result<(), CliError> {
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, "true"));
            let (name, value) = (decoded(name, true)?, decoded(value, true)?);
            let known = self.fields.iter().find(|field| field.name == name);
            let Some(field) = known.filter(|field| !fields.contains_key(field.name)) else {
                let path = self.path;
                return Err(CliError::usage(format!("{path} has no field {name:?} in its query")));
            };
            fields.insert(name, field.parse(value)?);
        }
        Ok(())
    }

    /// Adds the fields of a JSON body.
    ///
    /// # Errors
    /// It is not a JSON object, or has a field that the route does not have in its body.
    pub(crate) fn read_body(
        &self,
        body: &[u8],
        fields: &mut Map<String, Value>,
    ) -> Result<(), CliError> {
        if body.is_empty() {
            return Ok(());
        }
        let sent: Map<String, Value> = serde_json::from_slice(body)
            .map_err(|error| CliError::usage(format!("the body is not a JSON object: {error}")))?;
        for (name, value) in sent {
            let is =
                |field: &Field| field.name == name || field.kind == Kind::Value && name == BASE64;
            if fields.contains_key(&name) || !self.fields.iter().any(is) {
                let path = self.path;
                return Err(CliError::usage(format!("{path} has no field {name:?} in its body")));
            }
            fields.insert(name, value);
        }
        Ok(())
    }
}

impl Field {
    fn parse(&self, value: String) -> Result<Value, CliError> {
        let name = self.name;
        let wrong = |wanted| CliError::usage(format!("{name} = {value:?} is refused: {wanted}"));
        match self.kind {
            Kind::Text => Ok(value.into()),
            Kind::Number => {
                value.parse::<u64>().map(Value::from).map_err(|_| wrong("a number is wanted"))
            }
            Kind::Flag => match &*value {
                "true" | "1" | "" => Ok(true.into()),
                "false" | "0" => Ok(false.into()),
                _ => Err(wrong("true or false is wanted")),
            },
            Kind::Texts | Kind::List | Kind::Value => Err(wrong("it belongs into the body")),
        }
    }
}

/// An HTTP request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Made {
    pub(crate) method: Method,
    /// Path and query.
    pub(crate) target: String,
    /// A JSON object, or nothing.
    pub(crate) body: String,
    pub(crate) answer: Shape,
}

/// The HTTP request of a request.
pub(crate) fn make(request: Request) -> Result<Made, CliError> {
    let line = serde_json::to_value(Line { v: VERSION, request }).map_err(CliError::failed)?;
    let Value::Object(mut fields) = line else { return Err(CliError::failed("no object")) };
    fields.remove("v");
    let name = fields.remove("do");
    let route = ROUTES.iter().find(|route| name.as_ref().is_some_and(|name| name == route.name));
    let route = route.ok_or_else(|| CliError::failed("the request has no route"))?;
    fields.retain(|_, value| !value.is_null());
    let mut target = path::filled(route.path, &mut fields);
    let mut body = String::new();
    if route.has_body() {
        body = serde_json::to_string(&fields).map_err(CliError::failed)?;
    } else {
        for (n, (name, value)) in fields.iter().enumerate() {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let before = if n == 0 { '?' } else { '&' };
            target.push_str(&format!("{before}{name}={}", encoded(&value)));
        }
    }
    Ok(Made { method: route.method.clone(), target, body, answer: route.answer })
}

/// The name of a [`Kind::Value`] that is not UTF-8.
pub(crate) const BASE64: &str = "base64";

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::json;

    use super::*;
    use crate::access::tests::{all_names, request};

    #[test]
    fn each_request_has_a_route_and_each_route_is_one() {
        let mut routed: Vec<_> = ROUTES.iter().map(|route| route.name.to_owned()).collect();
        routed.sort();
        assert_eq!(routed, all_names());
        let ways: BTreeSet<_> =
            ROUTES.iter().map(|route| (route.path, route.method.as_str())).collect();
        assert_eq!(ways.len(), ROUTES.len());
    }

    #[test]
    fn what_the_program_makes_is_what_the_agent_finds() {
        for name in all_names() {
            let line = serde_json::to_value(request(&name)).unwrap();
            let made = make(request(&name)).unwrap();
            let (path, query) = made.target.split_once('?').unwrap_or((&made.target, ""));
            let Match::Route(route, mut fields) = find(&made.method, path) else {
                panic!("{name}: {made:?}")
            };
            assert_eq!((route.name, route.answer), (&*name, made.answer));
            route.read_query(query, &mut fields).unwrap();
            route.read_body(made.body.as_bytes(), &mut fields).unwrap();
            let found: Line = serde_json::from_str(&route.line(fields).unwrap()).unwrap();
            assert_eq!(serde_json::to_value(&found.request).unwrap(), line, "{name}");
        }
    }

    #[test]
    fn keys_and_names_may_contain_anything() {
        let key = "svc/a b/ü?&=#%2F\n";
        let made = make(Request::Get { node: "n".parse().unwrap(), key: key.to_owned() }).unwrap();
        assert!(made.target.is_ascii() && !made.target.contains([' ', '?', '#']), "{made:?}");
        let Match::Route(_, fields) = find(&made.method, &made.target) else { panic!("{made:?}") };
        assert_eq!(Value::Object(fields), json!({"node": "n", "key": key}));
    }

    #[test]
    fn a_path_with_other_methods_names_them() {
        let Match::OtherMethods(methods) = find(&Method::POST, "/v1/tags") else { panic!() };
        assert_eq!(methods, [&Method::GET, &Method::PATCH]);
        assert!(matches!(find(&Method::GET, "/v1/nothing"), Match::Nothing));
        assert!(matches!(find(&Method::GET, "/v1/members//keys"), Match::Nothing));
    }

    #[test]
    fn refuses_fields_that_it_does_not_have() {
        let Match::Route(route, mut fields) = find(&Method::PUT, "/v1/keys/a") else { panic!() };
        assert!(route.read_query("ttl_ms=x", &mut fields).is_err());
        assert!(route.read_query("node=b", &mut fields).is_err());
        assert!(route.read_query("key=b", &mut fields).is_err());
        assert!(route.read_body(br#"{"do":"leave"}"#, &mut fields).is_err());
        assert!(route.read_body(b"[]", &mut fields).is_err());
        route.read_body(br#"{"base64":"AA=="}"#, &mut fields).unwrap();
        assert_eq!(fields.len(), 2);
    }
}
