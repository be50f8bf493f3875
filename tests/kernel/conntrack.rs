//! Stale UDP entries in a real conntrack table.

use ipnet::IpNet;
use kube_proxy::kernel::conntrack::{
    self, CleanReport, ConntrackCleaner, FlowFrontend, StaleCheck, StaleFlows,
};
use nft_table::Family;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;
use test_support::netns::{in_namespace, sh, skip_without};

/// Only a bound on how long a broken test hangs.
const PATIENCE: Duration = Duration::from_secs(30);

struct Cleaner {
    cleaner: ConntrackCleaner,
    reports: Receiver<CleanReport>,
}

impl Cleaner {
    fn start() -> Cleaner {
        let (sender, reports) = mpsc::channel();
        let cleaner = ConntrackCleaner::start(move |report| sender.send(report).unwrap()).unwrap();
        Cleaner { cleaner, reports }
    }

    /// Hands over checks of one family and waits for the pass to end.
    #[track_caller]
    fn check(&self, checks: Vec<StaleCheck>) -> CleanReport {
        let frontends = checks.len();
        self.cleaner.check(checks, own());
        let report = self.reports.recv_timeout(PATIENCE).unwrap();
        assert!(report.error.is_none(), "{report:#?}");
        assert_eq!(report.frontends, frontends);
        report
    }
}

/// What NodePorts answer on.
fn own() -> Vec<IpNet> {
    vec!["192.0.2.0/24".parse().unwrap()]
}

fn address(text: &str) -> FlowFrontend {
    let at: SocketAddr = text.parse().unwrap();
    FlowFrontend::Address(at.ip(), at.port())
}

fn check(frontend: FlowFrontend, serving: &[&str]) -> StaleCheck {
    let serving = serving.iter().map(|text| {
        let at: SocketAddr = text.parse().unwrap();
        (at.ip(), at.port())
    });
    let flows = StaleFlows::Elsewhere(Arc::new(serving.collect()));
    StaleCheck { protocol: 17, frontend, flows }
}

/// Inserts an entry: a client's flow to `destination` that is answered by `endpoint`.
fn insert(protocol: &str, client: &str, destination: &str, endpoint: &str, more: &str) {
    let [client, destination, endpoint] =
        [client, destination, endpoint].map(|text| text.parse::<SocketAddr>().unwrap());
    sh(&format!(
        "conntrack -I -p {protocol} -t 600 -s {} --sport {} -d {} --dport {} \
         -r {} --reply-port-src {} -q {} --reply-port-dst {} {more}",
        client.ip(),
        client.port(),
        destination.ip(),
        destination.port(),
        endpoint.ip(),
        endpoint.port(),
        client.ip(),
        client.port(),
    ));
}

/// The entries that are left, as "protocol destination:port", sorted. IPv6 and IPv4.
fn left() -> Vec<String> {
    let mut lines = Vec::new();
    for family in ["ipv4", "ipv6"] {
        for line in sh(&format!("conntrack -L -f {family} 2>/dev/null")).lines() {
            let field = |name: &str| {
                let mut words = line.split_whitespace();
                words.find_map(|word| word.strip_prefix(name)).unwrap_or_default().to_owned()
            };
            let protocol = line.split_whitespace().next().unwrap();
            let destination: IpAddr = field("dst=").parse().unwrap();
            let port: u16 = field("dport=").parse().unwrap();
            lines.push(format!("{protocol} {}", SocketAddr::new(destination, port)));
        }
    }
    lines.sort();
    lines
}

#[test]
fn the_kernel_answers() {
    in_namespace(|| conntrack::probe().unwrap());
}

