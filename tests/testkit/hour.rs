//! What an hour of virtual time costs.

use std::time::Duration;

use gossipmonger::testkit::run;

const HOUR: Duration = Duration::from_secs(3_600);

/// Counts instead of seconds: the figure in `docs/testkit.md` is measured with
/// `cargo test --test testkit hour -- --nocapture`, which prints the CPU time as well.
#[test]
fn an_hour_of_five_nodes_is_an_hour() {
    let before = cpu();
    let events = run(1, async |kit| {
        kit.start_all(["a", "b", "c", "d", "e"]).await;
        let (begun, wall) = (kit.now(), kit.wall("a"));
        tokio::time::sleep(HOUR).await;
        assert_eq!(kit.now() - begun, HOUR);
        assert_eq!(kit.wall("a"), wall + HOUR);
        kit.converged(Duration::from_secs(1)).await;
        kit.trace()
    });
    println!("an hour of five nodes: {:.2} s of CPU", (cpu() - before).as_secs_f64());
    let suspects = events.iter().filter(|line| line.contains("PeerSuspect")).count();
    assert_eq!(suspects, 0, "nothing happens in it");
}

/// CPU time of this process.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after = stat.rsplit(')').next().unwrap_or_default();
    let ticks: u64 =
        after.split_whitespace().skip(11).take(2).filter_map(|tick| tick.parse::<u64>().ok()).sum();
    // USER_HZ is 100 on Linux.
    Duration::from_millis(ticks * 10)
}
