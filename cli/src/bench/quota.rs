//! A part of the machine for a measurement, to see what it costs when CPU is short.
//!
//! The process is confined to whole CPUs. For a part of one CPU it gets one worker, and processes that only spin compete
//! with it there at the same priority: the kernel gives each thread that wants to run the same share.

use std::{
    io::Read,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use crate::error::CliError;

/// What `--cores` gives a measurement.
#[derive(Debug)]
pub(super) struct Quota {
    cores: f64,
    workers: usize,
    spinners: Vec<Child>,
}

impl Quota {
    /// Takes effect for the threads that this thread starts from now on.
    ///
    /// # Errors
    /// If the machine has fewer cores, the part cannot be made of whole competitors, or the system refuses.
    pub(super) fn take(cores: f64) -> Result<Self, CliError> {
        let parts = parts(cores)?;
        let whole = if parts > 1 { 1 } else { cores.round() as usize };
        confine(whole)?;
        let mut quota = Self { cores, workers: whole, spinners: Vec::new() };
        let program = std::env::current_exe()?;
        for _ in 1..parts {
            // It spins until this end of its input is closed, also if this process is killed.
            let spinner =
                Command::new(&program).args(["bench", SPIN]).stdin(Stdio::piped()).spawn()?;
            quota.spinners.push(spinner);
        }
        Ok(quota)
    }

    pub(super) const fn cores(&self) -> f64 {
        self.cores
    }

    pub(super) const fn workers(&self) -> usize {
        self.workers
    }
}

impl Drop for Quota {
    fn drop(&mut self) {
        for spinner in &mut self.spinners {
            drop(spinner.stdin.take());
            if let Err(error) = spinner.wait() {
                tracing::warn!(%error, "cannot wait for a competitor for CPU");
            }
        }
    }
}

/// Uses CPU until the input ends.
pub(super) fn spin() {
    static ENDED: AtomicBool = AtomicBool::new(false);
    thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        ENDED.store(true, Ordering::Relaxed);
    });
    while !ENDED.load(Ordering::Relaxed) {
        std::hint::spin_loop();
    }
}

/// How many threads share the CPU: more than one for less than a core.
fn parts(cores: f64) -> Result<usize, CliError> {
    let refuse = |why: &str| Err(CliError::usage(format!("--cores {cores} is refused: {why}")));
    if !(CORES_MIN..=CORES_MAX).contains(&cores) {
        return refuse(&format!("{CORES_MIN} to {CORES_MAX} is allowed"));
    }
    if cores >= 1.0 {
        return if cores.fract() == 0.0 { Ok(1) } else { refuse("above 1 it is a whole number") };
    }
    let parts = (1.0 / cores).round();
    if (cores * parts - 1.0).abs() > TOLERANCE {
        return refuse(
            "below 1 it is one part of a core in a whole number: 0.5, 0.33, 0.25, 0.2, 0.1, ...",
        );
    }
    Ok(parts as usize)
}

#[cfg(target_os = "linux")]
fn confine(cpus: usize) -> Result<(), CliError> {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

    let allowed = sched_getaffinity(None).map_err(std::io::Error::from)?;
    let mut taken = CpuSet::new();
    let of_process = (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu));
    of_process.take(cpus).for_each(|cpu| taken.set(cpu));
    if taken.count() as usize != cpus {
        return Err(CliError::usage(format!(
            "--cores {cpus} is refused: this process may use {} of the machine's",
            allowed.count()
        )));
    }
    sched_setaffinity(None, &taken).map_err(std::io::Error::from)?;
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn confine(_: usize) -> Result<(), CliError> {
    Err(CliError::usage("--cores is refused: only Linux confines a process to CPUs"))
}

/// The hidden command of a competitor.
const SPIN: &str = "spin";
const CORES_MIN: f64 = 0.02;
const CORES_MAX: f64 = 1_024.0;
/// 0.33 is a third.
const TOLERANCE: f64 = 0.02;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_part_of_a_core_is_refused() {
        for cores in [0.0, -1.0, 0.01, 0.4, 0.9, 1.5, f64::NAN, 2_000.0] {
            assert!(parts(cores).is_err(), "{cores}");
        }
        for (cores, threads) in [(2.0, 1), (1.0, 1), (0.5, 2), (0.33, 3), (0.2, 5), (0.05, 20)] {
            assert_eq!(parts(cores).ok(), Some(threads), "{cores}");
        }
    }
}
