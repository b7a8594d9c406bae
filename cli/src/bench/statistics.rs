//! Quantiles of measurements.

use serde_json::{Value, json};

use super::rounded;

/// Median, 99th percentile, largest and count, in the unit of the samples; null without any.
pub(super) fn quantiles(samples: Vec<f64>) -> Value {
    quantiles_to(samples, 1)
}

/// The same with so many digits.
pub(super) fn quantiles_to(mut samples: Vec<f64>, digits: i32) -> Value {
    samples.sort_by(f64::total_cmp);
    let at = |part| quantile(&samples, part).map_or(Value::Null, |value| rounded(value, digits));
    if samples.is_empty() {
        return Value::Null;
    }
    json!({ "p50": at(0.5), "p99": at(0.99), "max": at(1.0), "n": samples.len() })
}

/// The smallest of the sorted samples that is not below this part of them.
pub(super) fn quantile(sorted: &[f64], part: f64) -> Option<f64> {
    let rank = (sorted.len() as f64 * part).ceil() as usize;
    sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_has_no_quantiles() {
        assert_eq!(quantiles(Vec::new()), Value::Null);
        assert_eq!(quantile(&[], 0.5), None);
    }

    #[test]
    fn a_quantile_is_one_of_the_samples() {
        let samples: Vec<f64> = (1..=200).map(f64::from).collect();
        assert_eq!(quantile(&samples, 0.5), Some(100.0));
        assert_eq!(quantile(&samples, 0.99), Some(198.0));
        assert_eq!(quantile(&samples, 1.0), Some(200.0));
        assert_eq!(quantile(&[7.0], 0.99), Some(7.0));
    }
}
