//! A source of objects: a directory of YAML and JSON files.
//!
//! Every file `*.yaml`, `*.yml` or `*.json` directly in the directory is a manifest, unless its name
//! starts with a dot. It holds any number of documents, and of these the Services, EndpointSlices,
//! ServiceCIDRs and this node's Node count, also as items of a `List`; other kinds are ignored with a line in
//! the log. The objects get the API server's defaults (`defaults`) and are then judged like those of an
//! API server ([`crate::intake`]).
//!
//! Changes are seen by inotify, so the directory has to be on a file system of this machine. All that is
//! found in one look at the directory is one batch of [`Change`]s, and a batch holds only what differs from
//! what was sent before. Problems are logged, once per version of a file or object, and harm as little
//! as possible:
//!
//! - a file that cannot be read keeps its last good state; of one that cannot be parsed in part the rest counts;
//! - an object with a bad value is unserved or loses that value, its file's others are unharmed;
//! - of several files with the same object the first one by name counts;
//! - a directory that is gone keeps its last state until it is back.
//!
//! From the inside out: `split` cuts text into pieces, `decode` makes objects of them, `parse` has that
//! done for whole files, `store` knows whose object counts and what was sent; `directory` reads
//! files, `watch` knows which, and [`Source`] puts them together.

mod decode;
mod defaults;
mod directory;
mod fingerprint;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod head;
mod parse;
mod split;
mod store;
mod text;
mod unknown;
mod watch;

use crate::intake::Options;
use crate::model::Change;
use directory::{Directory, News};
use split::Format;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use store::Store;
use tracing::{error, info};
use watch::{BLIND, Wanted, Watch};

/// The directory is looked at when no event has come for this long.
const QUIET: Duration = Duration::from_millis(5);
/// The directory is looked at after this time even if events keep coming.
const PATIENCE: Duration = Duration::from_millis(50);
/// How often a directory that is gone is looked for.
const MISSING: Duration = Duration::from_millis(500);
/// Files are parsed together up to this size, in bytes, so that all processors have work.
const BATCH: usize = 16 << 20;

/// Why a directory of manifests cannot be a source.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read the manifests in {}: {source}", path.display())]
    Directory { path: PathBuf, source: io::Error },
    #[error("cannot watch {} for changes: {source}", path.display())]
    Watch { path: PathBuf, source: notify::Error },
    #[error("the watch for changes of manifests has ended")]
    Ended,
    #[error("cannot read {}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("{} is no manifest: its name must end in .yaml, .yml or .json", path.display())]
    Format { path: PathBuf },
}

/// Reads files and directories of manifests once; `-` is standard input, in YAML or JSON.
///
/// # Errors
/// If one cannot be read, or is no manifest. What is wrong in it is logged.
pub fn read(paths: &[PathBuf], node_name: &str, options: Options) -> Result<Vec<Change>, Error> {
    let mut files = Vec::new();
    for path in paths {
        let fail = |source| Error::File { path: path.clone(), source };
        if *path == Path::new("-") {
            let mut bytes = Vec::new();
            io::stdin().read_to_end(&mut bytes).map_err(fail)?;
            // JSON is YAML.
            files.push(("standard input.yaml".to_owned(), bytes));
        } else if path.is_dir() {
            let mut directory = Directory::new(std::path::absolute(path).map_err(fail)?);
            directory.follow().map_err(fail)?;
            for name in directory.names().map_err(fail)? {
                let bytes = directory.read(&name).map_err(fail)?;
                files.push((path.join(name).to_string_lossy().into_owned(), bytes));
            }
        } else {
            let name = path.to_string_lossy().into_owned();
            if Format::of(&name).is_none() {
                return Err(Error::Format { path: path.clone() });
            }
            files.push((name, std::fs::read(path).map_err(fail)?));
        }
    }
    let mut store = Store::new(node_name, options);
    store.put(&files);
    let of =
        |name: &str| files.iter().find(|(file, _)| file == name).map(|(_, bytes)| bytes.clone());
    Ok(store.difference(|name| of(name).ok_or_else(|| io::ErrorKind::NotFound.into())))
}

/// A directory of manifests that is being watched.
#[derive(Debug)]
pub struct Source {
    directory: Directory,
    watch: Watch,
    store: Store,
    /// The directory could not be read the last time.
    missing: bool,
}

