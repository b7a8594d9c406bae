//! A measurement counts only if the work that it measures was done.
//!
//! Each benchmark states the conditions for its result, as a pure function of its counters. If one does not hold, the
//! figures that depend on it become null, `void` gives the reason, and the command fails.

use serde_json::Value;

use super::Report;
use crate::error::CliError;

/// What was not done, in words. Empty: the measurement counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Faults(Vec<String>);

impl Faults {
    /// If this condition does not hold, the measurement is void.
    pub(super) fn require(&mut self, holds: bool, otherwise: impl FnOnce() -> String) {
        if !holds {
            self.0.push(otherwise());
        }
    }

    /// All nodes must have found each other before anything is measured.
    pub(super) fn require_joined(&mut self, out: &Report) {
        let joined = out.get("join_s").is_some_and(Value::is_number);
        self.require(joined, || "the nodes did not all find each other in time".to_owned());
    }

    pub(super) fn append(&mut self, mut more: Self) {
        self.0.append(&mut more.0);
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Writes `void` into the report; if the measurement is void, its figures become null. Missing figures are added.
    pub(super) fn judge(&self, out: &mut Report, figures: &[&str]) {
        if self.is_empty() {
            out.entry(VOID).or_insert(Value::Null);
            return;
        }
        for figure in figures {
            out.insert((*figure).to_owned(), Value::Null);
        }
        let mut all = Self::of(out);
        all.0.extend(self.0.iter().filter(|fault| !Self::of(out).0.contains(fault)).cloned());
        out.insert(VOID.into(), all.0.into());
    }

    /// Fails if the report describes a void measurement.
    pub(super) fn check(out: &Report) -> Result<(), CliError> {
        let faults = Self::of(out);
        if faults.is_empty() {
            return Ok(());
        }
        Err(CliError::failed(format!("the measurement is void: {}", faults.0.join("; "))))
    }

    fn of(out: &Report) -> Self {
        let faults = out.get(VOID).and_then(Value::as_array).into_iter().flatten();
        Self(faults.filter_map(Value::as_str).map(str::to_owned).collect())
    }
}

const VOID: &str = "void";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_void_measurement_has_no_figures_and_fails() {
        let mut out = Report::new();
        out.insert("rate".into(), json!(7));
        out.insert("nodes".into(), json!(3));
        let mut faults = Faults::default();
        faults.require_joined(&out);
        faults.judge(&mut out, &["rate", "p99"]);
        faults.judge(&mut out, &["rate"]);
        assert_eq!(
            (&out["rate"], &out["p99"], &out["nodes"]),
            (&json!(null), &json!(null), &json!(3))
        );
        assert_eq!(out["void"].as_array().map(Vec::len), Some(1), "each fault once: {out:?}");
        let error = Faults::check(&out).unwrap_err().to_string();
        assert!(error.contains("did not all find each other"), "{error}");
    }

    #[test]
    fn a_measurement_without_faults_keeps_its_figures() {
        let mut out = Report::new();
        out.insert("join_s".into(), json!(0.5));
        let mut faults = Faults::default();
        faults.require_joined(&out);
        faults.judge(&mut out, &["join_s"]);
        assert_eq!((&out["join_s"], &out["void"]), (&json!(0.5), &json!(null)));
        assert!(Faults::check(&out).is_ok());
    }
}
