//! The demo and the benchmarks as a user runs them: refusals, exit codes, and the output's shape.

use std::{
    io::{BufRead, BufReader},
    process::{Command, Output, Stdio},
};

use serde_json::Value;

#[test]
fn refuses_unknown_flags() {
    for scenario in [
        "join",
        "spread",
        "load",
        "bulk",
        "fail",
        "throughput",
        "exchange",
        "flow",
        "flood",
        "handshake",
        "heads",
        "calls",
        "casts",
        "dial",
        "provide",
        "drive",
    ] {
        let output = gossipmonger(&["bench", scenario, "--nodos", "3"]);
        assert_eq!(output.status.code(), Some(2), "{scenario}: {output:?}");
        assert!(output.stdout.is_empty(), "{scenario}: errors go to stderr");
        assert!(stderr(&output).contains("--nodos"), "{scenario}: {}", stderr(&output));
    }
}

#[test]
fn refuses_what_it_cannot_measure() {
    refuses(&["bench", "join", "--nodes", "1"], "--nodes 1");
    refuses(&["bench", "join", "--seconds", "0"], "--seconds 0");
    refuses(&["bench", "spread", "--nodes", "1"], "--nodes 1");
    refuses(&["bench", "spread", "--reps", "0"], "--reps 0");
    refuses(&["bench", "load", "--nodes", "1"], "--nodes 1");
    refuses(&["bench", "load", "--rate", "0"], "--rate 0");
    refuses(&["bench", "load", "--rate", "NaN"], "--rate NaN");
    refuses(&["bench", "load", "--value-bytes", "15"], "--value-bytes 15");
    refuses(&["bench", "load", "--mode", "V1"], "--mode V1");
    refuses(&["bench", "fail", "--nodes", "7"], "--nodes 7");
    refuses(&["bench", "fail", "--timeout", "0"], "--timeout 0");
    refuses(&["bench", "spread", "--rate", "100"], "--rate");
    refuses(&["bench", "join", "--cores", "0.4"], "--cores 0.4");
    refuses(&["bench", "join", "--cores", "1024"], "--cores 1024");
    refuses(&["bench", "bulk", "--keys", "0"], "--keys 0");
    refuses(&["bench", "bulk", "--state-mib", "257"], "--state-mib 257");
    refuses(&["bench", "bulk", "--state-mib", "1", "--keys", "1"], "--keys");
    refuses(&["bench", "bulk", "--mode", "reliable"], "--mode reliable");
    refuses(&["bench", "throughput", "--nodes", "1"], "--nodes 1");
    refuses(&["bench", "throughput", "--steps-max", "0"], "--steps-max 0");
    refuses(&["bench", "exchange", "--delta-bytes", "3"], "--delta-bytes 3");
    refuses(&["bench", "exchange", "--seconds", "0"], "--seconds 0");
    refuses(&["bench", "flow", "--nodes", "1"], "--nodes 1");
    refuses(&["bench", "flow", "--load", "0"], "--load 0");
    refuses(&["bench", "flood", "--rate", "0"], "--rate 0");
    refuses(&["bench", "handshake", "--count", "0"], "--count 0");
}

#[test]
fn refuses_a_demo_that_cannot_work() {
    refuses(&["demo", "--nodes", "1"], "--nodes 1");
    refuses(&["demo", "--nodes", "65"], "2 to 64 is allowed");
    refuses(&["demo", "--nodes", "3", "--datacenters", "4"], "--datacenters 4");
    refuses(&["demo", "--datacenters", "0"], "--datacenters 0");
    refuses(&["demo", "--seconds", "2"], "--seconds 2");
}

#[test]
fn join_reports_times_and_costs() {
    let report = bench(&["join", "--nodes", "3", "--seconds", "2"]);
    assert!(report["join_s"].is_number(), "{report}");
    assert!(report["join_dials_per_node"].as_f64() > Some(0.0), "somebody dialed: {report}");
    assert_eq!(report["still_full_after_idle"], true, "{report}");
    has(&report, &["start_s", "join_cpu_s", "join_wire_bytes_per_node", "rss_baseline_mib"]);
    has(&report, &["idle_s", "idle_cpu_s_per_node_s", "idle_cpu_cores", "idle_udp_rcvbuf_errors"]);
    has(&report, &["idle_wire_bytes_per_node_s", "idle_wire_packets_per_node_s"]);
    has(&report, &["rss_mib", "rss_kib_per_node", "join_lag_ms"]);
    has_work(&report, "join");
}

