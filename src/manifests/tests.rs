//! Files in, changes out: everything but inotify.

use super::decode::{Object, decode};
use super::split::{Format, split};
use super::store::Store;
use crate::intake::Options;
use crate::model::{Change, ObjectName};
use proptest::prelude::*;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;

fn service(name: &str, ip: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\n\
         spec:\n  clusterIP: {ip}\n  ports:\n  - port: 80\n"
    )
}

fn slice(name: &str, service: &str, addresses: &[&str]) -> String {
    let endpoints: String =
        addresses.iter().map(|address| format!("- addresses: [{address}]\n")).collect();
    format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
         metadata:\n  name: {name}\n  labels: {{kubernetes.io/service-name: {service}}}\n\
         addressType: IPv4\nports: [{{port: 8080}}]\nendpoints:\n{endpoints}"
    )
}

/// Files without a directory.
struct Files {
    store: Store,
    content: RefCell<BTreeMap<String, String>>,
    /// Which files were read again.
    again: RefCell<Vec<String>>,
}

impl Files {
    fn new() -> Self {
        let store = Store::new("node-1", Options::default());
        Files { store, content: RefCell::default(), again: RefCell::default() }
    }

    /// Writes files (`None` deletes), looks, and tells the changes shortly.
    fn write(&mut self, files: &[(&str, Option<&str>)]) -> Vec<String> {
        for (name, content) in files {
            match content {
                Some(content) => {
                    self.content.borrow_mut().insert((*name).to_owned(), (*content).to_owned());
                    self.store.put(&[((*name).to_owned(), content.as_bytes().to_vec())]);
                }
                None => {
                    self.content.borrow_mut().remove(*name);
                    self.store.remove(name);
                }
            }
        }
        let changes = self.store.difference(|name| {
            self.again.borrow_mut().push(name.to_owned());
            let content = self.content.borrow().get(name).cloned();
            content.map(String::into_bytes).ok_or_else(|| io::ErrorKind::NotFound.into())
        });
        changes.iter().map(short).collect()
    }

    fn put(&mut self, name: &str, content: &str) -> Vec<String> {
        self.write(&[(name, Some(content))])
    }
}

/// A change in a few words.
fn short(change: &Change) -> String {
    match change {
        Change::Service(name, Some(service)) => {
            let ips: Vec<_> = service.cluster_ips.iter().map(ToString::to_string).collect();
            format!("Service {name} {}", ips.join(" "))
        }
        Change::EndpointSlice(name, Some(slice)) => {
            let ips: Vec<_> = slice.endpoints.iter().map(|e| e.address.to_string()).collect();
            format!("EndpointSlice {name} {}", ips.join(" "))
        }
        Change::Node(Some(node)) => {
            let ips: Vec<_> = node.addresses.iter().map(ToString::to_string).collect();
            format!("Node {} {}", node.name, ips.join(" "))
        }
        Change::ServiceCidr(name, Some(cidrs)) => {
            let cidrs: Vec<_> = cidrs.iter().map(ToString::to_string).collect();
            format!("ServiceCIDR {name} {}", cidrs.join(" "))
        }
        Change::Service(name, None) => format!("no Service {name}"),
        Change::EndpointSlice(name, None) => format!("no EndpointSlice {name}"),
        Change::Node(None) => "no Node".to_owned(),
        Change::ServiceCidr(name, None) => format!("no ServiceCIDR {name}"),
    }
}

const NONE: [&str; 0] = [];

