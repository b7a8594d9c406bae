//! Reads the keys of the configuration: their documentation from the source, the rest from the code that runs.

use std::{collections::BTreeMap, fs, path::Path};

use gossipmonger::{
    ClusterId, Config, Datacenter, NodeId, tls::PeerName, unstable::config_file::ConfigFile,
};
use syn::{Expr, Field, Item, Lit, Meta};

/// The keys by table; the first table has no name.
pub(crate) struct Reference {
    pub(crate) sections: Vec<(String, Vec<Key>)>,
}

/// One key, as the page shows it.
pub(crate) struct Key {
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) default: String,
    pub(crate) allowed: String,
    pub(crate) meaning: String,
}

/// The fields of a struct, in order: name, type, documentation.
type Fields = Vec<(String, String, String)>;

impl Reference {
    pub(crate) fn read(root: &Path) -> Self {
        let mut structs = BTreeMap::new();
        for file in SOURCES {
            let text = fs::read_to_string(root.join(file)).unwrap();
            structs.extend(syn::parse_file(&text).unwrap().items.into_iter().filter_map(fields));
        }
        let defaults = defaults();
        let section = |(table, of, described): &(&str, &str, &[&str])| {
            let documented = described.iter().flat_map(|name| &structs[*name]);
            let documented: Vec<_> = documented.collect();
            let keys = structs[*of]
                .iter()
                .filter(|(name, ..)| !TABLES.iter().any(|(table, ..)| table == name));
            let keys = keys.map(|(name, kind, own)| {
                let there = documented.iter().find(|(field, ..)| field == name);
                let meaning = match there {
                    Some((.., meaning)) if own.is_empty() || own.starts_with("See ") => meaning,
                    _ => own,
                };
                let path = if table.is_empty() { name.clone() } else { format!("{table}.{name}") };
                let kind = kind_of(kind);
                Key {
                    default: defaults
                        .get(&path)
                        .map_or_else(String::new, |value| shown(name, value)),
                    allowed: allowed(table, name, &kind),
                    meaning: plain(meaning),
                    name: name.clone(),
                    kind,
                }
            });
            ((*table).to_owned(), keys.collect())
        };
        Self { sections: TABLES.iter().map(section).collect() }
    }
}

fn fields(item: Item) -> Option<(String, Fields)> {
    let Item::Struct(item) = item else { return None };
    let fields = item.fields.iter().map(|field| {
        (field.ident.as_ref().map(ToString::to_string).unwrap_or_default(), kind(field), doc(field))
    });
    Some((item.ident.to_string(), fields.collect()))
}

fn doc(field: &Field) -> String {
    let lines = field.attrs.iter().filter_map(|attribute| match &attribute.meta {
        Meta::NameValue(pair) if pair.path.is_ident("doc") => match &pair.value {
            Expr::Lit(literal) => match &literal.lit {
                Lit::Str(text) => Some(text.value().trim().to_owned()),
                _ => None,
            },
            _ => None,
        },
        _ => None,
    });
    // The targets of links are no text.
    let lines: Vec<_> =
        lines.filter(|line| !(line.starts_with('[') && line.contains("]: "))).collect();
    lines.join(" ").trim().to_owned()
}

/// The type of a key without its `Option`, as one word.
fn kind(field: &Field) -> String {
    let ty = &field.ty;
    let text = quoted(ty);
    text.strip_prefix("Option<")
        .and_then(|inner| inner.strip_suffix('>'))
        .unwrap_or(&text)
        .to_owned()
}

fn quoted(ty: &syn::Type) -> String {
    let syn::Type::Path(path) = ty else { return String::new() };
    let Some(last) = path.path.segments.last() else { return String::new() };
    let mut text = last.ident.to_string();
    if let syn::PathArguments::AngleBracketed(of) = &last.arguments {
        let of = of.args.iter().filter_map(|argument| match argument {
            syn::GenericArgument::Type(ty) => Some(quoted(ty)),
            _ => None,
        });
        text = format!("{text}<{}>", of.collect::<Vec<_>>().join(","));
    }
    text
}

