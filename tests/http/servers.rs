//! The health and metrics servers over real connections to the loopback address.

use kube_proxy::answers::Answers;
use kube_proxy::health::{Health, HealthPolicy, Moment};
use kube_proxy::http::metrics::SetVerbosity;
use kube_proxy::http::{Server, health, metrics};
use kube_proxy::metrics::Metrics;
use kube_proxy::model::{Family, Node, Taint};
use kube_proxy::sync::inbox;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;
use test_log::test;
use test_support::http::{get, request};
use test_support::netns::in_namespace;

const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Everything that the servers read, and the runtime that they live on.
struct Proxy {
    runtime: tokio::runtime::Runtime,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
}

impl Proxy {
    fn new(node_required: bool) -> Self {
        let families = Family::BOTH.to_vec();
        let policy = HealthPolicy {
            sync_period: Duration::from_secs(30),
            families: families.clone(),
            node_required,
        };
        Proxy {
            runtime: tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()
                .unwrap(),
            health: Arc::new(Health::new(policy)),
            metrics: Arc::new(Metrics::new(&families)),
        }
    }

    fn start(&self, router: axum::Router) -> (Server, SocketAddr) {
        let _runtime = self.runtime.enter();
        let server =
            Server::start("test", LOOPBACK, true, router, |_| unreachable!("hard fail")).unwrap();
        let address = server.address().expect("bound at once");
        (server, address)
    }

    fn health_server(&self) -> (Server, SocketAddr) {
        self.start(health::router(self.health.clone(), self.metrics.clone()))
    }

    fn metrics_server(&self, profiling: Option<SetVerbosity>) -> (Server, SocketAddr) {
        self.start(metrics::router(metrics::Content { profiling, ..self.content() }))
    }

    fn content(&self) -> metrics::Content {
        metrics::Content {
            profiling: None,
            metrics: self.metrics.clone(),
            health: self.health.clone(),
            configz: serde_json::json!({"kubeproxy.config.k8s.io": {"mode": "nftables"}}),
            flagz: Some(
                [("v", "2"), ("config", "/etc/kube-proxy.conf")]
                    .map(|(name, value)| (name.to_string(), value.to_string()))
                    .into(),
            ),
            statusz: true,
            version: "v1.2.3".into(),
            started: Moment::now(),
            // Nobody answers questions here.
            node_name: "node-1".into(),
            counted: Answers::new(inbox().1.asker()),
            counts_connections: false,
            answers: Some(Answers::new(inbox().1.asker())),
        }
    }
}

fn node(taints: Vec<Taint>) -> Node {
    Node {
        name: "node-1".into(),
        addresses: vec![],
        zone: None,
        pod_cidrs: vec![],
        taints,
        deleting: false,
    }
}

#[test]
fn health_is_503_until_the_first_commit() {
    let proxy = Proxy::new(false);
    let (_server, address) = proxy.health_server();
    let first_commit = proxy.health.readiness().register_task("first commit");
    for path in ["/healthz", "/livez"] {
        let answer = get(address, path);
        assert_eq!(answer.status, 503, "{path}");
        assert_eq!(answer.header("content-type"), "application/json");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        let body = answer.json();
        assert_eq!(body["healthy"], false);
        assert_eq!(body["lastUpdated"], "0001-01-01T00:00:00Z");
        assert_eq!(body["pending"], serde_json::json!(["first commit"]));
    }
    drop(first_commit);
    proxy.health.synced(Moment::now());
    let body = get(address, "/healthz").json();
    assert_eq!(body["healthy"], true);
    assert_eq!(body["nodeEligible"], true);
    assert_eq!(body["lastUpdated"], body["currentTime"]);
    assert_eq!(body["status"]["IPv4"], body["status"]["IPv6"]);
    assert_eq!(body["status"]["IPv6"]["healthy"], true);
    assert_eq!(body.get("pending"), None);
    let answer = get(address, "/livez");
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json().get("nodeEligible"), None);
    let text = proxy.metrics.render();
    for line in [
        "kubeproxy_proxy_healthz_total{code=\"200\"} 1",
        "kubeproxy_proxy_healthz_total{code=\"503\"} 1",
        "kubeproxy_proxy_livez_total{code=\"200\"} 1",
        "kubeproxy_proxy_livez_total{code=\"503\"} 1",
    ] {
        assert!(text.contains(line), "{line}");
    }
}

