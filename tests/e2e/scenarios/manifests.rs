//! The manifests of `deploy/` and the real server.

use crate::World;
use std::fs;
use std::path::Path;
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
