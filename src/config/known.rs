//! Which keys a configuration file may have, and which one was meant by a key that there is not.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{self, Visitor},
    forward_to_deserialize_any,
};

use super::tables::{ConfigFile, LimitsTable, QuicTable, RestartsTable};

/// A key that there is not.
#[derive(Debug)]
pub(super) struct Unknown {
    /// The key, as it stands in its table.
    pub(super) name: String,
    table: Option<&'static str>,
}

/// The keys of a table; without a name those outside of every table.
pub(super) fn keys(table: Option<&str>) -> &'static [&'static str] {
    match table {
        None => Fields::of::<ConfigFile>(),
        Some("limits") => Fields::of::<LimitsTable>(),
        Some("restarts") => Fields::of::<RestartsTable>(),
        Some("quic") => Fields::of::<QuicTable>(),
        Some(_) => &[],
    }
}

/// The first key that there is not.
pub(super) fn unknown(file: &toml::Table) -> Option<Unknown> {
    let unknown = |table: &toml::Table, of: Option<&'static str>| {
        let name = table.keys().find(|key| !keys(of).contains(&key.as_str()))?;
        Some(Unknown { name: name.clone(), table: of })
    };
    unknown(file, None)
        .or_else(|| TABLES.iter().find_map(|of| unknown(file.get(*of)?.as_table()?, Some(of))))
}

impl Unknown {
    /// The key that resembles it most, if one does.
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
            None => write!(f, "the keys are listed in docs/cli.md"),
        }
    }
}

/// Asks a struct for the names of its fields: serde hands them over before it reads anything.
struct Fields<'a>(&'a mut &'static [&'static str]);

impl Fields<'_> {
    fn of<'de, T: Deserialize<'de>>() -> &'static [&'static str] {
        let mut fields: &'static [&'static str] = &[];
        // It always fails: there is nothing to read.
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
const TABLES: [&str; 3] = ["limits", "restarts", "quic"];
/// From this likeness on (Jaro-Winkler, 0 to 1) a key is suggested, as by clap.
const LIKENESS_MIN: f64 = 0.8;
/// Longest part of an unknown key that is shown, in characters.
const NAME_SHOWN_MAX: usize = 64;
