//! `gossipmonger simulate` as a user runs it: refusals, repeatability, and what small clusters show.

use std::process::{Command, Output};

use serde_json::Value;

#[test]
fn refuses_what_it_cannot_simulate() {
    refuses(&["--nodes", "1"], "--nodes 1 is refused");
    refuses(&["--nodes", "40000"], "32000 is allowed");
    refuses(&["--datacenters", "0"], "--datacenters 0 is refused");
    refuses(&["--nodes", "4", "--datacenters", "5"], "1 to 4 is allowed");
    refuses(&["--loss", "1"], "give a percentage");
    refuses(&["--loss", "60%"], "--loss 60% is refused");
    refuses(&["--wan-rtt", "3s"], "--wan-rtt 3000 is refused");
    refuses(&["--runs", "0"], "--runs 0 is refused");
    refuses(&["--scenario", "reconcile", "--nodes", "11"], "--nodes 11 is refused");
    refuses(&["--interval", "10ms"], "--interval 10 is refused");
    refuses(&["--cpu", "2000"], "--cpu 2000 is refused");
    refuses(&["--time", "0s"], "--time 0 is refused");
    refuses(&["--scenario", "chaos"], "chaos");
    refuses(&["--nodos", "3"], "--nodos");
}

#[test]
fn refuses_failures_that_make_no_sense() {
    let refuses = |arguments: &[&str], why| {
        refuses(&[&["--scenario", "failures"], arguments].concat(), why);
    };
    refuses(&["--fault", "fire"], "fire");
    refuses(&["--nodes", "10", "--stopped", "9"], "0 to 8 is allowed");
    refuses(&["--nodes", "6000"], "2 to 5000 is allowed");
    refuses(&["--pauses", "4000"], "--pauses 4000 is refused");
    refuses(&["--fault", "none", "--stopped", "3"], "this fault befalls nobody");
    refuses(&["--fault", "all", "--plot", "x.svg"], "say which with --fault");
}

#[test]
fn refuses_calls_that_make_no_sense() {
    let refuses = |arguments: &[&str], why| {
        refuses(&[&["--scenario", "calls", "--nodes", "50"], arguments].concat(), why);
    };
    refuses(&["--providers", "51"], "2 to 50 is allowed");
    refuses(&["--providers", "1"], "--providers 1 is refused");
    refuses(&["--providers", "10", "--stopped", "6"], "0 to 5 is allowed");
    refuses(&["--rate", "0"], "--rate 0 is refused");
    refuses(&["--rate", "NaN"], "--rate NaN is refused");
    refuses(&["--work", "2m"], "--work 120000 is refused");
    refuses(&["--rate", "1000", "--time", "1h"], "180000000 calls are refused");
}

#[test]
fn refuses_storms_and_loads_that_make_no_sense() {
    let storm = ["--scenario", "storm", "--nodes", "20"];
    let storm = |more: &[&str], why| refuses(&[&storm[..], more].concat(), why);
    storm(&["--cores", "0"], "--cores 0 is refused");
    storm(&["--cores", "NaN"], "--cores NaN is refused");
    storm(&["--hog", "100%"], "99% is allowed");
    storm(&["--storm", "rain"], "rain");
    storm(&["--storm", "datacenter", "--datacenters", "1"], "needs two");
    refuses(&["--scenario", "storm", "--nodes", "3000"], "2 to 2000 is allowed");
    refuses(&["--scenario", "load", "--rate", "0"], "--rate 0 is refused");
    refuses(&["--scenario", "load", "--rate", "90000", "--time", "1h"], "1000000 writes in all");
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for scenario in ["spread", "idle", "join", "heal", "calls", "services", "storm", "load"] {
        let run = |seed: &str| {
            let nodes = if scenario == "storm" || scenario == "load" { "12" } else { "40" };
            let arguments =
                ["--scenario", scenario, "--nodes", nodes, "--runs", "4", "--time", "3s"];
            let mut report =
                simulate(&[&arguments[..], &["--seed", seed, "--cut", "20s"]].concat());
            assert!(report["realtime_factor"].is_number(), "{report}");
            // These depend on the machine.
            for figure in ["realtime_factor", "rss_bytes_per_pair"]
                .into_iter()
                .chain(["directory_bytes", "directory_update_us"])
            {
                report[figure] = Value::Null;
            }
            report.to_string()
        };
        assert_eq!(run("7"), run("7"), "{scenario}");
        assert_ne!(run("7"), run("8"), "{scenario}");
    }
}

