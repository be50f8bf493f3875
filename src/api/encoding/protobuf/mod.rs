//! Kubernetes' protobuf: an envelope around each object (`runtime.Unknown` behind four bytes), and of the objects the
//! fields that are needed, with the numbers of the `generated.proto` files of `k8s.io/api` and `k8s.io/apimachinery`.
//! What is not declared here is skipped.
//!
//! A field that is not a pointer in Go is always sent, also with its zero, where JSON has nothing: such a zero counts
//! as absent here as well.

mod objects;

pub use objects::{NeededService, NeededSlice, NodeMessage, ServiceCidrMessage};

use super::{List, Unreadable, WatchEvent, bookmark, of_object};
use crate::api::kind::Kind;
use bytes::Bytes;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::Status;
use kube::core::response::{StatusCause, StatusDetails};
use objects::Metadata;
use prost::Message;

/// What an object begins with, on its own, in a list's answer, and in an event.
const MAGIC: &[u8] = b"k8s\0";

/// `runtime.Unknown`.
#[derive(Clone, PartialEq, Message)]
struct Envelope {
    #[prost(bytes = "bytes", tag = "2")]
    raw: Bytes,
}

/// `meta/v1.WatchEvent`.
#[derive(Clone, PartialEq, Message)]
struct Event {
    #[prost(string, tag = "1")]
    r#type: String,
    #[prost(message, optional, tag = "2")]
    object: Option<RawExtension>,
}

/// `runtime.RawExtension`.
#[derive(Clone, PartialEq, Message)]
struct RawExtension {
    #[prost(bytes = "bytes", tag = "1")]
    raw: Bytes,
}

/// What all lists have.
#[derive(Clone, PartialEq, Message)]
struct AnyList {
    #[prost(message, optional, tag = "1")]
    metadata: Option<ListMeta>,
    #[prost(bytes = "bytes", repeated, tag = "2")]
    items: Vec<Bytes>,
}

#[derive(Clone, PartialEq, Message)]
struct ListMeta {
    #[prost(string, tag = "2")]
    resource_version: String,
    #[prost(string, tag = "3")]
    r#continue: String,
}

/// What all objects have.
#[derive(Clone, PartialEq, Message)]
struct AnyObject {
    #[prost(message, optional, tag = "1")]
    metadata: Option<Metadata>,
}

/// `meta/v1.Status`.
#[derive(Clone, PartialEq, Message)]
struct StatusMessage {
    #[prost(string, tag = "3")]
    message: String,
    #[prost(string, tag = "4")]
    reason: String,
    #[prost(message, optional, tag = "5")]
    details: Option<Details>,
    #[prost(int32, tag = "6")]
    code: i32,
}

#[derive(Clone, PartialEq, Message)]
struct Details {
    #[prost(message, repeated, tag = "4")]
    causes: Vec<Cause>,
    #[prost(int32, tag = "5")]
    retry_after_seconds: i32,
}

#[derive(Clone, PartialEq, Message)]
struct Cause {
    #[prost(string, tag = "1")]
    reason: String,
    #[prost(string, tag = "2")]
    message: String,
}

/// Reads a Status on its own, as the answer to a request that is refused; None: it is none.
pub fn status(bytes: &[u8]) -> Option<Status> {
    let raw = unwrap(&Bytes::copy_from_slice(bytes)).ok()?;
    let message = StatusMessage::decode(raw).ok()?;
    let details = message.details.map(|details| StatusDetails {
        name: String::new(),
        group: String::new(),
        kind: String::new(),
        uid: String::new(),
        causes: details
            .causes
            .into_iter()
            .map(|Cause { reason, message }| StatusCause { reason, message, field: String::new() })
            .collect(),
        retry_after_seconds: details.retry_after_seconds.try_into().unwrap_or_default(),
    });
    Some(Status {
        status: None,
        code: message.code.try_into().unwrap_or_default(),
        message: message.message,
        metadata: None,
        reason: message.reason,
        details,
    })
}