#[test]
fn a_measurement_with_a_part_of_a_core_says_so_and_leaves_no_competitor() {
    let report = bench(&["exchange", "--seconds", "1", "--cores", "0.5"]);
    assert_eq!(report["cores"], 0.5, "{report}");
    assert!(report["cores_used"].as_f64() > Some(0.0), "{report}");
    assert!(report["exchanges_per_s"].is_number(), "{report}");
    assert_eq!(competitors(), 0);
}

/// Processes of this program that compete with a measurement.
fn competitors() -> usize {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let spins = |process: &std::fs::DirEntry| {
        let path = process.path();
        std::fs::read_link(path.join("exe"))
            .is_ok_and(|exe| exe == std::path::Path::new(env!("CARGO_BIN_EXE_gossipmonger")))
            && std::fs::read(path.join("cmdline")).is_ok_and(|line| line.ends_with(b"\0spin\0"))
    };
    processes.filter(spins).count()
}

#[test]
fn load_reports_what_all_libraries_report() {
    let report = bench(&["load", "--nodes", "3", "--seconds", "2", "--rate", "30"]);
    assert_eq!(report["asked_per_s"], 30.0, "{report}");
    assert!(report["reached_per_s"].as_f64() > Some(0.0), "{report}");
    assert_eq!(report["unseen_samples"], 0, "{report}");
    assert_eq!(report["unchanged_updates"], 0, "every update takes a version: {report}");
    assert!(report["copies_per_update"].as_f64() >= Some(1.0), "values crossed the wire: {report}");
    has(&report["staleness_ms"], &["p50", "p99", "max", "n"]);
    has(&report, &["join_s", "start_s", "join_cpu_s", "cpu_s_per_s", "cpu_us_per_update"]);
    has(&report, &["wire_bytes_per_update", "wire_bytes_per_node_s", "wire_packets_per_node_s"]);
    has(&report, &["replaced_samples", "behind_pairs", "refused_updates", "applied_per_update"]);
    has(&report, &["gossip_received_per_update", "gossip_duplicates_per_update"]);
    has(&report, &["seals_verified_per_update", "repairs_per_update", "lag_ms"]);
}

#[test]
fn spread_reports_quantiles() {
    let report = bench(&["spread", "--nodes", "3", "--reps", "2"]);
    assert_eq!(report["incomplete_reps"], 0, "{report}");
    assert_eq!(report["missing_deliveries"], 0, "{report}");
    assert_eq!(report["all_ms"]["n"], 2, "{report}");
    assert_eq!(report["each_ms"]["n"], 4, "{report}");
    has(&report["all_ms"], &["p50", "p99", "max"]);
}

#[test]
fn flood_keeps_the_members_and_answers_little() {
    let report = bench(&["flood", "--nodes", "3", "--seconds", "1", "--rate", "500"]);
    assert_eq!(report["still_full"], true, "{report}");
    let figure = |name: &str| report[name].as_u64().unwrap();
    assert!(figure("bytes_sent") > 0, "{report}");
    assert!(figure("bytes_answered") <= 3 * figure("bytes_sent"), "{report}");
    assert!(report["node_0"]["retried"].as_u64().unwrap() > 0, "{report}");
    has(&report["during_ms"]["each"], &["p50", "p99", "max"]);
    has(&report, &["p99_ratio", "initials_per_s", "cpu_cores", "cpu_cores_of_the_flood"]);
}

#[test]
fn handshake_reports_what_it_costs() {
    let output = gossipmonger(&["bench", "handshake", "--count", "5"]);
    let report: Value = serde_json::from_slice(&output.stdout).expect("nothing but one object");
    assert_eq!(report["handshakes"], 5, "{report}");
    assert_eq!(report["checked_by_both_ends"], 5, "{report}");
    has(&report, &["cpu_us_both_ends", "wall_us", "wire_bytes"]);
}

#[test]
fn heads_reports_what_taking_up_nodes_costs() {
    let output = gossipmonger(&["bench", "heads", "--nodes", "5"]);
    let report: Value = serde_json::from_slice(&output.stdout).expect("nothing but one object");
    assert_eq!(report["nodes"], 5, "{report}");
    for kind in ["signed", "unsigned"] {
        has(&report[kind], &["cpu_s", "cpu_us_per_node"]);
    }
    assert_eq!(report["signed"]["seals_verified"], 5, "{report}");
    assert_eq!(report["unsigned"]["seals_verified"], 0, "{report}");
}