#[test]
fn every_kind_with_defaults() {
    let mut files = Files::new();
    let text = [
        service("web", "10.96.0.1"),
        slice("web-1", "web", &["10.1.0.1", "10.1.0.2"]),
        "apiVersion: v1\nkind: Node\nmetadata: {name: node-1}\n\
         status: {addresses: [{type: InternalIP, address: 192.0.2.1}]}\n"
            .to_owned(),
        "apiVersion: v1\nkind: Node\nmetadata: {name: node-2}\n".to_owned(),
        "apiVersion: networking.k8s.io/v1\nkind: ServiceCIDR\nmetadata: {name: kubernetes}\n\
         spec: {cidrs: [10.96.0.0/12]}\n"
            .to_owned(),
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\n".to_owned(),
        "apiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {name: web}\n".to_owned(),
    ]
    .join("---\n");
    let expected = [
        "Service default/web 10.96.0.1",
        "EndpointSlice default/web-1 10.1.0.1 10.1.0.2",
        "Node node-1 192.0.2.1",
        "ServiceCIDR kubernetes 10.96.0.0/12",
    ];
    assert_eq!(files.put("all.yaml", &text), expected);
    assert_eq!(files.put("all.yaml", &text), NONE);
    let gone = [
        "no Service default/web",
        "no EndpointSlice default/web-1",
        "no Node",
        "no ServiceCIDR kubernetes",
    ];
    assert_eq!(files.write(&[("all.yaml", None)]), gone);
}

#[test]
fn only_what_differs_is_sent() {
    let mut files = Files::new();
    let (a, b) = (service("a", "10.96.0.1"), service("b", "10.96.0.2"));
    assert_eq!(files.put("x.yaml", &format!("{a}---\n{b}")).len(), 2);
    assert_eq!(files.put("x.yaml", &format!("# comment\n{b}---\n# another\n{a}")), NONE);
    let changed = service("b", "10.96.0.3");
    assert_eq!(files.put("x.yaml", &format!("{a}---\n{changed}")), ["Service default/b 10.96.0.3"]);
    assert_eq!(files.put("x.yaml", &a), ["no Service default/b"]);
    assert_eq!(files.put("x.yaml", ""), ["no Service default/a"]);
    // A move from file to file, in one look, is no change; in two, it is seen.
    assert_eq!(files.put("x.yaml", &a).len(), 1);
    assert_eq!(files.write(&[("x.yaml", None), ("y.yaml", Some(&a))]), NONE);
    assert_eq!(files.write(&[("z.yml", Some(&a)), ("y.yaml", None)]), NONE);
    // Objects that are not for the proxy are never mentioned.
    assert_eq!(files.put("h.yaml", &service("h", "None")), NONE);
    assert_eq!(files.write(&[("h.yaml", None)]), NONE);
    // One that was and is no longer is taken away.
    assert_eq!(files.put("z.yml", &service("a", "None")), ["no Service default/a"]);
}

#[test]
fn a_bad_file_keeps_its_last_good_state() {
    let mut files = Files::new();
    let (a, b) = (service("a", "10.96.0.1"), service("b", "10.96.0.2"));
    assert_eq!(files.put("x.yaml", &a).len(), 1);
    for bad in [
        format!("{b}---\nkind: ["),
        format!("{b}---\nkind: Service\n"),
        format!("{b}---\napiVersion: v1\nkind: Service\nspec: {{ports: [{{port: http}}]}}\n"),
        "apiVersion: v2\nkind: Service\n".to_owned(),
        "just text".to_owned(),
    ] {
        assert_eq!(files.put("x.yaml", &bad), NONE, "{bad}");
    }
    files.store.put(&[("x.yaml".to_owned(), vec![0xff, 0xfe])]);
    files.store.unreadable("x.yaml", &io::ErrorKind::PermissionDenied.into());
    assert_eq!(files.write(&[]), NONE);
    assert_eq!(files.put("y.yaml", &b), ["Service default/b 10.96.0.2"], "others go on");
    assert_eq!(files.put("x.yaml", &a), NONE);
    assert_eq!(files.put("x.yaml", &service("a", "10.96.0.9")), ["Service default/a 10.96.0.9"]);
    assert_eq!(files.put("x.yaml", "{"), NONE);
    assert_eq!(files.write(&[("x.yaml", None)]), ["no Service default/a"]);
}

