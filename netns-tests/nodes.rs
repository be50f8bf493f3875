//! Nodes that know the same endpoints send a flow to the same one, so a router may move it from one node to another.
//!
//! ```text
//!            node 1
//!          /        \
//!   client - node 2 - pods       Routes of the client and of the pods lead through one of the nodes at a time.
//!          \        /
//!            node 3
//! ```

use kube_proxy::intake::{Intake, Options};
use kube_proxy::kernel::addresses::NodePortSelection;
use kube_proxy::kernel::nft::Nft;
use kube_proxy::model::Algorithm;
use kube_proxy::plan::{Counting, DetectLocal, Settings};
use kube_proxy::sync::Engine;
use nft_table::Value;
use serde_json::{Value as Json, json};
use socket2::{Domain, Socket, Type};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;
use test_support::lab::{Machine, Namespace, Netlink, VethEnd, has_nft};

const PODS: u8 = 5;
const NODES: u8 = 3;
const VIP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 96, 0, 10));
const CLIENT: &str = "10.9.0.1";
const PATIENCE: Duration = Duration::from_secs(10);

fn pod(number: u8) -> IpAddr {
    [10, 244, 0, number].into()
}

struct Nodes {
    client: Machine,
    pods: Machine,
    nodes: Vec<(Machine, Engine<Nft>)>,
}

impl Nodes {
    fn build() -> Option<Nodes> {
        let machine = || {
            let namespace = Namespace::new().ok()?;
            let netlink = Netlink::new(&namespace);
            netlink.up(1);
            namespace
                .sysctls(&[("net.ipv4.ip_forward", "1"), ("net.ipv4.conf.all.rp_filter", "0")]);
            Some(Machine { namespace, netlink })
        };
        if !has_nft() {
            return None;
        }
        let Some((client, pods)) = machine().zip(machine()) else {
            return test_support::lab::skip("no network namespaces");
        };
        client.netlink.address(1, format!("{CLIENT}/32").parse().unwrap());
        for number in 1..=PODS {
            pods.netlink.address(1, pod(number).into());
        }
        let mut nodes = Vec::new();
        for number in 1..=NODES {
            let node = machine()?;
            // Interfaces 1 and 2 of the node lead to the client and to the pods.
            for (side, other, net) in [(1, &client, 9), (2, &pods, 8)] {
                let end = |name, index, mac| VethEnd { name, index, mac };
                let (own, theirs) = (10 + side, 10 + u32::from(number));
                let name = format!("node{number}");
                let mac = |last| [2, 0, 0, net, number, last];
                node.netlink.veth(
                    end(&format!("side{side}"), own, mac(1)),
                    end(&name, theirs, mac(2)),
                    other,
                );
                node.netlink.address(own, format!("10.{net}.{number}.1/24").parse().unwrap());
                other.netlink.address(theirs, format!("10.{net}.{number}.2/24").parse().unwrap());
            }
            let via = |text: String| Some(text.parse().unwrap());
            node.netlink.route(
                format!("{CLIENT}/32").parse().unwrap(),
                via(format!("10.9.{number}.2")),
                11,
            );
            node.netlink.route(
                "10.244.0.0/24".parse().unwrap(),
                via(format!("10.8.{number}.2")),
                12,
            );
            let engine = engine(&node.namespace, &format!("node-{number}"));
            nodes.push((node, engine));
        }
        Some(Nodes { client, pods, nodes })
    }

    /// From now on packets go through this node, both ways.
    fn go_through(&self, node: u8) {
        let index = 10 + u32::from(node);
        let via = |net| Some(format!("10.{net}.{node}.1").parse().unwrap());
        self.pods.netlink.route(format!("{CLIENT}/32").parse().unwrap(), via(8), index);
        self.client.netlink.route("10.96.0.0/16".parse().unwrap(), via(9), index);
    }

    fn apply(&mut self, node: u8, objects: impl IntoIterator<Item = Json>) {
        let mut intake = Intake::new(Options::default());
        let (_, engine) = &mut self.nodes[usize::from(node) - 1];
        for object in objects {
            let change = if object["kind"] == "Service" {
                intake.service(&serde_json::from_value(object).unwrap()).change
            } else {
                intake.endpoint_slice(&serde_json::from_value(object).unwrap()).change
            };
            engine.apply(change);
        }
        engine.sync().expect("committed");
    }
}

