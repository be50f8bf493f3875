//! Health check node ports: answers, and listeners that follow Services and addresses.
//!
//! Each test has a namespace, so that ports and addresses are its own.

use kube_proxy::health::{
    BindAddresses, Health, HealthPolicy, Moment, ServiceCheck, ServiceChecks,
};
use kube_proxy::http::service_checks::CheckServers;
use kube_proxy::metrics::Metrics;
use kube_proxy::model::{Family, ObjectName};
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, mpsc};
use std::time::Duration;
use test_log::test;
use test_support::http::{get, request};
use test_support::netns::in_namespace;
use tokio::runtime::{Builder, Runtime};

/// The servers of a healthy proxy on a runtime of their own.
struct Node {
    runtime: Runtime,
    checks: ServiceChecks,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
    servers: CheckServers,
    failures: mpsc::Receiver<String>,
}

impl Node {
    fn new() -> Self {
        let checks = ServiceChecks::default();
        let health = Arc::new(Health::new(HealthPolicy {
            sync_period: Duration::from_secs(30),
            families: Family::BOTH.to_vec(),
            node_required: true,
        }));
        health.synced(Moment::now());
        let metrics = Arc::new(Metrics::new(&Family::BOTH));
        let (failed, failures) = mpsc::channel();
        let report = move |error: kube_proxy::http::service_checks::ListenError| {
            failed.send(format!("{} {}", error.service, error.address)).unwrap();
        };
        let servers = CheckServers::new(&checks, health.clone(), metrics.clone(), report);
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        Node { runtime, checks, health, metrics, servers, failures }
    }

    fn set(&self, service: &str, check: Option<(u16, usize)>) {
        let check = check.map(|(port, local_endpoints)| ServiceCheck {
            port,
            local_endpoints: [local_endpoints; 2],
        });
        self.checks.set(&name(service), check);
    }

    fn bind(&self, family: Family, addresses: &[&str]) {
        let addresses = addresses.iter().map(|ip| ip.parse().unwrap()).collect();
        self.checks.set_addresses(family, BindAddresses::Only(addresses));
    }

    /// Reconciles once and says where it listens, and for which Service.
    fn reconcile(&mut self) -> Vec<String> {
        self.runtime.block_on(self.servers.reconcile());
        self.servers.listening().map(|(service, at)| format!("{} {at}", service.name)).collect()
    }

    fn failures(&self) -> Vec<String> {
        self.failures.try_iter().collect()
    }
}

fn name(service: &str) -> ObjectName {
    ObjectName::new("shop", service)
}

fn at(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse::<IpAddr>().unwrap(), port)
}

#[test]
fn answers_are_upstreams() {
    in_namespace(|| {
        let mut node = Node::new();
        node.bind(Family::V4, &["127.0.0.1"]);
        node.set("web", Some((30000, 2)));
        node.reconcile();
        let answer = get(at("127.0.0.1", 30000), "/any/path?and=query");
        assert_eq!(answer.status, 200);
        assert_eq!(
            answer.text(),
            "{\n\t\"service\": {\n\t\t\"namespace\": \"shop\",\n\t\t\"name\": \"web\"\n\t},\n\
             \t\"localEndpoints\": 2,\n\t\"serviceProxyHealthy\": true\n}"
        );
        for header in [
            ("Content-Type", "application/json"),
            ("X-Content-Type-Options", "nosniff"),
            ("X-Load-Balancing-Endpoint-Weight", "2"),
        ] {
            let found = answer.headers.iter().find(|(n, v)| (&**n, &**v) == header);
            assert!(found.is_some(), "{header:?} in {:?}", answer.headers);
        }
        let answer = request(at("127.0.0.1", 30000), "POST", "/", "", "body");
        assert_eq!(answer.status, 200);
    });
}

