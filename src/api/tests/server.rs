//! A scripted API server, and the source that watches it.

use crate::api::encoding::Encoding;
use crate::api::encoding::protobuf::encode;
use crate::api::{Notice, Options, Sink, accept, watch};
use crate::intake::Options as IntakeOptions;
use crate::model::{Change, ObjectName};
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use http::{Request, Response};
use http_body_util::StreamBody;
use hyper::body::Frame;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::mpsc;

/// One answer of the server.
pub enum Answer {
    /// Events; the watch then stays open.
    Events(Vec<Value>),
    /// Events; the server then ends the watch.
    Ended(Vec<Value>),
    List(Value),
    Refusal(u16, &'static str),
}

/// Answers to the requests for one kind, in order; the last request stays unanswered.
pub struct Script {
    encoding: Encoding,
    answers: Mutex<VecDeque<Answer>>,
    requests: Mutex<Vec<String>>,
}

impl Script {
    pub fn new(encoding: Encoding, answers: impl IntoIterator<Item = Answer>) -> Arc<Script> {
        Arc::new(Script {
            encoding,
            answers: Mutex::new(answers.into_iter().collect()),
            requests: Mutex::default(),
        })
    }

    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().expect("no holder panics").clone()
    }
}

type Stream = BoxStream<'static, Result<Frame<Bytes>, Infallible>>;

async fn answer(script: Arc<Script>, query: String) -> Response<StreamBody<Stream>> {
    script.requests.lock().expect("no holder panics").push(query);
    let answer = script.answers.lock().expect("no holder panics").pop_front();
    let is_json = script.encoding == Encoding::Json;
    let line = |value: &Value| Bytes::from(format!("{value}\n"));
    let frames = move |events: Vec<Value>| {
        let frame = move |event| if is_json { line(&event) } else { encode::event(&event) };
        futures::stream::iter(events.into_iter().map(move |event| Ok(Frame::data(frame(event)))))
    };
    let one = |bytes: Bytes| futures::stream::iter([Ok::<_, Infallible>(Frame::data(bytes))]);
    let (code, body): (u16, Stream) = match answer {
        Some(Answer::Events(events)) => {
            (200, frames(events).chain(futures::stream::pending()).boxed())
        }
        Some(Answer::Ended(events)) => (200, frames(events).boxed()),
        Some(Answer::List(list)) => {
            (200, one(if is_json { line(&list) } else { encode::list(&list) }).boxed())
        }
        // As the connection passes it on.
        Some(Answer::Refusal(code, message)) => {
            let status = json!({"kind": "Status", "code": code, "message": message, "reason": ""});
            (code, one(line(&status)).boxed())
        }
        None => std::future::pending().await,
    };
    let content_type = match (script.encoding, code) {
        (Encoding::Protobuf, 200) => "application/vnd.kubernetes.protobuf;stream=watch",
        _ => "application/json",
    };
    Response::builder()
        .status(code)
        .header("content-type", content_type)
        .body(StreamBody::new(body))
        .expect("a response")
}

/// A source that watches scripted Services and slices; Nodes and ServiceCIDRs are not answered.
pub struct Source {
    notices: mpsc::UnboundedReceiver<Notice>,
    _tasks: tokio::task::JoinSet<()>,
}

impl Source {
    pub fn start(services: &Arc<Script>, slices: &Arc<Script>) -> Source {
        Source::start_waiting(services, slices, Duration::ZERO)
    }

    pub fn start_waiting(
        services: &Arc<Script>,
        slices: &Arc<Script>,
        wait_for_node: Duration,
    ) -> Source {
        let (services, slices) = (services.clone(), slices.clone());
        let server = tower::service_fn(move |request: Request<Body>| {
            let query = request.uri().query().unwrap_or_default().to_owned();
            let script = match request.uri().path() {
                "/api/v1/services" => services.clone(),
                "/apis/discovery.k8s.io/v1/endpointslices" => slices.clone(),
                "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices" => {
                    assert_eq!(query, "&labelSelector=kubernetes.io%2Fservice-name%3Dweb");
                    let items = [slice("web-1", 9), slice("unknown", 9)];
                    let list = json!({"metadata": {"resourceVersion": "9"}, "items": items});
                    Script::new(Encoding::Json, [Answer::List(list)])
                }
                _ => Script::new(Encoding::Json, []),
            };
            async move { Ok::<_, Infallible>(answer(script, query).await) }
        });
        let client = Client::new(server, "default");
        let (sender, notices) = mpsc::unbounded_channel();
        let sink: Sink = Arc::new(move |notice| drop(sender.send(notice)));
        let options = Options {
            node_name: "worker-1".to_owned(),
            wait_for_node,
            accept: accept("", ""),
            intake: IntakeOptions::default(),
        };
        Source { notices, _tasks: watch(&client, &options, sink) }
    }

    /// The next notice, shortened: `+web` for an object that is there, `-web` for one that is gone.
    pub async fn next(&mut self) -> Vec<String> {
        let name =
            |name: &ObjectName, there| format!("{}{}", if there { "+" } else { "-" }, name.name);
        match self.notices.recv().await.expect("the source goes on") {
            Notice::Complete => vec!["complete".to_owned()],
            Notice::Changes(changes) => changes
                .iter()
                .map(|change| match change {
                    Change::Service(object, value) => name(object, value.is_some()),
                    Change::EndpointSlice(object, value) => {
                        let described = value.as_ref().is_some_and(|v| !v.described.is_empty());
                        name(object, value.is_some()) + if described { " described" } else { "" }
                    }
                    Change::Node(_) | Change::ServiceCidr(..) => "?".to_owned(),
                })
                .collect(),
        }
    }
}

pub fn service(name: &str, version: u64) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": "default", "resourceVersion": version.to_string()},
        "spec": {
            "type": "ClusterIP", "clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7"],
            "ipFamilies": ["IPv4"], "ports": [{"port": 80, "protocol": "TCP"}],
        },
    })
}

/// A slice of the Service `web`.
pub fn slice(name: &str, version: u64) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": name, "namespace": "default", "resourceVersion": version.to_string(),
            "labels": {"kubernetes.io/service-name": "web"},
        },
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.244.0.7"], "targetRef": {"kind": "Pod", "name": "web-a"}}],
        "ports": [{"name": "", "port": 80, "protocol": "TCP"}],
    })
}

pub fn weighted(name: &str, version: u64) -> Value {
    let mut service = service(name, version);
    service["metadata"]["annotations"] = json!({"nft.kube-proxy/weights": "web-a=2"});
    service
}

pub fn event(kind: &str, object: Value) -> Value {
    json!({"type": kind, "object": object})
}

pub fn bookmark(version: u64, initial_end: bool) -> Value {
    let annotations =
        if initial_end { json!({"k8s.io/initial-events-end": "true"}) } else { json!({}) };
    let metadata = json!({"resourceVersion": version.to_string(), "annotations": annotations});
    event("BOOKMARK", json!({"kind": "Service", "apiVersion": "v1", "metadata": metadata}))
}

pub fn expired() -> Value {
    event(
        "ERROR",
        json!({"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}),
    )
}

/// Slices: none, complete.
pub fn no_slices(encoding: Encoding) -> Arc<Script> {
    Script::new(encoding, [Answer::Events(vec![bookmark(1, true)])])
}
