//! The manifests of `deploy/` and the real server.

use crate::World;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use test_support::cluster::Cluster;

const DEPLOY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy");

/// Applies `deploy/base` as an operator does: from an overlay with the cluster's own settings.
pub fn apply_base(cluster: &Cluster) {
    let overlay = cluster.directory().join("overlay");
    fs::create_dir(&overlay).expect("a directory");
    let base = Path::new(DEPLOY).join("base");
    // kustomize wants relative paths.
    let up = "../".repeat(overlay.components().count() - 1);
    let base_path = format!("{up}{}", base.to_str().expect("UTF-8").trim_start_matches('/'));
    let kustomization = format!(
        "resources: [{base_path}]\n\
         configMapGenerator:\n\
         - name: kube-proxy\n  namespace: kube-system\n  behavior: replace\n  \
           files: [config.conf, kubeconfig.conf]\n"
    );
    fs::write(overlay.join("kustomization.yaml"), kustomization).expect("write");
    let edit = |file: &str, old: &str, new: &str| {
        let text = fs::read_to_string(base.join(file)).expect("read");
        assert!(text.contains(old), "{file} has no {old}");
        fs::write(overlay.join(file), text.replace(old, new)).expect("write");
    };
    // Only the host's own namespace may change the size of the conntrack table.
    let own = "clusterCIDR: 10.244.0.0/16,fd00:10:244::/48\nconntrack:\n  maxPerCore: 0";
    edit("config.conf", "clusterCIDR: \"\"", own);
    edit("kubeconfig.conf", "https://control-plane.example:6443", &cluster.url());
    let overlay = overlay.to_str().expect("UTF-8");
    let said = cluster.kubectl(&["apply", "--server-side", "-k", overlay]);
    for object in ["serviceaccount/kube-proxy", "configmap/kube-proxy", "daemonset.apps/kube-proxy"]
    {
        assert!(said.contains(object), "{object} is not in {said}");
    }
}

pub fn the_server_takes_all_manifests(world: &mut World) {
    world.need_manifests();
    let cluster = &world.cluster;
    for variant in ["kubeadm", "side-by-side"] {
        let directory = format!("{DEPLOY}/{variant}");
        let arguments = ["apply", "--server-side", "--force-conflicts", "--dry-run=server", "-k"];
        let said = cluster.kubectl(&[&arguments[..], &[&directory]].concat());
        assert_eq!(said.lines().count(), 1, "only the DaemonSet: {said}");
    }
    let keep_off = format!("{DEPLOY}/side-by-side/keep-off.yaml");
    let patch = ["-n", "kube-system", "patch", "daemonset", "kube-proxy", "--dry-run=server"];
    cluster.kubectl(&[&patch[..], &["--patch-file", &keep_off]].concat());
}

/// With its values as they are, the Helm chart is `deploy/base`; the server takes it with others, and a slip of the pen
/// is refused.
pub fn the_chart_is_the_base(world: &mut World) {
    let cluster = &world.cluster;
    let base = cluster.kubectl(&["kustomize", &format!("{DEPLOY}/base")]);
    let chart = helm(cluster, &[]).expect("a chart");
    assert_eq!(objects(&chart), objects(&base));
    let values = [
        "image.repository=registry.example/proxy",
        "image.tag=v9",
        "config.clusterCIDR=10.244.0.0/16",
        "config.healthzBindAddress=0.0.0.0:10300",
        "setUp=false",
        "maxUnavailable=1",
        "extraArgs={-v=4}",
        "podAnnotations.team=net",
    ];
    let chart = helm(cluster, &values).expect("a chart");
    let file = cluster.directory().join("chart.yaml");
    fs::write(&file, &chart).expect("write the chart");
    let file = file.to_str().expect("UTF-8");
    let arguments = ["apply", "--server-side", "--force-conflicts", "--dry-run=server", "-f", file];
    assert_eq!(cluster.kubectl(&arguments).lines().count(), 4);
    let daemon_set = &objects(&chart)["DaemonSet"]["spec"]["template"]["spec"];
    assert_eq!(daemon_set["initContainers"], Value::Null);
    let container = &daemon_set["containers"][0];
    assert_eq!(container["image"], "registry.example/proxy:v9");
    assert_eq!(container["command"][3], "-v=4");
    assert_eq!(container["ports"][0]["hostPort"], 10300);
    for wrong in ["imag.tag=v9", "setUp=perhaps", "apiServer=control-plane", "extraArgs={v}"] {
        let refusal = helm(cluster, &[wrong]).expect_err(wrong);
        assert!(refusal.contains("values don't meet the specifications"), "{refusal}");
    }
}

/// The chart with some values, or what helm has against them.
fn helm(cluster: &Cluster, values: &[&str]) -> Result<String, String> {
    let mut command = Command::new(cluster.tool("helm"));
    command.args(["template", "kube-proxy", &format!("{DEPLOY}/helm"), "--kube-version=1.36.0"]);
    for value in values {
        command.args(["--set", value]);
    }
    let output = command.output().expect("start helm");
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(said(&output.stdout)) } else { Err(said(&output.stderr)) }
}

/// Objects by kind. The files of a ConfigMap are what they say, not how.
fn objects(text: &str) -> BTreeMap<String, Value> {
    let documents = serde_norway::Deserializer::from_str(text);
    let mut objects = BTreeMap::new();
    for document in documents {
        let mut object: Value = serde::Deserialize::deserialize(document).expect("YAML");
        if let Some(data) = object.get_mut("data").and_then(Value::as_object_mut) {
            for (_, file) in data {
                *file = serde_norway::from_str(file.as_str().expect("a text")).expect("YAML");
            }
        }
        let kind = object["kind"].as_str().unwrap_or_default().to_owned();
        if !object.is_null() {
            assert_eq!(objects.insert(kind, object), None);
        }
    }
    objects
}
