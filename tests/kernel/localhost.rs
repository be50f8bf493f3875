//! The localhost NodePort proxy with real connections, on the loopback of a namespace of its own.

use kube_proxy::localhost::{self, LocalhostPort, Observer};
use nft_table::Family;
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use test_support::netns::{in_namespace, sh};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

const NODE_PORT: u16 = 30080;
const AFFINITY: Option<Duration> = Some(Duration::from_secs(100));

/// What the observer heard.
#[derive(Debug, PartialEq)]
enum Event {
    Listeners(Family, usize),
    Failed(Family),
}

struct Recorder(mpsc::UnboundedSender<Event>);

impl Observer for Recorder {
    fn listeners(&mut self, family: Family, open: usize) {
        let _ = self.0.send(Event::Listeners(family, open));
    }
    fn listener_failed(&mut self, family: Family) {
        let _ = self.0.send(Event::Failed(family));
    }
}

/// A running proxy.
struct Proxy {
    desired: watch::Sender<Arc<[LocalhostPort]>>,
    events: mpsc::UnboundedReceiver<Event>,
    task: JoinHandle<()>,
}

impl Proxy {
    fn start() -> Proxy {
        let (desired, receiver) = watch::channel(Arc::from([]));
        let (sender, events) = mpsc::unbounded_channel();
        let task = tokio::spawn(localhost::run(receiver, Recorder(sender)));
        Proxy { desired, events, task }
    }

    fn set(&self, ports: impl IntoIterator<Item = LocalhostPort>) {
        self.desired.send(ports.into_iter().collect()).unwrap();
    }

    async fn event(&mut self) -> Event {
        self.events.recv().await.unwrap()
    }
}

fn port(endpoints: &[SocketAddr], affinity: Option<Duration>) -> LocalhostPort {
    LocalhostPort {
        service_port: "default/web:http".into(),
        family: Family::V4,
        node_port: NODE_PORT,
        endpoints: endpoints.into(),
        affinity,
    }
}

fn node_port() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, NODE_PORT).into()
}

/// An endpoint that says its name to everybody and then sends back what it gets.
async fn endpoint(address: &str) -> SocketAddr {
    let listener = TcpListener::bind(address).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let name = format!("{}\n", stream.local_addr().unwrap());
                stream.write_all(name.as_bytes()).await.unwrap();
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
                let _ = write.write_all(b"bye").await;
            });
        }
    });
    address
}

/// Connects from an address of loopback and returns the stream and the endpoint that answered.
async fn connect_from(client: Ipv4Addr) -> (TcpStream, SocketAddr) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((client, 0).into()).unwrap();
    greeted(socket.connect(node_port()).await.unwrap()).await
}

async fn greeted(mut stream: TcpStream) -> (TcpStream, SocketAddr) {
    let mut name = Vec::new();
    loop {
        match stream.read_u8().await.unwrap() {
            b'\n' => break,
            byte => name.push(byte),
        }
    }
    (stream, String::from_utf8(name).unwrap().parse().unwrap())
}

async fn connect() -> (TcpStream, SocketAddr) {
    connect_from(Ipv4Addr::LOCALHOST).await
}

fn run(body: impl AsyncFnOnce() + Send + 'static) {
    in_namespace(|| {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(body());
    });
}

#[test]
fn connections_reach_all_usable_endpoints() {
    run(async || {
        let endpoints = [endpoint("127.1.0.1:8080").await, endpoint("127.1.0.2:8080").await];
        let mut proxy = Proxy::start();
        proxy.set([port(&endpoints, None)]);
        assert_eq!(proxy.event().await, Event::Listeners(Family::V4, 1));
        let mut seen = BTreeSet::new();
        while seen.len() < 2 {
            let (mut stream, name) = connect().await;
            seen.insert(name);
            stream.write_all(b"hello").await.unwrap();
            let mut answer = [0; 5];
            stream.read_exact(&mut answer).await.unwrap();
            assert_eq!(&answer, b"hello");
        }
        assert_eq!(seen, BTreeSet::from(endpoints));
    });
}

#[test]
fn ipv6_is_served_on_its_own_loopback() {
    run(async || {
        let v4 = endpoint("127.1.0.1:8080").await;
        let v6 = endpoint("[::1]:8080").await;
        let mut proxy = Proxy::start();
        let mut port6 = port(&[v6], None);
        port6.family = Family::V6;
        proxy.set([port(&[v4], None), port6]);
        assert_eq!(proxy.event().await, Event::Listeners(Family::V4, 1));
        assert_eq!(proxy.event().await, Event::Listeners(Family::V6, 1));
        assert_eq!(connect().await.1, v4);
        let stream = TcpStream::connect((Ipv6Addr::LOCALHOST, NODE_PORT)).await.unwrap();
        assert_eq!(greeted(stream).await.1, v6);
    });
}

#[test]
fn a_half_close_is_relayed_both_ways() {
    run(async || {
        let endpoint = endpoint("127.1.0.1:8080").await;
        let mut proxy = Proxy::start();
        proxy.set([port(&[endpoint], None)]);
        proxy.event().await;
        let (mut stream, _) = connect().await;
        stream.write_all(b"question ").await.unwrap();
        stream.shutdown().await.unwrap();
        // The endpoint says goodbye only once it has seen the end of the question.
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "question bye");
    });
}

