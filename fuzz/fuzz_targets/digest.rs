//! Any digest from anybody, after any news: the answer fits a frame and its budget, and an honest
//! copy takes it.
#![no_main]

#[path = "../support.rs"]
mod support;

use std::collections::BTreeMap;

use gossipmonger::protocol::{
    delta::Delta,
    digest::{Digest, DigestEntry},
    id::{Generation, Version},
};
use libfuzzer_sys::fuzz_target;
use support::{News, Watched, name};

type Line = (u8, u8, u8, u8);

fuzz_target!(|input: (Vec<News>, Vec<(u8, bool, BTreeMap<u8, Line>)>)| {
    let (news, digests) = input;
    let mut watched = Watched::new();
    for news in news.into_iter().take(20) {
        let from = news.node;
        watched.apply(from, &Delta { nodes: vec![news.into_delta()], more: false });
    }
    for (from, answer, lines) in digests.into_iter().take(20) {
        let entries =
            lines.into_iter().map(|(node, (generation, max, floor, record))| DigestEntry {
                node: name(node % 5),
                generation: Generation(generation.into()),
                max_version: Version(max.into()),
                horizon: Version(u64::from(max) + u64::from(record) % 3),
                gc_floor: Version(floor.into()),
                verdict: gossipmonger::protocol::verdict::Verdict::default(),
                record: Version(record.into()),
            });
        let mut digest = Digest { entries: entries.collect() };
        digest.entries.sort_by(|a, b| a.node.cmp(&b.node));
        digest.entries.dedup_by(|a, b| a.node == b.node);
        if answer {
            watched.answer(from, &digest);
        } else {
            watched.wants(from, &digest);
        }
        watched.check();
    }
});
