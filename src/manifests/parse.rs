//! From the text of files to what the proxy takes from them.
//!
//! YAML is slow to parse (some 15 MB/s), so what is large is spread over the processors. Each has an
//! [`Intake`] of its own: strings are then shared per processor, which costs next to nothing.

use super::decode::{Bad, Object, decode};
use super::split::{BadDocument, Form, Format, Piece, split};
use super::{defaults, fingerprint, unknown};
use crate::intake::{Intake, ObjectKey, Options, Problem, Reading};
use crate::model::Change;
use smallvec::SmallVec;
use std::collections::{BTreeMap, HashMap};
use std::num::NonZero;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// From this size of text on, in bytes, a second processor is worth it.
const PARALLEL: usize = 256 * 1024;
/// Up to this size of a file, in bytes, unknown fields are looked for.
const WRITTEN_BY_HAND: usize = 1024 * 1024;
/// No more processors than this are used.
const MOST_WORKERS: usize = 8;

/// What is kept of an object in a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Hash of the text that it was read from.
    pub text: u64,
    pub key: ObjectKey,
    /// Hash of what the proxy takes from it, see [`fingerprint`].
    pub fingerprint: u64,
}

/// An object that was parsed.
#[derive(Debug)]
pub struct Parsed {
    pub entry: Entry,
    pub change: Change,
    pub problems: Vec<Problem>,
    /// The document that it is in, from 1.
    pub document: usize,
}

/// An object in a file, parsed or known.
#[derive(Debug)]
pub enum Found {
    /// Its text is known from the last time.
    Unchanged(Entry),
    Parsed(Box<Parsed>),
}

impl Found {
    pub fn entry(&self) -> &Entry {
        match self {
            Found::Unchanged(entry) => entry,
            Found::Parsed(parsed) => &parsed.entry,
        }
    }
}

/// Everything in a file.
#[derive(Debug, Default)]
pub struct Contents {
    pub objects: Vec<Found>,
    /// How many objects of which other kinds there are.
    pub ignored: BTreeMap<String, usize>,
    /// The first part that cannot be used.
    pub bad: Option<FileError>,
}

/// Why a file or a part of it cannot be used: `document 3: spec.ports[1].port: invalid type: ... at line 17 column 11`.
#[derive(Debug, PartialEq, thiserror::Error)]
#[error("document {document}: {message}")]
pub struct FileError {
    pub document: usize,
    pub message: String,
}

impl From<BadDocument> for FileError {
    fn from(BadDocument { document, message }: BadDocument) -> Self {
        FileError { document, message }
    }
}

/// The entries of a file's last good version by the hash of their text.
pub type Known<'a> = HashMap<u64, Vec<&'a Entry>>;

/// A file to be parsed.
#[derive(Debug)]
pub struct Input<'a> {
    pub text: &'a str,
    pub format: Format,
    /// What need not be parsed.
    pub known: Known<'a>,
}

/// Parses files.
#[derive(Debug)]
pub struct Parser {
    node_name: Arc<str>,
    /// One per processor.
    intakes: Vec<Intake>,
}

/// What one piece holds, and why a part of it cannot be used.
#[derive(Default)]
struct Outcome {
    taken: SmallVec<[Taken; 1]>,
    bad: Option<String>,
}

enum Taken {
    Object(Box<Parsed>),
    OtherKind(String),
}

impl Parser {
    /// Of all Node objects the one of this name counts.
    pub fn new(node_name: &str, options: Options) -> Self {
        let workers = thread::available_parallelism().map_or(1, NonZero::get).min(MOST_WORKERS);
        let intakes = (0..workers).map(|_| Intake::new(options.clone())).collect();
        Parser { node_name: node_name.into(), intakes }
    }