#[test]
fn no_local_endpoint_or_unhealthy_proxy_is_503() {
    in_namespace(|| {
        let mut node = Node::new();
        node.bind(Family::V4, &["127.0.0.1"]);
        node.set("web", Some((30000, 1)));
        node.reconcile();
        let ask = || get(at("127.0.0.1", 30000), "/");
        assert_eq!(ask().status, 200, "the Node object plays no part");
        node.set("web", Some((30000, 0)));
        let answer = ask();
        assert_eq!((answer.status, answer.header("x-load-balancing-endpoint-weight")), (503, "0"));
        assert_eq!(answer.json()["serviceProxyHealthy"], true);
        node.set("web", Some((30000, 3)));
        assert_eq!(ask().status, 200);
        let _pending = node.health.readiness().register_task("first commit");
        let answer = ask();
        assert_eq!(answer.status, 503);
        assert_eq!(answer.json()["localEndpoints"], 3);
        assert_eq!(answer.json()["serviceProxyHealthy"], false);
    });
}

#[test]
fn unrestricted_listens_per_family() {
    in_namespace(|| {
        let mut node = Node::new();
        node.set("web", Some((30000, 1)));
        assert_eq!(node.reconcile(), [""; 0]);
        node.checks.set_addresses(Family::V6, BindAddresses::All);
        assert_eq!(node.reconcile(), ["web [::]:30000"]);
        assert_eq!(get(at("::1", 30000), "/").status, 200);
        assert!(TcpStream::connect(at("127.0.0.1", 30000)).is_err(), "IPv6 only");
        node.checks.set_addresses(Family::V4, BindAddresses::All);
        assert_eq!(node.reconcile(), ["web 0.0.0.0:30000", "web [::]:30000"]);
        assert_eq!(get(at("127.0.0.1", 30000), "/").status, 200);
    });
}

#[test]
fn listeners_follow_addresses_and_services() {
    in_namespace(|| {
        let mut node = Node::new();
        node.bind(Family::V4, &["127.0.0.1", "127.0.0.2"]);
        node.bind(Family::V6, &["::1", "fe80::1"]);
        node.set("web", Some((30000, 1)));
        node.set("db", Some((30001, 1)));
        let mut expected = vec![
            "db 127.0.0.1:30001",
            "db 127.0.0.2:30001",
            "db [::1]:30001",
            "web 127.0.0.1:30000",
            "web 127.0.0.2:30000",
            "web [::1]:30000",
        ];
        assert_eq!(node.reconcile(), expected, "no link-local address");
        assert_eq!(get(at("::1", 30001), "/").json()["service"]["name"], "db");

        node.set("db", None);
        expected.drain(..3);
        assert_eq!(node.reconcile(), expected);
        assert!(TcpStream::connect(at("127.0.0.1", 30001)).is_err());

        node.bind(Family::V4, &["127.0.0.2", "127.0.0.3"]);
        node.checks.set_addresses(Family::V6, BindAddresses::None);
        assert_eq!(node.reconcile(), ["web 127.0.0.2:30000", "web 127.0.0.3:30000"]);
        assert!(TcpStream::connect(at("127.0.0.1", 30000)).is_err());
        assert_eq!(get(at("127.0.0.3", 30000), "/").status, 200);

        node.set("web", Some((30002, 1)));
        assert_eq!(node.reconcile(), ["web 127.0.0.2:30002", "web 127.0.0.3:30002"]);

        node.checks.set_addresses(Family::V4, BindAddresses::All);
        assert_eq!(node.reconcile(), ["web 0.0.0.0:30002"]);
        assert_eq!(node.failures(), [""; 0]);
    });
}

