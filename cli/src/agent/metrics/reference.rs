//! `docs/metrics.md` has one row for each series: this writes the rows, and compares.

use std::{env, fmt::Write, fs, path::Path};

use gossipmonger::metrics::{Kind, Series};

use super::all_series;

/// The rows are between these two lines; what is before and after them is written by hand.
const BEGIN: &str = "<!-- Begin of what the test writes. -->\n";
const END: &str = "<!-- End of what the test writes. -->\n";
const UPDATE: &str = "METRICS_REFERENCE=update cargo test -p gossipmonger-cli --bin gossipmonger \
                      the_reference_of_metrics_is_that_of_the_code";

#[test]
fn the_reference_of_metrics_is_that_of_the_code() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
    let page = fs::read_to_string(&path).unwrap();
    let (head, rest) = page.split_once(BEGIN).expect("the first mark is missing");
    let (_, tail) = rest.split_once(END).expect("the second mark is missing");
    let now = format!("{head}{BEGIN}{}{END}{tail}", tables());
    if env::var("METRICS_REFERENCE").is_ok_and(|mode| mode == "update") {
        fs::write(path, now).unwrap();
        return;
    }
    assert!(page == now, "docs/metrics.md is out of date; renew it with: {UPDATE}");
}

fn tables() -> String {
    let all = all_series();
    let mut text = String::new();
    for (title, kind) in
        [("Histograms", Kind::Histogram), ("Gauges", Kind::Gauge), ("Counters", Kind::Counter)]
    {
        let of_kind: Vec<_> = all.iter().filter(|series| series.kind == kind).collect();
        assert!(!of_kind.is_empty(), "no {title}");
        let _ = write!(text, "\n## {title}\n\n| series | labels | meaning |\n|---|---|---|\n");
        for Series { name, labels, help, .. } in of_kind {
            let labels: Vec<_> = labels.iter().map(|label| format!("`{label}`")).collect();
            let _ = writeln!(text, "| `{name}` | {} | {help} |", labels.join(", "));
        }
    }
    text.push('\n');
    text
}