#[test]
fn bulk_delivers_every_key() {
    let report = bench(&["bulk", "--keys", "500"]);
    assert_eq!(report["complete"], true, "{report}");
    assert_eq!(report["received"], 500, "{report}");
    has(&report, &["bulk_s", "keys_per_s", "set_s", "bulk_cpu_s", "keys", "value_bytes"]);
    has(&report, &["bulk_wire_bytes", "bulk_wire_packets"]);
}

#[test]
fn bulk_reports_what_a_large_state_costs() {
    let report = bench(&[
        "bulk",
        "--state-mib",
        "2",
        "--value-bytes",
        "1000",
        "--late",
        "--bystanders",
        "1",
    ]);
    assert_eq!(report["complete"], true, "{report}");
    assert_eq!(report["keys"], (2 << 20) / 1_012, "{report}");
    has(&report, &["mb_per_s", "copies", "wire_copies", "state_mib", "silence_ms"]);
    has(&report, &["rss_grown_mib", "rss_grown_in_all_mib"]);
    has(&report, &["bulk_in_flight_max", "longest_storage_step_ms"]);
}

#[test]
fn fail_reports_who_noticed_when() {
    let report = bench(&["fail", "--nodes", "8", "--warmup", "2", "--interval-ms", "200"]);
    for (stop, already, falsely) in [
        ("fail1", "already_dead_pairs", "false_deaths"),
        ("fail5", "already_dead_pairs", "false_deaths"),
        ("suspect1", "already_suspect_pairs", "false_suspicions"),
        ("suspect5", "already_suspect_pairs", "false_suspicions"),
    ] {
        has(&report[stop], &["first_s", "all_s", already, falsely]);
        assert_eq!(report[stop]["undetected_pairs_at_end"], 0, "{report}");
    }
    for count in [1, 5] {
        let all = |what: &str| report[format!("{what}{count}")]["all_s"].as_f64();
        assert!(all("suspect") <= all("fail"), "who is dead is suspect at the least: {report}");
    }
    has(&report, &["false_deaths_warmup", "false_deaths_total", "false_death_targets"]);
    has(&report, &["false_suspicions_warmup", "false_suspicions_total"]);
    has(&report, &["false_suspicion_targets", "events_missed", "poll_ms"]);
    has_work(&report, "join");
    has_work(&report, "fail");
}

#[test]
fn throughput_reports_every_step() {
    let report = bench(&[
        "throughput",
        "--nodes",
        "3",
        "--seconds",
        "1",
        "--start-rate",
        "1",
        "--refine",
        "0",
        "--staleness-ms",
        "0",
    ]);
    assert_eq!(report["updates_per_s"], 0.0, "nothing is everywhere within no time: {report}");
    let step = &report["steps"][0];
    has(step, &["asked_per_s", "reached_per_s", "passes", "staleness_ms", "unseen"]);
    has(step, &["made_per_s", "followed", "replaced", "unchanged_updates", "behind_pairs"]);
    has(step, &["cpu_s_per_s", "cpu_us_per_update", "wire_bytes_per_update", "copies_per_update"]);
}

#[test]
fn every_step_of_throughput_moves_values_of_its_own() {
    let report = bench(&[
        "throughput",
        "--nodes",
        "3",
        "--seconds",
        "1",
        "--start-rate",
        "20",
        "--refine",
        "0",
        "--steps-max",
        "3",
        "--staleness-ms",
        "60000",
    ]);
    let steps = report["steps"].as_array().unwrap();
    assert_eq!(steps.len(), 3, "{report}");
    for step in steps {
        assert_eq!(step["void"], Value::Null, "{step}");
        let copies = step["copies_per_update"].as_f64().unwrap();
        assert!(copies >= 1.0, "values that were there already travel nowhere: {step}");
    }
}

#[test]
fn exchange_reports_rates() {
    for bytes in ["0", "1000"] {
        let report = bench(&["exchange", "--seconds", "1", "--delta-bytes", bytes]);
        let exchanges = report["exchanges"].as_u64();
        assert!(exchanges > Some(0), "{report}");
        assert!(report["answered"].as_u64() >= exchanges, "{report}");
        if bytes != "0" {
            assert!(report["entries_applied"].as_u64() >= exchanges, "each brings one: {report}");
        }
        has(&report, &["exchanges_per_s", "payload_mib_per_s", "wire_mib_per_s"]);
        has(&report, &["wire_bytes_per_exchange", "cpu_us_per_exchange"]);
    }
}