impl Source {
    /// Reads a directory and starts to watch it; also returns what is there. Of all Node objects the one
    /// named `node_name` counts.
    ///
    /// # Errors
    /// If the directory is not there or cannot be read or watched. Bad files are no error, they are
    /// logged.
    pub fn open(
        path: &Path,
        node_name: &str,
        options: Options,
    ) -> Result<(Source, Vec<Change>), Error> {
        let fail = |source| Error::Directory { path: path.to_owned(), source };
        let mut source = Source {
            directory: Directory::new(std::path::absolute(path).map_err(fail)?),
            watch: Watch::new(),
            store: Store::new(node_name, options),
            missing: false,
        };
        let changes = source.try_look(Wanted::everything())?;
        Ok((source, changes))
    }

    /// Sends what changes, batch by batch, until dropped. No batch is empty.
    ///
    /// # Errors
    /// If the watch ends, which only a defect can cause.
    pub async fn run(mut self, mut send: impl FnMut(Vec<Change>)) -> Result<(), Error> {
        loop {
            let wanted = self.wait().await?;
            // Reading and parsing large files takes time that other tasks need not wait for.
            let looked = tokio::task::spawn_blocking(move || {
                let changes = self.look(wanted);
                (self, changes)
            });
            let changes;
            (self, changes) = looked.await.map_err(|_| Error::Ended)?;
            if !changes.is_empty() {
                send(changes);
            }
        }
    }

    /// Waits for something to look at.
    async fn wait(&mut self) -> Result<Wanted, Error> {
        let mut wanted = Wanted::default();
        // When to look whatever happens, once there is something to look at.
        let mut deadline: Option<Instant> = None;
        loop {
            let now = Instant::now();
            let until = match deadline {
                Some(deadline) if deadline <= now => return Ok(wanted),
                Some(deadline) => Some(deadline.min(now + QUIET)),
                None if self.missing => Some(now + MISSING),
                None if self.watch.is_blind() => Some(now + BLIND),
                None => self.watch.next_ripe(),
            };
            let event = match until {
                Some(until) => {
                    tokio::time::timeout_at(until.into(), self.watch.events.recv()).await.ok()
                }
                None => Some(self.watch.events.recv().await),
            };
            match event {
                Some(Some(event)) => {
                    self.watch.note(&event, &mut wanted);
                    if deadline.is_none() && !wanted.is_nothing() {
                        deadline = Some(now + PATIENCE);
                    }
                }
                Some(None) => return Err(Error::Ended),
                None if self.missing || self.watch.is_blind() => return Ok(Wanted::everything()),
                None => {
                    self.watch.ripe(&mut wanted);
                    if !wanted.is_nothing() {
                        return Ok(wanted);
                    }
                }
            }
        }
    }

    /// Looks at the directory; if that is impossible, says so once.
    fn look(&mut self, wanted: Wanted) -> Vec<Change> {
        match self.try_look(wanted) {
            Ok(changes) => {
                if std::mem::take(&mut self.missing) {
                    info!("the manifests in {} are back", self.directory.path().display());
                }
                changes
            }
            Err(error) => {
                if !std::mem::replace(&mut self.missing, true) {
                    error!("{error}; their last state stays");
                }
                Vec::new()
            }
        }
    }

    fn try_look(&mut self, mut wanted: Wanted) -> Result<Vec<Change>, Error> {
        let path = self.directory.path().to_owned();
        let fail = |source| Error::Directory { path: path.clone(), source };
        self.directory.follow().map_err(fail)?;
        if !self.watch.is_of(&self.directory) {
            wanted = Wanted::everything();
        }
        if wanted.directory {
            self.watch.move_to(&self.directory)?;
        }
        loop {
            if wanted.all {
                let mut names = self.directory.names().map_err(fail)?;
                names.retain(|name| !self.watch.is_deferred(name));
                self.examine(names.iter().map(|name| (name, wanted.names.contains(name))));
            } else {
                self.examine(wanted.names.iter().map(|name| (name, true)));
            }
            if !self.watch.extend(&self.directory) {
                break;
            }
            // Something may have changed there before it was watched.
            wanted = Wanted { all: true, ..Wanted::default() };
        }
        Ok(self.store.difference(|name| self.directory.read(name)))
    }

    /// Looks at files and takes in what is new. One that comes with `true` is read even if it looks the
    /// same.
    fn examine<'a>(&mut self, names: impl Iterator<Item = (&'a String, bool)>) {
        let mut batch = Vec::new();
        let mut size = 0;
        for (name, always) in names {
            match self.directory.examine(name, always) {
                None => {}
                Some(News::Content(bytes)) => {
                    size += bytes.len();
                    batch.push((name.clone(), bytes));
                    if size >= BATCH {
                        self.store.put(&batch);
                        batch.clear();
                        size = 0;
                    }
                }
                Some(News::Unreadable(error)) => self.store.unreadable(name, &error),
                Some(News::Gone) => self.store.remove(name),
            }
        }
        self.store.put(&batch);
    }
}

#[cfg(test)]
mod tests;