    /// Parses files. A document or an item of a list that does not parse is left out, and is said.
    pub fn parse(&mut self, inputs: &[Input<'_>]) -> Vec<Result<Contents, FileError>> {
        self.parse_cut(inputs, true)
            .into_iter()
            .zip(inputs)
            .map(|((cut, result), input)| {
                let Ok(Contents { bad: Some(_), .. }) = result else { return result };
                if !cut {
                    return result;
                }
                // Maybe a list was cut where it should not have been.
                let mut whole = self.parse_cut(std::slice::from_ref(input), false);
                let is_better = |whole: &Contents| {
                    let parts = result.as_ref().map_or(0, |parts| parts.objects.len());
                    whole.bad.is_none() || whole.objects.len() > parts
                };
                match whole.pop() {
                    Some((_, Ok(whole))) if is_better(&whole) => Ok(whole),
                    _ => result,
                }
            })
            .collect()
    }

    /// Parses files; also says of each whether a YAML list in it was cut into items.
    fn parse_cut(
        &mut self,
        inputs: &[Input<'_>],
        lists: bool,
    ) -> Vec<(bool, Result<Contents, FileError>)> {
        let split: Vec<_> =
            inputs.iter().map(|input| split(input.text, input.format, lists)).collect();
        let mut jobs = Vec::new();
        for (input, pieces) in inputs.iter().zip(&split) {
            for piece in pieces.iter().flatten() {
                let text = fingerprint::of_text(piece.text);
                if !input.known.contains_key(&text) {
                    jobs.push(Job { file: input.text, piece, text });
                }
            }
        }
        let mut outcomes = self.run(&jobs).into_iter();
        inputs
            .iter()
            .zip(&split)
            .map(|(input, pieces)| match pieces {
                Ok(pieces) => {
                    let cut = pieces.iter().any(|piece| piece.form == Form::YamlItem);
                    (cut, Ok(assemble(input, pieces, &mut outcomes)))
                }
                Err(BadDocument { document, message }) => {
                    (false, Err(FileError { document: *document, message: message.clone() }))
                }
            })
            .collect()
    }

    /// Runs jobs on as many processors as they deserve; the outcomes are in the jobs' order.
    fn run(&mut self, jobs: &[Job<'_>]) -> Vec<Outcome> {
        let size: usize = jobs.iter().map(|job| job.piece.text.len()).sum();
        let workers = (size / PARALLEL).clamp(1, self.intakes.len());
        let node_name = &self.node_name;
        if workers == 1 {
            let intake = &mut self.intakes[0];
            return jobs.iter().map(|job| job.run(intake, node_name)).collect();
        }
        let chunks = Mutex::new(chunks(jobs, size / (workers * 8)).into_iter().enumerate());
        let next = || chunks.lock().unwrap_or_else(PoisonError::into_inner).next();
        let work = |intake: &mut Intake| {
            let mut done: Vec<(usize, Vec<Outcome>)> = Vec::new();
            while let Some((place, jobs)) = next() {
                done.push((place, jobs.iter().map(|job| job.run(intake, node_name)).collect()));
            }
            done
        };
        let mut done: Vec<_> = thread::scope(|scope| {
            let threads: Vec<_> = self
                .intakes
                .iter_mut()
                .take(workers)
                .map(|intake| scope.spawn(|| work(intake)))
                .collect();
            let join = |thread: thread::ScopedJoinHandle<'_, _>| {
                thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            threads.into_iter().flat_map(join).collect()
        });
        done.sort_unstable_by_key(|(place, _)| *place);
        done.into_iter().flat_map(|(_, outcomes)| outcomes).collect()
    }
}

/// Consecutive jobs of about a size each.
fn chunks<'j, 'a>(jobs: &'j [Job<'a>], size: usize) -> Vec<&'j [Job<'a>]> {
    let mut sum = 0;
    let full = |job: &Job<'_>, _: &Job<'_>| {
        sum += job.piece.text.len();
        let full = sum >= size;
        if full {
            sum = 0;
        }
        !full
    };
    jobs.chunk_by(full).collect()
}

/// Puts a file's pieces together again, with the next outcomes for those that were not known.
fn assemble(
    input: &Input<'_>,
    pieces: &[Piece<'_>],
    outcomes: &mut impl Iterator<Item = Outcome>,
) -> Contents {
    let mut contents = Contents::default();
    for piece in pieces {
        if let Some(entries) = input.known.get(&fingerprint::of_text(piece.text)) {
            let entries = entries.iter().map(|entry| Found::Unchanged((*entry).clone()));
            contents.objects.extend(entries);
            continue;
        }
        let Outcome { taken, bad } = outcomes.next().unwrap_or_default();
        for object in taken {
            match object {
                Taken::Object(parsed) => contents.objects.push(Found::Parsed(parsed)),
                Taken::OtherKind(kind) => *contents.ignored.entry(kind).or_default() += 1,
            }
        }
        if let Some(message) = bad {
            contents.bad.get_or_insert(FileError { document: piece.document, message });
        }
    }
    contents
}

/// A piece to be parsed.
struct Job<'a> {
    file: &'a str,
    piece: &'a Piece<'a>,
    /// Hash of the piece's text.
    text: u64,
}

impl Job<'_> {
    fn run(&self, intake: &mut Intake, node_name: &str) -> Outcome {
        let (objects, bad) = match decode(self.file, self.piece) {
            Ok(objects) => (objects, None),
            Err(Bad { message, others }) => (others, Some(message)),
        };
        let taken = objects
            .into_iter()
            .filter_map(|object| {
                let unknown = if self.file.len() <= WRITTEN_BY_HAND {
                    unknown::fields(self.piece, &object)
                } else {
                    Vec::new()
                };
                match take(object, intake, node_name)? {
                    Ok(reading) => Some(Taken::Object(Box::new(self.parsed(reading, unknown)))),
                    Err(kind) => Some(Taken::OtherKind(kind)),
                }
            })
            .collect();
        Outcome { taken, bad }
    }