#[test]
fn a_bad_object_harms_no_other() {
    let mut files = Files::new();
    let bad = service("bad", "10.96.0.300");
    let nameless = service("", "10.96.0.3");
    let good = service("good", "10.96.0.1");
    assert_eq!(
        files.put("x.yaml", &format!("{bad}---\n{nameless}---\n{good}")),
        ["Service default/good 10.96.0.1"]
    );
    let mended = service("bad", "10.96.0.3");
    assert_eq!(
        files.put("x.yaml", &format!("{mended}---\n{good}")),
        ["Service default/bad 10.96.0.3"]
    );
    assert_eq!(files.put("x.yaml", &format!("{bad}---\n{good}")), ["no Service default/bad"]);
}

#[test]
fn the_first_file_by_name_counts() {
    let mut files = Files::new();
    let version = |number: u8| service("web", &format!("10.96.0.{number}"));
    let sent = |number: u8| vec![format!("Service default/web 10.96.0.{number}")];
    assert_eq!(files.put("b.yaml", &version(2)), sent(2));
    assert_eq!(files.put("c.yaml", &version(3)), NONE);
    assert_eq!(files.put("a.yaml", &version(1)), sent(1));
    assert_eq!(files.put("b.yaml", &version(4)), NONE);
    assert_eq!(files.again.take(), NONE);
    assert_eq!(files.write(&[("a.yaml", None)]), sent(4));
    assert_eq!(files.again.take(), ["b.yaml"]);
    assert_eq!(files.write(&[("b.yaml", Some(""))]), sent(3));
    assert_eq!(files.again.take(), ["c.yaml"]);
    // The same from a file with another name: nothing to read, nothing to send.
    assert_eq!(files.put("d.yaml", &version(3)), NONE);
    assert_eq!(files.write(&[("c.yaml", None)]), NONE);
    assert_eq!(files.write(&[("d.yaml", None)]), ["no Service default/web"]);
    assert_eq!(files.again.take(), NONE);
    // Within a file the first document.
    assert_eq!(files.put("a.yaml", &format!("{}---\n{}", version(5), version(6))), sent(5));
    assert_eq!(files.put("a.yaml", &format!("{}---\n{}", version(6), version(5))), sent(6));
    assert_eq!(files.put("a.yaml", &version(5)), sent(5));
}

#[test]
fn what_cannot_be_read_again_is_taken_later() {
    let mut files = Files::new();
    let version = |number: u8| service("web", &format!("10.96.0.{number}"));
    files.put("a.yaml", &version(1));
    files.put("b.yaml", &version(2));
    files.content.borrow_mut().insert("b.yaml".to_owned(), "kind: [".to_owned());
    assert_eq!(files.write(&[("a.yaml", None)]), NONE, "the old version is better than none");
    assert_eq!(files.put("b.yaml", "kind: ["), NONE);
    assert_eq!(files.put("b.yaml", &version(2)), ["Service default/web 10.96.0.2"]);
    assert_eq!(files.write(&[("b.yaml", None)]), ["no Service default/web"]);
}

