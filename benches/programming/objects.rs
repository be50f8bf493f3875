//! The objects of the bench, and an engine that takes them.

use kube_proxy::kernel::Kernel;
use kube_proxy::kernel::addresses::NodePortSelection;
use kube_proxy::model::*;
use kube_proxy::plan::{Counting, DetectLocal, Settings};
use kube_proxy::sync::Engine;
use nft_table::Family;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, LazyLock};

/// Endpoints of a Service.
pub const ENDPOINTS: u32 = 10;

pub fn settings() -> Settings {
    settings_counting(Counting::Off)
}

fn settings_counting(counting: Counting) -> Settings {
    Settings {
        node_name: "node-1".into(),
        detect_local: DetectLocal::ClusterCidr(vec!["10.244.0.0/16".parse().unwrap()]),
        masquerade_all: false,
        localhost_nodeports: Vec::new(),
        counting,
        algorithm: Algorithm::Random,
        reset_gone: false,
    }
}

/// An engine that counts connections and knows of nothing yet.
pub fn engine_counting<K: Kernel>(kernel: K, counting: Counting) -> Engine<K> {
    let select = Box::new(|_: Option<&_>| NodePortSelection::ALL);
    Engine::new(kernel, settings_counting(counting), select, true)
}

/// An engine that knows of this many Services and has written nothing yet.
pub fn engine<K: Kernel>(kernel: K, services: u32) -> Engine<K> {
    engine_of(kernel, services, true)
}

/// The same, of a table that is owned or not.
pub fn engine_of<K: Kernel>(kernel: K, services: u32, own_table: bool) -> Engine<K> {
    let select = Box::new(|_: Option<&_>| NodePortSelection::ALL);
    let mut engine = Engine::new(kernel, settings(), select, own_table);
    for number in 0..services {
        engine.apply(service(number));
        engine.apply(slice(number, 0..ENDPOINTS));
    }
    engine
}

fn name(number: u32) -> ObjectName {
    static NAMESPACE: LazyLock<Arc<str>> = LazyLock::new(|| "default".into());
    ObjectName::new(NAMESPACE.clone(), format!("service-{number}"))
}

/// The cluster IP of a Service; it answers on port 80.
pub fn cluster_ip(number: u32) -> IpAddr {
    Ipv4Addr::from(0x0a60_0001 + number).into()
}

/// The address of an endpoint; it listens on port 8080.
pub fn endpoint_address(number: u32, index: u32) -> IpAddr {
    Ipv4Addr::from(0x0af4_0000 + number * 16 + index).into()
}

pub fn service(number: u32) -> Change {
    let port =
        ServicePort { name: "http".into(), protocol: Protocol::Tcp, port: 80, node_port: None };
    let service = Service {
        name: name(number),
        created: number.into(),
        service_type: ServiceType::ClusterIp,
        cluster_ips: vec![cluster_ip(number)],
        external_ips: Vec::new(),
        load_balancer_ips: Vec::new(),
        ports: vec![port],
        internal_local: false,
        external_local: false,
        affinity: None,
        algorithm: None,
        weights: None,
        table_size: None,
        limits: None,
        reset_gone: None,
        source_ranges: Vec::new(),
        unreadable_ranges: Vec::new(),
        health_check_node_port: None,
    };
    Change::Service(name(number), Some(Box::new(service)))
}

pub fn slice(number: u32, endpoints: impl Iterator<Item = u32>) -> Change {
    // Shared as the intake of objects shares them.
    static NODE: LazyLock<Arc<str>> = LazyLock::new(|| "node-2".into());
    let endpoint = |index: u32| Endpoint {
        address: endpoint_address(number, index),
        conditions: Conditions::default(),
        node_name: Some(NODE.clone()),
        hints: None,
    };
    let slice = EndpointSlice {
        name: ObjectName { name: format!("service-{number}-slice").into(), ..name(number) },
        service: name(number).name,
        family: Family::V4,
        ports: vec![EndpointPort { name: "http".into(), protocol: Protocol::Tcp, port: 8080 }],
        endpoints: endpoints.map(endpoint).collect(),
        described: Box::default(),
        trigger_time: None,
    };
    Change::EndpointSlice(slice.name.clone(), Some(Box::new(slice)))
}
