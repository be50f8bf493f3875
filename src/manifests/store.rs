//! Which file has which object, and the difference to what has been sent.
//!
//! This is the pure half of the source: file contents go in, [`Change`]s come out. It keeps of an object
//! its name and two hashes, never the object: one for its text, so that an unchanged document is not
//! parsed again, and one for what the proxy takes from it, so that an unchanged object is not sent again.
//!
//! - What does not parse, a document or an item of a list, costs no other. Objects that are in no other part of the
//!   file keep their last good state then, since they may be in that part.
//! - If several files have an object, the first one by name counts, and within a file the first document.
//!   When the file that counts loses the object, the next one is read once more to get at it.

use super::fingerprint::ABSENT;
use super::parse::{Contents, Entry, FileError, Found, Input, Known, Parsed, Parser, absent};
use super::split::Format;
use crate::intake::{ObjectKey, Options, Reporter};
use crate::model::Change;
use foldhash::fast::{FixedState, RandomState};
use smallvec::SmallVec;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write;
use std::hash::BuildHasher;
use std::io;
use std::sync::Arc;
use tracing::{error, info, info_span, warn};

type Map<K, V> = HashMap<K, V, RandomState>;
type Set<T> = HashSet<T, RandomState>;

/// The state of a directory of manifests.
#[derive(Debug)]
pub struct Store {
    parser: Parser,
    files: BTreeMap<Arc<str>, File>,
    objects: Map<ObjectKey, Object>,
    /// Objects for which something may have to be sent.
    touched: Vec<ObjectKey>,
    /// What was parsed since the last [`Store::difference`], by object and file.
    fresh: Map<ObjectKey, SmallVec<[Fresh; 1]>>,
    reporter: Reporter,
}

/// What is known of a file.
#[derive(Debug, Default)]
struct File {
    /// Hash of the bytes that were read last; `None` if they could not be read.
    bytes: Option<u64>,
    /// The objects of the last good version, none twice.
    entries: Box<[Entry]>,
    /// What was logged about this version: the error, or the kinds that are ignored.
    error: Option<Box<str>>,
    ignored: Option<Box<str>>,
}

/// What is known of an object.
#[derive(Debug, Default)]
struct Object {
    /// Sorted by file name; the first one counts.
    claims: SmallVec<[Claim; 1]>,
    /// The fingerprint of what was sent last.
    sent: u64,
    /// That several files have it has been logged.
    contested: bool,
}

/// That a file has an object.
#[derive(Debug)]
struct Claim {
    file: Arc<str>,
    fingerprint: u64,
}

/// An object of this look at the files.
#[derive(Debug)]
struct Fresh {
    file: Arc<str>,
    object: Box<Parsed>,
}

impl Store {
    /// Of all Node objects the one of this name counts.
    pub fn new(node_name: &str, options: Options) -> Self {
        Store {
            reporter: Reporter::new(options.on_problem.clone()),
            parser: Parser::new(node_name, options),
            files: BTreeMap::new(),
            objects: HashMap::default(),
            touched: Vec::new(),
            fresh: HashMap::default(),
        }
    }

    /// Takes in what files hold now. Their names are manifests' names (see [`Format::of`]).
    pub fn put(&mut self, files: &[(String, Vec<u8>)]) {
        let mut names = Vec::with_capacity(files.len());
        let mut inputs = Vec::with_capacity(files.len());
        for (name, bytes) in files {
            let Some(format) = Format::of(name) else { continue };
            let name = self.register(name);
            let Some(file) = self.files.get_mut(&name) else { continue };
            let hash = Some(FixedState::default().hash_one(bytes));
            if file.bytes == hash {
                continue;
            }
            file.bytes = hash;
            match std::str::from_utf8(bytes) {
                Ok(text) => {
                    names.push(name);
                    inputs.push(Input { text, format, known: Known::new() });
                }
                Err(error) => file.bad(&name, format!("not UTF-8 text: {error}")),
            }
        }
        for (name, input) in names.iter().zip(&mut inputs) {
            for entry in self.files.get(name).iter().flat_map(|file| &*file.entries) {
                input.known.entry(entry.text).or_default().push(entry);
            }
        }
        let results = self.parser.parse(&inputs);
        drop(inputs);
        for (name, result) in names.iter().zip(results) {
            self.take(name, result);
        }
    }

