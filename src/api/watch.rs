//! Following one kind of object: list, watch, and recovery from everything that can go wrong.
//!
//! ```text
//!  no version ── streaming list ───────────────► complete, watching on ─┐
//!      ▲    └─── paged list (where refused) ──► version known           │
//!      │                                            │ watch             │
//!      └─── 410: the version has expired ◄──────────┴─ broken: resume ◄─┘
//! ```
//!
//! Objects are passed on as they come, also during a list; what a later list no longer has is deleted
//! when that list is complete. While the server is away nothing is passed on, so the last state stays.
//! A list is never older than what has been seen, also where another server of several answers.

use super::backoff::{Backoff, jitter};
use super::connection::Connection;
use super::error::{WatchError, status_of};
use super::frames::{Encoding, EventType, Frames, RawEvent};
use super::kind::{Kind, gone};
use super::known::Known;
use super::protobuf::{self, Marker};
use super::wire::{Fields, unwrap_envelope};
use super::{Notice, Sink};
use crate::intake::{Intake, ObjectKey, Options as IntakeOptions, Reporter};
use crate::model::Change;
use bytes::{Bytes, BytesMut};
use http::{Method, Request, header};
use http_body_util::BodyExt;
use kube::client::Body;
use serde::Deserialize;
use std::fmt::Write;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// A response's headers, or the next piece of a list, later than this are given up.
const RESPONSE: Duration = Duration::from_secs(60);
/// A watch on which nothing came for so long is taken for dead. Servers send a bookmark a minute.
const SILENCE: Duration = Duration::from_secs(150);
/// Objects in a page of a list.
const PAGE: usize = 500;
/// Changes in a batch at most; a batch is never held back to fill it.
const BATCH: usize = 1024;
/// A watch that the server ends sooner than this, with nothing in it, counts as a failure.
const SHORT: Duration = Duration::from_secs(1);
/// How often a kind that the server lacks is asked for.
const MISSING: Duration = Duration::from_secs(60);

/// Called once, after the first complete list.
pub type Done = Box<dyn FnOnce() + Send>;

/// Follows one kind until the process ends.
pub struct Watch<K: Kind> {
    kind: K,
    connection: Connection,
    sink: Sink,
    complete: Option<Done>,
    intake: Intake,
    reporter: Reporter,
    known: Known,
    /// Resume here; None: list first.
    version: Option<String>,
    /// No list may be older than this.
    newest: String,
    /// The server is asked for streaming lists until it refuses.
    streaming: bool,
    backoff: Backoff,
    batch: Vec<Change>,
    /// The last change of a noisy kind that was passed on, by object: there are few of these.
    last: Vec<(ObjectKey, Change)>,
}

/// A page of a JSON list.
#[derive(Deserialize)]
struct JsonPage<T> {
    metadata: JsonListMeta,
    items: Vec<T>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct JsonListMeta {
    resource_version: String,
    #[serde(default, rename = "continue")]
    continue_token: String,
}

#[derive(Deserialize)]
struct JsonMarker {
    metadata: JsonMarkerMeta,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct JsonMarkerMeta {
    resource_version: String,
    #[serde(default)]
    annotations: std::collections::BTreeMap<String, String>,
}

impl<K: Kind> Watch<K> {
    pub fn new(
        kind: K,
        connection: Connection,
        intake: IntakeOptions,
        sink: Sink,
        complete: Done,
    ) -> Self {
        Watch {
            kind,
            connection,
            sink,
            complete: Some(complete),
            intake: Intake::new(intake),
            reporter: Reporter::default(),
            known: Known::default(),
            version: None,
            newest: String::new(),
            streaming: true,
            backoff: Backoff::default(),
            batch: Vec::new(),
            last: Vec::new(),
        }
    }

    /// Follows the kind; never returns.
    pub async fn run(mut self) {
        loop {
            let (began, number) = (Instant::now(), self.connection.client().1);
            let listing = self.version.is_none();
            let outcome = match (listing, self.streaming) {
                (true, false) => self.paged_list().await.map(|()| true),
                _ => self.follow(listing).await,
            };
            // What came before an error is good.
            self.flush();
            let error = match outcome {
                Ok(useful) if useful || began.elapsed() >= SHORT => continue,
                Ok(_) => WatchError::Short,
                Err(error) => error,
            };
            self.recover(error, number).await;
        }
    }

    /// Decides where to go on after an error, and waits.
    async fn recover(&mut self, error: WatchError, number: u64) {
        let name = K::NAME;
        if error.is_expired() {
            tracing::info!("{name}: the server no longer has our version, listing again");
            self.version = None;
        } else if self.version.is_none() && self.streaming && error.is_refused() {
            tracing::info!("{name}: the server has no streaming lists, using paged ones");
            self.streaming = false;
            return;
        } else if error.is_version_unknown() {
            // The server's data are older than ours: a restored backup, or it is starting.
            self.version = None;
            self.newest.clear();
        } else if K::OPTIONAL && error.is_missing() {
            if self.backoff.failures() == 0 {
                tracing::info!("{name}: not available from this server ({error}); going without");
                self.backoff.next(None);
            }
            sleep(MISSING.mul_f64(1.0 + jitter())).await;
            return;
        }
        let wait = self.backoff.next(error.retry_after());
        let failures = self.backoff.failures();
        // A mention at the first failure and then ever more rarely.
        if failures.is_power_of_two() {
            tracing::warn!(failures, "{name}: {error}; trying again, the last state stays");
        } else {
            tracing::debug!(failures, "{name}: {error}");
        }
        if error.is_unauthorized() || failures.is_multiple_of(8) {
            self.connection.renew(number).await;
        }
        sleep(wait).await;
    }