pub(super) fn list(bytes: &Bytes) -> Result<List, String> {
    let list = AnyList::decode(unwrap(bytes)?).map_err(|error| error.to_string())?;
    let metadata = list.metadata.unwrap_or_default();
    Ok(List { version: metadata.resource_version, next: metadata.r#continue, items: list.items })
}

/// Reads an object that has no envelope.
pub(super) fn object<K: Kind>(bytes: &Bytes) -> Result<K, Unreadable> {
    K::Message::decode(bytes.clone()).map(Into::into).map_err(|error| {
        let partial = AnyObject::decode(bytes.clone()).ok();
        let metadata = partial.and_then(|partial| partial.metadata);
        Unreadable {
            metadata: metadata.map(|metadata| Box::new(metadata.into())),
            message: error.to_string(),
        }
    })
}

pub(super) fn event<K: Kind>(frame: &Bytes) -> Result<WatchEvent<K>, Unreadable> {
    let event = Event::decode(frame.clone()).map_err(|error| error.to_string())?;
    let object = event.object.unwrap_or_default().raw;
    match event.r#type.as_str() {
        "BOOKMARK" => {
            let partial = AnyObject::decode(unwrap(&object)?).map_err(|error| error.to_string())?;
            let metadata: ObjectMeta = partial.metadata.unwrap_or_default().into();
            Ok(bookmark(metadata))
        }
        "ERROR" => {
            let status = status(&object).ok_or_else(|| "an error that is no Status".to_owned())?;
            Ok(WatchEvent::Error(Box::new(status)))
        }
        other => of_object(other, self::object(&unwrap(&object)?)?),
    }
}

/// What is in an envelope.
fn unwrap(bytes: &Bytes) -> Result<Bytes, String> {
    if !bytes.starts_with(MAGIC) {
        return Err("no protobuf of Kubernetes: it does not begin with \"k8s\"".to_owned());
    }
    let envelope = Envelope::decode(bytes.slice(MAGIC.len()..));
    envelope.map(|envelope| envelope.raw).map_err(|error| error.to_string())
}

/// What a server would send.
#[cfg(test)]
pub mod encode {
    use super::objects::encode::service;
    use super::{
        AnyList, AnyObject, Cause, Details, Envelope, Event, ListMeta, MAGIC, RawExtension,
        StatusMessage,
    };
    use bytes::Bytes;
    use prost::Message;
    use serde_json::Value;

    fn text(value: &Value) -> String {
        value.as_str().unwrap_or_default().to_owned()
    }

    fn wrapped(raw: Vec<u8>) -> Bytes {
        let mut bytes = MAGIC.to_vec();
        Envelope { raw: raw.into() }.encode(&mut bytes).expect("there is room");
        bytes.into()
    }

    /// An event of a watch of Services, with its length before it.
    pub fn event(event: &Value) -> Bytes {
        let object = &event["object"];
        let raw = match event["type"].as_str() {
            Some("ERROR") => status(object),
            Some("BOOKMARK") => wrapped(
                AnyObject { metadata: Some(super::objects::encode::metadata(&object["metadata"])) }
                    .encode_to_vec(),
            ),
            _ => wrapped(service(object)),
        };
        let event = Event { r#type: text(&event["type"]), object: Some(RawExtension { raw }) };
        let event = event.encode_to_vec();
        let mut frame = (event.len() as u32).to_be_bytes().to_vec();
        frame.extend(event);
        frame.into()
    }

    /// A ServiceList.
    pub fn list(list: &Value) -> Bytes {
        let metadata = ListMeta {
            resource_version: text(&list["metadata"]["resourceVersion"]),
            r#continue: text(&list["metadata"]["continue"]),
        };
        let items = list["items"].as_array().into_iter().flatten();
        let items = items.map(|item| service(item).into()).collect();
        wrapped(AnyList { metadata: Some(metadata), items }.encode_to_vec())
    }

    pub fn status(status: &Value) -> Bytes {
        let causes = status["details"]["causes"].as_array().into_iter().flatten();
        let causes =
            causes.map(|cause| Cause { reason: text(&cause["reason"]), message: String::new() });
        let message = StatusMessage {
            message: text(&status["message"]),
            reason: text(&status["reason"]),
            details: Some(Details { causes: causes.collect(), retry_after_seconds: 0 }),
            code: status["code"].as_i64().unwrap_or_default() as i32,
        };
        wrapped(message.encode_to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::needed::Needed;
    use k8s_openapi::api::core::v1::{Node, Service};
    use k8s_openapi::api::discovery::v1::EndpointSlice;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use serde_json::json;

    proptest! {
        /// Whatever bytes come, they are read or refused.
        #[test]
        fn odd_bytes_are_refused(at in 0..60_usize, put in vec(any::<u8>(), 0..40)) {
            let metadata = json!({"name": "web", "namespace": "shop", "resourceVersion": "7"});
            let spec = json!({"type": "ClusterIP", "ports": [{"port": 80, "protocol": "TCP"}]});
            let object = json!({"metadata": metadata, "spec": spec});
            let frame = encode::event(&json!({"type": "ADDED", "object": object}));
            let mut bytes = frame.slice(4..).to_vec();
            let at = at.min(bytes.len());
            bytes.splice(at..(at + put.len()).min(frame.len() - 4), put);
            let bytes = Bytes::from(bytes);
            let _ = event::<Needed<Service>>(&bytes);
            let _ = event::<Needed<EndpointSlice>>(&bytes);
            let _ = event::<Node>(&bytes);
            let _ = (list(&bytes), status(&bytes));
        }
    }
}