#[test]
fn news_is_at_all_live_nodes_in_little_more_than_the_way_between_datacenters() {
    // With some seeds both bridges between two datacenters are among the dead, and the third one relays.
    let arguments =
        ["--nodes", "90", "--loss", "0%", "--wan-rtt", "100ms", "--runs", "5", "--seed", "2"];
    let report = simulate(&arguments);
    assert_eq!(report["reached"], 1.0, "{report}");
    let worst = report["spread_ms"]["max"].as_f64().unwrap();
    assert!((50.0..70.0).contains(&worst), "{report}");
    assert!(report["copies_per_node"].as_f64() < Some(12.0), "{report}");
    assert!(report["wan_messages_per_update"].as_f64() < Some(20.0), "{report}");
}

#[test]
fn an_idle_node_costs_no_more_among_many() {
    let idle = |nodes| {
        let report = simulate(&["--scenario", "idle", "--nodes", nodes, "--datacenters", "1"]);
        report["idle_bytes_per_node_s"].as_f64().unwrap()
    };
    let (few, many) = (idle("20"), idle("120"));
    assert!(many < 1_200.0 && many < few * 1.5, "{few} {many}");
}

#[test]
fn joiners_are_listed_and_halves_heal() {
    let report = simulate(&["--scenario", "join", "--nodes", "50"]);
    assert!(report["join_s"].as_f64() < Some(10.0), "{report}");
    assert_eq!(report["joiners"], 10, "{report}");
    let report = simulate(&["--scenario", "heal", "--nodes", "30", "--cut", "20s"]);
    assert!(report["heal_s"].as_f64() < Some(30.0), "{report}");
}

#[test]
fn nodes_with_little_of_a_core_take_longer_to_join() {
    let join = |cpu: &str| {
        let report = simulate(&["--scenario", "join", "--nodes", "40", "--cpu", cpu]);
        report["join_s"].as_f64().unwrap()
    };
    let (free, slow) = (join("0"), join("100"));
    assert!(slow > free * 2.0 && slow < 60.0, "{free} {slow}");
}

#[test]
fn two_nodes_find_what_differs_at_the_cost_of_the_difference() {
    let of = |nodes| {
        let arguments = ["--scenario", "reconcile", "--runs", "20", "--nodes", nodes];
        let report = simulate(&arguments);
        assert_eq!(report["reconciled"], true, "{report}");
        report["reconcile_bytes"]["mean"].as_f64().unwrap()
    };
    let (few, many) = (of("200"), of("800"));
    assert!(many < few * 1.5, "{few} {many}");
}