fn engine(namespace: &Namespace, name: &str) -> Engine<Nft> {
    let settings = Settings {
        node_name: name.into(),
        // Nobody's packets are masqueraded: a node cannot know what another one has chosen.
        detect_local: DetectLocal::ClusterCidr(Vec::new()),
        masquerade_all: false,
        localhost_nodeports: Vec::new(),
        counting: Counting::Off,
        algorithm: Algorithm::Random,
        reset_gone: false,
    };
    let nft = namespace.run(|| Nft::open().expect("open an nftables socket"));
    Engine::new(nft, settings, Box::new(|_| NodePortSelection::ALL), true)
}

fn service(weights: Option<&str>) -> Json {
    let mut annotations = json!({"nft.kube-proxy/balancing": "hash-flow"});
    if let Some(weights) = weights {
        annotations["nft.kube-proxy/weights"] = json!(weights);
    }
    json!({
        "kind": "Service", "metadata": {"name": "web", "namespace": "default", "annotations": annotations},
        "spec": {
            "type": "ClusterIP", "clusterIP": VIP, "clusterIPs": [VIP], "ipFamilies": ["IPv4"],
            "ports": [
                {"name": "tcp", "port": 80, "protocol": "TCP"}, {"name": "udp", "port": 53, "protocol": "UDP"},
            ],
        },
    })
}

/// Pods with these numbers in a slice, each ready or terminating.
fn slice(name: &str, pods: &[(u8, bool)]) -> Json {
    let endpoint = |(number, is_ready): &(u8, bool)| {
        json!({
            "addresses": [pod(*number)], "nodeName": "elsewhere",
            "targetRef": {"kind": "Pod", "name": format!("web-{number}")},
            "conditions": {"ready": is_ready, "serving": true, "terminating": !is_ready},
        })
    };
    json!({
        "kind": "EndpointSlice",
        "metadata": {
            "name": name, "namespace": "default", "labels": {"kubernetes.io/service-name": "web"},
        },
        "addressType": "IPv4",
        "ports": [
            {"name": "tcp", "port": 8080, "protocol": "TCP"}, {"name": "udp", "port": 8053, "protocol": "UDP"},
        ],
        "endpoints": pods.iter().map(endpoint).collect::<Vec<_>>(),
    })
}

fn ready(pods: impl IntoIterator<Item = u8>) -> Vec<(u8, bool)> {
    pods.into_iter().map(|pod| (pod, true)).collect()
}

/// Which pod gets each of many flows, by the client's port.
fn flows(nodes: &Nodes, pods: &[UdpSocket], ports: std::ops::Range<u16>) -> BTreeMap<u16, u8> {
    let mut reached = BTreeMap::new();
    for ports in ports.collect::<Vec<u16>>().chunks(100) {
        nodes.client.namespace.run(|| {
            for port in ports {
                let socket = UdpSocket::bind((CLIENT, *port)).expect("bind");
                socket.send_to(b"?", (VIP, 53)).expect("send");
            }
        });
        // What was sent has arrived: all of it is done by whoever sends.
        for (number, pod) in (1..).zip(pods) {
            let mut buffer = [0; 8];
            while let Ok((_, from)) = pod.recv_from(&mut buffer) {
                assert_eq!(reached.insert(from.port(), number), None);
            }
        }
    }
    reached
}

#[test]
fn three_nodes_agree_on_ten_thousand_flows() {
    let Some(mut nodes) = Nodes::build() else { return };
    // Other ports the second time: the nodes know the flows of before.
    for (weights, ports) in
        [(None, 20_000..30_000), (Some("web-1=1, web-2=2, *=3"), 30_000..40_000)]
    {
        // They hear of the same in different orders.
        nodes.apply(1, [service(weights), slice("a", &ready(1..3)), slice("b", &ready(3..=5))]);
        nodes.apply(2, [slice("b", &ready([5, 4, 3])), slice("a", &ready([2])), service(weights)]);
        nodes.apply(2, [slice("a", &ready([2, 1]))]);
        nodes.apply(3, [slice("c", &ready(1..=5)), service(weights)]);
        let sockets: Vec<UdpSocket> = nodes.pods.namespace.run(|| {
            let socket = |number| {
                let socket = UdpSocket::bind((pod(number), 8053)).expect("bind");
                socket.set_nonblocking(true).expect("O_NONBLOCK");
                socket
            };
            (1..=PODS).map(socket).collect()
        });
        let mut first = None;
        for node in 1..=NODES {
            nodes.go_through(node);
            let reached = flows(&nodes, &sockets, ports.clone());
            assert_eq!(reached.len(), 10_000, "all flows arrive through node {node}");
            assert_eq!(&reached, first.get_or_insert_with(|| reached.clone()), "node {node}");
        }
        // As many as the table has entries. It is the same each time; a chi-square with four degrees of freedom is greater
        // once in a thousand times.
        let mut counts = [0_f64; PODS as usize];
        first.unwrap().values().for_each(|pod| counts[usize::from(*pod) - 1] += 1.0);
        let entries = entries(&nodes.nodes[0].1);
        let all: f64 = entries.iter().sum();
        let off = counts.iter().zip(entries).map(|(count, entries)| {
            let expected = 10_000.0 * entries / all;
            (count - expected).powi(2) / expected
        });
        assert!(off.sum::<f64>() < 18.5, "{counts:?}");
    }
}

