//! The keys of a configuration file, and a suggestion for an unknown key.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{self, Visitor},
    forward_to_deserialize_any,
};

use super::tables::{ConfigFile, LimitsTable, QuicTable, RestartsTable, ServicesTable};

/// An unknown key.
#[derive(Debug)]
pub(super) struct Unknown {
    /// The key, as its table has it.
    pub(super) name: String,
    table: Option<&'static str>,
}

/// The keys of a table; without a name the keys outside every table.
pub(super) fn keys(table: Option<&str>) -> &'static [&'static str] {
    match table {
        None => Fields::of::<ConfigFile>(),
        Some("limits") => Fields::of::<LimitsTable>(),
        Some("restarts") => Fields::of::<RestartsTable>(),
        Some("quic") => Fields::of::<QuicTable>(),
        Some("services") => Fields::of::<ServicesTable>(),
        Some(_) => &[],
    }
}

/// The first unknown key.
pub(super) fn unknown(file: &toml::Table) -> Option<Unknown> {
    let unknown = |table: &toml::Table, of: Option<&'static str>| {
        let name = table.keys().find(|key| !keys(of).contains(&key.as_str()))?;
        Some(Unknown { name: name.clone(), table: of })
    };
    unknown(file, None)
        .or_else(|| TABLES.iter().find_map(|of| unknown(file.get(*of)?.as_table()?, Some(of))))
}

impl Unknown {
    /// The most similar known key, if one is similar enough.
    fn meant(&self) -> Option<&'static str> {
        let near = keys(self.table).iter().map(|key| (strsim::jaro_winkler(key, &self.name), *key));
        let best = near.max_by(|(one, _), (other, _)| one.total_cmp(other));
        best.filter(|(likeness, _)| *likeness > LIKENESS_MIN).map(|(_, key)| key)
    }
}

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let table = self.table.map_or_else(String::new, |table| format!("{table}."));
        let name: String =
            self.name.chars().filter(|c| !c.is_control()).take(NAME_SHOWN_MAX).collect();
        write!(f, "unknown key {table}{name}; ")?;
        match self.meant() {
            Some(meant) => write!(f, "did you mean {table}{meant}?"),
            None => write!(f, "the keys are listed in docs/configuration.md"),
        }
    }
}

/// Reads the names of a struct's fields: serde passes them before it reads any data.
struct Fields<'a>(&'a mut &'static [&'static str]);

impl Fields<'_> {
    fn of<'de, T: Deserialize<'de>>() -> &'static [&'static str] {
        let mut fields: &'static [&'static str] = &[];
        // It always fails: it has no data to read.
        let _ = T::deserialize(Fields(&mut fields));
        fields
    }
}

impl<'de> Deserializer<'de> for Fields<'_> {
    type Error = de::value::Error;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
        Err(de::Error::custom("only the fields are asked for"))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        *self.0 = fields;
        self.deserialize_any(visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

/// The tables with keys of their own; others (`tags`, `clients`) take any.
const TABLES: [&str; 4] = ["limits", "restarts", "quic", "services"];
/// A key is suggested from this similarity on (Jaro-Winkler, 0 to 1), as clap does.
const LIKENESS_MIN: f64 = 0.8;
/// Maximum length of an unknown key in a message, in characters.
const NAME_SHOWN_MAX: usize = 64;
