//! The systemd unit of `deploy/`.

use std::fs;
use test_support::netns::{sh, skip_without};

#[test]
fn systemd_finds_no_fault_with_the_unit() {
    if skip_without("systemd-analyze") {
        return;
    }
    let unit = include_str!("../../deploy/kube-proxy.service");
    let installed = "/usr/local/bin/kube-proxy";
    assert!(unit.contains(installed));
    let directory = tempfile::tempdir().unwrap();
    let copy = directory.path().join("kube-proxy.service");
    fs::write(&copy, unit.replace(installed, env!("CARGO_BIN_EXE_kube-proxy"))).unwrap();
    let said = sh(&format!("systemd-analyze verify --man=no {} 2>&1", copy.display()));
    // It goes through all units that this one needs, and may find fault with those.
    let faults: Vec<&str> =
        said.lines().filter(|line| line.contains("kube-proxy.service")).collect();
    assert!(faults.is_empty(), "{faults:#?}");
}
