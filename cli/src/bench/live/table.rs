//! The result of `bench live` for people: a row for each datacenter.

use serde_json::Value;

use crate::{bench::Report, error::CliError, output};

/// Prints the report.
pub(super) fn print(out: &Report) -> Result<(), CliError> {
    let out = &Value::Object(out.clone());
    let datacenters = out["nodes"].as_object().into_iter().flatten();
    let rows: Vec<_> = datacenters.map(|(name, nodes)| row(out, name, nodes)).collect();
    output::table(
        [
            "DATACENTER",
            "NODES",
            "RTT ms",
            "SPREAD p50",
            "p99",
            "max",
            "CALL p50",
            "p99",
            "REPLIES",
            "MIB/S",
            "BYTES",
        ],
        &rows,
    )?;
    let spread = &out["spread_ms"];
    for (audience, of) in [("a quorum had", "quorum"), ("all counted nodes had", "all")] {
        let [p50, p99, max] = quantiles(&spread[of]);
        let writes = shown(&out["writes"]);
        output::line(&format!(
            "{audience} each of {writes} writes after p50 {p50}, p99 {p99}, max {max} ms"
        ))?;
    }
    output::line(&format!(
        "copies equal to what was written: {}; replies to {} calls: {}; bytes sent {}, counted at the receivers {}",
        shown(&out["copies_checked"]),
        shown(&out["calls"]),
        shown(&out["replies"]),
        shown(&out["bytes_sent"]),
        shown(&out["bytes_received"]),
    ))?;
    let [p50, _, max] = quantiles(&out["asked_every_ms"]);
    output::line(&format!(
        "all nodes were asked every {p50} ms (longest {max}): the times of the spread are not finer"
    ))?;
    for node in out["left_out"].as_array().into_iter().flatten() {
        let text = |field: &str| node[field].as_str().unwrap_or_default();
        output::line(&format!("{} ({}): {}", text("node"), text("datacenter"), text("why")))?;
    }
    Ok(())
}

fn row(out: &Value, name: &str, nodes: &Value) -> [String; 11] {
    let [spread_p50, spread_p99, spread_max] = quantiles(&out["spread_ms"]["datacenters"][name]);
    let calls = &out["call_ms"][name];
    let [call_p50, call_p99, _] = quantiles(calls);
    let throughput = &out["throughput"][name];
    [
        name.to_owned(),
        shown(nodes),
        shown(&out["rtt_ms"][name]["p50"]),
        spread_p50,
        spread_p99,
        spread_max,
        call_p50,
        call_p99,
        shown(&calls["n"]),
        shown(&throughput["mib_per_s"]),
        shown(&throughput["bytes"]),
    ]
}

fn quantiles(figures: &Value) -> [String; 3] {
    ["p50", "p99", "max"].map(|name| shown(&figures[name]))
}

fn shown(figure: &Value) -> String {
    if figure.is_null() { "-".to_owned() } else { figure.to_string() }
}