#[test]
fn calls_wait_for_a_dead_provider_until_the_verdict_and_no_longer() {
    let calls = |more: &[&str]| {
        let cluster = ["--scenario", "calls", "--nodes", "100", "--providers", "10"];
        simulate(
            &[&cluster[..], &["--stopped", "2", "--rate", "5", "--time", "12s"], more].concat(),
        )
    };
    let report = calls(&[]);
    assert_eq!((&report["broken"], &report["ran_twice"]), (&Value::Null, &0.into()), "{report}");
    assert_eq!((&report["deaths"], &report["drains"]), (&2.into(), &2.into()), "{report}");
    // None is lost by a provider that drains, and none waits for a deadline.
    let lost = report["failed"]["unknown"]["NodeDead"].as_u64().unwrap();
    let (sent, answered) = (&report["calls"], &report["answered"]);
    let [sent, answered] = [sent, answered].map(|calls| calls.as_u64().unwrap());
    let unfinished = report["unfinished"].as_u64().unwrap();
    assert_eq!(answered + lost + unfinished, sent, "{report}");
    assert!(sent > 5_500, "{report}");
    let waited = report["waited_for_dead"].as_u64().unwrap();
    assert!(waited > 10 && report["ended_by_verdict"].as_u64() == Some(waited), "{report}");
    let max = |report: &Value, figure: &str| report[figure]["max"].as_f64().unwrap();
    assert!(max(&report, "after_verdict_ms") < 500.0, "{report}");
    let back = max(&report, "full_rate_ms");
    assert!((2_500.0..3_000.0).contains(&back), "{report}");
    let sooner = calls(&["--interval", "500ms"]);
    assert!(max(&sooner, "full_rate_ms") < back * 0.6, "{sooner}");
    // Idempotent calls go to a second node instead: none of them fails, and none waits for the verdict.
    let hedged = calls(&["--hedge", "200ms"]);
    assert!(hedged["hedged"].as_u64() > Some(5), "{hedged}");
    assert!(hedged["ended_by_verdict"].as_u64() < hedged["waited_for_dead"].as_u64(), "{hedged}");
    assert!(max(&hedged, "latency_ms") < max(&report, "latency_ms") * 0.5, "{hedged}");
    assert_eq!((&hedged["broken"], &hedged["ran_twice"]), (&Value::Null, &0.into()), "{hedged}");
}

#[test]
fn announcing_services_costs_one_key_of_each_node() {
    let services = |loss| {
        let arguments = ["--scenario", "services", "--nodes", "60", "--runs", "5"];
        simulate(&[&arguments[..], &["--wan-rtt", "40ms", "--loss", loss]].concat())
    };
    let report = services("0%");
    let key = report["manifest_bytes"].as_f64().unwrap();
    assert!((400.0..500.0).contains(&key), "{report}");
    let figure = |of: &str, figure: &str| report[of][figure].as_f64().unwrap();
    let joined = ["with_services", "without_services"].map(|of| figure(of, "join_bytes"));
    let each = (joined[0] - joined[1]) / 59.0;
    assert!((key..key + 30.0).contains(&each), "{each}: {report}");
    let restarts =
        ["with_services", "without_services"].map(|of| figure(of, "restart_bytes_per_node"));
    assert!(restarts[0] > restarts[1] + key, "{report}");
    assert_eq!(report["changes_missed"], 0, "{report}");
    // Floods take the tree first: the way between datacenters, and little more. Where QUIC repeats a lost packet, or
    // another neighbour sends its copy, it takes longer.
    assert!((20.0..25.0).contains(&figure("everywhere_ms", "max")), "{report}");
    let lossy = services("1%");
    assert_eq!(lossy["changes_missed"], 0, "{lossy}");
    assert!(lossy["everywhere_ms"]["max"].as_f64() < Some(150.0), "{lossy}");
    let copies = report["change_copies_per_node"].as_f64().unwrap();
    let bytes = report["change_bytes_per_node"].as_f64().unwrap();
    assert!(copies < 12.0 && bytes / copies < key + 100.0, "{report}");
}

