//! The manifests source on real directories, with inotify.
//!
//! Nothing here waits for a time: that something is *not* sent is seen by the next batch, which holds
//! only what a later, known change brings.

use kube_proxy::intake::Options;
use kube_proxy::manifests::{Error, Source};
use kube_proxy::model::Change;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;
use tempfile::TempDir;

/// A failing test waits no longer than this.
const LIMIT: Duration = Duration::from_secs(30);

/// A Service of a name whose ClusterIP ends in a number.
fn service(name: &str, number: u8) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\n\
         spec: {{clusterIP: 10.96.0.{number}, ports: [{{port: 80}}]}}\n"
    )
}

/// A change in few words: `web=1`, or `web gone`.
fn short(change: &Change) -> String {
    match change {
        Change::Service(name, Some(service)) => {
            let ip = service.cluster_ips[0].to_string();
            format!("{}={}", name.name, ip.rsplit('.').next().unwrap())
        }
        Change::Service(name, None) => format!("{} gone", name.name),
        other => panic!("{other:?}"),
    }
}

fn all_short(changes: &[Change]) -> Vec<String> {
    changes.iter().map(short).collect()
}

/// A source that runs until dropped.
struct Running {
    batches: Receiver<Vec<Change>>,
    first: Vec<String>,
    _runtime: tokio::runtime::Runtime,
}

impl Running {
    fn on(path: &Path) -> Running {
        let (source, first) = Source::open(path, "node-1", Options::default()).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_time()
            .build()
            .unwrap();
        let (sender, batches) = channel();
        runtime.spawn(source.run(move |batch| {
            assert!(!batch.is_empty());
            let _ = sender.send(batch);
        }));
        Running { batches, first: all_short(&first), _runtime: runtime }
    }

    /// The next batch.
    fn next(&self) -> Vec<String> {
        all_short(&self.batches.recv_timeout(LIMIT).expect("a batch"))
    }

    /// All batches up to and with the one in which a change comes.
    fn until(&self, last: &str) -> Vec<String> {
        let mut changes = Vec::new();
        while !changes.iter().any(|change| change == last) {
            changes.extend(self.next());
        }
        changes
    }
}

struct Dir(TempDir);

