//! inotify: which files of the directory an event is about.
//!
//! Watched are the directory itself and every directory in which a symbolic link on the way to a
//! manifest could be swapped or its target written. inotify knows directories by inode, so all paths
//! here are free of links.

use super::Error;
use super::directory::{Directory, Trail};
use super::split::Format;
use notify::event::{AccessKind, AccessMode, CreateKind, ModifyKind, RenameMode};
use notify::{ErrorKind, Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tracing::warn;

/// A file that was created is looked at after this time even if it was neither written nor closed:
/// it may have been linked into place.
const CREATED: Duration = Duration::from_secs(1);
/// A file that was written is looked at after this time even if it was not closed.
const WRITTEN: Duration = Duration::from_secs(10);
/// How often everything is looked at where nothing tells of changes.
pub const BLIND: Duration = Duration::from_secs(2);
/// A file that is gone is missed after this time; some editors move it away and write it anew.
const GONE: Duration = Duration::from_millis(50);

/// What to look at.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Files that events name.
    pub names: BTreeSet<String>,
    /// All files that look different from last time.
    pub all: bool,
    /// The way to the directory, which may be another one now.
    pub directory: bool,
}

impl Wanted {
    /// Everything, as at the start.
    pub fn everything() -> Self {
        Wanted { names: BTreeSet::new(), all: true, directory: true }
    }

    pub fn is_nothing(&self) -> bool {
        *self == Wanted::default()
    }
}

/// The watch over a directory of manifests.
#[derive(Debug)]
pub struct Watch {
    /// None where the kernel has none to give: then everything is looked at again and again.
    watcher: Option<RecommendedWatcher>,
    pub events: UnboundedReceiver<notify::Result<Event>>,
    /// Without it there would be an end of events where there is no watcher.
    _sender: UnboundedSender<notify::Result<Event>>,
    /// The directory, without links.
    home: PathBuf,
    /// All directories that are watched.
    watched: HashSet<PathBuf>,
    /// Links on the way to the directory.
    approach: HashSet<PathBuf>,
    /// Links on the way to files.
    links: HashSet<PathBuf>,
    /// Files outside of the directory to which links in it lead.
    targets: HashMap<PathBuf, Vec<String>>,
    /// Files that somebody is writing or has moved away, with the time to look at them all the same.
    deferred: BTreeMap<PathBuf, Instant>,
}

