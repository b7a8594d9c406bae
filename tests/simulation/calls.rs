//! Calls between nodes: the machines that ship, on connections that break, between processes that come and go, with
//! views that differ. One number decides a run; `SEED`, `SEEDS` and `OFFSET` work as for the other runs.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use gossipmonger::{
    protocol::service::{calls::LaneLimits, room::RoomLimits},
    sim::calls::{
        oracle::Report,
        settings::{Faults, Latency, Mutation, Settings, Traffic},
        world::World,
    },
};

use super::number;

#[test]
fn calls_keep_every_promise_in_any_run() {
    if let Some(seed) = number("SEED") {
        let (report, world) = World::run(seed, Settings { history: true, ..Settings::drawn(seed) });
        println!("{:#?}\n  {}\n{report:?}", Settings::drawn(seed), world.history().join("\n  "));
        return;
    }
    let (first, seeds) = (number("OFFSET").unwrap_or(0), number("SEEDS").unwrap_or(SEEDS));
    let reports = runs(first, seeds, None);
    let sum =
        |of: fn(&Report) -> usize| reports.iter().map(|(_, report)| of(report)).sum::<usize>();
    println!(
        "seeds {first} to {}: {} calls, {} answered, {} not run, {} unknown, {} failed, {} dropped, {} retries, \
         {} casts, {} arrived, {} streams, {} whole",
        first + seeds - 1,
        sum(|report| report.calls),
        sum(|report| report.answered),
        sum(|report| report.not_run),
        sum(|report| report.unknown),
        sum(|report| report.failed),
        sum(|report| report.dropped),
        sum(|report| report.retries as usize),
        sum(|report| report.casts),
        sum(|report| report.casts_arrived),
        sum(|report| report.streams),
        sum(|report| report.streams_whole),
    );
    let failed: Vec<_> = reports
        .iter()
        .filter_map(|(seed, report)| {
            report.found.as_ref().map(|found| format!("SEED={seed}: {found:?}"))
        })
        .collect();
    let shown = &failed[..failed.len().min(20)];
    assert!(failed.is_empty(), "{} of {seeds} failed:\n{}", failed.len(), shown.join("\n"));
}

#[test]
fn one_seed_gives_one_trace_of_calls() {
    let trace = |seed| World::run(seed, Settings::drawn(seed)).1.trace();
    for seed in [7, 8, 9] {
        assert_eq!(trace(seed), trace(seed), "SEED={seed}");
    }
    assert_ne!(trace(1), trace(2));
}

#[test]
fn a_lost_end_of_an_attempt_is_found() {
    finds(Mutation::LoseCompletion, 1);
}

#[test]
fn a_second_end_of_a_call_is_found() {
    finds(Mutation::EndTwice, 1);
}

#[test]
fn a_request_that_runs_twice_is_found() {
    finds(Mutation::RunTwice, 2);
}

#[test]
fn a_refused_request_that_runs_is_found() {
    finds(Mutation::RunRefused, 2);
}

#[test]
fn casts_out_of_order_are_found() {
    finds(Mutation::SwapCasts, 3);
}

#[test]
fn a_gap_between_casts_is_found() {
    finds(Mutation::LoseCasts, 3);
}

#[test]
fn casts_that_are_missing_at_the_end_of_the_run_are_found() {
    finds(Mutation::LoseLastCasts, 3);
}

#[test]
fn calls_that_outlast_a_dead_verdict_are_found() {
    finds(Mutation::IgnoreDeath, 4);
}

#[test]
fn calls_that_outlast_a_restart_are_found() {
    finds(Mutation::IgnoreRestart, 4);
}

#[test]
fn a_drain_that_loses_calls_is_found() {
    finds(Mutation::LeaveEarly, 5);
}

#[test]
fn a_room_without_a_limit_is_found() {
    finds(Mutation::IgnoreRoom, 6);
}

#[test]
fn a_lane_with_too_many_calls_is_found() {
    finds(Mutation::IgnoreLane, 6);
}

#[test]
fn retries_beyond_the_budget_are_found() {
    finds(Mutation::RetryFreely, 7);
}

#[test]
fn a_directory_that_misses_updates_is_found() {
    finds(Mutation::LoseUpdates, 8);
}

#[test]
fn keys_that_move_without_need_are_found() {
    finds(Mutation::KeysByPlace, 9);
}