#[test]
fn node_that_goes_is_unhealthy_but_alive() {
    let proxy = Proxy::new(true);
    let (_server, address) = proxy.health_server();
    proxy.health.synced(Moment::now());
    let codes = || (get(address, "/healthz").status, get(address, "/livez").status);
    assert_eq!(codes(), (503, 200), "no Node object");
    proxy.health.set_node(Some(&node(vec![])));
    assert_eq!(codes(), (200, 200));
    let taint = Taint { key: "ToBeDeletedByClusterAutoscaler".into(), effect: "NoSchedule".into() };
    proxy.health.set_node(Some(&node(vec![taint])));
    assert_eq!(codes(), (503, 200));
    let body = get(address, "/healthz").json();
    assert_eq!((&body["nodeEligible"], &body["healthy"]), (&false.into(), &true.into()));
}

#[test]
fn health_server_knows_no_other_path() {
    let proxy = Proxy::new(false);
    let (_server, address) = proxy.health_server();
    for path in ["/", "/metrics", "/healthz/"] {
        let answer = get(address, path);
        assert_eq!((answer.status, answer.text()), (404, "404 page not found\n"), "{path}");
    }
}

#[test]
fn metrics_are_scraped() {
    let proxy = Proxy::new(false);
    let (_server, address) = proxy.metrics_server(None);
    let answer = get(address, "/metrics");
    assert_eq!(answer.status, 200);
    assert!(answer.header("content-type").starts_with("text/plain; version=0.0.4"));
    assert!(
        answer.text().contains("\n# TYPE kubeproxy_sync_proxy_rules_duration_seconds histogram\n")
    );
    assert!(answer.text().contains("\nprocess_open_fds "));
    assert_eq!(get(address, "/healthz").text(), "ok");
    let slis = get(address, "/metrics/slis");
    assert!(slis.text().contains("kubernetes_healthcheck{name=\"ping\",type=\"healthz\"} 1\n"));
}

#[test]
fn pages_of_the_metrics_server() {
    let proxy = Proxy::new(false);
    let (_server, address) = proxy.metrics_server(None);
    let mode = get(address, "/proxyMode");
    assert_eq!((mode.status, mode.text()), (200, "nftables"));
    assert_eq!(mode.header("content-type"), "text/plain; charset=utf-8");
    assert_eq!(get(address, "/healthz?verbose").text(), "[+]ping ok\nhealthz check passed\n");
    let configz = get(address, "/configz");
    assert_eq!(configz.header("content-type"), "application/json");
    assert_eq!(configz.json()["kubeproxy.config.k8s.io"]["mode"], "nftables");
    let flagz = get(address, "/flagz");
    assert!(flagz.text().starts_with("\nkube-proxy flagz\nWarning: "));
    assert!(flagz.text().ends_with("\n\nconfig=/etc/kube-proxy.conf\nv=2\n"));
    let statusz = get(address, "/statusz");
    assert!(statusz.text().starts_with("\nkube-proxy statusz\nWarning: "));
    assert!(statusz.text().contains("\nBinary version: v1.2.3\n"));
    assert!(statusz.text().contains("\nLast commit: never\n"));
    for (accept, status) in [("text/plain;q=0.9, */*;q=0.1", 200), ("application/json", 406)] {
        let headers = format!("Accept: {accept}\r\n");
        assert_eq!(request(address, "GET", "/statusz", &headers, "").status, status, "{accept}");
    }
}

#[test]
fn pages_go_with_their_feature_gates() {
    let proxy = Proxy::new(false);
    let (_server, address) =
        proxy.start(metrics::router(metrics::Content { flagz: None, ..proxy.content() }));
    assert_eq!(get(address, "/flagz").status, 404);
    let statusz = get(address, "/statusz");
    assert!(statusz.text().contains("\nPaths: /configz /healthz /metrics /proxyMode /statusz\n"));
    let (_server, address) =
        proxy.start(metrics::router(metrics::Content { statusz: false, ..proxy.content() }));
    assert_eq!((get(address, "/statusz").status, get(address, "/flagz").status), (404, 200));
}

#[test]
fn debug_pages_are_there_only_with_profiling() {
    let proxy = Proxy::new(false);
    let (_server, address) = proxy.metrics_server(None);
    for path in ["/debug/pprof/", "/debug/pprof/profile", "/debug/flags/v"] {
        assert_eq!(get(address, path).status, 404, "{path}");
    }
    let (_server, address) = proxy.metrics_server(Some(Box::new(|_| Ok(()))));
    assert!(get(address, "/debug/pprof/").text().contains("profile"));
    assert_eq!(get(address, "/debug/pprof").header("location"), "/debug/pprof/");
    assert!(get(address, "/debug/pprof/cmdline").text().contains("/http-"));
    assert_eq!(get(address, "/debug/pprof/heap").status, 501);
    assert_eq!(get(address, "/debug/pprof/nonsense").status, 404);
}