#[test]
fn lists_are_taken_apart() {
    let list = "apiVersion: v1\nitems:\n\
        - apiVersion: v1\n  kind: Service\n  metadata:\n    name: a\n  spec:\n    clusterIP: 10.96.0.1\n    ports:\n    - port: 80\n\
        - apiVersion: v1\n  kind: ConfigMap\n  data:\n    x: |\n      - apiVersion: v1\n\
        - kind: ServiceCIDR\n  apiVersion: networking.k8s.io/v1\n  metadata: {name: c}\n  spec: {cidrs: [10.96.0.0/12]}\n\
        kind: List\n";
    let expected = ["Service default/a 10.96.0.1", "ServiceCIDR c 10.96.0.0/12"];
    assert_eq!(Files::new().put("x.yaml", list), expected);
    let flow = "{apiVersion: v1, kind: List, items: [{apiVersion: v1, kind: Service, \
        metadata: {name: a}, spec: {clusterIP: 10.96.0.1, ports: [{port: 80}]}}]}";
    assert_eq!(Files::new().put("x.yaml", flow), expected[..1]);
    let typed = "kind: ServiceList\napiVersion: v1\nitems:\n\
        - metadata: {name: a}\n  spec: {clusterIP: 10.96.0.1, ports: [{port: 80}]}\n";
    assert_eq!(Files::new().put("x.yaml", typed), expected[..1]);
    let json = r#"{"apiVersion": "v1", "kind": "ServiceList", "items": [
        {"metadata": {"name": "a"}, "spec": {"clusterIP": "10.96.0.1", "ports": [{"port": 80}]}}]}"#;
    assert_eq!(Files::new().put("x.json", json), expected[..1]);
    assert_eq!(Files::new().put("x.yaml", json), expected[..1]);
    // An anchor that reaches from item to item: the list is parsed as a whole.
    let anchored = "apiVersion: v1\nkind: List\nitems:\n\
        - apiVersion: v1\n  kind: Service\n  metadata: {name: a}\n  spec: &spec\n    clusterIP: 10.96.0.1\n    ports: [{port: 80}]\n\
        - apiVersion: v1\n  kind: Service\n  metadata: {name: b}\n  spec:\n    <<: *spec\n    clusterIP: 10.96.0.2\n";
    let mut files = Files::new();
    assert_eq!(
        files.put("x.yaml", anchored),
        ["Service default/a 10.96.0.1", "Service default/b 10.96.0.2"]
    );
    assert_eq!(
        files.put("x.yaml", &format!("{anchored}---\n{}", service("c", "10.96.0.3"))).len(),
        1
    );
}

#[test]
fn merge_keys_are_honoured() {
    let text = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nx: &x {clusterIP: 10.96.0.1}\n\
                spec:\n  <<: *x\n  ports: [{port: 80}]\n";
    assert_eq!(Files::new().put("x.yaml", text), ["Service default/a 10.96.0.1"]);
}

#[test]
fn errors_name_document_field_and_line() {
    let ports = "spec:\n  ports:\n  - port: 80\n  - port: http\n";
    let good = service("a", "10.96.0.1");
    for (text, format, expected) in [
        (
            format!("{good}---\napiVersion: v1\nkind: Service\n{ports}"),
            Format::Yaml,
            r#"document 2: spec.ports[1].port: invalid type: string "http", expected i32 at line 14 column 11"#,
        ),
        (
            "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Service\n  spec: 3\n".to_owned(),
            Format::Yaml,
            "document 1: items[0].spec: invalid type: integer `3`, expected ServiceSpec at line 6 column 9",
        ),
        (
            format!("{good}---\na: 'x\n"),
            Format::Yaml,
            "document 2: found unexpected end of stream at line 10 column 1, while scanning a quoted scalar at line 9 column 4",
        ),
        ("kind: Service\n".to_owned(), Format::Yaml, "document 1: apiVersion: missing"),
        ("metadata: {}\n".to_owned(), Format::Yaml, "document 1: kind: missing"),
        (
            "- kind: Service\n".to_owned(),
            Format::Yaml,
            "document 1: invalid type: sequence, expected a Kubernetes object",
        ),
        (
            "apiVersion: networking.k8s.io/v1beta1\nkind: ServiceCIDR\n".to_owned(),
            Format::Yaml,
            r#"document 1: apiVersion: "networking.k8s.io/v1beta1" of ServiceCIDR is not known, networking.k8s.io/v1 is"#,
        ),
        (
            "{}\n".to_owned(),
            Format::Json,
            "document 1: kind: missing",
        ),
        (
            "{\"apiVersion\": \"v1\", \"kind\": \"Service\",\n \"spec\": {\"ports\": [\n{\"port\": \"http\"}]}}".to_owned(),
            Format::Json,
            r#"document 1: spec.ports[0].port: invalid type: string "http", expected i32 at line 3 column 15"#,
        ),
        (
            "{\"apiVersion\": \"v1\", \"kind\": \"NodeList\", \"items\": [\n{}, {\"spec\": 3}]}".to_owned(),
            Format::Json,
            "document 1: items[1].spec: invalid type: integer `3`, expected NodeSpec at line 2 column 14",
        ),
    ] {
        let error = match split(&text, format, true) {
            Err(bad) => format!("document {}: {}", bad.document, bad.message),
            Ok(pieces) => pieces
                .iter()
                .find_map(|piece| {
                    let message = decode(&text, piece).err()?;
                    Some(format!("document {}: {message}", piece.document))
                })
                .expect("an error"),
        };
        assert_eq!(error, expected, "{text}");
    }
}

