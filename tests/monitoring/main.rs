//! `deploy/monitoring/`: what it asks for is there, and nothing of ours is missing from it. `make test-monitoring` has
//! promtool run the tests of the rules.

use kube_proxy::metrics::Metrics;
use kube_proxy::model::Family;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/monitoring")
}

fn read(file: &str) -> String {
    fs::read_to_string(folder().join(file)).expect(file)
}

/// Names of metrics in a text: what their names begin with is Kubernetes' or ours.
fn named(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_lowercase() && !c.is_ascii_digit() && c != '_');
    let begins = ["kubeproxy_", "kubernetes_", "rest_client_", "process_"];
    let metrics = words.filter(|word| begins.iter().any(|begin| word.starts_with(begin)));
    metrics.map(|word| word.strip_suffix("_bucket").unwrap_or(word).to_owned()).collect()
}

/// All metrics that there are.
fn ours() -> BTreeSet<String> {
    let metrics = Metrics::new(&Family::BOTH);
    metrics.names().iter().cloned().collect()
}

#[test]
fn what_rules_and_dashboard_ask_for_is_there() {
    let ours = ours();
    for file in ["rules.yaml", "rules-test.yaml", "dashboard.json", "../../docs/runbook.md"] {
        let unknown: Vec<_> = named(&read(file)).difference(&ours).cloned().collect();
        assert_eq!(unknown, Vec::<String>::new(), "in {file}");
    }
}

#[test]
fn the_dashboard_has_all_of_our_metrics() {
    let dashboard = named(&read("dashboard.json"));
    // What says the same as another one, or nothing that changes.
    let left_out = ["process_virtual_memory_bytes", "process_virtual_memory_max_bytes"];
    let missing: Vec<_> = ours()
        .difference(&dashboard)
        .filter(|name| !left_out.contains(&&***name))
        .cloned()
        .collect();
    assert_eq!(missing, Vec::<String>::new());
}

#[test]
fn every_alert_is_in_the_runbook_and_tested_both_ways() {
    let rules: Value = serde_norway::from_str(&read("rules.yaml")).expect("YAML");
    let tests: Value = serde_norway::from_str(&read("rules-test.yaml")).expect("YAML");
    let runbook = fs::read_to_string(folder().join("../../docs/runbook.md")).expect("the runbook");
    let tested = |test: usize, alert: &str| {
        let list = tests["tests"][test]["alert_rule_test"].as_array().expect("a list");
        list.iter().any(|one| one["alertname"] == alert)
    };
    for rule in rules["groups"][0]["rules"].as_array().expect("a list") {
        let alert = rule["alert"].as_str().expect("a name");
        assert!(runbook.contains(&format!("\n## {alert}\n")), "{alert} is not in the runbook");
        let link = format!("docs/runbook.md#{}", alert.to_lowercase());
        assert_eq!(rule["annotations"]["runbook_url"], link);
        assert!(tested(0, alert) && tested(1, alert), "{alert} is not tested");
    }
}

#[test]
fn promtool_agrees() {
    let Some(promtool) = std::env::var_os("KUBE_PROXY_PROMTOOL") else {
        return test_support::skip::tell("promtool is not named: see make test-monitoring");
    };
    for arguments in [["check", "rules", "rules.yaml"], ["test", "rules", "rules-test.yaml"]] {
        let mut command = Command::new(&promtool);
        let output = command.args(arguments).current_dir(folder()).output().expect("run promtool");
        let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(
            output.status.success(),
            "{arguments:?}: {}{}",
            said(&output.stdout),
            said(&output.stderr)
        );
    }
}