#[test]
fn verbosity_is_changed_by_put() {
    let (levels, set) = std::sync::mpsc::channel();
    let set_verbosity = move |level: u32| match level {
        0..=10 => levels.send(level).map_err(|e| e.to_string()),
        _ => Err("at most 10".into()),
    };
    let proxy = Proxy::new(false);
    let (_server, address) = proxy.metrics_server(Some(Box::new(set_verbosity)));
    let put = |body| request(address, "PUT", "/debug/flags/v", "", body);
    let answer = put("4\n");
    assert_eq!(answer.status, 200);
    assert_eq!(answer.text(), "successfully set klog.logging.verbosity to 4\n");
    assert_eq!(put("11").status, 400);
    assert_eq!(put("loud").status, 400);
    assert_eq!(get(address, "/debug/flags/v").status, 406);
    assert_eq!(set.try_iter().collect::<Vec<_>>(), [4]);
}

#[test]
fn cpu_profile_in_pprof_format() {
    let proxy = Proxy::new(false);
    let (_server, address) = proxy.metrics_server(Some(Box::new(|_| Ok(()))));
    let answer = get(address, "/debug/pprof/profile?seconds=1");
    if cfg!(feature = "profiling") {
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("content-disposition"), "attachment; filename=\"profile\"");
        // Field 1 of profile.proto's Profile: sample_type, a message.
        assert_eq!(answer.body[0], 1 << 3 | 2);
    } else {
        assert_eq!(answer.status, 501);
        assert!(answer.text().contains("without the feature `profiling`"));
    }
}

#[test]
fn address_in_use_fails_at_once_with_hard_fail() {
    let proxy = Proxy::new(false);
    let _runtime = proxy.runtime.enter();
    let taken = TcpListener::bind(LOOPBACK).unwrap();
    let address = taken.local_addr().unwrap();
    let error = Server::start("healthz", address, true, axum::Router::new(), |_| ()).unwrap_err();
    assert!(error.to_string().contains(&format!("{address} for the healthz server")), "{error}");
}

#[test(tokio::test(start_paused = true))]
async fn address_in_use_is_reported_and_tried_again() {
    let taken = TcpListener::bind(LOOPBACK).unwrap();
    let address = taken.local_addr().unwrap();
    let mut reported = None;
    let server =
        Server::start("healthz", address, false, axum::Router::new(), |e| reported = Some(e));
    let server = server.unwrap();
    assert_eq!(reported.expect("a report").address, address);
    assert_eq!(server.address(), None);
    drop(taken);
    assert_eq!(server.bound().await, address);
}

#[test]
fn unspecified_address_serves_both_families() {
    in_namespace(|| {
        for (port, unspecified) in [(10256, "0.0.0.0"), (10249, "::")] {
            let proxy = Proxy::new(false);
            let _runtime = proxy.runtime.enter();
            let address = SocketAddr::new(unspecified.parse().unwrap(), port);
            let router = health::router(proxy.health.clone(), proxy.metrics.clone());
            let _server = Server::start("healthz", address, true, router, |_| ()).unwrap();
            for loopback in ["127.0.0.1", "::1"] {
                let address = SocketAddr::new(loopback.parse().unwrap(), port);
                assert_eq!(get(address, "/livez").status, 503, "{unspecified} at {loopback}");
            }
        }
    });
}

#[test]
fn unspecified_address_serves_ipv4_where_ipv6_is_off() {
    in_namespace(|| {
        std::fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1").unwrap();
        let proxy = Proxy::new(false);
        let _runtime = proxy.runtime.enter();
        let address = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 10256);
        let router = health::router(proxy.health.clone(), proxy.metrics.clone());
        let _server = Server::start("healthz", address, true, router, |_| ()).unwrap();
        let address = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 10256);
        assert_eq!(get(address, "/livez").status, 503);
    });
}

#[test]
fn dropped_server_closes_its_connections() {
    use std::io::{Read, Write};
    let proxy = Proxy::new(false);
    let (server, address) = proxy.health_server();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(b"GET /livez HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    let mut start = [0; 12];
    stream.read_exact(&mut start).unwrap();
    assert_eq!(&start, b"HTTP/1.1 503");
    drop(server);
    stream.read_to_end(&mut Vec::new()).unwrap();
}
