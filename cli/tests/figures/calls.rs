//! The benchmarks of calls as a user runs them: their counts add up, and a void result fails.

use std::process::{Command, Output};

use serde_json::Value;

fn bench(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_gossipmonger")).arg("bench").args(arguments).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The last line, which is one JSON object.
fn report(output: &Output) -> Value {
    let stdout = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(stdout.lines().last().unwrap_or_default()).unwrap()
}

fn measured(arguments: &[&str]) -> Value {
    let output = bench(arguments);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", stderr(&output));
    let report = report(&output);
    assert_eq!(report["void"], Value::Null, "{report}");
    assert_eq!(report["subject"], "gossipmonger", "{report}");
    assert_eq!(report["scenario"], arguments[0], "{report}");
    let rounds: Vec<_> = report["cpu_us_per_call_rounds"].as_array().unwrap().iter().collect();
    let rounds: Vec<_> = rounds.iter().map(|round| round.as_f64().unwrap()).collect();
    let least = rounds.iter().copied().reduce(f64::min).unwrap();
    assert_eq!(report["cpu_us_per_call"].as_f64(), Some(least), "{report}");
    assert!(least > 0.0 && report["calls_per_s"].as_f64() > Some(0.0), "{report}");
    for key in ["settings", "load_before"] {
        assert!(!report[key].is_null(), "{key} is not in {report}");
    }
    report
}

/// What a call took; each is at least as much as the one before.
fn has_times(report: &Value) {
    let times = ["p50_us", "p99_us", "max_us"].map(|key| report[key].as_f64().unwrap());
    assert!(times[0] > 0.0 && times.is_sorted(), "{report}");
}

#[test]
fn calls_are_answered_by_a_function_and_by_an_actor() {
    for mode in ["function", "actor"] {
        let flags = ["--concurrency", "4", "--seconds", "0.2", "--rounds", "2", "--mode", mode];
        let report = measured(&[&["calls"], &flags[..]].concat());
        assert_eq!((&report["mode"], &report["bytes"]), (&mode.into(), &64.into()), "{report}");
        assert_eq!(report["concurrency"], 4, "{report}");
        assert_eq!(report["cpu_us_per_call_rounds"].as_array().map(Vec::len), Some(2), "{report}");
        let (calls, rate) = (report["calls"].as_f64(), report["calls_per_s"].as_f64());
        let seconds = calls.unwrap() / rate.unwrap();
        assert!((0.39..60.0).contains(&seconds), "two rounds of 0.2 s: {report}");
        has_times(&report);
    }
}

#[test]
fn casts_all_arrive() {
    for mode in ["function", "actor"] {
        let report = measured(&["casts", "--count", "3000", "--rounds", "2", "--mode", mode]);
        assert_eq!((&report["calls"], &report["concurrency"]), (&6_000.into(), &1.into()));
        assert_eq!(report["p50_us"], Value::Null, "nobody waits for them: {report}");
    }
}

#[test]
fn each_dial_is_a_connection_of_its_own() {
    let report = measured(&["dial", "--count", "5", "--rounds", "2"]);
    assert_eq!((&report["calls"], &report["concurrency"]), (&10.into(), &1.into()));
    has_times(&report);
}

#[test]
fn a_wrong_answer_voids_the_result() {
    for arguments in [
        &["calls", "--seconds", "0.1", "--rounds", "1", "--spoil", "60"][..],
        &["dial", "--count", "5", "--rounds", "1", "--spoil", "52"],
    ] {
        let output = bench(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {}", stderr(&output));
        assert!(stderr(&output).contains("are not what was sent"), "{}", stderr(&output));
        let report = report(&output);
        assert!(report["cpu_us_per_call"].is_null() && report["p50_us"].is_null(), "{report}");
        assert!(report["void"][0].as_str().is_some(), "{report}");
    }
}

#[test]
fn what_cannot_be_measured_is_refused() {
    for (arguments, words) in [
        (&["calls", "--concurrency", "0"], "--concurrency 0"),
        (&["calls", "--seconds", "NaN"], "--seconds NaN"),
        (&["calls", "--bytes", "16385"], "--bytes 16385"),
        (&["calls", "--count", "1"], "--count"),
        (&["calls", "--mode", "lane"], "lane"),
        (&["casts", "--count", "0"], "--count 0"),
        (&["casts", "--seconds", "1"], "--seconds"),
        (&["dial", "--rounds", "0"], "--rounds 0"),
    ] {
        let output = bench(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", stderr(&output));
        assert!(output.stdout.is_empty() && stderr(&output).contains(words), "{arguments:?}");
    }
}
