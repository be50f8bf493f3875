//! Which changes files lead to.

use super::*;

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
    for bad in ["kind: [", "apiVersion: v2\nkind: Service\n", "just text"] {
        assert_eq!(files.put("x.yaml", bad), NONE, "{bad}");
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

fn json(text: &str) -> String {
    serde_norway::from_str::<serde_json::Value>(text).expect("YAML").to_string()
}

/// Files in which one part is odd: a document, or an item of a list.
fn with_odd_part(service: &str) -> Vec<(&'static str, String)> {
    let odd = "apiVersion: v1\nkind: Service\nspec: {ports: [{port: http}]}\n";
    let list = "apiVersion: v1\nkind: List\nitems:";
    let item = |text: &str| format!("- {}\n", text.trim_end().replace('\n', "\n  "));
    vec![
        ("x.yaml", format!("kind: [\n---\n{service}")),
        ("x.yaml", format!("{service}---\nkind: Service\n")),
        ("x.yaml", format!("{odd}---\n{service}")),
        ("x.yaml", format!("{list}\n{}{}", item(odd), item(service))),
        ("x.yaml", format!("{list} [{}, {}]\n", json(odd), json(service))),
        ("x.json", format!("[1] {} {}", json(service), json(odd))),
        (
            "x.json",
            format!(
                r#"{{"apiVersion": "v1", "kind": "List", "items": [{}, {}]}}"#,
                json(odd),
                json(service)
            ),
        ),
    ]
}

#[test]
fn an_odd_part_costs_no_other_at_the_start() {
    for (name, text) in with_odd_part(&service("b", "10.96.0.2")) {
        let mut files = Files::new();
        assert_eq!(files.put(name, &text), ["Service default/b 10.96.0.2"], "{text}");
    }
}

#[test]
fn what_may_be_in_an_odd_part_stays() {
    let (a, b) = (service("a", "10.96.0.1"), service("b", "10.96.0.2"));
    for (name, text) in with_odd_part(&b) {
        let mut files = Files::new();
        assert_eq!(files.put(name, &json(&a)).len(), 1);
        assert_eq!(files.put(name, &text), ["Service default/b 10.96.0.2"], "{text}");
        assert_eq!(files.put(name, &json(&b)), ["no Service default/a"]);
    }
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
fn names_without_a_namespace_are_in_default() {
    let mut store = new_store();
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
