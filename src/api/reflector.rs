//! Lists a kind of object, watches it, resumes, and lists again, as client-go's reflector does.
//!
//! ```text
//! list   as a stream (a watch that begins with all objects), else in pages
//!   |
//! watch  from the list's version on; ended, broken off: from the last version seen on
//!   |
//! list   again when the server no longer has that version, or sent what cannot be read
//! ```
//!
//! What is wrong is said, and waiting before the next attempt is left to whoever asks.

use super::encoding::{Encoding, Frames, Unreadable, WatchEvent, frames, whole};
use super::kind::Kind;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, stream};
use http::header::ACCEPT;
use http::{HeaderValue, Response};
use kube::Client;
use kube::api::{ListParams, WatchParams};
use kube::client::Body;
use kube::core::{Request, Status};
use std::collections::VecDeque;
use std::marker::PhantomData;
use std::time::Duration;
use thiserror::Error;
use tokio::time::{Instant, timeout, timeout_at};

/// A watch lasts this long, or up to twice as long, in seconds (client-go's `minWatchTimeout`).
const WATCH: u32 = 300;
/// After the end that was asked for, a watch is waited for so much longer.
const OVERDUE: Duration = Duration::from_secs(10);
/// The server answers within this time, or not at all: it gives up on a request after 60 s itself.
const ANSWER: Duration = Duration::from_secs(90);
/// A watch that has ended sooner, without an event, tells of a fault.
const SHORT: Duration = Duration::from_secs(1);
/// Objects in a page, where the server pages (client-go's `defaultPageSize`).
const PAGE: u32 = 500;
/// Any version that the server has: its cache answers.
pub const ANY: &str = "0";
/// The newest version.
pub const NEWEST: &str = "";

/// What to watch, in the words of the API.
#[derive(Clone, Debug, Default)]
pub struct Selectors {
    pub labels: Option<String>,
    pub fields: Option<String>,
}

/// What has come.
#[derive(Debug)]
pub enum Event<K> {
    /// A list begins; it follows what has changed since, and then [`Event::Listed`].
    Listing,
    Listed,
    Applied(K),
    Deleted(K),
    /// An object of a list that cannot be read. It is there, though.
    Unreadable(Unreadable),
}

