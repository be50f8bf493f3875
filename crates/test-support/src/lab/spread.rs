//! Is a choice even?

use std::collections::BTreeMap;

/// Panics unless exactly these endpoints answered and their counts may well come from an even random choice:
/// Pearson's chi-square below the value that chance exceeds once in a thousand million runs.
#[track_caller]
pub fn assert_even(counts: &BTreeMap<String, usize>, endpoints: &[&str]) {
    let mut expected: Vec<&str> = endpoints.to_vec();
    expected.sort_unstable();
    let seen: Vec<&str> = counts.keys().map(String::as_str).collect();
    assert_eq!(seen, expected, "who answered: {counts:?}");
    let total: usize = counts.values().sum();
    let mean = total as f64 / counts.len() as f64;
    let chi_square: f64 = counts.values().map(|count| (*count as f64 - mean).powi(2) / mean).sum();
    let bound = chi_square_bound(counts.len() - 1);
    assert!(chi_square <= bound, "uneven: {counts:?}, chi-square {chi_square:.1} > {bound:.1}");
}

/// Upper quantile of the chi-square distribution at six standard deviations (Wilson and Hilferty).
fn chi_square_bound(freedom: usize) -> f64 {
    let k = freedom.max(1) as f64;
    k * (1.0 - 2.0 / (9.0 * k) + 6.0 * (2.0 / (9.0 * k)).sqrt()).powi(3)
}

#[test]
fn an_even_spread_passes_and_a_lopsided_one_does_not() {
    let counts = |a, b| BTreeMap::from([("a".to_owned(), a), ("b".to_owned(), b)]);
    assert_even(&counts(95, 105), &["b", "a"]);
    for (counts, endpoints) in [(counts(30, 170), ["a", "b"]), (counts(95, 105), ["a", "c"])] {
        assert!(std::panic::catch_unwind(|| assert_even(&counts, &endpoints)).is_err());
    }
}
