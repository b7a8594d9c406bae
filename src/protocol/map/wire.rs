//! An entry in its two forms: as it is sent, and as it is kept.

use std::time::Duration;

use crate::protocol::{
    delta::{DeltaContent, DeltaEntry},
    entry::{Content, Entry, Key},
    time::Time,
};

pub(super) fn wire_entry(now: Time, key: &Key, entry: &Entry) -> DeltaEntry {
    let content = match &entry.content {
        Content::Value { value, expires } => DeltaContent::Value {
            value: value.clone(),
            ttl_ms: expires.map(|at| u64::try_from(at.since(now).as_millis()).unwrap_or(u64::MAX)),
        },
        Content::Tombstone => DeltaContent::Tombstone,
    };
    DeltaEntry { key: key.clone(), version: entry.version, content }
}

pub(super) fn local_entry(now: Time, news: &DeltaEntry) -> Entry {
    let content = match &news.content {
        DeltaContent::Value { value, ttl_ms } => Content::Value {
            value: value.clone(),
            expires: ttl_ms.map(|ms| now + Duration::from_millis(ms)),
        },
        DeltaContent::Tombstone => Content::Tombstone,
    };
    Entry { version: news.version, content }
}
