//! What the API server sends, as bytes: an object, a list of objects, an event of a watch; in protobuf or in JSON.
//!
//! Protobuf costs the server, the network and this program a fraction of what JSON does. The server chooses what it
//! sends among what it is told that this program accepts, and says which it is.

mod accept;
mod body;
pub mod protobuf;

pub use accept::accept;
pub use body::{Frames, frames, whole};

use super::kind::Kind;
use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::Status;
use serde::Deserialize;
use serde_json::value::RawValue;

/// Media type of JSON.
const JSON: &str = "application/json";
/// Media type of protobuf in the envelope of Kubernetes.
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
/// The annotation of the bookmark that ends a streaming list (KEP-3157).
const INITIAL_END: &str = "k8s.io/initial-events-end";

/// How a body is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    Json,
    Protobuf,
}

/// An event of a watch.
#[derive(Clone, Debug)]
pub enum WatchEvent<K> {
    /// `ADDED` and `MODIFIED`, which mean the same for whoever resumes.
    Applied(K),
    Deleted(K),
    Bookmark {
        version: String,
        /// The end of what a streaming list began with.
        is_initial_end: bool,
    },
    Error(Box<Status>),
}

/// A list, or a page of one; its objects are not decoded yet.
#[derive(Debug, Default)]
pub struct List {
    pub version: String,
    /// The token of the next page; empty: this is the last one.
    pub next: String,
    pub items: Vec<Bytes>,
}

/// An object that cannot be decoded, and which it is, as far as that can be read.
#[derive(Debug)]
pub struct Unreadable {
    pub metadata: Option<Box<ObjectMeta>>,
    pub message: String,
}

impl From<String> for Unreadable {
    fn from(message: String) -> Unreadable {
        Unreadable { metadata: None, message }
    }
}

impl Encoding {
    /// How the body of an answer is written; JSON where the answer does not say.
    pub fn of(headers: &HeaderMap) -> Encoding {
        let content_type = headers.get(CONTENT_TYPE).map(|value| value.as_bytes());
        match content_type {
            Some(value) if value.starts_with(PROTOBUF.as_bytes()) => Encoding::Protobuf,
            _ => Encoding::Json,
        }
    }

    /// Reads an object of a list.
    ///
    /// # Errors
    /// It is none of this kind.
    pub fn item<K: Kind>(self, bytes: &Bytes) -> Result<K, Unreadable> {
        match self {
            Encoding::Json => json_object(bytes),
            Encoding::Protobuf => protobuf::object(bytes),
        }
    }

    /// Reads a list, or a page of one.
    ///
    /// # Errors
    /// It is no list.
    pub fn list(self, bytes: &Bytes) -> Result<List, String> {
        match self {
            Encoding::Json => json_list(bytes),
            Encoding::Protobuf => protobuf::list(bytes),
        }
    }

    /// Reads an event.
    ///
    /// # Errors
    /// It is none, or its object none of this kind.
    pub fn event<K: Kind>(self, frame: &Bytes) -> Result<WatchEvent<K>, Unreadable> {
        match self {
            Encoding::Json => json_event(frame),
            Encoding::Protobuf => protobuf::event(frame),
        }
    }
}

/// What is in an object of any kind.
#[derive(Deserialize)]
struct Partial {
    metadata: ObjectMeta,
}

fn bookmark<K>(metadata: ObjectMeta) -> WatchEvent<K> {
    let annotations = metadata.annotations.unwrap_or_default();
    WatchEvent::Bookmark {
        version: metadata.resource_version.unwrap_or_default(),
        is_initial_end: annotations.get(INITIAL_END).is_some_and(|value| value == "true"),
    }
}

/// The event of a type that has an object.
fn of_object<K>(event: &str, object: K) -> Result<WatchEvent<K>, Unreadable> {
    match event {
        "ADDED" | "MODIFIED" => Ok(WatchEvent::Applied(object)),
        "DELETED" => Ok(WatchEvent::Deleted(object)),
        _ => Err(format!("an event of the unknown type {event:?}").into()),
    }
}

fn json_object<K: Kind>(bytes: &[u8]) -> Result<K, Unreadable> {
    serde_json::from_slice(bytes).map_err(|error| {
        let partial = serde_json::from_slice::<Partial>(bytes).ok();
        Unreadable {
            metadata: partial.map(|partial| Box::new(partial.metadata)),
            message: error.to_string(),
        }
    })
}

fn json_event<K: Kind>(frame: &[u8]) -> Result<WatchEvent<K>, Unreadable> {
    #[derive(Deserialize)]
    struct Event<'a> {
        r#type: &'a str,
        #[serde(borrow)]
        object: &'a RawValue,
    }
    let said = |error: serde_json::Error| error.to_string();
    let event: Event<'_> = serde_json::from_slice(frame).map_err(said)?;
    let object = event.object.get();
    match event.r#type {
        "BOOKMARK" => {
            let partial: Partial = serde_json::from_str(object).map_err(said)?;
            Ok(bookmark(partial.metadata))
        }
        "ERROR" => Ok(WatchEvent::Error(Box::new(serde_json::from_str(object).map_err(said)?))),
        other => of_object(other, json_object(object.as_bytes())?),
    }
}

fn json_list(bytes: &Bytes) -> Result<List, String> {
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Metadata {
        resource_version: Option<String>,
        r#continue: Option<String>,
    }
    #[derive(Deserialize)]
    struct Fields<'a> {
        #[serde(default)]
        metadata: Metadata,
        #[serde(borrow)]
        items: Option<Vec<&'a RawValue>>,
    }
    let list: Fields<'_> = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    let items = list.items.unwrap_or_default();
    Ok(List {
        version: list.metadata.resource_version.unwrap_or_default(),
        next: list.metadata.r#continue.unwrap_or_default(),
        items: items.into_iter().map(|item| bytes.slice_ref(item.get().as_bytes())).collect(),
    })
}