/// Why nothing comes.
#[derive(Debug, Error)]
pub enum Error {
    #[error("the server refuses the {what}: {}", words(.status))]
    Refused { what: &'static str, status: Box<Status> },
    #[error("the server ends the watch: {}", words(.0))]
    Ended(Box<Status>),
    #[error("the server ends the watch at once, without a word")]
    Short,
    #[error("the list breaks off before its end")]
    BrokenOff,
    #[error("no answer in {}", humantime::format_duration(*.0))]
    Silent(Duration),
    #[error("what the server sends cannot be read: {0}")]
    Unreadable(String),
    #[error(transparent)]
    Client(#[from] kube::Error),
    #[error("the connection breaks off: {0}")]
    Io(#[from] std::io::Error),
}

fn words(status: &Status) -> String {
    match status.code {
        0 => format!("{:?} ({})", status.message, status.reason),
        code => format!("{:?} ({code} {})", status.message, status.reason),
    }
}

impl Error {
    fn status(&self) -> Option<&Status> {
        match self {
            Error::Refused { status, .. } | Error::Ended(status) => Some(status),
            _ => None,
        }
    }

    /// The HTTP status with which the server refused something, else 0.
    pub fn code(&self) -> u16 {
        self.status().map_or(0, |status| status.code)
    }

    /// How long the server wants to be left alone.
    pub fn retry_after(&self) -> Duration {
        let details = self.status().and_then(|status| status.details.as_ref());
        Duration::from_secs(details.map_or(0, |details| details.retry_after_seconds.into()))
    }

    /// Whether the server answers, but without the version that it was asked for. One that has been restarted has
    /// none from before.
    pub fn wants_list(&self) -> bool {
        self.is_expired() || self.is_ahead()
    }

    fn is_expired(&self) -> bool {
        self.code() == 410 || self.status().is_some_and(|status| status.reason == "Expired")
    }

    /// The server's cache has not come to a version that another server has given.
    fn is_ahead(&self) -> bool {
        let Some(status) = self.status() else { return false };
        let causes = status.details.iter().flat_map(|details| &details.causes);
        causes.into_iter().any(|cause| cause.reason == "ResourceVersionTooLarge")
            || status.message.contains("Too large resource version")
    }
}

/// The events of a kind, without an end, beginning with a list of this version ([`ANY`], [`NEWEST`]).
pub fn follow<K: Kind>(
    client: Client,
    accept: HeaderValue,
    selectors: Selectors,
    version: &str,
) -> BoxStream<'static, Result<Event<K>, Error>> {
    let reflector = Reflector::<K> {
        client,
        accept,
        selectors,
        may_stream: true,
        version: version.to_owned(),
        state: State::Start,
        kind: PhantomData,
    };
    stream::unfold(reflector, |mut reflector| async {
        let event = reflector.next().await;
        Some((event, reflector))
    })
    .boxed()
}

struct Reflector<K> {
    client: Client,
    accept: HeaderValue,
    selectors: Selectors,
    /// Lists are asked for as streams; until the server says that it has none.
    may_stream: bool,
    /// The version that has been seen, or with which to begin.
    version: String,
    state: State,
    kind: PhantomData<fn() -> K>,
}

enum State {
    Start,
    /// The page with this token comes next.
    Page(String),
    Items(Encoding, VecDeque<Bytes>, String),
    /// All is known up to the version.
    Watch,
    Watching(Watching),
}

struct Watching {
    frames: Frames,
    encoding: Encoding,
    /// The list has not been sent to its end.
    is_initial: bool,
    has_event: bool,
    since: Instant,
    /// When the server should have ended it.
    end: Instant,
}

impl<K: Kind> Reflector<K> {
    async fn next(&mut self) -> Result<Event<K>, Error> {
        loop {
            match self.step().await {
                Ok(Some(event)) => return Ok(event),
                Ok(None) => {}
                Err(error) => {
                    if !self.adapt(&error) {
                        self.recover(&error);
                        return Err(error);
                    }
                }
            }
        }
    }

    /// Does without what the server does not know; whether that is it.
    fn adapt(&mut self, error: &Error) -> bool {
        let Error::Refused { status, .. } = error else { return false };
        let kind = K::plural(&());
        if matches!(status.code, 400 | 422) && self.may_stream {
            tracing::info!("{kind}: the server has no streaming lists");
            self.may_stream = false;
        } else if status.code == 400 && K::MAY_FILTER && self.selectors.fields.take().is_some() {
            tracing::info!(
                "{kind}: the server does not select by field, all are read ({})",
                words(status)
            );
        } else {
            return false;
        }
        self.state = State::Start;
        true
    }

    /// Where to go on after an error.
    fn recover(&mut self, error: &Error) {
        let was_watching = match &self.state {
            State::Watching(watching) => !watching.is_initial,
            State::Watch => true,
            State::Start | State::Page(_) | State::Items(..) => false,
        };
        if error.wants_list() {
            // A server that has less than another one had has the newest in the end.
            self.version = NEWEST.to_owned();
        }
        self.state = match error {
            // The version is still good; the connection was not, or the server or our credentials are not yet.
            Error::Io(_) | Error::Client(_) | Error::Short | Error::Silent(_) if was_watching => {
                State::Watch
            }
            Error::Refused { status, .. } | Error::Ended(status)
                if was_watching
                    && (matches!(status.code, 401 | 403 | 429) || status.code >= 500)
                    && !error.is_ahead() =>
            {
                State::Watch
            }
            _ => State::Start,
        };
    }

    async fn step(&mut self) -> Result<Option<Event<K>>, Error> {
        match &mut self.state {
            State::Start if self.may_stream => {
                let watching = self.open(true).await?;
                self.state = State::Watching(watching);
                Ok(Some(Event::Listing))
            }
            State::Start => {
                self.page(String::new()).await?;
                Ok(Some(Event::Listing))
            }
            State::Page(token) => {
                let token = std::mem::take(token);
                self.page(token).await?;
                Ok(None)
            }
            State::Items(encoding, items, next) => match items.pop_front() {
                Some(item) => Ok(Some(match encoding.item(&item) {
                    Ok(object) => Event::Applied(object),
                    Err(unreadable) => Event::Unreadable(unreadable),
                })),
                None if next.is_empty() => {
                    self.state = State::Watch;
                    Ok(Some(Event::Listed))
                }
                None => {
                    self.state = State::Page(std::mem::take(next));
                    Ok(None)
                }
            },
            State::Watch => {
                let watching = self.open(false).await?;
                self.state = State::Watching(watching);
                Ok(None)
            }
            State::Watching(_) => self.watch().await,
        }
    }

    /// Takes the next event of a watch.
    async fn watch(&mut self) -> Result<Option<Event<K>>, Error> {
        let State::Watching(watching) = &mut self.state else { return Ok(None) };
        let frame = timeout_at(watching.end, watching.frames.next()).await;
        let Some(frame) = frame.unwrap_or(None) else {
            return match watching {
                Watching { is_initial: true, .. } => Err(Error::BrokenOff),
                Watching { has_event: false, since, .. } if since.elapsed() < SHORT => {
                    Err(Error::Short)
                }
                _ => {
                    self.state = State::Watch;
                    Ok(None)
                }
            };
        };
        let frame = frame?;
        watching.has_event = true;
        match watching.encoding.event::<K>(&frame) {
            Ok(WatchEvent::Applied(object)) => {
                note(&mut self.version, watching, &object);
                Ok(Some(Event::Applied(object)))
            }
            Ok(WatchEvent::Deleted(object)) => {
                note(&mut self.version, watching, &object);
                Ok(Some(Event::Deleted(object)))
            }
            Ok(WatchEvent::Bookmark { version, is_initial_end }) => {
                if !watching.is_initial || is_initial_end {
                    self.version = version;
                }
                let is_end = is_initial_end && std::mem::take(&mut watching.is_initial);
                Ok(is_end.then_some(Event::Listed))
            }
            Ok(WatchEvent::Error(status)) => Err(Error::Ended(status)),
            Err(unreadable) if watching.is_initial && unreadable.metadata.is_some() => {
                Ok(Some(Event::Unreadable(unreadable)))
            }
            // The list tells what the event was about.
            Err(unreadable) => Err(Error::Unreadable(unreadable.message)),
        }
    }

    /// Asks for a page of a list.
    async fn page(&mut self, token: String) -> Result<(), Error> {
        let mut params = ListParams {
            label_selector: self.selectors.labels.clone(),
            field_selector: self.selectors.fields.clone(),
            limit: Some(PAGE),
            ..ListParams::default()
        };
        match token.is_empty() {
            // The token says which version.
            false => params.continue_token = Some(token),
            true if self.version == NEWEST => {}
            true => params.resource_version = Some(self.version.clone()),
        }
        let request = Request::new(K::url_path(&(), None)).list(&params).map_err(request_error)?;
        let answer = self.send("list", request).await?;
        let encoding = Encoding::of(answer.headers());
        let list = encoding.list(&whole(answer.into_body()).await?).map_err(Error::Unreadable)?;
        // Pages are of one version, which watching begins with.
        self.version = list.version;
        self.state = State::Items(encoding, list.items.into(), list.next);
        Ok(())
    }

    /// Starts a watch; with all objects first, or from the version on.
    async fn open(&mut self, is_initial: bool) -> Result<Watching, Error> {
        // Not all at the same time.
        let seconds = WATCH + fastrand::u32(0..WATCH);
        let params = WatchParams {
            label_selector: self.selectors.labels.clone(),
            field_selector: self.selectors.fields.clone(),
            timeout: Some(seconds),
            bookmarks: true,
            send_initial_events: is_initial,
        };
        let request = Request::new(K::url_path(&(), None));
        let request = request.watch(&params, &self.version).map_err(request_error)?;
        let answer = self.send("watch", request).await?;
        tracing::debug!(version = self.version, is_initial, "{}: watching", K::plural(&()));
        let encoding = Encoding::of(answer.headers());
        let frames = frames(answer.into_body(), encoding);
        let since = Instant::now();
        let end = since + Duration::from_secs(seconds.into()) + OVERDUE;
        Ok(Watching { frames, encoding, is_initial, has_event: false, since, end })
    }

    async fn send(
        &mut self,
        what: &'static str,
        request: http::Request<Vec<u8>>,
    ) -> Result<Response<Body>, Error> {
        let mut request = request.map(Body::from);
        request.headers_mut().insert(ACCEPT, self.accept.clone());
        let answer = timeout(ANSWER, self.client.send(request)).await;
        let answer = answer.map_err(|_| Error::Silent(ANSWER))??;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let code = answer.status().as_u16();
        let body = whole(answer.into_body()).await?;
        let mut status: Status = serde_json::from_slice(&body).unwrap_or_default();
        status.code = code;
        Err(Error::Refused { what, status: Box::new(status) })
    }
}

fn request_error(error: kube::core::request::Error) -> Error {
    Error::Client(kube::Error::BuildRequest(error))
}

/// Notes the version of an object, from which a watch can be resumed. Objects of a list do not come in the order of
/// their versions.
fn note<K: Kind>(version: &mut String, watching: &Watching, object: &K) {
    if let Some(new) = &object.meta().resource_version
        && !watching.is_initial
    {
        version.clone_from(new);
    }
}
