//! What a client of each role may ask an agent for. The owner of the socket may do everything.
//!
//! This is the table in `docs/cli.md`; a test compares them.

use gossipmonger::tls::Role;

use super::admin::Request;

/// What a request needs if it comes from another machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Needs {
    /// A client of this role, or of a role that includes it.
    Role(Role),
    /// The socket: no client may do it, since it would make clients members.
    Socket,
}

/// A request's name, and what it needs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rule {
    pub(crate) name: &'static str,
    pub(crate) needs: Needs,
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Forbidden {
    /// The role does not suffice.
    #[error("role {role} may not {name}; needs {needed}")]
    Role { role: Role, name: &'static str, needed: Role },
    /// No role suffices.
    #[error("{name} is not for clients: run it on the agent's own machine, with --dir")]
    Socket { name: &'static str },
}

impl Request {
    /// The whole table. A new kind of request does not compile until it has its row.
    pub(crate) const fn rule(&self) -> Rule {
        let (name, needs) = match self {
            Self::Get { .. } => ("get", Needs::Role(Role::Read)),
            Self::List { .. } => ("list", Needs::Role(Role::Read)),
            Self::Members => ("members", Needs::Role(Role::Read)),
            Self::Services => ("services", Needs::Role(Role::Read)),
            Self::Callers { .. } => ("callers", Needs::Role(Role::Read)),
            Self::WhyService { .. } => ("why_service", Needs::Role(Role::Read)),
            Self::Call { .. } => ("call", Needs::Role(Role::Admin)),
            Self::Why { .. } => ("why", Needs::Role(Role::Read)),
            Self::Paths => ("paths", Needs::Role(Role::Read)),
            Self::Rtt { .. } => ("rtt", Needs::Role(Role::Read)),
            Self::Reachability => ("reachability", Needs::Role(Role::Read)),
            Self::Copies { .. } => ("copies", Needs::Role(Role::Read)),
            Self::Probe { .. } => ("probe", Needs::Role(Role::Admin)),
            Self::Monitor { .. } => ("monitor", Needs::Role(Role::Admin)),
            Self::LogTail => ("log_tail", Needs::Role(Role::Admin)),
            Self::Config => ("config", Needs::Role(Role::Admin)),
            Self::Info => ("info", Needs::Role(Role::Read)),
            Self::Tags => ("tags", Needs::Role(Role::Read)),
            Self::Revocations => ("revocations", Needs::Role(Role::Read)),
            Self::Watch { .. } => ("watch", Needs::Role(Role::Watch)),
            Self::Events { .. } => ("events", Needs::Role(Role::Watch)),
            Self::Keys { .. } => ("keys", Needs::Role(Role::Read)),
            Self::Behind => ("behind", Needs::Role(Role::Read)),
            Self::Set { .. } => ("set", Needs::Role(Role::Admin)),
            Self::Await { .. } => ("await", Needs::Role(Role::Read)),
            Self::Event { .. } => ("event", Needs::Role(Role::Admin)),
            Self::Query { .. } => ("query", Needs::Role(Role::Admin)),
            Self::Delete { .. } => ("delete", Needs::Role(Role::Admin)),
            Self::ChangeTags { .. } => ("change_tags", Needs::Role(Role::Admin)),
            Self::Maintain { .. } => ("maintain", Needs::Role(Role::Admin)),
            Self::Remove { .. } => ("remove", Needs::Role(Role::Admin)),
            Self::Revoke { .. } => ("revoke", Needs::Role(Role::Admin)),
            Self::Reload => ("reload", Needs::Role(Role::Admin)),
            Self::CreateToken { .. } => ("create_token", Needs::Socket),
            Self::Tokens => ("tokens", Needs::Socket),
            Self::RevokeToken { .. } => ("revoke_token", Needs::Socket),
            Self::Renew => ("renew", Needs::Socket),
            Self::Leave => ("leave", Needs::Role(Role::Admin)),
        };
        Rule { name, needs }
    }
}

impl Rule {
    /// Whether a client of this role may make this request.
    pub(crate) fn permits(self, role: Role) -> Result<(), Forbidden> {
        let name = self.name;
        match self.needs {
            Needs::Role(needed) if role.permits(needed) => Ok(()),
            Needs::Role(needed) => Err(Forbidden::Role { role, name, needed }),
            Needs::Socket => Err(Forbidden::Socket { name }),
        }
    }

    /// Whether the request changes something: then the log names the client.
    pub(crate) fn changes(self) -> bool {
        !matches!(self.needs, Needs::Role(Role::Read | Role::Watch))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;

    #[test]
    fn the_documented_table_is_the_one_in_force() {
        let documented = documented();
        let names: Vec<_> = documented.keys().cloned().collect();
        assert_eq!(names, all_names(), "docs/cli.md has another set of requests");
        for (name, needs) in documented {
            let rule = request(&name).rule();
            assert_eq!(rule.name, name);
            let needed = match rule.needs {
                Needs::Role(role) => role.as_str(),
                Needs::Socket => "socket",
            };
            assert_eq!(needed, needs, "{name}");
        }
    }

    #[test]
    fn says_which_role_is_missing() {
        let rule = Request::Delete { key: "k".to_owned() }.rule();
        let refused = rule.permits(Role::Read).unwrap_err().to_string();
        assert_eq!(refused, "role read may not delete; needs admin");
        assert!(rule.changes() && rule.permits(Role::Admin).is_ok());
        // A token makes its holder a node, and a client must not become one.
        let refused = request("create_token").rule().permits(Role::Admin).unwrap_err();
        assert!(refused.to_string().starts_with("create_token is not for clients"), "{refused}");
    }

    /// The rows of the form "| `name` | ... | role |" below the heading.
    fn documented() -> BTreeMap<String, String> {
        let docs = include_str!("../../docs/cli.md");
        let (_, table) = docs.split_once("| request |").expect("docs/cli.md has the table");
        let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
        rows.map(|row| {
            let cells: Vec<_> = row.trim_matches('|').split('|').map(str::trim).collect();
            (cells[0].trim_matches('`').to_owned(), cells[cells.len() - 1].to_owned())
        })
        .collect()
    }

    /// The names of all requests, taken from the list in the parser's error.
    pub(crate) fn all_names() -> Vec<String> {
        let error = serde_json::from_value::<Request>(json!({"do": "?"})).unwrap_err().to_string();
        let mut names: Vec<_> = error.split('`').skip(3).step_by(2).map(str::to_owned).collect();
        assert!(names.len() > 10, "{error}");
        names.sort();
        names
    }

    /// A request of this name, in the form that is sent.
    pub(crate) fn request(name: &str) -> Request {
        let request = match name {
            "set" => json!({"do": name, "key": "k", "value": "v"}),
            "maintain" => json!({"do": name, "on": true}),
            "monitor" => json!({"do": name, "level": "debug"}),
            "await" => json!({"do": name, "version": 1, "wait": "all", "within_ms": 1}),
            "event" | "query" => json!({"do": name, "name": "n", "value": ""}),
            "keys" | "copies" => json!({"do": name, "prefix": ""}),
            "probe" => json!({"do": name, "node": "n", "calls": 1, "bytes": 1}),
            "delete" => json!({"do": name, "key": "k"}),
            "get" => json!({"do": name, "node": "n", "key": "k"}),
            "list" => json!({"do": name, "node": "n", "prefix": ""}),
            "watch" => json!({"do": name, "prefix": "", "existing": false}),
            "events" => json!({"do": name, "protocol": false}),
            "change_tags" => json!({"do": name, "set": {}, "delete": []}),
            "create_token" => json!({"do": name, "ttl_ms": 1_000, "uses": 1}),
            "revoke_token" => json!({"do": name, "id": "x"}),
            "why_service" => json!({"do": name, "service": "s/1"}),
            "call" => json!({
                "do": name, "node": "n", "service": "s/1", "method": 1, "value": "", "within_ms": 1
            }),
            "why" | "rtt" | "remove" | "revoke" => json!({"do": name, "node": "n"}),
            _ => json!({"do": name}),
        };
        serde_json::from_value(request).unwrap_or_else(|error| panic!("{name}: {error}"))
    }
}
