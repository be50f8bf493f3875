//! The status page in a real browser, beside a proxy in a network namespace: it renders, searches, updates, explains, and
//! shows a broken Service as broken. `make test-page` installs the browser first, and leaves a picture in
//! target/status-page.png.

mod browser;

use browser::Browser;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use test_support::lab::Lab;
use test_support::proxy::{Manifests, Program, endpoints, node, objects, service};

/// A page of many Services, one of which has no endpoint, and one whose name would be markup.
fn objects(lab: &Lab) -> Vec<Value> {
    let mut all = objects![
        node(),
        service("web").cluster_ip(10).tcp(80).node_port(30080),
        endpoints("web").tcp().on(lab, &["a"]),
        service("empty").cluster_ip(11).tcp(80),
    ];
    for number in 0..60u8 {
        let name = format!("filler-{number:02}");
        all.extend(service(&name).cluster_ip(20 + number).tcp(80));
        all.extend(endpoints(&name).tcp().on(lab, &["a"]));
    }
    all
}

#[test]
fn it_renders_searches_updates_and_explains() {
    let lab = Lab::builder().pod("a").outside("client").build().expect("root");
    let manifests = Manifests::new();
    manifests.apply(objects(&lab));
    let program = Program::start(&lab, &manifests, None);
    let head = program.get(10249, "/status");
    let (head, _) = head.split_once("\r\n\r\n").expect("an answer");
    let head = head.to_ascii_lowercase();
    assert!(head.contains("content-security-policy: default-src 'none';"), "{head}");

    let browser = Browser::start(&lab.node().namespace);
    browser.open("http://127.0.0.1:10249/status");
    browser.wait("document.getElementById('matched').textContent === '62 of 62'");
    browser.wait("document.getElementById('health').textContent.startsWith('Healthy')");
    let rows = "document.querySelectorAll('#services tr').length";
    assert_eq!(browser.value(rows), 50, "a page");
    browser.run("document.getElementById('next').click()");
    browser.wait(&format!("{rows} === 12"));

    // A search that matches no more than one.
    browser.type_into("query", "empty");
    browser.wait(&format!("{rows} === 1"));
    let broken = "document.querySelector('#services tr.broken .bad').textContent";
    assert_eq!(browser.value(broken), "no IPv4 endpoint is ready");

    // It follows what changes, without being asked.
    manifests.apply(endpoints("empty").tcp().on(&lab, &["a"]));
    browser.wait("document.querySelector('#services tr.broken') === null");
    manifests.delete(endpoints("empty").tcp().on(&lab, &["a"]));
    browser.wait("document.querySelector('#services tr.broken') !== null");

    browser.run("document.querySelector('#services button').click()");
    let explanation = "document.getElementById('explanation').textContent";
    browser.wait(&format!("{explanation}.includes('The kernel has it as it is planned')"));
    let said = browser.value(explanation);
    let said = said.as_str().expect("text");
    assert!(said.contains("There is no EndpointSlice with the label"), "{said}");
    assert!(said.contains("From outside the cluster is refused"), "{said}");
    browser.run("document.querySelector('#dialog button').click()");

    // The charts draw.
    browser.wait("document.querySelectorAll('#charts polyline').length === 5");
    browser.type_into("query", "");
    browser.wait(&format!("{rows} === 50"));
    let picture = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/status-page.png");
    fs::write(picture, browser.picture()).expect("write the picture");

    // Nothing was tried that the policy forbids.
    assert_eq!(browser.complaints(), Vec::<String>::new());
    // It says so when nobody answers any more.
    program.kill();
    browser.wait("document.getElementById('health').textContent.includes('does not answer')");
}

#[test]
fn it_shows_what_is_counted() {
    let lab = Lab::builder().pod("a").outside("client").build().expect("root");
    let manifests = Manifests::new();
    manifests.apply(objects![
        service("web").cluster_ip(10).tcp(80),
        endpoints("web").tcp().on(&lab, &["a"]),
    ]);
    let _program = Program::start_with(&lab, &manifests, &["--count-connections=service"]);
    let browser = Browser::start(&lab.node().namespace);
    browser.open("http://127.0.0.1:10249/status");
    for _ in 0..3 {
        lab.from("client").tcp("10.96.0.10:80").endpoint();
    }
    browser.wait("document.querySelector('#services tr')?.cells[4].textContent === '3'");
    assert_eq!(browser.value("document.querySelector('th.counted').hidden"), json!(false));
    browser.wait("document.querySelectorAll('#charts polyline').length === 6");
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn what_objects_say_is_never_markup() {
    let lab = Lab::builder().pod("a").build().expect("root");
    let manifests = Manifests::new();
    let mut named = service("web").cluster_ip(10).tcp(80);
    named = named.named("<img src=x onerror=alert(1)>");
    manifests.apply(objects![named, endpoints("web").tcp().on(&lab, &["a"])]);
    let _program = Program::start(&lab, &manifests, None);
    let browser = Browser::start(&lab.node().namespace);
    browser.open("http://127.0.0.1:10249/status");
    browser.wait("document.querySelectorAll('#services tr').length === 1");
    browser.run("document.querySelector('#services button').click()");
    browser.wait("document.querySelectorAll('#explanation pre').length > 0");
    assert_eq!(browser.value("document.querySelectorAll('img').length"), json!(0));
}