#[test]
fn flow_reports_every_scheme_and_draws_it() {
    let dir = tempfile::tempdir().unwrap();
    let plots = dir.path().join("plots");
    let arguments = ["bench", "flow", "--nodes", "4", "--json", "--plot"];
    let run = || gossipmonger(&[&arguments[..], &[plots.to_str().unwrap()]].concat());
    let output = run();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let report: Value = serde_json::from_slice(&output.stdout).expect("nothing but one object");
    assert_eq!(report["scenario"], "flow", "{report}");
    has(&report, &["nodes", "keys", "budget_entries", "load", "seed", "writes_per_s"]);
    has(&report, &["staleness_s_max", "subject"]);
    for scheme in ["newest_first", "oldest_first", "breadth", "depth", "ours_unlimited", "ours"] {
        has(&report[scheme], &["staleness_s_max", "staleness_s_mean", "stale_entries"]);
        has(&report[scheme], &["since_written_s_max", "told_per_s", "onset_s_max"]);
    }
    for plot in ["staleness-max.svg", "staleness-mean.svg", "stale-entries.svg"] {
        let svg = std::fs::read_to_string(plots.join(plot)).unwrap();
        assert!(svg.contains("oldest-first") && svg.contains("ours"), "{plot}");
    }
    let again: Value = serde_json::from_slice(&run().stdout).unwrap();
    assert_eq!(report["ours"], again["ours"], "the same seed");
}

#[test]
fn the_demo_shows_a_death_and_a_return() {
    let output = gossipmonger(&["demo", "--plain", "--nodes", "3", "--seconds", "7"]);
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{stdout}\n{}", stderr(&output));
    for part in ["is killed", "dead (phi", "is back", "sets ", "seen by 2 of 2", "converged  yes"] {
        assert!(stdout.contains(part), "{part:?} is not in:\n{stdout}");
    }
    let calls = stdout.lines().find_map(|line| line.trim().strip_prefix("calls ")).unwrap();
    let words: Vec<_> = calls.split_whitespace().collect();
    assert!(words[0].parse::<u64>().unwrap() > 10, "{stdout}");
    assert_eq!(words[1..5], ["answered", "by", "3", "nodes,"], "{stdout}");
}

#[test]
fn a_demo_that_is_interrupted_gives_no_verdict() {
    let mut demo = Command::new(env!("CARGO_BIN_EXE_gossipmonger"))
        .args(["demo", "--plain", "--nodes", "2", "--seconds", "600"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines();
    let joined = |line: &String| line.contains("all nodes have found each other");
    lines.by_ref().map(Result::unwrap).find(joined).unwrap();
    let interrupt = format!("kill -INT {}", demo.id());
    assert!(Command::new("sh").args(["-c", &interrupt]).status().unwrap().success());
    let rest: Vec<_> = lines.map(Result::unwrap).collect();
    let output = demo.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
    assert!(stderr(&output).contains("cut short"), "{}", stderr(&output));
    assert!(rest.iter().any(|line| line.contains("2 nodes, all found each other")), "{rest:?}");
}

fn gossipmonger(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_gossipmonger")).args(arguments).output().unwrap()
}

/// Runs a benchmark on free ports; the last line has to be its report.
fn bench(arguments: &[&str]) -> Value {
    let arguments = [&["bench"], arguments, &["--base-port", "0"]].concat();
    let output = gossipmonger(&arguments);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", stderr(&output));
    let stdout = String::from_utf8(output.stdout).unwrap();
    let report: Value = serde_json::from_str(stdout.lines().last().unwrap()).unwrap();
    assert_eq!(report["scenario"], arguments[1], "{report}");
    has(&report, &["subject", "settings", "load_before", "udp_rcvbuf_errors", "cpu_s_total"]);
    has(&report, &["rss_end_mib"]);
    report
}

/// What a phase took, by node.
fn has_work(report: &Value, phase: &str) {
    for work in
        ["dials", "dials_failed", "gossip_duplicates", "news_repeated", "repairs", "inquiries"]
    {
        has(report, &[&format!("{phase}_{work}_per_node")]);
    }
}

fn has(report: &Value, keys: &[&str]) {
    for key in keys {
        assert!(report.get(key).is_some(), "{key} is not in {report}");
    }
}

fn refuses(arguments: &[&str], words: &str) {
    let output = gossipmonger(arguments);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", stderr(&output));
    assert!(stderr(&output).contains(words), "{arguments:?}: {}", stderr(&output));
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
