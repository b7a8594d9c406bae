//! `docs/configuration.md` is made from the code: the keys and their meaning from the structs, the defaults from a
//! configuration, the ranges from its checks. To renew it: `DOCS=update cargo test --test reference`.

use std::{env, fmt::Write, fs, path::PathBuf};

use configuration::{Key, Reference};

mod configuration;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_reference_of_the_configuration_is_that_of_the_code() {
    let path = root().join("docs/configuration.md");
    let now = page(&Reference::read(&root()));
    if env::var("DOCS").is_ok_and(|mode| mode == "update") {
        fs::write(path, now).unwrap();
        return;
    }
    let before = fs::read_to_string(path).unwrap_or_default();
    let wrong = before.lines().zip(now.lines()).find(|(before, now)| before != now);
    assert!(
        before == now,
        "docs/configuration.md is not that of the code; renew it with: DOCS=update cargo test --test reference\n{wrong:?}"
    );
}

#[test]
fn each_key_has_a_type_and_a_meaning() {
    let reference = Reference::read(&root());
    let keys: Vec<_> = reference.sections.iter().flat_map(|(_, keys)| keys).collect();
    assert!(keys.len() > 60, "only {} keys are found", keys.len());
    for Key { name, kind, meaning, .. } in &keys {
        assert!(
            !kind.is_empty() && meaning.len() > 10 && !meaning.contains("[`"),
            "{name}: {kind}: {meaning}"
        );
    }
    // A limit without a stated range would be one that nobody checks.
    for Key { name, kind, allowed, .. } in &keys {
        let bounded = matches!(kind.as_str(), "number" | "time") && name != "issuer_validity";
        assert!(!bounded || allowed.contains(" to "), "{name}: {allowed:?}");
    }
}

fn page(reference: &Reference) -> String {
    let mut page = INTRODUCTION.to_owned();
    for (table, keys) in &reference.sections {
        let title = if table.is_empty() {
            "Keys outside a table".to_owned()
        } else {
            format!("`[{table}]`")
        };
        let _ = write!(
            page,
            "\n## {title}\n\n| key | kind | default | allowed | meaning |\n|---|---|---|---|---|\n"
        );
        for Key { name, kind, default, allowed, meaning } in keys {
            let _ = writeln!(page, "| `{name}` | {kind} | {default} | {allowed} | {meaning} |");
        }
    }
    page
}

const INTRODUCTION: &str = "\
<!-- Made from the code by tests/reference: do not edit it. DOCS=update cargo test --test reference -->
# Configuration

All keys of `gossipmonger.toml`, which an agent and `Builder::directory` read. [cli.md](cli.md#configuration) has an example, and
says how the file, the environment and the flags go together: each key is also an environment variable
(`GOSSIPMONGER_GOSSIP_INTERVAL`, `GOSSIPMONGER_LIMITS__KEYS`), and some are flags of `gossipmonger agent`. In a program the same
names are fields of `Config`.

A *time* is text with a unit: `\"500ms\"`, `\"2s\"`, `\"1h\"`. A number of bytes has no unit. The presets `local`, `lan` and `wan` set
`gossip_interval` to 200 ms, 1 s or 2 s, and `dead_peer_phi` to 8, 8 or 10, before all other keys. An agent refuses unknown keys and
values out of range, and names where they were set. Some ranges depend on another key (`tombstone_grace` and `forget_after` on
`gossip_interval`, `room_bytes` on the longest bodies): the page shows those of the defaults.
";
