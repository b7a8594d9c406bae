//! Clusters that have more to do than they have time for.

use gossipmonger::sim::{busy::Cluster, cpu::Work, storm::Storm};

#[test]
fn table() {
    let nodes = crate::number("COUNT").unwrap_or(60) as usize;
    let cores: f64 = std::env::var("CORES").ok().and_then(|c| c.parse().ok()).unwrap_or(1.0);
    let seed = crate::number("SEED").unwrap_or(1);
    let begun = std::time::Instant::now();
    let storm = Storm::joins(Cluster::sharing(seed, nodes, cores));
    let out = storm.run();
    let took = begun.elapsed();
    let useful = storm.useful(out.span);
    println!(
        "N={nodes} cores={cores} listed {:?} calm {:?} lag {:?} edges {} in {took:?} and {:?}",
        out.listed,
        out.calm,
        out.lag(),
        out.edges,
        begun.elapsed()
    );
    let e = &out.efforts;
    println!(
        "{:.2} s of work, useful {:.2}: dials {} {:?} settlements {} exchanges {} received {}",
        e.worked.sum() as f64 / 1e6,
        useful.sum() as f64 / 1e6,
        e.dials,
        e.handshakes,
        e.settlements,
        e.exchanges,
        e.received
    );
    for work in Work::ALL {
        println!(
            "  {:12} {:6.2} useful {:6.2}",
            work.as_str(),
            e.worked.of(work) as f64 / 1e6,
            useful.of(work) as f64 / 1e6
        );
    }
}
