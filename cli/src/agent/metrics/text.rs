//! Prometheus's text format, version 0.0.4.

use std::{
    collections::BTreeMap,
    fmt::{self, Write},
};

use super::{Sample, Series, Value};

/// The page: each series that has a sample, with its help text and kind before the samples.
pub(super) fn page(all: &[Series], samples: &mut [Sample]) -> String {
    let kinds: BTreeMap<_, _> = all.iter().map(|series| (series.name, series)).collect();
    samples.sort_by_key(|sample| sample.name);
    let (mut text, mut last) = (String::new(), "");
    for sample in samples.iter() {
        if sample.name != last
            && let Some(series) = kinds.get(sample.name)
        {
            last = sample.name;
            // A string takes whatever is written to it.
            let _ = head(&mut text, series);
        }
        let _ = write(&mut text, sample);
    }
    text
}

fn head(to: &mut String, Series { name, kind, help, .. }: &Series) -> fmt::Result {
    writeln!(to, "# HELP {name} {help}\n# TYPE {name} {}", kind.as_str())
}

fn write(to: &mut String, sample: &Sample) -> fmt::Result {
    let Sample { name, labels, value, .. } = sample;
    match value {
        Value::Number(number) => line(to, name, "", labels, None, *number),
        Value::Histogram(histogram) => {
            for (bound, count) in &histogram.classes {
                let bound = bound
                    .map_or_else(|| "+Inf".to_owned(), |bound| bound.as_secs_f64().to_string());
                line(to, name, "_bucket", labels, Some(&bound), *count as f64)?;
            }
            line(to, name, "_sum", labels, None, histogram.sum.as_secs_f64())?;
            line(to, name, "_count", labels, None, histogram.count() as f64)
        }
        _ => Ok(()),
    }
}

fn line(
    to: &mut String,
    name: &str,
    suffix: &str,
    labels: &[(&str, String)],
    bound: Option<&str>,
    number: f64,
) -> fmt::Result {
    write!(to, "{name}{suffix}")?;
    let bound = bound.map(|bound| ("le", bound));
    let mut labels =
        labels.iter().map(|(label, value)| (*label, value.as_str())).chain(bound).peekable();
    if labels.peek().is_some() {
        let mut separator = '{';
        for (label, value) in labels {
            write!(to, "{separator}{label}=\"{}\"", Escaped(value))?;
            separator = ',';
        }
        to.push('}');
    }
    writeln!(to, " {number}")
}

/// The value of a label. The names in them have no such characters today, and none may ever break the page.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|char| match char {
            '\\' => f.write_str("\\\\"),
            '"' => f.write_str("\\\""),
            '\n' => f.write_str("\\n"),
            char => f.write_char(char),
        })
    }
}

#[cfg(test)]
mod tests {
    use gossipmonger::{metrics::DATACENTERS_MAX, service::METHODS_MAX};
    use rustix::time::{ClockId, clock_gettime};

    use super::{super::all_series, *};

    fn cpu_us() -> i64 {
        let spent = clock_gettime(ClockId::ThreadCPUTime);
        spent.tv_sec * 1_000_000 + spent.tv_nsec / 1_000
    }

    /// As many samples as there can be of members, connections and calls.
    #[test]
    fn the_largest_page_names_each_series_once_and_has_one_line_a_sample() {
        let all = all_series();
        let mut samples = Vec::new();
        for series in &all {
            let times = match series.labels {
                [] => 1,
                labels if labels.contains(&"method") => METHODS_MAX,
                labels if labels.contains(&"datacenter") => DATACENTERS_MAX,
                _ => 64,
            };
            for n in 0..times {
                let labels = series.labels.iter().map(|label| (*label, format!("{label}-{n}")));
                samples.push(Sample::new(series.name, labels.collect(), n as f64));
            }
        }
        let before = cpu_us();
        let page = page(&all, &mut samples);
        println!(
            "{} samples, {} bytes: {} us of CPU",
            samples.len(),
            page.len(),
            cpu_us() - before
        );
        let heads = page.lines().filter(|line| line.starts_with('#')).count();
        assert_eq!(heads, 2 * all.len());
        assert_eq!(page.lines().count(), heads + samples.len());
    }

    #[test]
    fn a_value_of_a_label_cannot_leave_its_quotes() {
        let mut text = String::new();
        let labels = [("reason", "a\"} 1\n\\".to_owned())];
        line(&mut text, "name", "", &labels, Some("0.5"), 3.0).unwrap();
        assert_eq!(text, "name{reason=\"a\\\"} 1\\n\\\\\",le=\"0.5\"} 3\n");
    }
}