impl Dir {
    fn new() -> Dir {
        Dir(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    /// Writes as careful editors do.
    fn replace(&self, name: &str, text: &str) {
        self.write(&format!(".{name}.tmp"), text);
        fs::rename(self.path(&format!(".{name}.tmp")), self.path(name)).unwrap();
    }
}

#[test]
fn files_come_change_and_go() {
    let dir = Dir::new();
    dir.write("b.yaml", &service("b", 2));
    dir.write("a.yml", &service("a", 1));
    dir.write("notes.txt", &service("x", 9));
    dir.write(".hidden.yaml", &service("x", 9));
    fs::create_dir(dir.path("sub.yaml")).unwrap();
    let running = Running::on(dir.0.path());
    assert_eq!(running.first, ["a=1", "b=2"]);

    dir.write("a.yml", &service("a", 3));
    assert_eq!(running.next(), ["a=3"]);
    dir.write(
        "c.json",
        r#"{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "c"},
        "spec": {"clusterIP": "10.96.0.4", "ports": [{"port": 80}]}}"#,
    );
    assert_eq!(running.next(), ["c=4"]);
    dir.replace("a.yml", &service("a", 5));
    assert_eq!(running.next(), ["a=5"]);
    fs::remove_file(dir.path("b.yaml")).unwrap();
    assert_eq!(running.next(), ["b gone"]);
    // As vim does; that the objects are not gone meanwhile is a matter of time, tested elsewhere.
    fs::rename(dir.path("a.yml"), dir.path("a.yml~")).unwrap();
    dir.write("a.yml", &service("a", 6));
    running.until("a=6");
    // Renamed: the same objects, so nothing to send; renamed away: gone.
    fs::rename(dir.path("a.yml"), dir.path("z.yaml")).unwrap();
    dir.write("sentinel.yaml", &service("s", 1));
    assert_eq!(running.next(), ["s=1"]);
    fs::rename(dir.path("z.yaml"), dir.path("z.bak")).unwrap();
    assert_eq!(running.next(), ["a gone"]);
}

#[test]
fn a_broken_file_keeps_its_last_good_state() {
    let dir = Dir::new();
    dir.write("a.yaml", &service("a", 1));
    let running = Running::on(dir.0.path());
    dir.write("a.yaml", "kind: [");
    dir.write("b.yaml", &service("b", 1));
    assert_eq!(running.next(), ["b=1"]);
    dir.write("a.yaml", &service("a", 2));
    assert_eq!(running.next(), ["a=2"]);
    dir.write("a.yaml", "{");
    fs::remove_file(dir.path("b.yaml")).unwrap();
    assert_eq!(running.next(), ["b gone"]);
    fs::remove_file(dir.path("a.yaml")).unwrap();
    assert_eq!(running.next(), ["a gone"]);
}

#[test]
fn the_same_object_in_two_files() {
    let dir = Dir::new();
    dir.write("b.yaml", &service("web", 2));
    let running = Running::on(dir.0.path());
    assert_eq!(running.first, ["web=2"]);
    dir.write("a.yaml", &service("web", 1));
    assert_eq!(running.next(), ["web=1"]);
    dir.write("b.yaml", &service("web", 3));
    fs::remove_file(dir.path("a.yaml")).unwrap();
    assert_eq!(running.next(), ["web=3"]);
    fs::remove_file(dir.path("b.yaml")).unwrap();
    assert_eq!(running.next(), ["web gone"]);
}

/// As kubelet updates a ConfigMap volume: all files change at once with one rename.
#[test]
fn a_config_map_volume_is_swapped() {
    let dir = Dir::new();
    let version = |version: &str, files: &[(&str, String)]| {
        fs::create_dir(dir.path(version)).unwrap();
        for (name, text) in files {
            fs::write(dir.path(version).join(name), text).unwrap();
        }
        symlink(version, dir.path("..data_tmp")).unwrap();
        fs::rename(dir.path("..data_tmp"), dir.path("..data")).unwrap();
    };
    version("..1", &[("a.yaml", service("a", 1)), ("b.yaml", service("b", 1))]);
    symlink("..data/a.yaml", dir.path("a.yaml")).unwrap();
    symlink("..data/b.yaml", dir.path("b.yaml")).unwrap();
    let running = Running::on(dir.0.path());
    assert_eq!(running.first, ["a=1", "b=1"]);

    version("..2", &[("a.yaml", service("a", 2)), ("b.yaml", service("b", 2))]);
    fs::remove_dir_all(dir.path("..1")).unwrap();
    assert_eq!(running.next(), ["a=2", "b=2"], "in one batch");

    // Once more, with a file less and another more.
    version("..3", &[("a.yaml", service("a", 2)), ("c.yaml", service("c", 3))]);
    symlink("..data/c.yaml", dir.path("c.yaml")).unwrap();
    fs::remove_file(dir.path("b.yaml")).unwrap();
    fs::remove_dir_all(dir.path("..2")).unwrap();
    let mut changes = running.until("c=3");
    if !changes.contains(&"b gone".to_owned()) {
        changes.extend(running.next());
    }
    changes.sort();
    assert_eq!(changes, ["b gone", "c=3"]);
}

#[test]
fn links_to_elsewhere_are_followed() {
    let (dir, other) = (Dir::new(), Dir::new());
    other.write("real.yaml", &service("a", 1));
    symlink(other.path("real.yaml"), dir.path("a.yaml")).unwrap();
    let running = Running::on(dir.0.path());
    assert_eq!(running.first, ["a=1"]);
    other.write("real.yaml", &service("a", 2));
    assert_eq!(running.next(), ["a=2"]);
    other.replace("real.yaml", &service("a", 3));
    assert_eq!(running.next(), ["a=3"]);
    // A link that comes later is followed as well.
    other.write("more", &service("b", 1));
    symlink(other.path("more"), dir.path("b.yaml")).unwrap();
    assert_eq!(running.next(), ["b=1"]);
    other.write("more", &service("b", 2));
    assert_eq!(running.next(), ["b=2"]);
    fs::remove_file(other.path("real.yaml")).unwrap();
    assert_eq!(running.next(), ["a gone"]);
    other.write("real.yaml", &service("a", 4));
    assert_eq!(running.next(), ["a=4"]);
}

#[test]
fn the_directory_itself_is_a_link() {
    let base = Dir::new();
    for (version, number) in [("v1", 1), ("v2", 2)] {
        fs::create_dir(base.path(version)).unwrap();
        fs::write(base.path(version).join("a.yaml"), service("a", number)).unwrap();
    }
    symlink("v1", base.path("current")).unwrap();
    let running = Running::on(&base.path("current"));
    assert_eq!(running.first, ["a=1"]);
    symlink("v2", base.path("next")).unwrap();
    fs::rename(base.path("next"), base.path("current")).unwrap();
    assert_eq!(running.next(), ["a=2"]);
    fs::write(base.path("v1/a.yaml"), service("a", 8)).unwrap();
    fs::write(base.path("v2/a.yaml"), service("a", 3)).unwrap();
    assert_eq!(running.next(), ["a=3"]);
}

/// A directory with two files in another one.
fn two_files(base: &Dir) -> PathBuf {
    let path = base.path("manifests");
    fs::create_dir(&path).unwrap();
    fs::write(path.join("a.yaml"), service("a", 1)).unwrap();
    fs::write(path.join("b.yaml"), service("b", 1)).unwrap();
    path
}

#[test]
fn a_directory_that_vanishes_keeps_its_state_until_it_is_back() {
    let base = Dir::new();
    let path = two_files(&base);
    let running = Running::on(&path);
    fs::rename(&path, base.path("aside")).unwrap();
    fs::write(base.path("aside/a.yaml"), service("a", 7)).unwrap();
    fs::create_dir(base.path("new")).unwrap();
    fs::write(base.path("new/a.yaml"), service("a", 2)).unwrap();
    fs::write(base.path("new/b.yaml"), service("b", 1)).unwrap();
    fs::rename(base.path("new"), &path).unwrap();
    assert_eq!(running.next(), ["a=2"]);
    // The new directory is watched, not the old one.
    fs::write(base.path("aside/a.yaml"), service("a", 8)).unwrap();
    fs::write(path.join("a.yaml"), service("a", 3)).unwrap();
    assert_eq!(running.next(), ["a=3"]);
    fs::remove_file(path.join("b.yaml")).unwrap();
    assert_eq!(running.next(), ["b gone"]);
}

#[test]
fn a_directory_that_is_deleted_keeps_its_state_until_it_is_back() {
    let base = Dir::new();
    let path = two_files(&base);
    let running = Running::on(&path);
    fs::remove_dir_all(&path).unwrap();
    fs::create_dir(base.path("new")).unwrap();
    fs::write(base.path("new/a.yaml"), service("a", 2)).unwrap();
    fs::rename(base.path("new"), &path).unwrap();
    // The files were gone before the directory, so in theory the loss may have been seen.
    running.until("a=2");
    fs::write(path.join("b.yaml"), service("b", 3)).unwrap();
    running.until("b=3");
}

#[test]
fn a_link_or_hard_link_is_complete_when_it_is_there() {
    let (dir, other) = (Dir::new(), Dir::new());
    other.write("x", &service("a", 1));
    let running = Running::on(dir.0.path());
    if fs::hard_link(other.path("x"), dir.path("a.yaml")).is_ok() {
        assert_eq!(running.next(), ["a=1"]);
    }
    dir.write("b.yaml", &service("b", 1));
    assert_eq!(running.next(), ["b=1"]);
}

/// A file that is created in one step, without a name before, is never closed under its name.
#[test]
fn a_file_that_is_linked_into_place_is_read() {
    let dir = Dir::new();
    let running = Running::on(dir.0.path());
    let fd = fs::OpenOptions::new();
    let file = {
        use std::os::unix::fs::OpenOptionsExt;
        let mut options = fd;
        options.write(true).custom_flags(nix::libc::O_TMPFILE);
        match options.open(dir.0.path()) {
            Ok(file) => file,
            Err(error) => return println!("skipped: no O_TMPFILE here: {error}"),
        }
    };
    use std::io::Write;
    use std::os::fd::AsRawFd;
    (&file).write_all(service("a", 1).as_bytes()).unwrap();
    let source = format!("/proc/self/fd/{}", file.as_raw_fd());
    nix::unistd::linkat(
        nix::fcntl::AT_FDCWD,
        source.as_str(),
        nix::fcntl::AT_FDCWD,
        &dir.path("a.yaml"),
        nix::fcntl::AtFlags::AT_SYMLINK_FOLLOW,
    )
    .unwrap();
    assert_eq!(running.next(), ["a=1"]);
}

#[test]
fn a_file_is_read_when_it_is_closed() {
    use std::io::Write;
    let dir = Dir::new();
    let running = Running::on(dir.0.path());
    let mut file = fs::File::create(dir.path("a.yaml")).unwrap();
    file.write_all(service("a", 1).as_bytes()).unwrap();
    file.write_all(b"---\n").unwrap();
    // Another file's change is not held up, and the open file is not read for it.
    dir.write("b.yaml", &service("b", 1));
    assert_eq!(running.next(), ["b=1"]);
    file.write_all(service("c", 1).as_bytes()).unwrap();
    drop(file);
    assert_eq!(running.next(), ["a=1", "c=1"]);
}

#[test]
fn an_unreadable_file_keeps_its_state_and_is_read_when_it_can_be() {
    let dir = Dir::new();
    dir.write("a.yaml", &service("a", 1));
    let running = Running::on(dir.0.path());
    // root reads everything, so the file becomes what nobody can read: a pipe.
    nix::unistd::mkfifo(&dir.path("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    fs::rename(dir.path("pipe"), dir.path("a.yaml")).unwrap();
    dir.write("b.yaml", &service("b", 1));
    assert_eq!(running.until("b=1"), ["b=1"]);
    dir.replace("a.yaml", &service("a", 2));
    assert_eq!(running.next(), ["a=2"]);
    fs::set_permissions(dir.path("a.yaml"), fs::Permissions::from_mode(0o600)).unwrap();
    dir.write("b.yaml", &service("b", 2));
    assert_eq!(running.next(), ["b=2"]);
}

#[test]
fn a_missing_directory_is_an_error() {
    let dir = Dir::new();
    let open = |path: &Path| Source::open(path, "node-1", Options::default()).unwrap_err();
    let path = dir.path("nowhere");
    let error = open(&path);
    assert!(matches!(error, Error::Directory { .. }));
    let expected = format!("cannot read the manifests in {}: No such file", path.display());
    assert!(error.to_string().starts_with(&expected), "{error}");
    dir.write("file", "");
    let error = open(&dir.path("file")).to_string();
    assert!(error.ends_with("not a directory"), "{error}");
}

/// What `deploy/examples` shows is right: everything in it is served.
#[test]
fn the_examples_are_sound() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/examples");
    let (_source, changes) = Source::open(&path, "node-1", Options::default()).unwrap();
    let mut names = Vec::new();
    for change in &changes {
        names.push(match change {
            Change::Service(name, Some(service)) => {
                assert!(!service.ports.is_empty());
                format!("Service {name}")
            }
            Change::EndpointSlice(name, Some(slice)) => {
                assert!(!slice.endpoints.is_empty() && !slice.ports.is_empty());
                format!("EndpointSlice {name}")
            }
            Change::Node(Some(node)) => {
                assert_eq!((node.addresses.len(), node.pod_cidrs.len()), (2, 2));
                format!("Node {}", node.name)
            }
            Change::ServiceCidr(name, Some(cidrs)) => {
                assert_eq!(cidrs.len(), 2);
                format!("ServiceCIDR {name}")
            }
            gone => panic!("{gone:?}"),
        });
    }
    assert_eq!(
        names,
        [
            "Node node-1",
            "ServiceCIDR kubernetes",
            "Service default/web",
            "EndpointSlice default/web-ipv4",
            "EndpointSlice default/web-ipv6",
            "Service kube-system/dns",
            "EndpointSlice kube-system/dns-ipv4",
        ]
    );
}
