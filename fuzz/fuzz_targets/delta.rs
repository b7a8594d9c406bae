//! Any news from anybody, between own writes: copies never fall back, stay within their limits and
//! consistent in themselves, and nobody but the owner changes the owner's map.
#![no_main]

#[path = "../support.rs"]
mod support;

use gossipmonger::protocol::{delta::Delta, route::StorageInput};
use libfuzzer_sys::fuzz_target;
use support::{News, Watched, name};

#[derive(Debug, arbitrary::Arbitrary)]
enum Step {
    /// Somebody tells something.
    News(u8, Vec<News>),
    /// The same, as the answer to our digest.
    Merge(u8, Vec<News>),
    Set(u8, u8, Option<u16>),
    Delete(u8),
    Pass(u16),
    Forget(u8),
    Gone(u8),
    Back(u8),
    Retire(u8),
    /// The storage actor starts again from what readers saw.
    Restart,
}

fuzz_target!(|steps: Vec<Step>| {
    let mut watched = Watched::new();
    for step in steps.into_iter().take(200) {
        match step {
            Step::News(from, news) => watched.apply(from, &delta(news)),
            Step::Merge(from, news) => watched.merge(from, &delta(news)),
            Step::Set(key, value, ttl) => watched.set(key, value, ttl),
            Step::Delete(key) => watched.delete(key),
            Step::Pass(millis) => watched.pass(millis),
            Step::Forget(peer) => watched.cast(StorageInput::Forget(name(peer))),
            Step::Gone(peer) => watched.cast(StorageInput::Gone(name(peer))),
            Step::Back(peer) => watched.cast(StorageInput::Back(name(peer))),
            Step::Retire(peer) => watched.cast(StorageInput::Retire(name(peer))),
            Step::Restart => watched.restart(),
        }
        watched.check();
    }
});

fn delta(news: Vec<News>) -> Delta {
    Delta { nodes: news.into_iter().take(8).map(News::into_delta).collect(), more: false }
}
