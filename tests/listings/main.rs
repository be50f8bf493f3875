//! `rulesets/`: whole tables of small scenarios, as planned, as the kernel lists them, and as nft loads them.
//! `make rulesets` writes the files anew.

use kube_proxy::intake::Options;
use kube_proxy::kernel::{Kernel, Nft};
use kube_proxy::manifests::Source;
use kube_proxy::model::Algorithm;
use kube_proxy::plan::{Counting, DetectLocal, Planner, Settings};
use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use test_support::listing::sorted_lines;
use test_support::netns::{in_namespace, sh, skip_without};

/// The scenario that all others build on.
const NODE: &str = "010_node";

fn rulesets() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("rulesets")
}

fn read(path: &str) -> String {
    fs::read_to_string(rulesets().join(path)).unwrap_or_default()
}

/// Compares a text with a file of `rulesets/`; with `UPDATE_RULESETS` in the environment writes it.
fn check(path: &str, text: &str) {
    if std::env::var_os("UPDATE_RULESETS").is_some() {
        fs::write(rulesets().join(path), text).unwrap();
    }
    assert_eq!(text, read(path), "rulesets/{path} is not what is planned; see make rulesets");
}

/// The names of all scenarios, in order.
fn scenarios() -> Vec<String> {
    let entries = fs::read_dir(rulesets()).unwrap().map(|entry| entry.unwrap());
    let folders = entries.filter(|entry| entry.file_type().unwrap().is_dir());
    let mut names: Vec<String> =
        folders.map(|entry| entry.file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names[0], NODE);
    names
}

/// Plans the objects of the node and of a scenario. Pods are what is in the cluster's CIDRs.
fn plan(scenario: &str) -> Planner {
    let mut planner = Planner::new(Settings {
        node_name: "node-1".into(),
        detect_local: DetectLocal::ClusterCidr(
            ["10.244.0.0/16", "fd00:10:244::/56"].map(|cidr| cidr.parse().unwrap()).into(),
        ),
        masquerade_all: false,
        localhost_nodeports: Vec::new(),
        counting: Counting::Off,
        algorithm: Algorithm::Random,
        reset_gone: false,
    });
    let folders = HashSet::from([NODE, scenario]);
    for folder in folders {
        let folder = rulesets().join(folder);
        let (_, changes) = Source::open(&folder, "node-1", Options::default()).unwrap();
        assert!(!changes.is_empty());
        changes.into_iter().for_each(|change| planner.apply(change));
    }
    let addresses = ["192.0.2.10/32", "2001:db8::10/128"].map(|address| address.parse().unwrap());
    planner.set_nodeport_networks(&addresses);
    planner.plan();
    planner.remove_emptied();
    planner
}

/// Lists the table and deletes it.
fn take() -> String {
    sh("nft list table inet kube-proxy; nft delete table inet kube-proxy")
}

/// What nft lists after it has loaded a text.
fn load(text: &str) -> String {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), text).unwrap();
    sh(&format!("nft -f {}", file.path().display()));
    take()
}

#[test]
fn scenarios_are_planned_as_documented() {
    for scenario in scenarios() {
        check(&format!("{scenario}/listing.nft"), &plan(&scenario).table().to_string());
    }
}

#[test]
fn scenarios_are_rendered_without_a_kernel() {
    for scenario in scenarios() {
        let mut folders = vec![rulesets().join(NODE), rulesets().join(&scenario)];
        folders.dedup();
        let rendered = Command::new(env!("CARGO_BIN_EXE_kube-proxy"))
            .arg("render")
            .args(folders)
            .args(["--node", "node-1", "--", "--cluster-cidr=10.244.0.0/16,fd00:10:244::/56"])
            .output()
            .unwrap();
        assert!(rendered.stderr.is_empty(), "{}", String::from_utf8_lossy(&rendered.stderr));
        let listing = read(&format!("{scenario}/listing.nft"));
        assert_eq!(String::from_utf8_lossy(&rendered.stdout), listing, "{scenario}");
    }
}

#[test]
fn scenarios_are_what_the_kernel_lists_and_nft_loads() {
    if skip_without("nft") {
        return;
    }
    in_namespace(|| {
        for scenario in scenarios() {
            let documented = read(&format!("{scenario}/listing.nft"));
            Nft::open().unwrap().commit(&plan(&scenario).table().changes()).unwrap();
            let committed = take();
            let planned = sorted_lines(&documented);
            assert_eq!(sorted_lines(&committed), planned, "{scenario}: the kernel");
            assert_eq!(sorted_lines(&load(&documented)), planned, "{scenario}: the file");
            assert_eq!(sorted_lines(&load(&committed)), planned, "{scenario}: loaded again");
        }
    });
}
