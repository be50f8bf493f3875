//! The configuration file while the program runs: what counts as a change and what does not.

use kube_proxy::config::{Config, ConfigError, ConfigWatch, Flags, LoadedFile};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;
use tokio::task::JoinHandle;

/// Far longer than any change takes to be seen; only a failing test waits for it.
const NEVER: Duration = Duration::from_secs(30);

fn watch(path: &Path) -> JoinHandle<ConfigError> {
    let file = LoadedFile { path: path.to_owned(), content: fs::read(path).unwrap() };
    tokio::spawn(ConfigWatch::new(file).changed())
}

async fn assert_changes(watch: JoinHandle<ConfigError>) {
    let error = tokio::time::timeout(NEVER, watch).await.expect("no change was seen").unwrap();
    assert!(matches!(error, ConfigError::Changed { .. }), "{error}");
}

/// A ConfigMap volume as kubelet makes it: names are links through `..data` into a directory of
/// the current version.
struct Volume {
    root: TempDir,
    version: u32,
}

impl Volume {
    fn new(content: &str) -> Volume {
        let mut volume = Volume { root: TempDir::new().unwrap(), version: 0 };
        volume.publish(content);
        symlink("..data/config.conf", volume.file()).unwrap();
        volume
    }

    fn file(&self) -> PathBuf {
        self.root.path().join("config.conf")
    }

    /// Writes the next version, swaps `..data` and removes the version before.
    fn publish(&mut self, content: &str) {
        let root = self.root.path();
        let (old, new) = (format!("..v{}", self.version), format!("..v{}", self.version + 1));
        fs::create_dir(root.join(&new)).unwrap();
        fs::write(root.join(&new).join("config.conf"), content).unwrap();
        symlink(&new, root.join("..data_tmp")).unwrap();
        fs::rename(root.join("..data_tmp"), root.join("..data")).unwrap();
        let _ = fs::remove_dir_all(root.join(old));
        self.version += 1;
    }
}

#[tokio::test]
async fn a_written_file_has_changed() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("config.conf");
    fs::write(&path, "a").unwrap();
    let watch = watch(&path);
    fs::write(&path, "b").unwrap();
    assert_changes(watch).await;
}

#[tokio::test]
async fn a_file_renamed_over_has_changed() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("config.conf");
    fs::write(&path, "a").unwrap();
    let watch = watch(&path);
    fs::write(directory.path().join("new"), "b").unwrap();
    fs::rename(directory.path().join("new"), &path).unwrap();
    assert_changes(watch).await;
}

#[tokio::test]
async fn a_file_deleted_and_made_again_has_changed() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("config.conf");
    fs::write(&path, "a").unwrap();
    let watch = watch(&path);
    fs::remove_file(&path).unwrap();
    fs::write(&path, "b").unwrap();
    assert_changes(watch).await;
}

#[tokio::test]
async fn a_change_before_the_watch_began_is_seen() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("config.conf");
    fs::write(&path, "b").unwrap();
    let file = LoadedFile { path, content: b"a".to_vec() };
    assert!(file.has_changed());
    assert_changes(tokio::spawn(ConfigWatch::new(file).changed())).await;
}

#[tokio::test]
async fn a_swapped_config_map_volume_has_changed() {
    let mut volume = Volume::new("a");
    let watch = watch(&volume.file());
    volume.publish("b");
    assert_changes(watch).await;
}

/// The same content again, however it comes about, is no change; the watch goes on and sees the
/// real change after it.
#[tokio::test]
async fn the_same_content_is_no_change() {
    let mut volume = Volume::new("a");
    let watch = watch(&volume.file());
    for _ in 0..3 {
        volume.publish("a");
        tokio::task::yield_now().await;
        assert!(!watch.is_finished());
    }
    fs::write(volume.file(), "a").unwrap();
    tokio::task::yield_now().await;
    assert!(!watch.is_finished());
    volume.publish("b");
    assert_changes(watch).await;
}

/// What is loaded is what is watched.
#[tokio::test]
async fn a_loaded_configuration_is_watched_by_its_file() {
    let head = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n";
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("config.conf");
    fs::write(&path, head).unwrap();
    let path_text = path.to_str().unwrap();
    let flags = Flags::read(["kube-proxy", "--config", path_text]).unwrap();
    let config = Config::load(&flags).unwrap();
    let watch = ConfigWatch::new(config.file.unwrap());
    fs::write(&path, format!("{head}mode: nftables\n")).unwrap();
    assert_changes(tokio::spawn(watch.changed())).await;
}