#[test]
fn connection_outlives_changes_elsewhere_but_not_its_listener() {
    in_namespace(|| {
        let mut node = Node::new();
        node.bind(Family::V4, &["127.0.0.1"]);
        node.set("web", Some((30000, 1)));
        node.reconcile();
        let mut stream = TcpStream::connect(at("127.0.0.1", 30000)).unwrap();
        let mut ask = |expected: &[u8]| {
            stream.write_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
            let mut answer = [0; 1024];
            let length = stream.read(&mut answer).unwrap();
            assert!(answer[..length].starts_with(expected));
        };
        ask(b"HTTP/1.1 200 ");
        node.bind(Family::V4, &["127.0.0.1", "127.0.0.2"]);
        node.set("db", Some((30001, 1)));
        node.set("web", Some((30000, 0)));
        node.reconcile();
        ask(b"HTTP/1.1 503 ");
        node.set("web", None);
        node.reconcile();
        assert_eq!(stream.read_to_end(&mut Vec::new()).unwrap(), 0);
    });
}

#[test]
fn port_in_use_is_reported_once_and_taken_when_free() {
    in_namespace(|| {
        let taken = TcpListener::bind(at("127.0.0.2", 30000)).unwrap();
        let mut node = Node::new();
        node.bind(Family::V4, &["127.0.0.1", "127.0.0.2"]);
        node.set("web", Some((30000, 1)));
        node.set("db", Some((30001, 1)));
        let others = ["db 127.0.0.1:30001", "db 127.0.0.2:30001", "web 127.0.0.1:30000"];
        for _ in 0..2 {
            assert_eq!(node.reconcile(), others, "the other listeners work");
        }
        assert_eq!(node.failures(), ["shop/web 127.0.0.2:30000"]);
        let text = node.metrics.render();
        assert!(text.contains("kubeproxy_health_check_node_ports{state=\"failed\"} 1\n"));
        assert!(text.contains("kubeproxy_health_check_node_ports{state=\"listening\"} 1\n"));
        drop(taken);
        assert_eq!(node.reconcile().len(), 4);
        assert!(node.metrics.render().contains("node_ports{state=\"failed\"} 0\n"));
        let taken = TcpListener::bind(at("127.0.0.3", 30000)).unwrap();
        node.bind(Family::V4, &["127.0.0.3"]);
        node.reconcile();
        assert_eq!(node.failures(), ["shop/web 127.0.0.3:30000"], "a new failure");
        drop(taken);
    });
}

#[test]
fn port_passes_from_one_service_to_another() {
    in_namespace(|| {
        let mut node = Node::new();
        node.bind(Family::V4, &["127.0.0.1"]);
        node.set("web", Some((30000, 1)));
        node.reconcile();
        node.set("api", Some((30000, 1)));
        assert_eq!(node.reconcile(), ["web 127.0.0.1:30000"], "who has it keeps it");
        assert_eq!(node.failures(), ["shop/api 127.0.0.1:30000"]);
        node.set("web", None);
        assert_eq!(node.reconcile(), ["api 127.0.0.1:30000"]);
        assert_eq!(get(at("127.0.0.1", 30000), "/").json()["service"]["name"], "api");
    });
}

#[test]
fn running_servers_follow_and_try_again() {
    in_namespace(|| {
        let Node { checks, health, metrics, .. } = Node::new();
        let mut paused = Builder::new_current_thread();
        let runtime = paused.enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async move {
            let taken = TcpListener::bind(at("127.0.0.1", 30000)).unwrap();
            let (failed, mut failures) = tokio::sync::mpsc::unbounded_channel();
            let report = move |error: kube_proxy::http::service_checks::ListenError| {
                failed.send(error.address).unwrap();
            };
            let servers = CheckServers::new(&checks, health, metrics, report);
            let running = tokio::spawn(servers.run());
            checks.set_addresses(Family::V4, BindAddresses::Only([at("127.0.0.1", 0).ip()].into()));
            checks.set(&name("web"), Some(ServiceCheck { port: 30000, local_endpoints: [1; 2] }));
            assert_eq!(failures.recv().await, Some(at("127.0.0.1", 30000)));
            drop(taken);
            // The clock stands still until nothing else is left to do.
            tokio::time::sleep(Duration::from_secs(6)).await;
            let stream = tokio::net::TcpStream::connect(at("127.0.0.1", 30000)).await;
            assert!(stream.is_ok());
            drop(checks);
            running.await.unwrap();
        });
    });
}
