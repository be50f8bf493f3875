//! The format of case files: see `README.md`.

use super::expected::{Expectation, Probe};
use super::objects;
use super::topology::Topology;
use kube_proxy::app::settings::sync_options;
use kube_proxy::config::{Config, Flags, LoadedFile};
use kube_proxy::sync;
use serde::Deserialize;
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;

/// A file of cases.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Raw {
    /// Fields of the KubeProxyConfiguration of all its cases.
    #[serde(default)]
    config: Value,
    /// Objects that all its cases start with.
    #[serde(default)]
    objects: Vec<Value>,
    cases: Vec<RawCase>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawCase {
    name: String,
    #[serde(default)]
    config: Value,
    /// Names of addresses that the node has besides its own.
    #[serde(default)]
    node_owns: Vec<String>,
    #[serde(default)]
    objects: Vec<Value>,
    #[serde(default)]
    packets: Vec<RawPacket>,
    #[serde(default)]
    then: Vec<RawStep>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawStep {
    #[serde(default)]
    objects: Vec<Value>,
    /// `Kind/name` or `Kind/namespace/name`.
    #[serde(default)]
    delete: Vec<String>,
    #[serde(default)]
    packets: Vec<RawPacket>,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPacket {
    from: OneOrMany,
    to: OneOrMany,
    expect: Expectation,
}

#[derive(Clone, Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    fn all(&self) -> &[String] {
        match self {
            OneOrMany::One(one) => std::slice::from_ref(one),
            OneOrMany::Many(many) => many,
        }
    }
}

/// A case, ready to be run.
pub struct Case {
    /// A KubeProxyConfiguration.
    config: Value,
    pub topology: Topology,
    pub steps: Vec<Step>,
}

impl Case {
    /// What the configuration comes to.
    pub fn options(&self) -> sync::Options {
        let flags = Flags::read(["kube-proxy", "--hostname-override", "node"]).expect("flags");
        let content = self.config.to_string().into_bytes();
        let file = LoadedFile { path: "config.yaml".into(), content };
        let config = Config::resolve(&flags, Some(file), || Ok("node".into()));
        sync_options(&config.unwrap_or_else(|error| panic!("{error}")))
    }
}

/// A state and what is true in it.
pub struct Step {
    /// All objects there are.
    pub objects: Vec<Value>,
    pub probes: Vec<Probe>,
}

fn directory() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/cases"))
}

/// Names of all case files, without `.yaml`.
pub fn all() -> Vec<String> {
    let entries = fs::read_dir(directory()).expect("list the case files");
    let names = entries.map(|entry| entry.expect("an entry").file_name());
    let names = names.filter_map(|name| Some(name.to_str()?.strip_suffix(".yaml")?.to_owned()));
    let mut names: Vec<String> = names.collect();
    names.sort_unstable();
    names
}

/// Reads the cases of a file.
pub fn read(name: &str) -> Vec<Case> {
    let path = directory().join(format!("{name}.yaml"));
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}.yaml: {error}"));
    let document: serde_norway::Value =
        serde_norway::from_str(&text).unwrap_or_else(|error| panic!("{name}.yaml: {error}"));
    let raw: Raw = serde_path_to_error::deserialize(document)
        .unwrap_or_else(|error| panic!("{name}.yaml: {error}"));
    raw.cases.iter().map(|case| prepare(name, &raw, case)).collect()
}

fn prepare(file: &str, raw: &Raw, case: &RawCase) -> Case {
    let mut config = json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clusterCIDR": "10.244.0.0/16,fd00:10:244::/56",
    });
    objects::merge(&mut config, &raw.config);
    objects::merge(&mut config, &case.config);
    let mut topology = Topology::new(
        config["detectLocal"]["bridgeInterface"].as_str(),
        config["detectLocal"]["interfaceNamePrefix"].as_str(),
    );
    case.node_owns.iter().for_each(|name| topology.give_to_node(name));

    let mut state = vec![topology.node_object()];
    objects::change(&mut state, &raw.objects);
    let first = RawStep {
        objects: case.objects.clone(),
        packets: case.packets.clone(),
        delete: Vec::new(),
    };
    let mut steps = Vec::new();
    for (number, step) in [&first].into_iter().chain(&case.then).enumerate() {
        objects::change(&mut state, &step.objects);
        step.delete.iter().for_each(|name| objects::delete(&mut state, name));
        let what = match number {
            0 => format!("{file}: {}", case.name),
            _ => format!("{file}: {}, then {number}", case.name),
        };
        let probes = step.packets.iter().flat_map(|packet| {
            packet.from.all().iter().flat_map(|from| {
                let to = packet.to.all().iter();
                to.flat_map(|to| Probe::all(&what, from, to, &packet.expect, &topology))
                    .collect::<Vec<_>>()
            })
        });
        let probes = probes.collect();
        steps.push(Step { objects: objects::expand(&state, &topology), probes });
    }
    Case { config, topology, steps }
}