#[test]
fn flows_of_endpoints_that_went_are_removed() {
    if skip_without("conntrack") {
        return;
    }
    in_namespace(|| {
        insert("udp", "10.1.0.1:1000", "10.96.0.10:53", "10.244.0.2:53", "");
        insert("udp", "10.1.0.1:1001", "10.96.0.10:53", "10.244.0.3:53", "");
        insert("udp", "10.1.0.1:1002", "10.96.0.10:53", "10.96.0.10:53", "");
        insert("udp", "10.1.0.1:1003", "10.96.0.11:53", "10.244.0.9:53", "");
        insert("udp", "10.1.0.1:1004", "10.96.0.10:54", "10.244.0.9:53", "");
        insert("tcp", "10.1.0.1:1005", "10.96.0.10:53", "10.244.0.9:53", "--state ESTABLISHED");
        insert(
            "sctp",
            "10.1.0.1:1006",
            "10.96.0.10:53",
            "10.244.0.9:53",
            "--state ESTABLISHED --orig-vtag 1 --reply-vtag 2",
        );
        let cleaner = Cleaner::start();

        let report = cleaner
            .check(vec![check(address("10.96.0.10:53"), &["10.244.0.2:53", "10.244.0.3:53"])]);
        assert_eq!((report.family, report.deleted), (Family::V4, 1), "the untranslated one");
        assert_eq!(report.dumped, 3, "the kernel filters by address, port and protocol");

        let report = cleaner.check(vec![check(address("10.96.0.10:53"), &["10.244.0.3:53"])]);
        assert_eq!((report.dumped, report.deleted), (2, 1));
        assert_eq!(
            left(),
            [
                "sctp 10.96.0.10:53",
                "tcp 10.96.0.10:53",
                "udp 10.96.0.10:53",
                "udp 10.96.0.10:54",
                "udp 10.96.0.11:53",
            ]
        );

        let report = cleaner.check(vec![check(address("10.96.0.10:53"), &[])]);
        assert_eq!((report.dumped, report.deleted), (1, 1), "no endpoint serves");
        assert_eq!(cleaner.check(vec![check(address("10.96.0.10:53"), &[])]).deleted, 0);
    });
}

#[test]
fn a_nodeport_is_cleaned_on_every_address() {
    if skip_without("conntrack") {
        return;
    }
    in_namespace(|| {
        insert("udp", "10.1.0.1:1000", "192.0.2.10:30053", "10.244.0.2:53", "");
        insert("udp", "10.1.0.1:1001", "192.0.2.11:30053", "10.244.0.9:53", "");
        insert("udp", "10.1.0.1:1002", "192.0.2.12:30053", "192.0.2.12:30053", "");
        insert("udp", "10.1.0.1:1003", "192.0.2.12:30054", "10.244.0.9:53", "");
        insert("udp", "10.1.0.1:1006", "198.51.100.9:30053", "198.51.100.9:30053", "");
        insert("tcp", "10.1.0.1:1004", "192.0.2.10:30053", "10.244.0.9:53", "--state ESTABLISHED");
        insert("udp", "[2001:db8::1]:1005", "[2001:db8::10]:30053", "[2001:db8::9]:53", "");
        let cleaner = Cleaner::start();
        let report = cleaner
            .check(vec![check(FlowFrontend::NodePort(Family::V4, 30053), &["10.244.0.2:53"])]);
        assert_eq!((report.dumped, report.deleted), (4, 2));
        assert_eq!(
            left(),
            [
                "tcp 192.0.2.10:30053",
                "udp 192.0.2.10:30053",
                "udp 192.0.2.12:30054",
                "udp 198.51.100.9:30053",
                "udp [2001:db8::10]:30053",
            ]
        );
    });
}

#[test]
fn ipv6_and_ipv4_are_reported_apart() {
    if skip_without("conntrack") {
        return;
    }
    in_namespace(|| {
        insert("udp", "10.1.0.1:1000", "10.96.0.10:53", "10.244.0.2:53", "");
        insert("udp", "[2001:db8::1]:1", "[2001:db8:96::a]:53", "[2001:db8:244::2]:53", "");
        insert("udp", "[2001:db8::1]:2", "[2001:db8:96::a]:53", "[2001:db8:244::3]:53", "");
        let cleaner = Cleaner::start();
        cleaner.cleaner.check(
            vec![
                check(address("10.96.0.10:53"), &[]),
                check(address("[2001:db8:96::a]:53"), &["[2001:db8:244::2]:53"]),
            ],
            own(),
        );
        let reports = [(); 2].map(|()| cleaner.reports.recv_timeout(PATIENCE).unwrap());
        let counts: Vec<_> = reports.iter().map(|r| (r.family, r.dumped, r.deleted)).collect();
        assert_eq!(counts, [(Family::V4, 1, 1), (Family::V6, 2, 1)]);
        assert_eq!(left(), ["udp [2001:db8:96::a]:53"]);
    });
}