fn kind_of(ty: &str) -> String {
    let kind = match ty {
        "usize" | "u32" | "f64" => "number",
        "Duration" => "time",
        "bool" => "true or false",
        "PathBuf" => "file or directory",
        "SocketAddr" => "address and port",
        "Preset" | "LogFormat" | "Signing" => "word",
        "String" | "ClusterId" | "Datacenter" => "text",
        "Vec<SocketAddr>" => "list of addresses",
        "Vec<String>" => "list of texts",
        list if list.starts_with("BTreeMap<") => "table of texts",
        _ => "",
    };
    kind.to_owned()
}

/// Documentation of Rust as text: no links to items, and no bar that would end a cell.
fn plain(doc: &str) -> String {
    doc.replace("[`", "`").replace("`]", "`").replace("`Config::", "`").replace('|', "\\|")
}

fn name() -> PeerName {
    PeerName {
        cluster: ClusterId::new("c").unwrap(),
        datacenter: Datacenter::new("d").unwrap(),
        node: NodeId::new("n").unwrap(),
    }
}

/// The defaults by path (`limits.keys`), from a configuration as it is printed.
fn defaults() -> BTreeMap<String, String> {
    let (mut found, mut tables) = (BTreeMap::new(), Vec::new());
    for line in format!("{:#?}", Config::new(&name())).lines().skip(1) {
        let line = line.trim().trim_end_matches(',');
        match line.split_once(": ") {
            // What passes in a second has no table of its own in the file.
            Some((table, begins)) if begins.ends_with(" {") => {
                tables.push(Some(table.to_owned()).filter(|t| t != "rates"));
            }
            Some((key, value)) => {
                let path =
                    tables.iter().flatten().chain([&key.to_owned()]).cloned().collect::<Vec<_>>();
                found.entry(path.join(".")).or_insert_with(|| value.to_owned());
            }
            None if line == "}" => drop(tables.pop()),
            None => {}
        }
    }
    found
}

fn shown(key: &str, value: &str) -> String {
    // They are those of the certificate, or empty.
    if ["cluster", "datacenter", "None"].iter().any(|none| *none == key || *none == value)
        || value.starts_with(['[', '{'])
    {
        return String::new();
    }
    if let Ok(time) = humantime::parse_duration(value) {
        return humantime::format_duration(time).to_string();
    }
    match value.parse::<u64>() {
        Ok(bytes) if key.contains("bytes") || key.contains("buffer") => in_bytes(bytes),
        _ => value.trim_end_matches(".0").to_lowercase(),
    }
}

fn in_bytes(bytes: u64) -> String {
    match bytes {
        _ if bytes >= 1 << 20 && bytes.is_multiple_of(1 << 20) => {
            format!("{bytes} ({} MiB)", bytes >> 20)
        }
        _ if bytes >= 1 << 10 && bytes.is_multiple_of(1 << 10) => {
            format!("{bytes} ({} KiB)", bytes >> 10)
        }
        _ => bytes.to_string(),
    }
}

/// What the checks say to a value that is too large.
fn allowed(table: &str, key: &str, kind: &str) -> String {
    let extreme = match (kind, key) {
        ("number", _) => "4294967295",
        ("time", _) => "\"1000years\"",
        _ => return String::new(),
    };
    let refusal = |value: &str| {
        let header = if table.is_empty() { String::new() } else { format!("[{table}]\n") };
        let file = ConfigFile::parse(&format!("{header}{key} = {value}\n"), "example", []);
        file.ok().and_then(|file| file.apply(Config::new(&name())).check().err())
    };
    let range = |value: &str| {
        let refused = refusal(value)?;
        let of = if table.is_empty() { key.to_owned() } else { format!("{table}.{key}") };
        Some(refused.allowed.trim_end_matches(" is allowed").to_owned())
            .filter(|_| refused.key == of)
    };
    // Some limits end above what a u32 holds; some begin above zero.
    [extreme, "9223372036854775807", "1e9", "0"].into_iter().find_map(range).unwrap_or_default()
}

/// The tables of the file: its struct, and where the meaning of its keys is.
const TABLES: [(&str, &str, &[&str]); 5] = [
    ("", "ConfigFile", &["Config"]),
    ("limits", "LimitsTable", &["Limits"]),
    ("restarts", "RestartsTable", &["Restarts"]),
    ("quic", "QuicTable", &["QuicLimits"]),
    ("services", "ServicesTable", &["ServiceLimits", "ServiceRates"]),
];
const SOURCES: [&str; 4] = [
    "src/node/config/file/tables.rs",
    "src/node/config.rs",
    "src/net/limits.rs",
    "src/protocol/service/limits.rs",
];