#[test]
fn large_files_are_parsed_by_several_threads_in_order() {
    let mut text = String::new();
    let mut expected = Vec::new();
    for number in 0..6_000 {
        let ip = format!("10.96.{}.{}", number / 250, number % 250);
        text += &format!("---\n{}", service(&format!("s{number}"), &ip));
        expected.push(format!("Service default/s{number} {ip}"));
    }
    assert_eq!(Files::new().put("x.yaml", &text), expected);
    let list: String = text
        .lines()
        .skip(1)
        .map(|line| {
            format!(
                "{}{line}\n",
                match line {
                    "apiVersion: v1" => "- ",
                    _ => "  ",
                }
            )
        })
        .filter(|line| line != "  ---\n")
        .collect();
    let list = format!("apiVersion: v1\nkind: List\nitems:\n{list}");
    assert_eq!(Files::new().put("x.yaml", &list), expected);
}

/// Strings near to YAML and JSON.
fn some_text() -> impl Strategy<Value = String> {
    let parts = [
        "apiVersion: v1\n",
        "kind: Service\n",
        "kind: List\n",
        "items:\n",
        "- ",
        "  ",
        "---\n",
        "...\n",
        "spec:\n",
        "  ports:\n",
        "  - port: 80\n",
        "metadata: {name: a}\n",
        "{",
        "}",
        "[",
        "]",
        "\"",
        "'",
        ":",
        ",",
        "\n",
        "\r\n",
        "\t",
        "#",
        "&a ",
        "*a",
        "<<: ",
        "|",
        ">",
        "%YAML 1.2\n",
        "\u{feff}",
        "é",
        "{\"kind\": \"List\", \"apiVersion\": \"v1\", \"items\": [",
        "null",
        "1e400",
        "!!binary ",
    ];
    let part = prop_oneof![
        9 => proptest::sample::select(parts.to_vec()).prop_map(str::to_owned),
        1 => "\\PC{0,3}",
    ];
    proptest::collection::vec(part, 0..24).prop_map(|parts| parts.concat())
}