#[test]
fn many_frontends_take_one_dump_of_udp() {
    if skip_without("conntrack") {
        return;
    }
    in_namespace(|| {
        for i in 0..100 {
            let destination = format!("10.96.0.{i}:{}", 1000 + i);
            let client = format!("10.1.0.1:{}", 5000 + i);
            insert("udp", &client, &destination, "10.244.0.2:53", "");
        }
        insert("udp", "10.1.0.1:9", "10.99.0.1:1000", "10.244.0.9:53", "");
        insert("tcp", "10.1.0.1:1", "10.96.0.1:1001", "10.244.0.9:53", "--state ESTABLISHED");
        let cleaner = Cleaner::start();
        // Every other frontend has lost the endpoint.
        let checks = (0..100).map(|i| {
            let serving: &[&str] = if i % 2 == 0 { &["10.244.0.2:53"] } else { &[] };
            check(address(&format!("10.96.0.{i}:{}", 1000 + i)), serving)
        });
        let report = cleaner.check(checks.collect());
        assert_eq!((report.dumped, report.deleted), (101, 50));
        assert_eq!(left().len(), 52);
    });
}

#[test]
fn entries_of_other_zones_are_found_and_their_twins_left() {
    if skip_without("conntrack") {
        return;
    }
    in_namespace(|| {
        // The same tuple in two zones: one leads to a serving endpoint, one does not.
        insert("udp", "10.1.0.1:1000", "10.96.0.10:53", "10.244.0.2:53", "");
        insert("udp", "10.1.0.1:1000", "10.96.0.10:53", "10.244.0.9:53", "-w 7");
        let cleaner = Cleaner::start();
        let report = cleaner.check(vec![check(address("10.96.0.10:53"), &["10.244.0.2:53"])]);
        assert_eq!((report.dumped, report.deleted), (2, 1));
        let rest = sh("conntrack -L 2>/dev/null");
        assert!(rest.contains("src=10.244.0.2") && !rest.contains("src=10.244.0.9"), "{rest}");
    });
}

#[test]
fn a_real_flow_moves_to_the_endpoint_that_is_left() {
    in_namespace(|| {
        // Two endpoints and a client on one host; nft sends the VIP to the first.
        sh("ip addr add 10.244.0.2/32 dev lo; ip addr add 10.244.0.3/32 dev lo
            ip addr add 10.1.0.1/32 dev lo; ip route add 10.96.0.0/16 dev lo src 10.1.0.1");
        let ruleset = |endpoint: &str| {
            sh(&format!(
                "nft 'add table ip t; delete table ip t; add table ip t
                 add chain ip t c {{ type nat hook output priority -100; }}
                 add rule ip t c ip daddr 10.96.0.10 udp dport 53 dnat to {endpoint}:5353'"
            ));
        };
        let endpoints = ["10.244.0.2", "10.244.0.3"].map(|ip| {
            let socket = UdpSocket::bind((ip, 5353)).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket
        });
        let client = UdpSocket::bind("10.1.0.1:4000").unwrap();
        let arrives_at = |endpoint: &UdpSocket| {
            client.send_to(b"x", "10.96.0.10:53").unwrap();
            endpoint.recv(&mut [0; 8]).unwrap();
        };
        ruleset("10.244.0.2");
        arrives_at(&endpoints[0]);
        ruleset("10.244.0.3");
        arrives_at(&endpoints[0]); // the old entry still rules

        let cleaner = Cleaner::start();
        let vip = address("10.96.0.10:53");
        let report = cleaner.check(vec![check(vip, &["10.244.0.2:5353", "10.244.0.3:5353"])]);
        assert_eq!(report.deleted, 0, "both serve: a flow that works is not moved");
        arrives_at(&endpoints[0]);
        let report = cleaner.check(vec![check(vip, &["10.244.0.3:5353"])]);
        assert_eq!(report.deleted, 1);
        arrives_at(&endpoints[1]);
    });
}

#[test]
fn a_client_that_was_there_before_the_service_is_freed() {
    in_namespace(|| {
        sh("ip addr add 10.1.0.1/32 dev lo; ip addr add 10.244.0.2/32 dev lo
            ip route add 10.96.0.0/16 dev lo src 10.1.0.1
            nft 'add table ip t
                 add chain ip t c { type nat hook output priority -100; }
                 add rule ip t c ip daddr 10.99.0.1 dnat to 10.99.0.2'");
        let client = UdpSocket::bind("10.1.0.1:4000").unwrap();
        client.send_to(b"x", "10.96.0.10:53").unwrap();
        let cleaner = Cleaner::start();
        let report = cleaner.check(vec![check(address("10.96.0.10:53"), &["10.244.0.2:53"])]);
        assert_eq!((report.dumped, report.deleted), (1, 1));
    });
}