impl Watch {
    /// Starts to watch nothing.
    pub fn new() -> Self {
        let (sender, events) = unbounded_channel();
        let kept = sender.clone();
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            if event.as_ref().map_or(true, is_relevant) {
                // Nobody listens any more when the program ends.
                let _ = sender.send(event);
            }
        });
        let watcher = watcher.map_err(|error| tell(&error)).ok();
        Watch {
            watcher,
            events,
            _sender: kept,
            home: PathBuf::new(),
            watched: HashSet::new(),
            approach: HashSet::new(),
            links: HashSet::new(),
            targets: HashMap::new(),
            deferred: BTreeMap::new(),
        }
    }

    /// Whether nothing tells of changes.
    pub fn is_blind(&self) -> bool {
        self.watcher.is_none()
    }

    /// Watches the directory anew, since another one may be in its place.
    pub fn move_to(&mut self, directory: &Directory) -> Result<(), Error> {
        let Some(home) = &directory.trail().target else { return Ok(()) };
        self.unwatch(&home.clone());
        self.home.clone_from(home);
        self.deferred.clear();
        self.watch(home)?;
        self.extend(directory);
        Ok(())
    }

    /// Whether the directory is the one that is watched.
    pub fn is_of(&self, directory: &Directory) -> bool {
        directory.trail().target.as_ref() == Some(&self.home)
    }

    /// Watches what belongs to the links that there are now, and nothing else but the directory.
    /// Returns whether anything is watched that was not before, so that changes may have been missed.
    pub fn extend(&mut self, directory: &Directory) -> bool {
        if directory.linked().is_empty()
            && directory.trail().links.is_empty()
            && self.watched.len() == 1
        {
            return false;
        }
        self.approach = directory.trail().links.iter().cloned().collect();
        self.links.clear();
        self.targets.clear();
        for (name, Trail { links, target }) in directory.linked() {
            self.links.extend(links.iter().cloned());
            if let Some(target) = target {
                self.targets.entry(target.clone()).or_default().push(name.clone());
            }
        }
        let all = self.approach.iter().chain(&self.links).chain(self.targets.keys());
        let mut needed: HashSet<PathBuf> =
            all.filter_map(|path| path.parent()).map(Path::to_owned).collect();
        needed.insert(self.home.clone());
        let unneeded: Vec<PathBuf> = self.watched.difference(&needed).cloned().collect();
        for path in unneeded {
            self.unwatch(&path);
        }
        let mut extended = false;
        let new: Vec<PathBuf> = needed.difference(&self.watched).cloned().collect();
        for path in new {
            match self.watch(&path) {
                Ok(()) => extended = true,
                Err(error) => warn!("changes of linked manifests may go unnoticed: {error}"),
            }
        }
        extended
    }

    /// Adds to `wanted` what an event is about.
    pub fn note(&mut self, event: &notify::Result<Event>, wanted: &mut Wanted) {
        let event = match event {
            Ok(event) => event,
            Err(error) => {
                warn!("watching the manifests: {error}");
                wanted.all = true;
                return;
            }
        };
        if event.need_rescan() {
            *wanted = Wanted { names: std::mem::take(&mut wanted.names), ..Wanted::everything() };
        }
        for path in &event.paths {
            self.note_links(path, wanted);
        }
        let within = event.paths.iter().all(|path| !self.names(path).is_empty());
        for path in &event.paths {
            match event.kind {
                // Named `From` and `To` before; complete if both are manifests.
                EventKind::Modify(ModifyKind::Name(RenameMode::Both)) if !within => {}
                EventKind::Modify(ModifyKind::Name(RenameMode::From)) | EventKind::Remove(_) => {
                    self.defer(path, GONE, wanted);
                }
                EventKind::Modify(ModifyKind::Data(_)) => self.defer(path, WRITTEN, wanted),
                EventKind::Create(CreateKind::File) if !is_whole(path) => {
                    self.defer(path, CREATED, wanted);
                }
                EventKind::Modify(ModifyKind::Metadata(_)) if self.deferred.contains_key(path) => {}
                _ => self.look(path, wanted),
            }
        }
    }

    /// Adds to `wanted` what an event at a path means for the way to the directory or to files.
    fn note_links(&mut self, path: &PathBuf, wanted: &mut Wanted) {
        if *path == self.home || self.approach.contains(path) {
            (wanted.all, wanted.directory) = (true, true);
        } else if self.watched.contains(path) {
            // A directory that a link leads to is another one or gone.
            self.unwatch(path);
            wanted.all = true;
        }
        wanted.all |= self.links.contains(path);
    }

    /// The manifests that a path is, or that are links to it.
    fn names(&self, path: &Path) -> Vec<String> {
        let mut names = self.targets.get(path).cloned().unwrap_or_default();
        if path.parent() == Some(&self.home)
            && let Some(name) = path.file_name().and_then(|name| name.to_str())
            && Format::of(name).is_some()
        {
            names.push(name.to_owned());
        }
        names
    }

    fn look(&mut self, path: &Path, wanted: &mut Wanted) {
        self.deferred.remove(path);
        wanted.names.extend(self.names(path));
    }

    fn defer(&mut self, path: &Path, time: Duration, wanted: &mut Wanted) {
        let names = self.names(path);
        if !names.is_empty() {
            wanted.names.retain(|name| !names.contains(name));
            self.deferred.insert(path.to_owned(), Instant::now() + time);
        }
    }

    /// Whether a manifest is better left alone for now.
    pub fn is_deferred(&self, name: &str) -> bool {
        !self.deferred.is_empty()
            && Trail::of(&self.home.join(name))
                .end()
                .is_some_and(|end| self.deferred.contains_key(end))
    }

    /// When [`Watch::ripe`] has something to say.
    pub fn next_ripe(&self) -> Option<Instant> {
        self.deferred.values().min().copied()
    }

    /// Adds to `wanted` what need not be left alone any longer.
    pub fn ripe(&mut self, wanted: &mut Wanted) {
        let now = Instant::now();
        let ripe: Vec<PathBuf> = self
            .deferred
            .iter()
            .filter(|(_, time)| **time <= now)
            .map(|(path, _)| path.clone())
            .collect();
        for path in ripe {
            self.look(&path, wanted);
        }
    }

    fn watch(&mut self, path: &Path) -> Result<(), Error> {
        if let Some(watcher) = &mut self.watcher
            && let Err(source) = watcher.watch(path, RecursiveMode::NonRecursive)
        {
            if !matches!(source.kind, ErrorKind::MaxFilesWatch) {
                return Err(Error::Watch { path: path.to_owned(), source });
            }
            tell(&source);
            self.watcher = None;
        }
        self.watched.insert(path.to_owned());
        Ok(())
    }

    /// Stops watching; the kernel has already done so if the directory is gone.
    fn unwatch(&mut self, path: &Path) {
        let _ = self.watcher.as_mut().map(|watcher| watcher.unwatch(path));
        self.watched.remove(path);
    }
}