    fn parsed(&self, reading: Reading, unknown: Vec<String>) -> Parsed {
        let Reading { key, change, mut problems } = reading;
        problems.extend(unknown.into_iter().map(|field| {
            let message = "unknown field, ignored".to_owned();
            Problem { object: key.clone(), field, message }
        }));
        let fingerprint = fingerprint::of_change(&change);
        let entry = Entry { text: self.text, key, fingerprint };
        Parsed { entry, change, problems, document: self.piece.document }
    }
}

/// Takes an object in, with the API server's defaults. `None` for another node's Node, the kind for
/// an object of a kind that does not matter.
fn take(object: Object, intake: &mut Intake, node_name: &str) -> Option<Result<Reading, String>> {
    let (mut reading, name) = match object {
        Object::Service(mut object) => {
            defaults::service(&mut object);
            let mut reading = intake.service(&object);
            for (field, message) in defaults::remarks(&object) {
                let object = reading.key.clone();
                reading.problems.push(Problem { object, field, message });
            }
            (reading, object.metadata.name)
        }
        Object::EndpointSlice(mut object) => {
            defaults::endpoint_slice(&mut object);
            (intake.endpoint_slice(&object), object.metadata.name)
        }
        Object::Node(object) => {
            if object.metadata.name.as_deref() != Some(node_name) {
                return None;
            }
            (intake.node(&object), object.metadata.name)
        }
        Object::ServiceCidr(object) => (intake.service_cidr(&object), object.metadata.name),
        Object::Other(kind) => return Some(Err(kind)),
    };
    if name.unwrap_or_default().is_empty() {
        reading.change = absent(&reading.key);
        let (field, message) = ("metadata.name".to_owned(), "missing".to_owned());
        reading.problems = vec![Problem { object: reading.key.clone(), field, message }];
    }
    Some(Ok(reading))
}

/// The change that takes an object away.
pub fn absent(key: &ObjectKey) -> Change {
    match key.clone() {
        ObjectKey::Service(name) => Change::Service(name, None),
        ObjectKey::EndpointSlice(name) => Change::EndpointSlice(name, None),
        ObjectKey::Node(_) => Change::Node(None),
        ObjectKey::ServiceCidr(name) => Change::ServiceCidr(name, None),
    }
}
