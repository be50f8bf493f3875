//! The image serves in the packet lab, with what the shipped DaemonSet lets it have: its capabilities, the default
//! seccomp profile, nothing that it may write to. `make test-image` builds it first.

use nft_table::Family;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use test_support::cluster::process::Process;
use test_support::lab::{Lab, Outcome, cluster_ip};
use test_support::proxy::{Manifests, endpoints, objects, service};

const DAEMON_SET: &str = include_str!("../../deploy/base/daemon-set.yaml");
/// What buildah gives a container that asks for nothing.
const DEFAULTS: [&str; 11] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];
const PATIENCE: Duration = Duration::from_secs(60);

/// A command of buildah, with a storage of its own.
fn buildah(storage: &Path) -> Command {
    let mut command = Command::new("buildah");
    command.args(["--storage-driver", "vfs", "--root"]).arg(storage.join("root"));
    command.arg("--runroot").arg(storage.join("run"));
    command
}

fn output(command: &mut Command) -> String {
    let output = command.output().expect("start buildah");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8").trim().to_owned()
}

/// The capabilities that the DaemonSet adds to none.
fn capabilities() -> Vec<String> {
    let daemon_set: serde_json::Value = serde_norway::from_str(DAEMON_SET).expect("YAML");
    let container = &daemon_set["spec"]["template"]["spec"]["containers"][0];
    let context = &container["securityContext"];
    assert_eq!(context["capabilities"]["drop"], serde_json::json!(["ALL"]));
    assert_eq!(context["readOnlyRootFilesystem"], true);
    assert_eq!(context["seccompProfile"]["type"], "RuntimeDefault");
    let added = context["capabilities"]["add"].as_array().expect("a list");
    added.iter().map(|name| name.as_str().expect("a name").to_owned()).collect()
}

/// All files of the image, with their sizes.
fn files(root: &Path) -> Vec<(PathBuf, u64)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root).expect("a directory").flatten() {
        let kind = entry.file_type().expect("a kind");
        match kind.is_dir() {
            true => found.extend(files(&entry.path())),
            false => found.push((entry.path(), entry.metadata().map_or(0, |data| data.len()))),
        }
    }
    found.sort();
    found
}

#[test]
fn it_serves_with_what_the_daemon_set_grants() {
    let archive = std::env::var_os("KUBE_PROXY_IMAGE").expect("run make test-image");
    let lab = Lab::builder().pod("a").pod("b").build().expect("a lab");
    let manifests = Manifests::new();
    manifests.apply(objects![
        service("web").cluster_ip(10).tcp(80),
        endpoints("web").tcp().on(&lab, &["b"]),
    ]);

    let storage = tempfile::tempdir().expect("a directory");
    let mut from = buildah(storage.path());
    from.arg("from").arg(format!("docker-archive:{}", archive.to_string_lossy()));
    let container = output(&mut from);
    let config = output(buildah(storage.path()).args(["inspect", &container]));
    let config: serde_json::Value = serde_json::from_str(&config).expect("JSON");
    let entrypoint = &config["OCIv1"]["config"]["Entrypoint"];
    assert_eq!(*entrypoint, serde_json::json!(["/usr/local/bin/kube-proxy"]));
    let root = PathBuf::from(output(buildah(storage.path()).args(["mount", &container])));
    let before = files(&root);
    assert_eq!(before.len(), 1, "nothing but the program: {before:?}");

    let granted = capabilities();
    let mut command = buildah(storage.path());
    command.args(["run", "--isolation=chroot", "--network=host", "--no-hosts"]);
    for name in DEFAULTS.iter().filter(|name| !granted.iter().any(|other| other == *name)) {
        command.arg(format!("--cap-drop=CAP_{name}"));
    }
    command.args(granted.iter().map(|name| format!("--cap-add=CAP_{name}")));
    command.arg("--volume").arg(format!("{}:/manifests:ro", manifests.path().display()));
    command.args([&container, "--", entrypoint[0].as_str().expect("a path")]);
    command.args(["--manifests=/manifests", "--hostname-override=node"]);
    command.arg("--conntrack-max-per-core=0");
    let log = storage.path().join("log");
    let mut running = Process::start(&lab.node().namespace, command, &log);
    for family in Family::BOTH {
        let vip = SocketAddr::new(cluster_ip(10, family), 80);
        let (start, reached) = (Instant::now(), Outcome::reached("b", lab.ip("a", family)));
        while lab.from("a").tcp(vip) != reached {
            running.assert_running();
            assert!(start.elapsed() < PATIENCE, "{}", running.log());
        }
    }
    let status = status_of(Path::new("/usr/local/bin/kube-proxy"), &root);
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_default().trim().to_owned()
    };
    // CAP_NET_ADMIN is number 12; 2 is a filter.
    assert_eq!(field("CapEff:"), "0000000000001000", "{status}");
    assert_eq!(field("Seccomp:"), "2", "{status}");
    running.stop(nix::sys::signal::Signal::SIGTERM);
    let left: Vec<_> =
        files(&root).into_iter().filter(|file| !file.0.starts_with(root.join("run"))).collect();
    let written: Vec<_> = left.iter().filter(|file| !before.contains(file) && file.1 > 0).collect();
    assert!(written.is_empty(), "{written:?}");
}

/// The status of the process that runs the program in a container with this root.
fn status_of(program: &Path, root: &Path) -> String {
    let wanted = fs::metadata(root.join(program.strip_prefix("/").expect("absolute")));
    let wanted = wanted.expect("the program").len();
    for process in fs::read_dir("/proc").expect("processes").flatten() {
        let exe = process.path().join("exe");
        let is_it =
            fs::read_link(&exe).is_ok_and(|path| path.ends_with("usr/local/bin/kube-proxy"));
        if is_it && fs::metadata(&exe).is_ok_and(|data| data.len() == wanted) {
            return fs::read_to_string(process.path().join("status")).unwrap_or_default();
        }
    }
    panic!("the program does not run");
}