/// Says why nothing is watched.
fn tell(error: &notify::Error) {
    warn!(
        "the kernel watches no more files ({error}; see fs.inotify.max_user_instances and max_user_watches): the \
         manifests are looked at every {} s instead",
        BLIND.as_secs()
    );
}

/// Whether a file that was just created is complete as it is: it is a link, or it was linked from
/// elsewhere. Else whoever created it is about to write and close it.
fn is_whole(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_symlink() || metadata.nlink() > 1)
}

/// Whether an event can mean a change; our own opening and reading are events too.
fn is_relevant(event: &Event) -> bool {
    match event.kind {
        EventKind::Access(kind) => kind == AccessKind::Close(AccessMode::Write),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use notify::event::{DataChange, MetadataKind, RemoveKind};

    /// What is to be looked at after events at paths in `/m`, and what is deferred.
    fn noted(events: &[(EventKind, &[&str])]) -> (Vec<String>, Vec<String>) {
        let mut watch = Watch::new();
        watch.home = PathBuf::from("/m");
        let mut wanted = Wanted::default();
        for (kind, names) in events {
            let event = names.iter().fold(Event::new(*kind), |event, name| {
                event.add_path(PathBuf::from("/m").join(name))
            });
            if is_relevant(&event) {
                watch.note(&Ok(event), &mut wanted);
            }
        }
        assert!(!wanted.all && !wanted.directory);
        let name = |path: PathBuf| path.strip_prefix("/m").unwrap().display().to_string();
        (wanted.names.into_iter().collect(), watch.deferred.into_keys().map(name).collect())
    }

    const CREATE: EventKind = EventKind::Create(CreateKind::File);
    const WRITE: EventKind = EventKind::Modify(ModifyKind::Data(DataChange::Any));
    const CLOSE: EventKind = EventKind::Access(AccessKind::Close(AccessMode::Write));
    const OPEN: EventKind = EventKind::Access(AccessKind::Open(AccessMode::Any));
    const REMOVE: EventKind = EventKind::Remove(RemoveKind::File);
    const CHMOD: EventKind = EventKind::Modify(ModifyKind::Metadata(MetadataKind::Any));
    const FROM: EventKind = EventKind::Modify(ModifyKind::Name(RenameMode::From));
    const TO: EventKind = EventKind::Modify(ModifyKind::Name(RenameMode::To));
    const BOTH: EventKind = EventKind::Modify(ModifyKind::Name(RenameMode::Both));

    #[test]
    fn files_are_looked_at_when_they_are_complete() {
        let a: &[&str] = &["a.yaml"];
        let backup: &[&str] = &["a.yaml~"];
        let away: &[&str] = &["a.yaml", "a.yaml~"];
        let temporary: &[&str] = &[".a.tmp"];
        let home: &[&str] = &[".a.tmp", "a.yaml"];
        let b: &[&str] = &["b.yaml"];
        let renamed: &[&str] = &["a.yaml", "b.yaml"];
        for (what, events, now, later) in [
            ("our own reading", vec![(OPEN, a)], vec![], vec![]),
            ("others' files", vec![(CREATE, backup), (CLOSE, backup)], vec![], vec![]),
            ("created", vec![(CREATE, a)], vec![], a.to_vec()),
            ("being written", vec![(CREATE, a), (WRITE, a)], vec![], a.to_vec()),
            ("chmod meanwhile", vec![(WRITE, a), (CHMOD, a)], vec![], a.to_vec()),
            ("written", vec![(CREATE, a), (WRITE, a), (CLOSE, a)], a.to_vec(), vec![]),
            ("written again", vec![(CLOSE, a), (WRITE, a)], vec![], a.to_vec()),
            ("chmod", vec![(CHMOD, a)], a.to_vec(), vec![]),
            ("deleted", vec![(REMOVE, a)], vec![], a.to_vec()),
            ("moved in", vec![(FROM, temporary), (TO, a), (BOTH, home)], a.to_vec(), vec![]),
            ("moved away", vec![(FROM, a), (TO, backup), (BOTH, away)], vec![], a.to_vec()),
            ("renamed", vec![(FROM, a), (TO, b), (BOTH, renamed)], renamed.to_vec(), vec![]),
            (
                "moved away and written anew",
                vec![(FROM, a), (BOTH, away), (CREATE, a), (WRITE, a), (CLOSE, a)],
                a.to_vec(),
                vec![],
            ),
        ] {
            let (names, deferred) = noted(&events);
            assert_eq!((names, deferred), (texts(&now), texts(&later)), "{what}");
        }
    }

    fn texts(list: &[&str]) -> Vec<String> {
        list.iter().map(|text| (*text).to_owned()).collect()
    }
}
