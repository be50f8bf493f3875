//! Following one kind of object: the events of [`follow`] become changes.
//!
//! Objects are passed on as they come, also during a list; what a later list no longer has is deleted
//! when that list is complete. While the server is away nothing is passed on, so the last state stays.
//! Of each object only the name and a hash of its version are kept: about 60 bytes, of which the name
//! is shared with the plan.
//!
//! Slices are read without what hardly anybody needs ([`Described`](crate::intake::Described)). Where a Service comes to
//! need it, its slices are asked for once more, while the events wait: so what is answered is never older than what has
//! come before.

use super::encoding::Unreadable;
use super::kind::{Kind, gone};
use super::reflector::{ANY, Error, Event, NEWEST, Selectors, follow};
use super::{Notice, Sink};
use crate::causes::with_causes;
use crate::intake::{Ask, Intake, ObjectKey, Options as IntakeOptions, Reporter};
use crate::model::Change;
use foldhash::fast::{FixedState, RandomState};
use futures::{FutureExt, StreamExt};
use hashbrown::HashMap;
use http::HeaderValue;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::ListParams;
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::DefaultBackoff;
use kube::{Api, Client};
use std::hash::BuildHasher;
use std::time::Duration;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{sleep, timeout};

/// Changes in a batch at most; a batch is never held back to fill it.
const BATCH: usize = 1024;
/// Of so many Services slices are read again one by one.
const AGAIN: usize = 16;
/// For so long events wait for slices that are read again.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often a kind that the server lacks is asked for.
const MISSING: Duration = Duration::from_secs(60);

/// Called once, after the first complete list.
pub type Done = Box<dyn FnOnce() + Send>;

/// What is known of an object.
struct Seen {
    /// Hash of its `resourceVersion`; None: it is to be read again, whatever its version.
    version: Option<u64>,
    /// The list in which it was last seen, counted from 1.
    list: u32,
}

/// Follows one kind until the process ends.
pub struct Watch {
    sink: Sink,
    complete: Option<Done>,
    intake: Intake,
    reporter: Reporter,
    known: HashMap<ObjectKey, Seen, RandomState>,
    /// How many lists have begun.
    lists: u32,
    batch: Vec<Change>,
    backoff: DefaultBackoff,
    /// Failures since the last success.
    failures: u32,
    /// The server no longer has what has come since, and has not answered the list that is wanted instead.
    wants_list: bool,
    /// Services whose slices are to be read again; the first list is complete when all Services have been read.
    asks: Option<UnboundedReceiver<Ask>>,
    /// The list has come to its end.
    is_listed: bool,
    /// Nobody is left whose asking has to be waited for.
    may_complete: bool,
}

impl Watch {
    pub fn new(intake: IntakeOptions, sink: Sink, complete: Done) -> Self {
        Watch {
            sink,
            complete: Some(complete),
            reporter: Reporter::new(intake.on_problem.clone()),
            intake: Intake::new(intake),
            known: HashMap::default(),
            lists: 0,
            batch: Vec::new(),
            backoff: DefaultBackoff::default(),
            failures: 0,
            wants_list: false,
            asks: None,
            is_listed: false,
            may_complete: true,
        }
    }

    /// Reads slices again for those who ask, and is not complete before all Services have been read.
    pub fn asked(self, asks: UnboundedReceiver<Ask>) -> Self {
        Watch { asks: Some(asks), may_complete: false, ..self }
    }

    /// Follows the objects that `selectors` select; never returns.
    pub async fn run<K: Kind>(mut self, client: Client, accept: HeaderValue, selectors: Selectors) {
        let new = |version| follow::<K>(client.clone(), accept.clone(), selectors.clone(), version);
        let mut events = new(ANY);
        loop {
            let first = tokio::select! {
                biased;
                asks = next_asks(&mut self.asks) => {
                    if !self.read_again(&client, &asks).await {
                        // All of them then, and none older than what has come.
                        self.known.values_mut().for_each(|seen| seen.version = None);
                        self.is_listed = false;
                        events = new(NEWEST);
                    }
                    self.flush();
                    self.may_complete |= asks.contains(&Ask::AllRead);
                    self.complete();
                    continue;
                }
                event = events.next() => event,
            };
            // The stream has no end.
            let Some(first) = first else { return };
            let mut outcome = first.map(|event| self.take(event));
            // Whatever else has arrived goes into the same batch.
            while outcome.is_ok()
                && self.batch.len() < BATCH
                && let Some(Some(next)) = events.next().now_or_never()
            {
                outcome = next.map(|event| self.take(event));
            }
            // What came before an error is good.
            self.flush();
            if let Err(error) = outcome {
                self.wait::<K>(&error).await;
            }
        }
    }

