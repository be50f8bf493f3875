//! Kubernetes Events (events.k8s.io) about this Node and about Services.
//!
//! Publishing never blocks and never fails: Events tell people, nothing depends on them. They wait in
//! a short queue while the server is away. The same is said once in an hour, and about one object not much
//! (`limit`): whoever may write a Service must not have every node fill the API server, or the queue.

mod limit;

use crate::model::ObjectName;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event as KubeEvent, EventType, Recorder, Reporter};
use kube::runtime::watcher::DefaultBackoff;
use limit::Limit;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use tokio::sync::mpsc;

/// The most Events that wait for the server; further ones are dropped.
const QUEUE: usize = 64;
/// Attempts to write one Event.
const ATTEMPTS: usize = 8;
/// The longest note that the API takes.
const NOTE: usize = 1024;

/// What an Event is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Regarding {
    /// This node.
    Node,
    Service(ObjectName),
}

/// The type of an Event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventSeverity {
    Normal,
    Warning,
}

/// An Event to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub regarding: Regarding,
    pub severity: EventSeverity,
    /// Machine-readable cause, as in `FailedToStartServiceHealthcheck`.
    pub reason: &'static str,
    /// What was being done, as in `Listen`.
    pub action: &'static str,
    /// For people; cut to 1024 bytes.
    pub note: String,
}

impl Event {
    /// kube-proxy's announcement at its start.
    pub fn starting() -> Event {
        Event {
            regarding: Regarding::Node,
            severity: EventSeverity::Normal,
            reason: "Starting",
            action: "StartKubeProxy",
            note: String::new(),
        }
    }
}

/// Takes Events from any thread.
#[derive(Clone, Debug)]
pub struct EventWriter {
    queue: mpsc::Sender<Event>,
    limit: Arc<Mutex<Limit>>,
}

impl EventWriter {
    /// Starts the task that writes them. Must be called inside a tokio runtime.
    pub fn start(client: Client, node_name: &str) -> EventWriter {
        let (queue, events) = mpsc::channel(QUEUE);
        tokio::spawn(write_all(client, node_name.to_owned(), events));
        EventWriter { queue, limit: Arc::default() }
    }

    /// Queues an Event; drops it when it was said lately, or the queue is full.
    pub fn publish(&self, event: Event) {
        let mut limit = self.limit.lock().unwrap_or_else(PoisonError::into_inner);
        if !limit.allows(&event, Instant::now()) {
            return tracing::debug!("enough was said lately for this Event: {event:?}");
        }
        if let Err(error) = self.queue.try_send(event) {
            tracing::debug!("an Event is not written: {error}");
            // It was not said.
            limit.forget(&error.into_inner());
        }
    }
}

fn reference(regarding: &Regarding, node_name: &str) -> ObjectReference {
    let (kind, name) = match regarding {
        Regarding::Node => ("Node", node_name),
        Regarding::Service(name) => ("Service", &*name.name),
    };
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some(kind.to_owned()),
        name: Some(name.to_owned()),
        namespace: match regarding {
            Regarding::Node => None,
            Regarding::Service(name) => Some(name.namespace.to_string()),
        },
        // As kubelet and kube-proxy do it: `kubectl describe node` finds Events by this.
        uid: matches!(regarding, Regarding::Node).then(|| node_name.to_owned()),
        ..Default::default()
    }
}

fn cut(mut note: String) -> Option<String> {
    if note.len() > NOTE {
        let end = (0..=NOTE).rev().find(|end| note.is_char_boundary(*end));
        note.truncate(end.unwrap_or_default());
    }
    (!note.is_empty()).then_some(note)
}

async fn write_all(client: Client, node_name: String, mut events: mpsc::Receiver<Event>) {
    let reporter =
        Reporter { controller: "kube-proxy".to_owned(), instance: Some(node_name.clone()) };
    let recorder = Recorder::new(client, reporter);
    while let Some(event) = events.recv().await {
        let reference = reference(&event.regarding, &node_name);
        let event = KubeEvent {
            type_: match event.severity {
                EventSeverity::Normal => EventType::Normal,
                EventSeverity::Warning => EventType::Warning,
            },
            reason: event.reason.to_owned(),
            action: event.action.to_owned(),
            note: cut(event.note),
            secondary: None,
        };
        for wait in DefaultBackoff::default().take(ATTEMPTS) {
            match recorder.publish(&event, &reference).await {
                Ok(()) => break,
                // Refused: the role does not allow it, or the namespace is being deleted.
                Err(kube::Error::Api(status))
                    if matches!(status.code, 400 | 403 | 404 | 409 | 422) =>
                {
                    tracing::debug!("an Event is refused: {status}");
                    break;
                }
                Err(err) => {
                    tracing::debug!("an Event cannot be written yet: {err}");
                    tokio::time::sleep(wait).await;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_events_refer_to() {
        let node = reference(&Regarding::Node, "worker-1");
        assert_eq!((node.kind.as_deref(), node.uid.as_deref()), (Some("Node"), Some("worker-1")));
        assert_eq!(node.namespace, None);
        let service = reference(&Regarding::Service(ObjectName::new("shop", "cart")), "worker-1");
        assert_eq!(service.namespace.as_deref(), Some("shop"));
        assert_eq!(service.name.as_deref(), Some("cart"));
    }

    #[test]
    fn notes_are_cut_between_characters() {
        assert_eq!(cut(String::new()), None);
        let note = cut("é".repeat(NOTE)).expect("not empty");
        assert_eq!(note.len(), NOTE);
    }
}
