//! Any news from anybody, between own writes: copies never fall back, stay within their limits and
//! consistent in themselves, and nobody but the owner changes the owner's map.
#![no_main]

#[path = "../support.rs"]
mod support;

use gossipmonger::protocol::{
    delta::Delta,
    gossip::{Accusation, Answer, Ask, Gossip, OBSERVERS_MAX, Removal},
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
    /// The detector is convinced, and so is another: of whom, in which life and incarnation, and
    /// whether it is dead.
    Accuse(u8, u8, u8, u8, bool),
    /// Somebody tells that these are convinced.
    Accused(u8, u8, u8, u8, bool, Vec<u8>),
    /// Somebody asks who hears a peer, for another.
    Asked(u8, u8, u8, u8, u8),
    /// Somebody answers that, for another.
    Answered(u8, u8, u8, u8, u8, u8, bool),
    /// Our detector asks.
    Ask(u8, u8),
    Linked(u8, bool),
    /// Somebody tells something unasked.
    Pushed(u8, Vec<News>),
    Back(u8),
    Retire(u8),
    /// A person removes a peer, here or elsewhere.
    Remove(u8),
    Removed(u8, u8, u8, u8),
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
            Step::Forget(peer) => {
                watched.cast(StorageInput::Forget(name(peer), Generation(u64::MAX)))
            }
            Step::Accuse(from, peer, generation, incarnation, dead) => {
                let verdict = verdict(incarnation, dead);
                let generation = Generation(generation.into());
                watched.cast(StorageInput::Accuse(
                    name(peer),
                    generation,
                    verdict,
                    [name(from)].into(),
                ));
            }
            Step::Accused(from, subject, generation, incarnation, dead, observers) => {
                let observers = observers.into_iter().take(OBSERVERS_MAX).map(name).collect();
                let (subject, generation) = (name(subject), Generation(generation.into()));
                let verdict = verdict(incarnation, dead);
                let accusation = Accusation { subject, generation, verdict, observers };
                watched.hear(from, Gossip::Accusation(accusation));
            }
            Step::Asked(from, subject, generation, asker, round) => {
                watched.hear(from, Gossip::Ask(ask(subject, generation, asker, round)));
            }
            Step::Answered(from, subject, generation, asker, round, observer, hears) => {
                let ask = ask(subject, generation, asker, round);
                let answer = Answer { ask, observer: name(observer), hears };
                watched.hear(from, Gossip::Answer(answer));
            }
            Step::Ask(subject, generation) => {
                let generation = Generation(generation.into());
                watched.cast(StorageInput::Ask(name(subject), generation));
            }
            Step::Linked(peer, up) => watched.cast(StorageInput::Linked(name(peer), up)),
            Step::Pushed(from, news) => {
                watched.hear(from, Gossip::Push(delta(news)));
            }
            Step::Back(peer) => watched.cast(StorageInput::Back(name(peer))),
            Step::Retire(peer) => {
                watched.cast(StorageInput::Retire(name(peer), Generation(u64::MAX)))
            }
            Step::Remove(peer) => {
                watched.cast(StorageInput::Remove { peer: name(peer), by: None });
            }
            Step::Removed(from, subject, generation, incarnation) => {
                let (subject, generation) = (name(subject), Generation(generation.into()));
                let incarnation = Incarnation(incarnation.into());
                let removal = Removal { subject, generation, incarnation };
                watched.hear(from, Gossip::Removal(removal));
            }
            Step::Restart => watched.restart(),
        }
        watched.check();
    }
});

fn verdict(incarnation: u8, dead: bool) -> Verdict {
    let level = if dead { Level::Dead } else { Level::Suspect };
    Verdict { incarnation: Incarnation(incarnation.into()), level }
}

fn ask(subject: u8, generation: u8, asker: u8, round: u8) -> Ask {
    let generation = Generation(generation.into());
    Ask { subject: name(subject), generation, asker: name(asker), round: round.into() }
}

fn delta(news: Vec<News>) -> Delta {
    Delta { nodes: news.into_iter().take(8).map(News::into_delta).collect(), more: false }
}
