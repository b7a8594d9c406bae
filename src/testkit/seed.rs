//! Runs of a test, one a seed.

use tokio::runtime::Builder;

use super::kit::Kit;

/// The variable with the only seed that [`check`] runs.
const VARIABLE: &str = "GOSSIPMONGER_SEED";

/// Runs `test` once for each seed, in a runtime of its own. If the variable `GOSSIPMONGER_SEED` is set, it runs that
/// seed alone, whichever `seeds` are given.
///
/// # Panics
/// If a run does; then its seed and the end of its trace are printed, and no further seed is tried. Also if the
/// variable is no number.
pub fn check<F: Future<Output = ()>>(
    seeds: impl IntoIterator<Item = u64>,
    test: impl Fn(Kit) -> F,
) {
    match only() {
        Some(seed) => run(seed, &test),
        None => seeds.into_iter().for_each(|seed| run(seed, &test)),
    }
}

/// Runs `test` with this seed, in a runtime of its own, and returns its result. At the end all nodes are killed.
///
/// # Panics
/// If `test` does; then the seed and the end of the trace are printed. Also within another runtime: there a thread
/// must not block.
pub fn run<T, F: Future<Output = T>>(seed: u64, test: impl FnOnce(Kit) -> F) -> T {
    let mut builder = Builder::new_current_thread();
    builder.enable_time().start_paused(true);
    #[cfg(tokio_unstable)]
    builder.rng_seed(tokio::runtime::RngSeed::from_bytes(&seed.to_le_bytes()));
    let runtime = builder.build().unwrap_or_else(|error| panic!("no runtime for a test: {error}"));
    runtime.block_on(async {
        let kit = Kit::new(seed);
        let _prints = Prints(&kit);
        let result = test(kit.clone()).await;
        kit.end().await;
        result
    })
}

fn only() -> Option<u64> {
    let seed = std::env::var(VARIABLE).ok()?;
    Some(seed.parse().unwrap_or_else(|_| panic!("{VARIABLE}={seed} is no number from 0 to 2^64-1")))
}

/// Prints how to repeat a run that panics.
struct Prints<'a>(&'a Kit);

impl Drop for Prints<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let kit = self.0;
            eprintln!(
                "the run with seed {seed} failed after {now:?} of virtual time; its last events:",
                seed = kit.seed(),
                now = kit.now()
            );
            let trace = kit.trace();
            trace[trace.len().saturating_sub(PRINTED)..]
                .iter()
                .for_each(|line| eprintln!("  {line}"));
            eprintln!("to repeat it, run the test with {VARIABLE}={}", kit.seed());
        }
    }
}

/// Lines of the trace that are printed.
const PRINTED: usize = 20;
