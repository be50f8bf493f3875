//! The source against a scripted API server.

use super::encoding::Encoding;
use super::encoding::protobuf::encode;
use super::{Notice, Options, Sink, watch};
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
enum Answer {
    /// Events; the watch then stays open.
    Events(Vec<Value>),
    /// Events; the server then ends the watch.
    Ended(Vec<Value>),
    List(Value),
    Refusal(u16, &'static str),
}

/// Answers to the requests for one kind, in order; the last request stays unanswered.
struct Script {
    encoding: Encoding,
    answers: Mutex<VecDeque<Answer>>,
    requests: Mutex<Vec<String>>,
}

impl Script {
    fn new(encoding: Encoding, answers: impl IntoIterator<Item = Answer>) -> Arc<Script> {
        Arc::new(Script {
            encoding,
            answers: Mutex::new(answers.into_iter().collect()),
            requests: Mutex::default(),
        })
    }

    fn requests(&self) -> Vec<String> {
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
struct Source {
    notices: mpsc::UnboundedReceiver<Notice>,
    _tasks: tokio::task::JoinSet<()>,
}

impl Source {
    fn start(services: &Arc<Script>, slices: &Arc<Script>) -> Source {
        Source::start_waiting(services, slices, Duration::ZERO)
    }

    fn start_waiting(
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
            accept: super::accept("", ""),
            intake: IntakeOptions::default(),
        };
        Source { notices, _tasks: watch(&client, &options, sink) }
    }

    /// The next notice, shortened: `+web` for an object that is there, `-web` for one that is gone.
    async fn next(&mut self) -> Vec<String> {
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

fn service(name: &str, version: u64) -> Value {
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
fn slice(name: &str, version: u64) -> Value {
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

fn weighted(name: &str, version: u64) -> Value {
    let mut service = service(name, version);
    service["metadata"]["annotations"] = json!({"nft.kube-proxy/weights": "web-a=2"});
    service
}

/// What is complete is described, and slices that have been read are read again: those of a Service, or of very many
/// all.
#[tokio::test(start_paused = true)]
async fn slices_are_read_again_for_weights() {
    let slices = Script::new(
        Encoding::Json,
        [Answer::Events(vec![event("ADDED", slice("web-1", 3)), bookmark(5, true)])],
    );
    let services = Script::new(
        Encoding::Json,
        [
            Answer::Refusal(500, "starting"),
            Answer::Events(vec![event("ADDED", weighted("web", 4)), bookmark(5, true)]),
        ],
    );
    let mut source = Source::start(&services, &slices);
    assert_eq!(source.next().await, ["+web-1"]);
    assert_eq!(source.next().await, ["+web"]);
    assert_eq!(source.next().await, ["+web-1 described"]);
    assert_eq!(source.next().await, ["complete"]);

    let all = || vec![event("ADDED", slice("web-1", 3)), bookmark(5, true)];
    let slices = Script::new(Encoding::Json, [Answer::Events(all()), Answer::Events(all())]);
    let mut many: Vec<Value> =
        (0..20).map(|n| event("ADDED", weighted(&format!("other-{n}"), n))).collect();
    many.extend([event("ADDED", weighted("web", 30)), bookmark(31, true)]);
    let services =
        Script::new(Encoding::Json, [Answer::Refusal(500, "starting"), Answer::Events(many)]);
    let mut source = Source::start(&services, &slices);
    assert_eq!(source.next().await, ["+web-1"]);
    assert_eq!(source.next().await.len(), 21);
    assert_eq!(source.next().await, ["+web-1 described"]);
    assert_eq!(source.next().await, ["complete"]);
}

fn event(kind: &str, object: Value) -> Value {
    json!({"type": kind, "object": object})
}

fn bookmark(version: u64, initial_end: bool) -> Value {
    let annotations =
        if initial_end { json!({"k8s.io/initial-events-end": "true"}) } else { json!({}) };
    let metadata = json!({"resourceVersion": version.to_string(), "annotations": annotations});
    event("BOOKMARK", json!({"kind": "Service", "apiVersion": "v1", "metadata": metadata}))
}

fn expired() -> Value {
    event(
        "ERROR",
        json!({"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}),
    )
}

/// Each test once for either encoding.
macro_rules! in_both_encodings {
    ($($name:ident)*) => {
        mod json {
            use super::Encoding::Json;
            $(#[tokio::test(start_paused = true)] async fn $name() { super::$name(Json).await })*
        }
        mod protobuf {
            use super::Encoding::Protobuf;
            $(#[tokio::test(start_paused = true)] async fn $name() { super::$name(Protobuf).await })*
        }
    };
}

in_both_encodings! {
    complete_is_said_once_after_services_and_slices
    a_burst_is_one_batch
    an_ended_watch_goes_on_where_it_was
    what_vanished_before_a_new_list_is_deleted_after_it
    a_list_that_breaks_off_deletes_nothing
    pages_where_streaming_lists_are_refused
    a_server_that_does_not_select_by_cluster_ip_is_asked_for_all
    silence_ends_a_watch
    one_unreadable_object_does_not_hold_up_the_others
    a_node_that_cannot_be_read_is_waited_for_in_vain
    what_cannot_be_read_is_listed_again
    an_unreadable_object_stays_what_it_was
    a_server_behind_another_one_is_asked_for_its_newest
    a_server_that_is_back_without_its_history_is_listed_soon
    credentials_that_were_refused_cost_no_list
    service_cidrs_are_waited_for_a_moment
    a_watch_that_ends_at_once_is_not_asked_for_without_pause
}

/// Slices: none, complete.
fn no_slices(encoding: Encoding) -> Arc<Script> {
    Script::new(encoding, [Answer::Events(vec![bookmark(1, true)])])
}

async fn complete_is_said_once_after_services_and_slices(encoding: Encoding) {
    let services = Script::new(
        encoding,
        [Answer::Events(vec![
            event("ADDED", service("a", 1)),
            event("ADDED", service("b", 2)),
            bookmark(5, true),
            event("DELETED", service("a", 6)),
        ])],
    );
    let slices = Script::new(
        encoding,
        [Answer::Refusal(500, "starting"), Answer::Events(vec![bookmark(5, true)])],
    );
    let mut source = Source::start(&services, &slices);
    // The slices fail first, so that all of the Services is there before they are complete.
    assert_eq!(source.next().await, ["+a", "+b"]);
    assert_eq!(source.next().await, ["-a"]);
    assert_eq!(source.next().await, ["complete"]);
    let request = &services.requests()[0];
    for part in [
        "labelSelector=%21service.kubernetes.io%2Fservice-proxy-name",
        "fieldSelector=spec.clusterIP%21%3DNone",
        "sendInitialEvents=true",
        "allowWatchBookmarks=true",
    ] {
        assert!(request.contains(part), "{part} in {request}");
    }
}

async fn a_burst_is_one_batch(encoding: Encoding) {
    let many = (1..=1000).map(|n| event("ADDED", service(&format!("s{n}"), n)));
    let services =
        Script::new(encoding, [Answer::Events(many.chain([bookmark(2000, true)]).collect())]);
    let mut source = Source::start(&services, &Script::new(encoding, []));
    assert_eq!(source.next().await.len(), 1000);
}

async fn an_ended_watch_goes_on_where_it_was(encoding: Encoding) {
    let services = Script::new(
        encoding,
        [
            Answer::Ended(vec![
                event("ADDED", service("a", 1)),
                bookmark(5, true),
                event("MODIFIED", service("a", 6)),
                bookmark(9, false),
            ]),
            Answer::Events(vec![event("MODIFIED", service("a", 10))]),
        ],
    );
    let mut source = Source::start(&services, &no_slices(encoding));
    let mut seen = Vec::new();
    while seen.len() < 4 {
        seen.extend(source.next().await);
    }
    assert_eq!(seen.iter().filter(|one| *one == "+a").count(), 3);
    let resumed = &services.requests()[1];
    assert!(
        resumed.contains("&resourceVersion=9") && !resumed.contains("sendInitial"),
        "{resumed}"
    );
}

async fn what_vanished_before_a_new_list_is_deleted_after_it(encoding: Encoding) {
    let services = Script::new(
        encoding,
        [
            Answer::Events(vec![
                event("ADDED", service("kept", 1)),
                event("ADDED", service("gone", 2)),
                event("ADDED", service("changed", 3)),
                bookmark(5, true),
                expired(),
            ]),
            Answer::Events(vec![
                event("ADDED", service("kept", 1)),
                event("ADDED", service("changed", 7)),
                bookmark(8, true),
            ]),
        ],
    );
    let mut source = Source::start(&services, &no_slices(encoding));
    let mut seen = Vec::new();
    while !seen.contains(&"-gone".to_owned()) {
        seen.extend(source.next().await);
    }
    seen.retain(|one| one != "complete");
    assert_eq!(seen, ["+kept", "+gone", "+changed", "+changed", "-gone"]);
    let again = &services.requests()[1];
    assert!(again.contains("sendInitialEvents=true"), "{again}");
}

async fn a_list_that_breaks_off_deletes_nothing(encoding: Encoding) {
    let services = Script::new(
        encoding,
        [
            Answer::Events(vec![event("ADDED", service("a", 1)), bookmark(5, true), expired()]),
            Answer::Ended(vec![]),
            Answer::Refusal(503, "overloaded"),
            Answer::Events(vec![
                event("ADDED", service("a", 1)),
                bookmark(6, true),
                event("ADDED", service("b", 7)),
            ]),
        ],
    );
    let mut source = Source::start(&services, &no_slices(encoding));
    let mut seen = Vec::new();
    while !seen.contains(&"+b".to_owned()) {
        seen.extend(source.next().await);
    }
    seen.retain(|one| one != "complete");
    assert_eq!(seen, ["+a", "+b"]);
}

async fn pages_where_streaming_lists_are_refused(encoding: Encoding) {
    let page = |items: Vec<Value>, token: &str| {
        json!({
            "kind": "ServiceList", "apiVersion": "v1",
            "metadata": {"resourceVersion": "40", "continue": token}, "items": items,
        })
    };
    let services = Script::new(
        encoding,
        [
            Answer::Refusal(
                422,
                "sendInitialEvents is forbidden for watch unless WatchList is enabled",
            ),
            Answer::List(page(vec![service("a", 1)], "next page=")),
            Answer::List(page(vec![service("b", 2)], "")),
            Answer::Events(vec![event("ADDED", service("c", 41)), expired()]),
            Answer::List(page(vec![service("b", 2), service("c", 41)], "")),
        ],
    );
    let mut source = Source::start(&services, &no_slices(encoding));
    let mut seen = Vec::new();
    while !seen.contains(&"-a".to_owned()) {
        seen.extend(source.next().await);
    }
    seen.retain(|one| one != "complete");
    assert_eq!(seen, ["+a", "+b", "+c", "-a"]);
    let requests = services.requests();
    assert!(requests[2].contains("continue=next+page%3D"), "{}", requests[2]);
    assert!(requests[3].contains("&resourceVersion=40"), "{}", requests[3]);
    assert!(!requests[4].contains("watch=true"), "streaming is not tried again: {}", requests[4]);
}

/// Kubernetes 1.28 and others of its time.
async fn a_server_that_does_not_select_by_cluster_ip_is_asked_for_all(encoding: Encoding) {
    let list = json!({
        "kind": "ServiceList", "apiVersion": "v1",
        "metadata": {"resourceVersion": "40"}, "items": [service("a", 1)],
    });
    let services = Script::new(
        encoding,
        [
            Answer::Refusal(
                422,
                "sendInitialEvents is forbidden for watch unless WatchList is enabled",
            ),
            Answer::Refusal(400, "field label not supported: spec.clusterIP"),
            Answer::List(list),
        ],
    );
    let mut source = Source::start(&services, &no_slices(encoding));
    assert_eq!(source.next().await, ["+a"]);
    let requests = services.requests();
    assert!(requests[1].contains("fieldSelector=spec.clusterIP"), "{}", requests[1]);
    assert!(!requests[2].contains("fieldSelector"), "{}", requests[2]);
    assert!(requests[2].contains("labelSelector="), "{}", requests[2]);
}

async fn silence_ends_a_watch(encoding: Encoding) {
    let services = Script::new(
        encoding,
        [
            Answer::Events(vec![event("ADDED", service("a", 1)), bookmark(5, true)]),
            Answer::Events(vec![event("DELETED", service("a", 6))]),
        ],
    );
    let mut source = Source::start(&services, &no_slices(encoding));
    let mut seen = Vec::new();
    while !seen.contains(&"-a".to_owned()) {
        seen.extend(source.next().await);
    }
    assert!(services.requests()[1].contains("&resourceVersion=5"));
}

async fn one_unreadable_object_does_not_hold_up_the_others(encoding: Encoding) {
    let mut bad = service("bad", 2);
    bad["spec"]["ports"] = json!("none");
    let services = Script::new(
        encoding,
        [Answer::Events(vec![
            event("ADDED", service("a", 1)),
            event("ADDED", bad),
            event("ADDED", service("b", 3)),
            bookmark(5, true),
        ])],
    );
    let mut source = Source::start(&services, &Script::new(encoding, []));
    assert_eq!(source.next().await, ["+a", "+b"]);
}

async fn a_node_that_cannot_be_read_is_waited_for_in_vain(encoding: Encoding) {
    let start = tokio::time::Instant::now();
    let mut source =
        Source::start_waiting(&no_slices(encoding), &no_slices(encoding), Duration::from_secs(30));
    assert_eq!(source.next().await, ["complete"]);
    assert_eq!(start.elapsed().as_secs(), 30);
}

async fn what_cannot_be_read_is_listed_again(encoding: Encoding) {
    let mut bad = service("a", 6);
    bad["spec"]["ports"] = json!("none");
    let services = Script::new(
        encoding,
        [
            Answer::Events(vec![
                event("ADDED", service("a", 1)),
                bookmark(5, true),
                event("MODIFIED", bad),
            ]),
            Answer::Events(vec![event("ADDED", service("a", 6)), bookmark(6, true)]),
        ],
    );
    let mut source = Source::start(&services, &Script::new(encoding, []));
    assert_eq!(source.next().await, ["+a"]);
    assert_eq!(source.next().await, ["+a"]);
    let again = &services.requests()[1];
    assert!(again.contains("sendInitialEvents=true"), "{again}");
}

async fn an_unreadable_object_stays_what_it_was(encoding: Encoding) {
    let mut bad = service("bad", 6);
    bad["spec"]["ports"] = json!("none");
    let services = Script::new(
        encoding,
        [
            Answer::Events(vec![
                event("ADDED", service("bad", 1)),
                event("ADDED", service("gone", 2)),
                bookmark(5, true),
                expired(),
            ]),
            Answer::Refusal(422, "sendInitialEvents is forbidden"),
            Answer::List(json!({
                "kind": "ServiceList", "apiVersion": "v1",
                "metadata": {"resourceVersion": "40"}, "items": [service("a", 7), bad],
            })),
        ],
    );
    let mut source = Source::start(&services, &Script::new(encoding, []));
    assert_eq!(source.next().await, ["+bad", "+gone"]);
    assert_eq!(source.next().await, ["+a", "-gone"]);
}

async fn a_server_behind_another_one_is_asked_for_its_newest(encoding: Encoding) {
    let services = Script::new(
        encoding,
        [
            Answer::Events(vec![event("ADDED", service("a", 1)), bookmark(5, true), expired()]),
            Answer::Refusal(504, "Too large resource version: 5, current: 3"),
            Answer::Events(vec![event("ADDED", service("b", 2)), bookmark(3, true)]),
        ],
    );
    let mut source = Source::start(&services, &Script::new(encoding, []));
    assert_eq!(source.next().await, ["+a"]);
    assert_eq!(source.next().await, ["+b", "-a"]);
    let requests = services.requests();
    assert!(requests[0].contains("resourceVersion=0"), "{}", requests[0]);
    assert!(requests[2].ends_with("resourceVersion="), "{}", requests[2]);
}

/// The wait has grown while the server was away.
async fn a_server_that_is_back_without_its_history_is_listed_soon(encoding: Encoding) {
    let away = (0..7).map(|_| Answer::Refusal(503, "starting"));
    let first = Answer::Ended(vec![event("ADDED", service("a", 1)), bookmark(5, true)]);
    let back =
        [Answer::Events(vec![expired()]), Answer::Events(vec![event("ADDED", service("b", 9))])];
    let services = Script::new(encoding, [first].into_iter().chain(away).chain(back));
    let mut source = Source::start(&services, &Script::new(encoding, []));
    assert_eq!(source.next().await, ["+a"]);
    while services.requests().len() < 9 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let back = tokio::time::Instant::now();
    assert_eq!(source.next().await, ["+b"]);
    assert!(back.elapsed().as_secs_f32() < 2.0, "{:?}", back.elapsed());
}

async fn credentials_that_were_refused_cost_no_list(encoding: Encoding) {
    let services = Script::new(
        encoding,
        [
            Answer::Ended(vec![event("ADDED", service("a", 1)), bookmark(5, true)]),
            Answer::Refusal(401, "Unauthorized"),
            Answer::Refusal(403, "forbidden: RBAC has not been read"),
            Answer::Events(vec![event("ADDED", service("b", 6))]),
        ],
    );
    let mut source = Source::start(&services, &Script::new(encoding, []));
    assert_eq!(source.next().await, ["+a"]);
    assert_eq!(source.next().await, ["+b"]);
    for request in &services.requests()[1..] {
        assert!(request.contains("&resourceVersion=5"), "{request}");
        assert!(!request.contains("sendInitialEvents"), "{request}");
    }
}

async fn service_cidrs_are_waited_for_a_moment(encoding: Encoding) {
    let start = tokio::time::Instant::now();
    let mut source = Source::start(&no_slices(encoding), &no_slices(encoding));
    assert_eq!(source.next().await, ["complete"]);
    assert_eq!(start.elapsed().as_secs(), 2);
}

async fn a_watch_that_ends_at_once_is_not_asked_for_without_pause(encoding: Encoding) {
    let start = tokio::time::Instant::now();
    let mut answers = vec![Answer::Ended(vec![bookmark(5, true)])];
    answers.extend((0..5).map(|_| Answer::Ended(vec![])));
    answers.push(Answer::Events(vec![event("ADDED", service("a", 6))]));
    let services = Script::new(encoding, answers);
    let mut source = Source::start(&services, &Script::new(encoding, []));
    assert_eq!(source.next().await, ["+a"]);
    assert!(start.elapsed().as_secs() > 5, "{:?}", start.elapsed());
}