    /// The server answers again.
    fn recovered(&mut self) {
        if self.backoff.failures() > 2 {
            tracing::info!("{}: the server answers again", K::NAME);
        }
        self.backoff.reset();
    }

    fn url(&self, parameters: &[(&str, &str)]) -> String {
        let mut url = K::PATH.to_owned();
        let mut separator = '?';
        let own = [("labelSelector", self.kind.labels()), ("fieldSelector", &self.kind.fields())];
        for (name, value) in own.iter().chain(parameters) {
            if value.is_empty() {
                continue;
            }
            write!(url, "{separator}{name}=").expect("a String takes all");
            separator = '&';
            for byte in value.bytes() {
                match byte {
                    b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'.' | b'-' | b'_' => {
                        url.push(byte as char);
                    }
                    _ => write!(url, "%{byte:02X}").expect("a String takes all"),
                }
            }
        }
        url
    }

    /// Watches from the known version, or starts with a streaming list. Returns whether anything
    /// came before the server ended it.
    async fn follow(&mut self, mut listing: bool) -> Result<bool, WatchError> {
        // As client-go does it: spreads the reconnects of many watches.
        let seconds = (300.0 * (1.0 + jitter())) as u32;
        let seconds = seconds.to_string();
        let mut parameters = vec![
            ("watch", "true"),
            ("allowWatchBookmarks", "true"),
            ("timeoutSeconds", seconds.as_str()),
        ];
        if listing {
            self.known.begin();
            parameters.extend([
                ("sendInitialEvents", "true"),
                ("resourceVersionMatch", "NotOlderThan"),
                ("resourceVersion", &self.newest),
            ]);
        } else {
            parameters.push(("resourceVersion", self.version.as_deref().unwrap_or_default()));
        }
        let url = self.url(&parameters);
        let (body, encoding) = get(&self.connection, &url, true).await?;
        if !listing {
            self.recovered();
        }
        let mut frames = Frames::new(body, encoding);
        let mut useful = false;
        loop {
            let waiting = timeout(SILENCE, frames.next()).await;
            let Some(frame) = waiting.map_err(|_| WatchError::Silent(SILENCE))? else {
                break;
            };
            self.event(encoding, &frame?, &mut listing)?;
            useful = true;
            // Whatever else has arrived goes into the same batch.
            while self.batch.len() < BATCH {
                let Some(frame) = frames.ready() else { break };
                self.event(encoding, &frame?, &mut listing)?;
            }
            // Nobody waits for half a list.
            if !listing || self.batch.len() >= BATCH {
                self.flush();
            }
        }
        Ok(useful)
    }

    fn event(
        &mut self,
        encoding: Encoding,
        frame: &Bytes,
        listing: &mut bool,
    ) -> Result<(), WatchError> {
        let event = RawEvent::read(encoding, frame)?;
        match event.event_type {
            EventType::Error => return Err(WatchError::of_status(encoding, event.object)),
            EventType::Bookmark => {
                let marker = read_marker(encoding, event.object)?;
                if *listing && marker.initial_events_end {
                    *listing = false;
                    self.listed(marker.resource_version);
                } else if !*listing {
                    self.version = Some(marker.resource_version);
                }
            }
            EventType::Added | EventType::Modified | EventType::Deleted => {
                let object = match decode::<K>(encoding, event.object) {
                    Ok(object) => object,
                    Err(error) => {
                        // One unreadable object must not keep the others from being served.
                        tracing::error!("{}: an object cannot be read: {error}", K::NAME);
                        return Ok(());
                    }
                };
                let version = if event.event_type == EventType::Deleted {
                    self.delete(object)
                } else {
                    self.apply(object)
                };
                if !*listing {
                    if version.is_empty() {
                        return Err(WatchError::NoVersion);
                    }
                    self.version = Some(version);
                }
            }
        }
        Ok(())
    }

    /// Lists page by page.
    async fn paged_list(&mut self) -> Result<(), WatchError> {
        self.known.begin();
        let limit = PAGE.to_string();
        let mut token = String::new();
        loop {
            // Without a version: the newest state, at all servers.
            let url = self.url(&[("limit", limit.as_str()), ("continue", &token)]);
            let (mut body, encoding) = get(&self.connection, &url, false).await?;
            let mut bytes = BytesMut::new();
            while let Some(frame) =
                timeout(RESPONSE, body.frame()).await.map_err(|_| WatchError::Silent(RESPONSE))?
            {
                if let Ok(data) = frame.map_err(WatchError::Request)?.into_data() {
                    bytes.extend_from_slice(&data);
                }
            }
            let (version, next) = self.page(encoding, &bytes)?;
            self.flush();
            if next.is_empty() {
                self.listed(version);
                return Ok(());
            }
            token = next;
        }
    }

