//! The figures of the process, by the names that all clients of Prometheus use. They are read from `/proc`; a figure
//! that cannot be read is left out.

use std::fs;

use gossipmonger::metrics::{Kind, Sample, Series};

pub(super) const SERIES: [Series; 6] = [
    series(
        "process_cpu_seconds_total",
        Kind::Counter,
        "User and system CPU time spent, in seconds.",
    ),
    series("process_max_fds", Kind::Gauge, "The most file descriptors that may be open."),
    series("process_open_fds", Kind::Gauge, "Open file descriptors."),
    series("process_resident_memory_bytes", Kind::Gauge, "Resident memory, in bytes."),
    series(
        "process_start_time_seconds",
        Kind::Gauge,
        "When the process was started, in seconds since 1970.",
    ),
    series("process_virtual_memory_bytes", Kind::Gauge, "Virtual memory, in bytes."),
];

const fn series(name: &'static str, kind: Kind, help: &'static str) -> Series {
    Series { name, kind, labels: &[], help }
}

pub(super) fn read(samples: &mut Vec<Sample>) {
    let figures = [("process_open_fds", descriptors()), ("process_max_fds", descriptors_max())];
    let figures = figures.into_iter().chain(of_stat());
    samples.extend(figures.filter_map(|(name, number)| Some(Sample::new(name, vec![], number?))));
}

/// See proc_pid_stat(5).
fn of_stat() -> [(&'static str, Option<f64>); 4] {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name of the program may have any characters, and is in parentheses.
    let fields: Vec<f64> = stat
        .rsplit_once(')')
        .map(|(_, fields)| fields.split_whitespace().map(|field| field.parse().unwrap_or(0.0)))
        .into_iter()
        .flatten()
        .collect();
    // The first one here is the third one there.
    let field = |number: usize| fields.get(number - 3).copied();
    let ticks = rustix::param::clock_ticks_per_second() as f64;
    let page = rustix::param::page_size() as f64;
    let cpu = field(14).zip(field(15)).map(|(user, system)| (user + system) / ticks);
    let start = field(22).zip(booted()).map(|(since_boot, boot)| boot + since_boot / ticks);
    [
        ("process_cpu_seconds_total", cpu),
        ("process_start_time_seconds", start),
        ("process_virtual_memory_bytes", field(23)),
        ("process_resident_memory_bytes", field(24).map(|pages| pages * page)),
    ]
}

/// When the system was started, in seconds since 1970.
fn booted() -> Option<f64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

fn descriptors() -> Option<f64> {
    // The one that reads the directory is among them.
    Some(fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1) as f64)
}

fn descriptors_max() -> Option<f64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;
    use gossipmonger::metrics::Value;

    #[test]
    fn the_figures_are_those_of_this_process() {
        let mut samples = Vec::new();
        read(&mut samples);
        let number = |name: &str| {
            let found = samples.iter().find(|sample| sample.name == name);
            match found.unwrap_or_else(|| panic!("{name} is missing")).value {
                Value::Number(number) => number,
                _ => panic!("{name} is no number"),
            }
        };
        let names: Vec<_> = SERIES.iter().map(|series| series.name).collect();
        assert!(names.iter().all(|name| number(name) >= 0.0), "{samples:?}");
        let (resident, all) =
            (number("process_resident_memory_bytes"), number("process_virtual_memory_bytes"));
        assert!(1e6 < resident && resident < all, "{samples:?}");
        let open = number("process_open_fds");
        assert!(3.0 <= open && open <= number("process_max_fds"), "{samples:?}");
        let now = crate::clock::Clock::wall().duration_since(std::time::UNIX_EPOCH).unwrap();
        let age = now.as_secs_f64() - number("process_start_time_seconds");
        assert!((-2.0..86_400.0).contains(&age), "started {age} s ago");
    }
}
