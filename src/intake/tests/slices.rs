//! EndpointSlices.

use super::*;
use k8s_openapi::api::discovery::v1 as discovery;

fn read_slice(patch: Value) -> (Option<Box<EndpointSlice>>, Vec<String>) {
    let base = json!({
        "metadata": {
            "namespace": "default", "name": "web-1",
            "labels": {"kubernetes.io/service-name": "web"},
        },
        "addressType": "IPv4",
        "ports": [{"name": "", "port": 8080, "protocol": "TCP"}],
        "endpoints": [{"addresses": ["10.1.0.1"]}],
    });
    let reading = Intake::new(Options::default()).endpoint_slice(&object(base, patch));
    let Change::EndpointSlice(name, value) = reading.change else { panic!("not a slice") };
    assert_eq!(name.to_string(), "default/web-1");
    (value, reading.problems.iter().map(ToString::to_string).collect())
}

fn slice(patch: Value) -> EndpointSlice {
    let (value, problems) = read_slice(patch);
    assert_eq!(problems, [""; 0]);
    *value.expect("served")
}

#[test]
fn skipped_slices() {
    let headless = json!({"metadata": {"labels": {"service.kubernetes.io/headless": ""}}});
    assert_eq!(read_slice(headless), (None, vec![]));
    let names = json!({"addressType": "FQDN", "endpoints": [{"addresses": ["example.com"]}]});
    assert_eq!(read_slice(names), (None, vec![]));
    for (patch, expected) in [
        (
            json!({"metadata": {"labels": null}}),
            "metadata.labels[kubernetes.io/service-name]: missing, so the slice belongs to no Service",
        ),
        (json!({"addressType": "IP"}), r#"addressType: "IP" is not IPv4 or IPv6"#),
        (json!({"addressType": null}), "addressType: missing; IPv4 or IPv6"),
    ] {
        let problem = format!("EndpointSlice default/web-1: {expected}");
        assert_eq!(read_slice(patch), (None, vec![problem]));
    }
}

#[test]
fn conditions_default_to_ready() {
    let slice = slice(json!({"endpoints": [
        {"addresses": ["10.1.0.1"]},
        {"addresses": ["10.1.0.2"], "conditions": {}},
        {"addresses": ["10.1.0.3"], "conditions": {"ready": false}},
        {"addresses": ["10.1.0.4"], "conditions": {"serving": false, "terminating": true}},
    ]}));
    let conditions: Vec<_> = slice
        .endpoints
        .iter()
        .map(|e| (e.conditions.ready, e.conditions.serving, e.conditions.terminating))
        .collect();
    assert_eq!(
        conditions,
        [(true, true, false), (true, true, false), (false, true, false), (true, false, true)]
    );
}

#[test]
fn endpoints() {
    let slice = slice(json!({
        "metadata": {"annotations": {
            "endpoints.kubernetes.io/last-change-trigger-time": "2026-01-02T03:04:05.5Z"}},
        "endpoints": [
            {"addresses": ["10.1.0.01", "not read"], "nodeName": "n1",
             "hints": {"forZones": [{"name": "a"}, {"name": "b"}], "forNodes": [{"name": "n1"}]}},
            {"addresses": ["10.1.0.2"], "nodeName": ""},
        ],
    }));
    assert_eq!(slice.service_name().to_string(), "default/web");
    assert_eq!(slice.family, Family::V4);
    assert_eq!(slice.trigger_time, Some(1_767_323_045_500_000_000));
    let [first, second] = &slice.endpoints[..] else { panic!("two endpoints") };
    assert_eq!(first.address.to_string(), "10.1.0.1");
    assert_eq!(first.node_name.as_deref(), Some("n1"));
    assert_eq!(first.zone_hints().iter().map(|z| &**z).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(first.node_hints().iter().map(|n| &**n).collect::<Vec<_>>(), ["n1"]);
    assert_eq!(second.node_name, None);
    assert_eq!(second.hints, None);
}

#[test]
fn a_bad_endpoint_or_port_is_left_out_alone() {
    let (slice, problems) = read_slice(json!({
        "metadata": {"annotations": {
            "endpoints.kubernetes.io/last-change-trigger-time": "yesterday"}},
        "ports": [
            {"name": "", "port": 8080},
            {"port": 8081},
            {"name": "any"},
            {"name": "zero", "port": 0},
            {"name": "large", "port": 65536},
            {"name": "odd", "port": 1, "protocol": "ICMP"},
        ],
        "endpoints": [
            {"addresses": ["10.1.0.1"]},
            {"addresses": []},
            {"addresses": ["10.1.0"]},
            {"addresses": ["fd00::1"]},
            {"addresses": ["127.0.0.1"]},
        ],
    }));
    let slice = slice.unwrap();
    assert_eq!(slice.ports.len(), 1);
    assert_eq!(slice.endpoints.len(), 1);
    assert_eq!(slice.trigger_time, None);
    assert_eq!(
        problems,
        [
            "ports[3].port: 0 is not a port (1-65535)",
            "ports[4].port: 65536 is not a port (1-65535)",
            r#"ports[5].protocol: "ICMP" is not TCP, UDP or SCTP"#,
            "endpoints[1].addresses[0]: missing",
            r#"endpoints[2].addresses[0]: "10.1.0" is not an IP address"#,
            "endpoints[3].addresses[0]: fd00::1 is not an IPv4 address",
            "endpoints[4].addresses[0]: 127.0.0.1 is loopback, no endpoint can have it",
            r#"metadata.annotations[endpoints.kubernetes.io/last-change-trigger-time]: "yesterday" is not a time (RFC 3339)"#,
        ]
        .map(|problem| format!("EndpointSlice default/web-1: {problem}"))
    );
}

#[test]
fn endpoints_share_their_strings() {
    let mut intake = Intake::default();
    let endpoint = json!({"addresses": ["10.1.0.1"], "nodeName": "n1"});
    let object: k8s_openapi::api::discovery::v1::EndpointSlice = serde_json::from_value(json!({
        "metadata": {"name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4",
        "endpoints": [endpoint, endpoint],
    }))
    .unwrap();
    let (a, b) = (intake.endpoint_slice(&object).change, intake.endpoint_slice(&object).change);
    let (Change::EndpointSlice(name, Some(a)), Change::EndpointSlice(_, Some(b))) = (a, b) else {
        panic!("not served");
    };
    assert_eq!(name.to_string(), "default/web-1", "no namespace is the default one");
    let same = std::sync::Arc::ptr_eq;
    let names: Vec<_> = a.endpoints.iter().chain(&b.endpoints).map(|e| &e.node_name).collect();
    assert!(
        names.windows(2).all(|pair| { same(pair[0].as_ref().unwrap(), pair[1].as_ref().unwrap()) })
    );
}

#[test]
fn endpoints_are_described_where_somebody_asks() {
    let endpoints = json!({"endpoints": [
        {"addresses": ["10.1.0.1"], "nodeName": "a", "zone": "z", "targetRef": {"kind": "Pod", "name": "web-1"}},
        {"addresses": ["nonsense"], "targetRef": {"kind": "Pod", "name": "web-2"}},
        {"addresses": ["10.1.0.3"], "targetRef": {"kind": "Pod", "name": "web-3"}},
    ]});
    let described = |pod: &str, zone: Option<&str>, weight| Description {
        pod: Some(pod.into()),
        zone: zone.map(Into::into),
        weight,
    };
    let base = json!({
        "metadata": {
            "namespace": "default", "name": "web-1",
            "labels": {"kubernetes.io/service-name": "web"},
        },
        "addressType": "IPv4",
    });
    let mut slice: discovery::EndpointSlice = object(base, endpoints);
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let options = Options { described: Described::asked(tell), ..Options::default() };
    let mut intake = Intake::new(options.clone());
    let mut read = |slice: &discovery::EndpointSlice| match intake.endpoint_slice(slice).change {
        Change::EndpointSlice(_, Some(value)) => value.described,
        change => panic!("{change:?}"),
    };
    assert!(read(&slice).is_empty());
    // The Service may be read by another intake.
    let mut services = Intake::new(options.clone());
    let mut service = |weights: &str| {
        let annotations = json!({"metadata": {"annotations": {"nft.kube-proxy/weights": weights}}});
        services.service(&object(super::services::base(), annotations));
    };
    service("node/a=2, *=1");
    assert!(told.try_recv().is_err());
    service("web-*=2");
    service("web-*=3");
    let web = ObjectName::new("default", "web");
    assert_eq!(told.try_recv(), Ok(Ask::Service(web.clone())));
    assert!(told.try_recv().is_err());
    // Each stands where its endpoint does.
    assert_eq!(
        *read(&slice),
        [described("web-1", Some("z"), None), described("web-3", None, None)]
    );
    // It may ask again, and nobody has to be told then.
    service("*=3");
    service("web-*=3");
    assert!(!read(&slice).is_empty());
    assert!(told.try_recv().is_err());
    Intake::new(options.clone()).forget(&ObjectKey::Service(web));
    assert!(read(&slice).is_empty());
    // A slice may give weights of its own.
    let weights = ("nft.kube-proxy/weights".to_owned(), "web-3=0, node/a=7".to_owned());
    slice.metadata.annotations = Some([weights].into());
    let own = [described("web-1", Some("z"), Some(7)), described("web-3", None, Some(0))];
    assert_eq!(*read(&slice), own);
}
