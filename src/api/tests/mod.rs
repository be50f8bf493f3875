//! The source against a scripted API server.

mod server;

use super::encoding::Encoding;
use serde_json::{Value, json};
use server::{
    Answer, Script, Source, bookmark, event, expired, no_slices, service, slice, weighted,
};
use std::time::Duration;

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
