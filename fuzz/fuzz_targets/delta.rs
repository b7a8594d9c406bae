//! Any news from anybody, between own writes: copies never fall back, stay within their limits and
//! consistent in themselves, and nobody but the owner changes the owner's map.
#![no_main]

#[path = "../support.rs"]
mod support;

use gossipmonger::protocol::{
    delta::Delta,
    gossip::Gossip,
    id::{Generation, Incarnation},
    route::StorageInput,
    verdict::{Level, Verdict},
};
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
    /// The detector is convinced: who, in which life and incarnation, and whether it is dead.
    Accuse(u8, u8, u8, bool),
    Linked(u8, bool),
    /// Somebody tells something unasked.
    Pushed(u8, Vec<News>),
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
            Step::Accuse(peer, generation, incarnation, dead) => {
                let level = if dead { Level::Dead } else { Level::Suspect };
                let verdict = Verdict { incarnation: Incarnation(incarnation.into()), level };
                let generation = Generation(generation.into());
                watched.cast(StorageInput::Accuse(name(peer), generation, verdict));
            }
            Step::Linked(peer, up) => watched.cast(StorageInput::Linked(name(peer), up)),
            Step::Pushed(from, news) => {
                let push = Box::new(Gossip::Push(delta(news)));
                watched.cast(StorageInput::Gossip(name(from), push));
            }
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