    /// Takes note that a file cannot be read; its last good state stays.
    pub fn unreadable(&mut self, name: &str, error: &io::Error) {
        let name = self.register(name);
        if let Some(file) = self.files.get_mut(&name) {
            file.bytes = None;
            file.bad(&name, format!("cannot be read: {error}"));
        }
    }

    /// Takes note that a file is gone.
    pub fn remove(&mut self, name: &str) {
        if let Some((name, file)) = self.files.remove_entry(name) {
            self.release(&name, &file.entries, &[]);
        }
    }

    /// What changed since the last call, at most one change per object. `read` is asked for files
    /// that have to be read again because their objects count from now on.
    pub fn difference(&mut self, read: impl Fn(&str) -> io::Result<Vec<u8>>) -> Vec<Change> {
        let touched = std::mem::take(&mut self.touched);
        self.recall(&touched, read);
        let mut changes = Vec::with_capacity(touched.len());
        let mut settled = Set::default();
        for key in &touched {
            if settled.insert(key) {
                changes.extend(self.settle(key));
            }
        }
        self.fresh = HashMap::default();
        changes
    }

    /// The shared copy of a file's name; the file is known from now on.
    fn register(&mut self, name: &str) -> Arc<str> {
        if let Some((name, _)) = self.files.get_key_value(name) {
            return name.clone();
        }
        let name: Arc<str> = name.into();
        self.files.insert(name.clone(), File::default());
        name
    }

    /// Takes in the result of parsing a file.
    fn take(&mut self, name: &Arc<str>, result: Result<Contents, FileError>) {
        let Some(file) = self.files.get_mut(name) else { return };
        match result {
            Ok(contents) => {
                let is_whole = contents.bad.is_none();
                match contents.bad {
                    None => file.good(name, &contents.ignored),
                    Some(error) => file.partly_bad(name, error.to_string()),
                }
                let before = std::mem::take(&mut file.entries);
                let mut entries = self.claim(name, contents.objects);
                if is_whole {
                    self.release(name, &before, &entries);
                } else {
                    keep(before, &mut entries);
                }
                if let Some(file) = self.files.get_mut(name) {
                    file.entries = entries.into();
                }
            }
            Err(error) => file.bad(name, error.to_string()),
        }
    }

    /// Notes that a file has objects, and returns which.
    fn claim(&mut self, name: &Arc<str>, found: Vec<Found>) -> Vec<Entry> {
        let mut entries: Vec<Entry> = Vec::with_capacity(found.len());
        let mut seen = Set::default();
        for found in found {
            let entry = found.entry().clone();
            if !seen.insert(entry.key.clone()) {
                warn!("{name}: {} is there more than once, the first one counts", entry.key);
                continue;
            }
            if let Found::Parsed(parsed) = found {
                let fresh = Fresh { file: name.clone(), object: parsed };
                let versions = self.fresh.entry(entry.key.clone()).or_default();
                versions.retain(|version| version.file != *name);
                versions.push(fresh);
                self.touched.push(entry.key.clone());
            }
            let claims = &mut self.objects.entry(entry.key.clone()).or_default().claims;
            let fingerprint = entry.fingerprint;
            match claims.binary_search_by(|claim| claim.file.cmp(name)) {
                Ok(place) => claims[place].fingerprint = fingerprint,
                Err(place) => claims.insert(place, Claim { file: name.clone(), fingerprint }),
            }
            entries.push(entry);
        }
        entries
    }

    /// Takes back a file's claims on objects that it no longer has.
    fn release(&mut self, name: &Arc<str>, before: &[Entry], now: &[Entry]) {
        let now: Set<&ObjectKey> = now.iter().map(|entry| &entry.key).collect();
        for entry in before.iter().filter(|entry| !now.contains(&entry.key)) {
            if let Some(object) = self.objects.get_mut(&entry.key) {
                object.claims.retain(|claim| claim.file != *name);
                self.touched.push(entry.key.clone());
            }
        }
    }