#[test]
fn without_endpoints_connects_are_refused_and_connections_live_on() {
    run(async || {
        let [one, two] = [endpoint("127.1.0.1:8080").await, endpoint("127.1.0.2:8080").await];
        let mut proxy = Proxy::start();
        proxy.set([port(&[one], None)]);
        proxy.event().await;
        let (mut old, _) = connect().await;

        proxy.set([port(&[], None)]);
        assert_eq!(proxy.event().await, Event::Listeners(Family::V4, 0));
        let refused = TcpStream::connect(node_port()).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);

        proxy.set([port(&[two], None)]);
        assert_eq!(proxy.event().await, Event::Listeners(Family::V4, 1));
        assert_eq!(connect().await.1, two);

        old.write_all(b"still here").await.unwrap();
        let mut answer = [0; 10];
        old.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"still here");
    });
}

#[test]
fn affinity_pins_a_client_address_across_nodeports() {
    run(async || {
        let mut endpoints = Vec::new();
        for i in 1..=20 {
            endpoints.push(endpoint(&format!("127.1.0.{i}:8080")).await);
        }
        let mut proxy = Proxy::start();
        proxy.set([port(&endpoints, AFFINITY)]);
        proxy.event().await;
        let first = connect().await.1;
        for _ in 0..10 {
            assert_eq!(connect().await.1, first);
        }
        let mut others = BTreeSet::new();
        for i in 1..20 {
            others.insert(connect_from(Ipv4Addr::new(127, 0, 1, i)).await.1);
        }
        assert!(others.len() > 1, "each client address has its own endpoint");

        // The pin belongs to the Service port, whatever its NodePort is.
        let mut moved = port(&endpoints, AFFINITY);
        moved.node_port = NODE_PORT + 1;
        proxy.set([moved]);
        let stream = loop {
            match TcpStream::connect((Ipv4Addr::LOCALHOST, NODE_PORT + 1)).await {
                Ok(stream) => break stream,
                Err(_) => tokio::task::yield_now().await,
            }
        };
        assert_eq!(greeted(stream).await.1, first);
    });
}

#[test]
fn a_nodeport_that_changes_hands_serves_the_new_service() {
    run(async || {
        let [one, two] = [endpoint("127.1.0.1:8080").await, endpoint("127.1.0.2:8080").await];
        let mut proxy = Proxy::start();
        proxy.set([port(&[one], AFFINITY)]);
        proxy.event().await;
        assert_eq!(connect().await.1, one);
        let mut other = port(&[two], AFFINITY);
        other.service_port = "default/other:http".into();
        proxy.set([other]);
        while connect().await.1 != two {}
        assert_eq!(connect().await.1, two);
    });
}

#[test]
fn an_endpoint_that_refuses_resets_the_client() {
    run(async || {
        let mut proxy = Proxy::start();
        proxy.set([port(&["127.1.0.1:8080".parse().unwrap()], None)]);
        proxy.event().await;
        let mut stream = TcpStream::connect(node_port()).await.unwrap();
        let error = stream.read(&mut [0; 8]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    });
}

#[test]
fn an_endpoint_that_does_not_answer_is_given_up() {
    run(async || {
        sh("ip link add eth0 type veth peer name eth1; ip link set eth0 up; ip link set eth1 up
            ip addr add 192.0.2.1/24 dev eth0
            ip neigh add 192.0.2.2 dev eth0 lladdr 02:00:00:00:00:02");
        let mut proxy = Proxy::start();
        proxy.set([port(&["192.0.2.2:8080".parse().unwrap()], None)]);
        proxy.event().await;
        let mut stream = TcpStream::connect(node_port()).await.unwrap();
        // With nothing else to do the paused clock jumps to the end of the dial timeout.
        tokio::time::pause();
        let error = stream.read(&mut [0; 8]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    });
}

#[test]
fn a_port_in_use_is_tried_again() {
    run(async || {
        let squatter = TcpListener::bind(node_port()).await.unwrap();
        let endpoint = endpoint("127.1.0.1:8080").await;
        let mut proxy = Proxy::start();
        tokio::time::pause();
        proxy.set([port(&[endpoint], None)]);
        assert_eq!(proxy.event().await, Event::Failed(Family::V4));
        assert_eq!(proxy.event().await, Event::Failed(Family::V4));
        drop(squatter);
        loop {
            match proxy.event().await {
                Event::Failed(_) => {}
                Event::Listeners(Family::V4, 1) => break,
                other => panic!("{other:?}"),
            }
        }
        tokio::time::resume();
        assert_eq!(connect().await.1, endpoint);
    });
}

#[test]
fn the_end_of_the_list_closes_all_listeners() {
    run(async || {
        let endpoint = endpoint("127.1.0.1:8080").await;
        let mut proxy = Proxy::start();
        proxy.set([port(&[endpoint], None)]);
        proxy.event().await;
        drop(proxy.desired);
        proxy.task.await.unwrap();
        assert_eq!(proxy.events.recv().await, Some(Event::Listeners(Family::V4, 0)));
        let refused = TcpStream::connect(node_port()).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    });
}
