//! What texts mean.

use super::*;

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
                    let bad = decode(&text, piece).err()?;
                    Some(format!("document {}: {}", piece.document, bad.message))
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