#[test]
fn nodes_that_share_less_of_a_core_are_later_and_do_what_there_is_to_do() {
    let storm = |cores: &str, more: &[&str]| {
        let cluster =
            ["--scenario", "storm", "--nodes", "16", "--datacenters", "1", "--loss", "0%"];
        simulate(&[&cluster[..], &["--shared", "--cores", cores], more].concat())
    };
    let figure = |report: &Value, name: &str| report[name].as_f64().unwrap();
    let (fast, slow) = (storm("2", &[]), storm("0.2", &[]));
    assert!(figure(&slow, "calm_s") > figure(&fast, "calm_s"), "{fast} {slow}");
    assert!(slow["lag_ms"]["max"].as_f64() > fast["lag_ms"]["max"].as_f64(), "{fast} {slow}");
    assert!(figure(&fast, "useful") > 0.8, "{fast}");
    for report in [&fast, &slow] {
        let shakes = &report["handshakes"];
        assert_eq!(shakes["timeouts"], 0, "{report}");
        assert!(shakes["finished"].as_u64() <= shakes["accepted"].as_u64(), "{report}");
        assert!(shakes["accepted"].as_u64() <= shakes["begun"].as_u64(), "{report}");
        assert!(report["cpu_s_by_kind"]["handshakes"]["all"].as_f64() > Some(0.05), "{report}");
        let curve = report["curve"].as_array().unwrap();
        assert_eq!(curve.last().unwrap()[2], 100.0, "{report}");
    }
    // Somebody else on the same cores makes them late as well.
    let hogged = storm("0.5", &["--hog", "90%", "--hog-from", "0s", "--hog-for", "1s"]);
    assert!(figure(&hogged, "calm_s") > figure(&storm("0.5", &[]), "calm_s"), "{hogged}");
}

#[test]
fn one_slow_node_among_fast_ones_is_late_alone() {
    let cluster = ["--scenario", "storm", "--nodes", "12", "--datacenters", "1", "--loss", "0%"];
    let storm = |kind: &str| simulate(&[&cluster[..], &["--storm", kind]].concat());
    let (join, slow) = (storm("join"), storm("slow"));
    assert!(slow["lag_ms"]["max"].as_f64() > join["lag_ms"]["max"].as_f64(), "{join} {slow}");
    assert!(slow["calm_s"].is_number(), "{slow}");
}

#[test]
fn a_cluster_in_two_halves_is_one_again_after_the_cut() {
    let cluster = ["--scenario", "storm", "--nodes", "12", "--datacenters", "2", "--loss", "0%"];
    for kind in ["rejoin", "datacenter", "nothing"] {
        let report = simulate(&[&cluster[..], &["--storm", kind, "--cut", "15s"]].concat());
        assert!(report["calm_s"].is_number(), "{kind}: {report}");
    }
}

#[test]
fn writes_on_busy_cores_take_longer_and_all_arrive() {
    let load = |more: &[&str]| {
        let cluster = ["--scenario", "load", "--nodes", "12", "--datacenters", "1", "--loss", "0%"];
        simulate(&[&cluster[..], &["--time", "2s", "--rate", "40", "--shared"], more].concat())
    };
    let (fast, slow) = (load(&["--cores", "2"]), load(&["--cores", "0.1"]));
    let worst = |report: &Value| report["everywhere_ms"]["p99"].as_f64().unwrap();
    assert!(worst(&slow) > worst(&fast), "{fast} {slow}");
    for report in [&fast, &slow] {
        assert_eq!((&report["writes"], &report["missing"]), (&80.into(), &0.into()), "{report}");
        assert!(report["copies_per_delivery"].as_f64() >= Some(1.0), "{report}");
        assert!(report["cpu_us_per_delivery"].as_f64() > Some(20.0), "{report}");
    }
    let bursts = load(&["--cores", "2", "--bursts"]);
    assert!(bursts["everywhere_ms"]["p50"].as_f64() > fast["everywhere_ms"]["p50"].as_f64());
}

#[test]
fn draws_the_lag_of_a_storm() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("storm.svg");
    let storm = ["--scenario", "storm", "--nodes", "12", "--shared", "--cores", "0.2"];
    let output = run(&[&storm[..], &["--plot", file.to_str().unwrap()]].concat());
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(std::fs::read_to_string(file).unwrap().contains("lag, ms"));
    let table = String::from_utf8_lossy(&output.stdout);
    assert!(table.contains("edges, handshakes an edge"), "{table}");
}