    /// Takes the objects of a page; returns its version and the token of the next page.
    fn page(&mut self, encoding: Encoding, bytes: &[u8]) -> Result<(String, String), WatchError> {
        if encoding == Encoding::Json {
            let page: JsonPage<K::Object> = serde_json::from_slice(bytes)?;
            for object in page.items {
                self.apply(object);
            }
            return Ok((page.metadata.resource_version, page.metadata.continue_token));
        }
        let (mut version, mut token) = (String::new(), String::new());
        for field in Fields::new(unwrap_envelope(bytes)?) {
            let field = field?;
            match field.number {
                1 => {
                    for field in field.message()? {
                        let field = field?;
                        match field.number {
                            2 => version = field.string()?,
                            3 => token = field.string()?,
                            _ => {}
                        }
                    }
                }
                2 => {
                    let object = K::decode(field.bytes()?)?;
                    self.apply(object);
                }
                _ => {}
            }
        }
        Ok((version, token))
    }

    /// A list is complete.
    fn listed(&mut self, version: String) {
        for key in self.known.sweep() {
            self.forget(&key);
        }
        self.flush();
        self.recovered();
        tracing::debug!(objects = self.known.len(), version, "{}: listed", K::NAME);
        self.newest.clone_from(&version);
        self.version = Some(version);
        if let Some(complete) = self.complete.take() {
            complete();
        }
    }

    /// Takes an added or changed object; returns its version.
    fn apply(&mut self, mut object: K::Object) -> String {
        let version = K::metadata(&mut object).resource_version.take().unwrap_or_default();
        let reading = K::read(&mut self.intake, &object);
        if !self.known.see(&reading.key, &version) {
            return version;
        }
        self.reporter.report(&reading.key, &reading.problems);
        if K::NOISY {
            match self.last.iter_mut().find(|(key, _)| *key == reading.key) {
                Some((_, change)) if *change == reading.change => return version,
                Some((_, change)) => change.clone_from(&reading.change),
                None => self.last.push((reading.key, reading.change.clone())),
            }
        }
        self.batch.push(reading.change);
        version
    }

    /// Takes a deleted object; returns its version.
    fn delete(&mut self, mut object: K::Object) -> String {
        let version = K::metadata(&mut object).resource_version.take().unwrap_or_default();
        let key = K::read(&mut self.intake, &object).key;
        if self.known.remove(&key) {
            self.forget(&key);
        }
        version
    }

    fn forget(&mut self, key: &ObjectKey) {
        self.reporter.forget(key);
        self.last.retain(|(last, _)| last != key);
        self.batch.push(gone(key));
    }

    fn flush(&mut self) {
        if !self.batch.is_empty() {
            (self.sink)(Notice::Changes(std::mem::take(&mut self.batch)));
        }
    }
}

/// Sends a GET and hands back the response's body, if it is a success.
async fn get(
    connection: &Connection,
    url: &str,
    stream: bool,
) -> Result<(Body, Encoding), WatchError> {
    let accept = connection.accept();
    let accept = if stream {
        accept
            .split(',')
            .map(|one| format!("{};stream=watch", one.trim()))
            .collect::<Vec<_>>()
            .join(",")
    } else {
        accept
    };
    let request = Request::builder()
        .method(Method::GET)
        .uri(url)
        .header(header::ACCEPT, accept)
        .body(Body::empty())
        .map_err(|err| WatchError::Request(kube::Error::HttpError(err)))?;
    let (client, _) = connection.client();
    let response = timeout(RESPONSE, client.send(request))
        .await
        .map_err(|_| WatchError::Silent(RESPONSE))?
        .map_err(WatchError::Request)?;
    if !response.status().is_success() {
        return Err(status_of(response).await);
    }
    let content_type = response.headers().get(header::CONTENT_TYPE);
    let encoding = Encoding::of(content_type.and_then(|v| v.to_str().ok()).unwrap_or_default());
    Ok((response.into_body(), encoding))
}

fn decode<K: Kind>(encoding: Encoding, object: &[u8]) -> Result<K::Object, WatchError> {
    Ok(match encoding {
        Encoding::Protobuf => K::decode(object)?,
        Encoding::Json => serde_json::from_slice(object)?,
    })
}

fn read_marker(encoding: Encoding, object: &[u8]) -> Result<Marker, WatchError> {
    if encoding == Encoding::Protobuf {
        return Ok(protobuf::marker(object)?);
    }
    let JsonMarker { metadata } = serde_json::from_slice(object)?;
    Ok(Marker {
        resource_version: metadata.resource_version,
        initial_events_end: metadata.annotations.contains_key("k8s.io/initial-events-end"),
    })
}