    /// Reads the slices of a few Services again; whether that was possible.
    async fn read_again(&mut self, client: &Client, asks: &[Ask]) -> bool {
        if asks.len() > AGAIN {
            return false;
        }
        for ask in asks {
            let Ask::Service(service) = ask else { continue };
            let labels = format!("kubernetes.io/service-name={}", service.name);
            let of = Api::<EndpointSlice>::namespaced(client.clone(), &service.namespace);
            // Without a version the newest is answered.
            let params = ListParams::default().labels(&labels);
            let Ok(Ok(list)) = timeout(PATIENCE, of.list(&params)).await else { return false };
            for object in list {
                let reading = self.intake.endpoint_slice(&object);
                // One that is not known yet, or is skipped, comes with the events or does not.
                if let Some(seen) = self.known.get_mut(&reading.key) {
                    seen.version = Some(version(&object.metadata));
                    self.batch.push(reading.change);
                }
            }
        }
        true
    }

    /// Reports an error and waits before the next attempt.
    async fn wait<K: Kind>(&mut self, error: &Error) {
        let name = name::<K>();
        // The server is there again: how long it was away is no reason to wait.
        if error.wants_list() && !std::mem::replace(&mut self.wants_list, true) {
            self.backoff.reset();
        }
        self.failures += 1;
        let mut wait = self.backoff.next().unwrap_or(MISSING).max(error.retry_after());
        let said = with_causes(error);
        if K::OPTIONAL && matches!(error.code(), 403 | 404) {
            wait += MISSING;
            if self.failures == 1 {
                tracing::info!("{name}: not available from this server ({said}); going without");
            }
            self.end_of_list();
        } else if self.failures.is_power_of_two() {
            // A mention at the first failure and then ever more rarely.
            let failures = self.failures;
            tracing::warn!(failures, "{name}: {said}; trying again, the last state stays");
        } else {
            tracing::debug!(failures = self.failures, "{name}: {said}; trying again in {wait:.1?}");
        }
        sleep(wait).await;
    }

    fn take<K: Kind>(&mut self, event: Event<K>) {
        match event {
            // No success yet.
            Event::Listing => return self.lists += 1,
            Event::Applied(object) => self.apply(&object),
            Event::Deleted(object) => {
                let key = object.read(&mut self.intake).key;
                if self.known.remove(&key).is_some() {
                    self.forget(&key);
                }
            }
            Event::Listed => self.listed::<K>(),
            Event::Unreadable(unreadable) => self.keep::<K>(&unreadable),
        }
        self.backoff.reset();
        self.wants_list = false;
        if std::mem::take(&mut self.failures) > 2 {
            tracing::info!("{}: the server answers again", name::<K>());
        }
    }

    /// Takes an added or changed object.
    fn apply<K: Kind>(&mut self, object: &K) {
        let reading = object.read(&mut self.intake);
        let seen = Seen { version: Some(version(object.meta())), list: self.lists };
        match self.known.get_mut(&reading.key) {
            Some(known) => {
                let same = known.version == seen.version;
                *known = seen;
                if same {
                    return;
                }
            }
            None => drop(self.known.insert(reading.key.clone(), seen)),
        }
        self.reporter.report(&reading.key, &reading.problems);
        self.batch.push(reading.change);
    }

    /// An object that cannot be read stays what it was.
    fn keep<K: Kind>(&mut self, unreadable: &Unreadable) {
        let Unreadable { metadata, message } = unreadable;
        let key = metadata.as_ref().map(|metadata| K::key(metadata, &mut self.intake));
        let Some(key) = key else {
            tracing::error!("{}: an object cannot be read: {message}", name::<K>());
            return;
        };
        if let Some(seen) = self.known.get_mut(&key) {
            seen.list = self.lists;
        }
        tracing::error!("{key} cannot be read, it stays as it was: {message}");
    }

    /// A list is complete: what it did not name is gone.
    fn listed<K: Kind>(&mut self) {
        let list = self.lists;
        let gone = self.known.extract_if(|_, seen| seen.list != list).map(|(key, _)| key);
        let mut gone: Vec<ObjectKey> = gone.collect();
        gone.sort_unstable();
        for key in gone {
            self.forget(&key);
        }
        self.flush();
        tracing::debug!(objects = self.known.len(), "{}: listed", name::<K>());
        self.end_of_list();
    }

    /// All is there that the server has.
    fn end_of_list(&mut self) {
        self.is_listed = true;
        self.complete();
    }

    fn complete(&mut self) {
        if self.is_listed
            && self.may_complete
            && let Some(complete) = self.complete.take()
        {
            complete();
        }
    }

    fn forget(&mut self, key: &ObjectKey) {
        self.reporter.forget(key);
        self.intake.forget(key);
        self.batch.push(gone(key));
    }

    fn flush(&mut self) {
        if !self.batch.is_empty() {
            (self.sink)(Notice::Changes(std::mem::take(&mut self.batch)));
        }
    }
}

fn version(metadata: &ObjectMeta) -> u64 {
    FixedState::default().hash_one(&metadata.resource_version)
}

/// Who has asked, as many as there are; never returns where nobody can ask.
async fn next_asks(asks: &mut Option<UnboundedReceiver<Ask>>) -> Vec<Ask> {
    let mut all = Vec::new();
    if let Some(asks) = asks
        && asks.recv_many(&mut all, usize::MAX).await > 0
    {
        return all;
    }
    std::future::pending().await
}

/// The word for logs.
fn name<K: Kind>() -> String {
    K::plural(&()).into_owned()
}