#[test]
fn a_second_attempt_of_a_call_that_must_not_run_twice_is_found() {
    finds(Mutation::HedgeAnything, 2);
}

#[test]
fn a_second_attempt_at_the_same_node_is_found() {
    finds(Mutation::HedgeAnywhere, 7);
}

#[test]
fn an_offer_that_a_client_should_not_see_is_found() {
    finds(Mutation::ShowAll, 10);
}

#[test]
fn a_client_that_is_admitted_against_the_offer_is_found() {
    finds(Mutation::AdmitAll, 10);
}

#[test]
fn a_change_that_clients_are_not_told_is_found() {
    finds(Mutation::TellLess, 8);
}

#[test]
fn a_stream_that_began_and_is_said_not_to_have_run_is_found() {
    finds(Mutation::RefuseBegun, 2);
}

#[test]
fn a_lost_item_of_a_stream_is_found() {
    finds(Mutation::LoseItems, 3);
}

#[test]
fn a_lost_last_item_of_a_caller_is_found() {
    finds(Mutation::LoseLastItem, 3);
}

#[test]
fn a_stream_that_ends_too_late_is_found() {
    finds(Mutation::WaitForStreams, 1);
}

#[test]
fn a_handler_of_a_stream_that_never_ends_is_found() {
    finds(Mutation::KeepHandlers, 4);
}

#[test]
fn an_answer_of_another_stream_is_found() {
    finds(Mutation::MixStreams, 2);
}

#[test]
fn a_thousand_nodes_call_each_other_and_keep_every_promise() {
    let settings = Settings {
        nodes: 1_000,
        clients: 100,
        providers: 40,
        services: 3,
        traffic: Traffic::Any(3_000),
        duration: Duration::from_secs(4),
        datacenters: 2,
        latency: Latency::Pairs,
        lane: LaneLimits { calls: 16, queue_bytes: 10_000 },
        room: RoomLimits { concurrency: 8, queue: 16, per_caller: 50 },
        answer_bytes: 10_000,
        window: 100_000,
        body_max: 500,
        work: Duration::from_millis(50),
        spread: Duration::from_millis(300),
        suspect_after: Duration::from_millis(300),
        dead_after: Duration::from_millis(600),
        dial_timeout: Duration::from_secs(2),
        hedge: None,
        idle_timeout: Duration::from_secs(2),
        drain: Duration::from_secs(2),
        faults: Faults {
            deaths: 40,
            drains: 40,
            breaks: 40,
            cuts: 40,
            pauses: 40,
            wrong_verdicts: 80,
        },
        mutation: None,
        history: false,
    };
    let report = World::run(1, settings).0;
    println!("{report:?}");
    assert_eq!(report.found, None);
    assert!(report.answered > 1_000, "{report:?}");
}

/// The oracle finds that a rule is broken, as this property.
fn finds(mutation: Mutation, property: u8) {
    let mut all = Vec::new();
    for first in (0..FINDS_WITHIN).step_by(AT_ONCE as usize) {
        let reports = runs(first, AT_ONCE, Some(mutation));
        all.extend(reports.iter().filter_map(|(_, report)| Some(report.found.as_ref()?.0)));
        if all.contains(&property) {
            println!("{mutation:?}: found in {} of {} runs", all.len(), first + AT_ONCE);
            return;
        }
    }
    panic!("{mutation:?} is found as {all:?}");
}

/// Runs some seeds, on all processors.
fn runs(first: u64, seeds: u64, mutation: Option<Mutation>) -> Vec<(u64, Report)> {
    let next = AtomicU64::new(first);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let work = || {
        let mut reports = Vec::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first + seeds {
                return reports;
            }
            let settings = Settings { mutation, ..Settings::drawn(seed) };
            let run = std::panic::catch_unwind(|| World::run(seed, settings).0);
            let report = run.unwrap_or_else(|_| Report {
                found: Some((0, "it panics".to_owned())),
                ..Report::default()
            });
            reports.push((seed, report));
        }
    };
    let mut reports: Vec<_> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    reports.sort_by_key(|(seed, _)| *seed);
    reports
}

/// Random runs in one run of the tests.
const SEEDS: u64 = 60;
/// A broken rule is found within so many runs.
const FINDS_WITHIN: u64 = 400;
/// So many of them at once.
const AT_ONCE: u64 = 20;