/// How many entries of the table of the UDP port each pod has.
fn entries(engine: &Engine<Nft>) -> [f64; PODS as usize] {
    let table = engine.planner().table();
    let mut entries = [0.0; PODS as usize];
    for (key, value) in table.elements(table.set_id("cluster-endpoints4").expect("the map")) {
        let Value::Data(data) = value else { panic!("{value:?}") };
        // ip daddr . meta l4proto . th dport . slot : ip daddr . th dport
        if key.0[4] == 17 {
            entries[usize::from(data.bytes()[3]) - 1] += 1.0;
        }
    }
    entries
}

/// Answers each byte with the number of the pod, and ends with the connection.
fn serve(nodes: &Nodes) {
    let listeners: Vec<TcpListener> = nodes.pods.namespace.run(|| {
        (1..=PODS).map(|number| TcpListener::bind((pod(number), 8080)).expect("bind")).collect()
    });
    for (number, listener) in (1..=PODS).zip(listeners) {
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                std::thread::spawn(move || {
                    let mut byte = [0];
                    while stream.read_exact(&mut byte).is_ok()
                        && stream.write_all(&[number]).is_ok()
                    {}
                });
            }
        });
    }
}

/// The pod at the other end.
fn ask(stream: &mut TcpStream) -> u8 {
    let mut byte = [0];
    stream.write_all(b"?").expect("write");
    stream.read_exact(&mut byte).expect("an answer: the connection lives");
    byte[0]
}

#[test]
fn connections_live_on_when_a_router_moves_them() {
    let Some(mut nodes) = Nodes::build() else { return };
    for node in 1..=NODES {
        nodes.apply(node, [service(None), slice("a", &ready(1..=5))]);
    }
    serve(&nodes);
    nodes.go_through(1);
    let connect = |nodes: &Nodes| {
        nodes.client.namespace.run(|| {
            let target = SocketAddr::new(VIP, 80);
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
            socket.bind(&SocketAddr::new(CLIENT.parse().unwrap(), 0).into()).expect("bind");
            socket.connect_timeout(&target.into(), PATIENCE).expect("connect");
            let stream = TcpStream::from(socket);
            stream.set_read_timeout(Some(PATIENCE)).expect("SO_RCVTIMEO");
            stream.set_nodelay(true).expect("TCP_NODELAY");
            stream
        })
    };
    let mut streams: Vec<TcpStream> = (0..200).map(|_| connect(&nodes)).collect();
    let before: Vec<u8> = streams.iter_mut().map(ask).collect();
    assert_eq!(before.iter().collect::<BTreeSet<_>>().len(), usize::from(PODS));
    let is_same = |streams: &mut Vec<TcpStream>, what: &str| {
        let after: Vec<u8> = streams.iter_mut().map(ask).collect();
        assert_eq!(after, before, "{what}");
    };
    nodes.go_through(2);
    is_same(&mut streams, "moved");
    // The first node has not seen what the other one has passed on, and takes acknowledgements of that for invalid, unless
    // it is told to be liberal (conntrack.tcpBeLiberal).
    let liberal = ("net.netfilter.nf_conntrack_tcp_be_liberal", "1");
    nodes.nodes.iter().for_each(|(node, _)| node.namespace.sysctls(&[liberal]));
    nodes.go_through(1);
    is_same(&mut streams, "moved back");
    // The third node hears that a pod is terminating before it gets connections that the pod has.
    for node in 1..=NODES {
        nodes.apply(node, [slice("a", &[(1, true), (2, true), (3, false), (4, true), (5, true)])]);
    }
    nodes.go_through(3);
    is_same(&mut streams, "moved while a pod is terminating");
    let new: Vec<u8> = (0..60).map(|_| ask(&mut connect(&nodes))).collect();
    assert!(!new.contains(&3), "the terminating pod gets a new connection: {new:?}");
    // Gone, the table is the one without it.
    for node in 1..=NODES {
        nodes.apply(node, [slice("a", &ready([1, 2, 4, 5]))]);
    }
    let new: Vec<u8> = (0..60).map(|_| ask(&mut connect(&nodes))).collect();
    assert!(!new.contains(&3), "{new:?}");
}
