//! Notices when the configuration file says something else than it did when it was read.
//!
//! kube-proxy ends with an error then, so that its DaemonSet starts it again with the new content.
//! What counts is the content: a file that is touched, or replaced by the same bytes, has not
//! changed, and a ConfigMap volume changes by a swapped symlink somewhere on the way to the file.
//! So every directory on that way is watched in which an entry can be swapped. A file that is gone
//! or unreadable has not changed yet: it is on its way to be replaced.

use super::{ConfigError, LoadedFile};
use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use std::collections::{BTreeSet, VecDeque};
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// As many symlinks as the kernel follows (MAXSYMLINKS).
const SYMLINKS_MAX: usize = 40;
/// New content counts when it has been the same for this long: writers truncate first.
const SETTLED: Duration = Duration::from_millis(100);
/// The file is also read this often, for file systems that report nothing to inotify.
const WITHOUT_EVENTS: Duration = Duration::from_secs(60);

impl LoadedFile {
    /// The content now, if it can be read and differs.
    fn new_content(&self) -> Option<Vec<u8>> {
        std::fs::read(&self.path).ok().filter(|content| *content != self.content)
    }

    /// Whether the file now holds something else.
    pub fn has_changed(&self) -> bool {
        self.new_content().is_some()
    }
}

/// Watches one file.
pub struct ConfigWatch {
    file: LoadedFile,
    /// None where the kernel has none to give.
    watcher: Option<RecommendedWatcher>,
    watched: BTreeSet<PathBuf>,
    stirred: Arc<Notify>,
}

impl ConfigWatch {
    /// Starts to watch a file that has been read. Where the kernel watches no more files it is read now and then.
    pub fn new(file: LoadedFile) -> ConfigWatch {
        let stirred = Arc::new(Notify::new());
        let waker = Arc::clone(&stirred);
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Reading the file is an event too; an error means that events may be missing.
            if event.is_ok_and(|event| !is_change(&event.kind)) {
                return;
            }
            waker.notify_one();
        });
        let mut watch = ConfigWatch { file, watcher: None, watched: BTreeSet::new(), stirred };
        match watcher {
            Ok(watcher) => watch.watcher = Some(watcher),
            Err(error) => watch.tell(&error),
        }
        if let Err(error) = watch.follow() {
            watch.tell(&error);
        }
        watch
    }

    fn tell(&self, error: &notify::Error) {
        tracing::warn!(
            "the kernel does not watch {} ({error}; see fs.inotify.max_user_instances and max_user_watches): a \
             change is noticed within {} s",
            self.file.path.display(),
            WITHOUT_EVENTS.as_secs()
        );
    }

    /// Watches the directories that are on the way to the file now, and no others. On an error the
    /// rest is watched all the same, and what is not is tried again by the next call.
    fn follow(&mut self) -> notify::Result<()> {
        let Some(watcher) = &mut self.watcher else { return Ok(()) };
        let directories = directories(&self.file.path);
        for gone in self.watched.difference(&directories) {
            // It may have been deleted, and its watch with it.
            let _ = watcher.unwatch(gone);
        }
        self.watched.retain(|directory| directories.contains(directory));
        let mut result = Ok(());
        for new in directories {
            if self.watched.contains(&new) {
                continue;
            }
            match watcher.watch(&new, RecursiveMode::NonRecursive) {
                Ok(()) => drop(self.watched.insert(new)),
                Err(error) => result = Err(error),
            }
        }
        result
    }

    /// Resolves when the content has changed, to the error to end with.
    pub async fn changed(mut self) -> ConfigError {
        loop {
            // A directory may go while it is looked at, and then there is an event for it. Where
            // nothing can be watched any more, the file is still read once a minute.
            let _ = self.follow();
            if self.settled_change().await {
                return ConfigError::Changed { path: self.file.path };
            }
            // A missed event costs a minute; a timeout is no reason to act.
            let _ = tokio::time::timeout(WITHOUT_EVENTS, self.stirred.notified()).await;
        }
    }

    /// Whether there is new content that stays.
    async fn settled_change(&self) -> bool {
        let mut before = self.file.new_content();
        while before.is_some() {
            tokio::time::sleep(SETTLED).await;
            let now = self.file.new_content();
            if now == before {
                return true;
            }
            before = now;
        }
        false
    }
}

fn is_change(kind: &EventKind) -> bool {
    match kind {
        EventKind::Access(access) => *access == AccessKind::Close(AccessMode::Write),
        _ => true,
    }
}

/// Every directory in which a swapped entry would lead to another file: the one that holds the
/// file, and the one of each symlink on the way to it. What does not exist ends the walk.
fn directories(path: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut todo: VecDeque<OsString> = steps(path);
    let mut here = match path.is_absolute() {
        true => PathBuf::from("/"),
        false => PathBuf::from("."),
    };
    let mut links = 0;
    while let Some(step) = todo.pop_front() {
        if step == ".." {
            here.push("..");
            continue;
        }
        let next = here.join(&step);
        match std::fs::read_link(&next) {
            Ok(target) if links < SYMLINKS_MAX => {
                links += 1;
                found.insert(here.clone());
                if target.is_absolute() {
                    here = PathBuf::from("/");
                }
                for step in steps(&target).into_iter().rev() {
                    todo.push_front(step);
                }
            }
            _ if todo.is_empty() || !next.is_dir() => {
                found.insert(here);
                break;
            }
            _ => here = next,
        }
    }
    found
}

/// The names in a path, `..` included; the root and `.` are no steps.
fn steps(path: &Path) -> VecDeque<OsString> {
    let is_step = |component: &Component<'_>| {
        matches!(component, Component::Normal(_) | Component::ParentDir)
    };
    path.components().filter(is_step).map(|step| step.as_os_str().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn all_directories_on_the_way_are_found() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        let at = |path: &str| root.join(path);
        for directory in ["volume/..one", "opt/v1/etc"] {
            std::fs::create_dir_all(at(directory)).unwrap();
        }
        std::fs::write(at("volume/..one/config.conf"), "a").unwrap();
        symlink("..one", at("volume/..data")).unwrap();
        symlink("..data/config.conf", at("volume/config.conf")).unwrap();
        std::fs::write(at("opt/v1/etc/config.conf"), "a").unwrap();
        symlink(at("opt/v1"), at("current")).unwrap();
        symlink("loop", at("loop")).unwrap();
        for (path, expected) in [
            ("volume/..one/config.conf", &["volume/..one"][..]),
            ("volume/config.conf", &["volume", "volume/..one"]),
            ("current/etc/config.conf", &["", "opt/v1/etc"]),
            ("current/etc/missing", &["", "opt/v1/etc"]),
            ("missing/config.conf", &[""]),
            ("loop", &[""]),
        ] {
            let expected = expected.iter().map(|path| match *path {
                "" => root.clone(),
                path => at(path),
            });
            assert_eq!(directories(&at(path)), expected.collect(), "{path}");
        }
    }
}