/// The state that changes lead to.
fn apply(state: &mut BTreeMap<String, Change>, changes: Vec<Change>) {
    for change in changes {
        let key = match &change {
            Change::Service(name, _) => format!("Service {name}"),
            Change::EndpointSlice(name, _) => format!("EndpointSlice {name}"),
            Change::Node(_) => "Node".to_owned(),
            Change::ServiceCidr(name, _) => format!("ServiceCIDR {name}"),
        };
        let gone = matches!(
            change,
            Change::Service(_, None)
                | Change::EndpointSlice(_, None)
                | Change::Node(None)
                | Change::ServiceCidr(_, None)
        );
        let before = if gone { state.remove(&key) } else { state.insert(key, change.clone()) };
        assert_ne!(before.as_ref(), Some(&change), "sent twice");
        assert!(!gone || before.is_some(), "{change:?} takes away what was not there");
    }
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in some_text()) {
        for format in [Format::Yaml, Format::Json] {
            for lists in [true, false] {
                for piece in split(&text, format, lists).iter().flatten() {
                    let _ = decode(&text, piece);
                }
            }
        }
        let mut store = Store::new("node-1", Options::default());
        store.put(&[("a.yaml".to_owned(), text.clone().into_bytes()), ("a.json".to_owned(), text.into_bytes())]);
        store.difference(|_| Ok(Vec::new()));
    }

    /// A list means the same cut into items and as a whole.
    #[test]
    fn cut_lists_are_whole_lists(items in proptest::collection::vec((0..3usize, 0..2usize, any::<bool>()), 0..5)) {
        let mut text = "apiVersion: v1\nkind: List\nitems:\n".to_owned();
        for (number, (indent, gap, comment)) in items.iter().enumerate() {
            let margin = " ".repeat(items[0].0);
            if *comment { text += &format!("{}# - apiVersion: v2\n", " ".repeat(*indent)); }
            text += &format!(
                "{margin}- {space}apiVersion: v1\n{margin}  {space}kind: Service\n{margin}  {space}metadata:\n\
                 {margin}  {space}  name: s{number}\n{margin}  {space}  annotations:\n{margin}  {space}    x: |\n\
                 {margin}  {space}      - a\n\n", space = " ".repeat(*gap));
        }
        let read = |lists| -> Vec<Object> {
            let pieces = split(&text, Format::Yaml, lists).unwrap();
            pieces.iter().flat_map(|piece| decode(&text, piece).unwrap()).collect()
        };
        prop_assert_eq!(read(true), read(false));
        prop_assert_eq!(read(true).len(), items.len());
    }

    /// Whatever files are written and deleted, in whatever looks, the changes lead to what the files
    /// hold: each file's last good version, the first file counting.
    #[test]
    fn changes_lead_to_what_the_files_hold(
        looks in proptest::collection::vec(proptest::collection::vec(
            (0..4usize, proptest::option::weighted(0.8, proptest::collection::vec((0..4u8, 1..4u8), 0..4)), any::<bool>()), 0..4), 1..12),
    ) {
        let mut store = Store::new("node-1", Options::default());
        let mut disk: BTreeMap<String, String> = BTreeMap::new();
        let mut good: BTreeMap<String, Vec<(u8, u8)>> = BTreeMap::new();
        let mut state = BTreeMap::new();
        for look in looks {
            for (file, objects, broken) in look {
                let name = format!("{file}.yaml");
                match objects {
                    None => {
                        disk.remove(&name);
                        good.remove(&name);
                        store.remove(&name);
                    }
                    // A broken version may not be the one that counts later and is read again.
                    Some(_) if broken && !good.contains_key(&name) => {
                        disk.insert(name.clone(), "kind: [".to_owned());
                        store.put(&[(name.clone(), b"kind: [".to_vec())]);
                    }
                    Some(objects) => {
                        let text: Vec<_> = objects.iter().map(|(object, version)| {
                            service(&format!("s{object}"), &format!("10.96.0.{version}"))
                        }).collect();
                        let text = text.join("---\n");
                        store.put(&[(name.clone(), text.clone().into_bytes())]);
                        disk.insert(name.clone(), text);
                        good.insert(name, objects);
                    }
                }
            }
            let changes = store.difference(|name| Ok(disk[name].clone().into_bytes()));
            apply(&mut state, changes);
            let mut expected = BTreeMap::new();
            for (object, version) in good.values().flatten() {
                expected.entry(format!("Service default/s{object}")).or_insert(*version);
            }
            let shown: BTreeMap<_, _> = state.iter().map(|(key, change)| (key.clone(), short(change))).collect();
            let expected: BTreeMap<_, _> = expected.into_iter().map(|(key, version)| {
                let text = format!("{key} 10.96.0.{version}");
                (key, text)
            }).collect();
            prop_assert_eq!(shown, expected);
        }
    }
}

#[test]
fn names_without_a_namespace_are_in_default() {
    let mut store = Store::new("node-1", Options::default());
    let text = service("a", "10.96.0.1").replace("{name: a}", "{name: a, namespace: kube-system}");
    let text = format!("{text}---\n{}", service("a", "10.96.0.2"));
    store.put(&[("a.yaml".to_owned(), text.into_bytes())]);
    let names: Vec<_> = store
        .difference(|_| Ok(Vec::new()))
        .into_iter()
        .map(|change| match change {
            Change::Service(name, _) => name,
            _ => panic!("not a Service"),
        })
        .collect();
    assert_eq!(names, [ObjectName::new("kube-system", "a"), ObjectName::new("default", "a")]);
}