    /// Parses again what counts now, but was parsed in an earlier look when it did not.
    fn recall(&mut self, touched: &[ObjectKey], read: impl Fn(&str) -> io::Result<Vec<u8>>) {
        let mut wanted: BTreeMap<Arc<str>, Set<&ObjectKey>> = BTreeMap::new();
        for key in touched {
            let Some(object) = self.objects.get(key) else { continue };
            let Some(Claim { file, fingerprint }) = object.claims.first() else { continue };
            let mut fresh = self.fresh.get(key).into_iter().flatten();
            if *fingerprint != object.sent && !fresh.any(|version| version.file == *file) {
                wanted.entry(file.clone()).or_default().insert(key);
            }
        }
        for (name, keys) in wanted {
            let contents = match self.parse_again(&name, &read) {
                Ok(contents) => contents,
                Err(error) => {
                    error!(
                        "{name}: objects of it count from now on, but it cannot be read: {error}"
                    );
                    continue;
                }
            };
            for found in contents.objects {
                let Found::Parsed(parsed) = found else { continue };
                let entry = &parsed.entry;
                let Some(object) = self.objects.get_mut(&entry.key) else { continue };
                let versions = self.fresh.entry(entry.key.clone()).or_default();
                if keys.contains(&entry.key) && versions.iter().all(|version| version.file != name)
                {
                    object.claims[0].fingerprint = entry.fingerprint;
                    versions.push(Fresh { file: name.clone(), object: parsed });
                }
            }
        }
    }

    fn parse_again(
        &mut self,
        name: &str,
        read: impl Fn(&str) -> io::Result<Vec<u8>>,
    ) -> Result<Contents, String> {
        let bytes = read(name).map_err(|error| error.to_string())?;
        let text = std::str::from_utf8(&bytes).map_err(|error| error.to_string())?;
        let format = Format::of(name).ok_or("not a manifest")?;
        let input = Input { text, format, known: Known::new() };
        let result = self.parser.parse(&[input]).pop().ok_or("not parsed")?;
        result.map_err(|error| error.to_string())
    }

    /// Compares an object with what was sent of it.
    fn settle(&mut self, key: &ObjectKey) -> Option<Change> {
        let object = self.objects.get_mut(key)?;
        let Some((claim, others)) = object.claims.split_first() else {
            let sent = object.sent;
            self.objects.remove(key);
            self.reporter.forget(key);
            return (sent != ABSENT).then(|| absent(key));
        };
        if !others.is_empty() && !object.contested {
            let others: Vec<&str> = others.iter().map(|claim| &*claim.file).collect();
            warn!("{key} is in {} and in {}; the first file counts", claim.file, others.join(", "));
        }
        object.contested = !others.is_empty();

        let differs = claim.fingerprint != object.sent;
        let fresh = self.fresh.get_mut(key).and_then(|versions| {
            let place = versions.iter().position(|version| version.file == claim.file)?;
            Some(versions.swap_remove(place))
        });
        let Some(Fresh { object: parsed, .. }) = fresh else {
            if differs {
                // Its file could not be read again: what was sent stays until it can.
                self.touched.push(key.clone());
            }
            return None;
        };
        let Parsed { change, problems, document, .. } = *parsed;
        let _span = info_span!("manifest", file = &*claim.file, document).entered();
        self.reporter.report(key, &problems);
        object.sent = claim.fingerprint;
        differs.then_some(change)
    }
}

/// Adds the entries of which nothing is seen any more: they may be in what cannot be read.
fn keep(before: Box<[Entry]>, entries: &mut Vec<Entry>) {
    let seen: Set<ObjectKey> = entries.iter().map(|entry| entry.key.clone()).collect();
    entries.extend(before.into_iter().filter(|entry| !seen.contains(&entry.key)));
}

impl File {
    /// Logs why a version cannot be used, unless that is known.
    fn bad(&mut self, name: &str, message: String) {
        let stays = if self.entries.is_empty() { "" } else { "; its last good state stays" };
        self.log(name, message, stays);
    }

    /// Logs why a part of a version cannot be used, unless that is known.
    fn partly_bad(&mut self, name: &str, message: String) {
        self.log(name, message, "; the rest of it counts, and what nothing is seen of stays");
    }

    fn log(&mut self, name: &str, message: String, but: &str) {
        if self.error.as_deref() != Some(&*message) {
            error!("{name}: {message}{but}");
            self.error = Some(message.into());
        }
    }

    /// Logs that a version can be used again, and what of it is not.
    fn good(&mut self, name: &str, ignored: &BTreeMap<String, usize>) {
        if self.error.take().is_some() {
            info!("{name}: usable again");
        }
        let mut kinds = String::new();
        for (kind, count) in ignored {
            let comma = if kinds.is_empty() { "" } else { ", " };
            let _ = write!(kinds, "{comma}{count} {kind}");
        }
        let kinds: Option<Box<str>> = (!kinds.is_empty()).then(|| kinds.into());
        if let Some(kinds) = &kinds
            && self.ignored.as_ref() != Some(kinds)
        {
            info!("{name}: ignoring {kinds}");
        }
        self.ignored = kinds;
    }
}