#[test]
fn draws_the_curve() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("curve.svg");
    let output = run(&["--nodes", "20", "--runs", "2", "--plot", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(std::fs::read_to_string(file).unwrap().contains("<svg"));
    let table = String::from_utf8_lossy(&output.stdout);
    assert!(table.contains("at all live nodes"), "{table}");
}

#[test]
fn the_same_seed_gives_the_same_failures() {
    for fault in ["crash", "flip", "slow"] {
        let run = |seed: &str| {
            let mut report = failures(fault, &["--time", "25s", "--pauses", "60", "--seed", seed]);
            // This depends on the machine.
            report["rules"]["ours"]["realtime_factor"] = Value::Null;
            report.to_string()
        };
        assert_eq!(run("7"), run("7"), "{fault}");
        assert_ne!(run("7"), run("8"), "{fault}");
    }
}

#[test]
fn our_rule_finds_who_crashed_before_all_others_do() {
    let report = failures("crash", &["--runs", "5", "--time", "40s"]);
    let of = |rule: &str, key: &str, part: &str| report["rules"][rule][key][part].as_f64().unwrap();
    assert!(of("ours", "quorum_ms", "max") < 1_000.0, "{report}");
    let dead = of("ours", "detect_ms", "max");
    assert!((1_500.0..5_000.0).contains(&dead), "{report}");
    for rule in ["phi", "chitchat", "cassandra"] {
        assert!(of(rule, "detect_ms", "p50") > dead, "{report}");
    }
    for rule in ["ours", "phi", "chitchat", "cassandra"] {
        let rule = &report["rules"][rule];
        assert_eq!(
            (&rule["false_deaths"], &rule["undetected"]),
            (&0.into(), &0.into()),
            "{report}"
        );
        assert!(rule["node_hours"].as_f64() > Some(0.4), "{report}");
    }
    assert_eq!(report["rules"]["ours"]["views"], 6, "as many as crash one by one: {report}");
}

#[test]
fn nobody_who_is_well_is_called_dead() {
    for (fault, more) in [
        ("none", ["--loss", "5%"]),
        ("ingress", ["--loss", "1%"]),
        ("flip", ["--loss", "1%"]),
        ("slow", ["--loss", "1%"]),
    ] {
        let report = failures(fault, &[&more[..], &["--ours", "--time", "90s"]].concat());
        assert_eq!(report["rules"]["ours"]["false_deaths"], 0, "{fault}: {report}");
    }
}

#[test]
fn the_views_of_those_who_join_are_few() {
    let report = failures("join", &["--time", "15s"]);
    let views = |rule: &str| report["rules"][rule]["views"].as_u64().unwrap();
    assert!(views("ours") < views("chitchat"), "{report}");
    let last = report["rules"]["ours"]["last_change_s"].as_f64();
    assert!(last < Some(12.0), "{report}");
}

#[test]
fn draws_false_deaths_against_the_time_of_detection() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("curve.svg");
    let fault = ["--scenario", "failures", "--nodes", "14", "--runs", "1", "--time", "20s"];
    let output = run(&[&fault[..], &["--plot", file.to_str().unwrap()]].concat());
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let svg = std::fs::read_to_string(file).unwrap();
    assert!(["ours", "phi", "chitchat", "cassandra"].iter().all(|rule| svg.contains(rule)));
    let table = String::from_utf8_lossy(&output.stdout);
    assert!(table.contains("crash of 1, ours: to a quorum"), "{table}");
}

/// An experiment with 40 nodes of one datacenter.
fn failures(fault: &str, more: &[&str]) -> Value {
    let cluster =
        ["--scenario", "failures", "--nodes", "40", "--datacenters", "1", "--fault", fault];
    simulate(&[&cluster[..], more].concat())
}

fn refuses(arguments: &[&str], why: &str) {
    let output = run(arguments);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
    assert!(said.contains(why), "{arguments:?}: {said}");
}

fn simulate(arguments: &[&str]) -> Value {
    let output = run(&[arguments, &["--json"]].concat());
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn run(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gossipmonger"));
    command.arg("simulate").args(arguments).output().unwrap()
}
