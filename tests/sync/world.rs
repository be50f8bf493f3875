//! Some Services, and an engine that programs them.

use kube_proxy::kernel::addresses::NodePortSelection;
use kube_proxy::kernel::fake::FakeKernel;
use kube_proxy::model::*;
use kube_proxy::plan::layout::TABLE;
use kube_proxy::plan::{Counting, DetectLocal, Settings};
use kube_proxy::sync::{Committed, Engine};
use nft_table::Family;
use nft_table::Key;
use std::net::IpAddr;

pub fn engine(kernel: FakeKernel) -> Engine<FakeKernel> {
    engine_counting(kernel, Counting::Off)
}

pub fn engine_counting(kernel: FakeKernel, counting: Counting) -> Engine<FakeKernel> {
    let settings = Settings {
        node_name: "node-1".into(),
        detect_local: DetectLocal::NodeCidr,
        masquerade_all: false,
        localhost_nodeports: Vec::new(),
        counting,
        algorithm: Algorithm::Random,
        reset_gone: false,
    };
    Engine::new(kernel, settings, Box::new(|_| NodePortSelection::ALL), true)
}

pub fn vip(number: u8) -> IpAddr {
    [10, 96, 0, number].into()
}

pub fn key(number: u8) -> Key {
    Key::builder().address(vip(number)).protocol(6).port(80).build()
}

pub fn service(number: u8) -> Change {
    let name = ObjectName::new("default", format!("service-{number}"));
    let service = Service {
        name: name.clone(),
        created: 0,
        service_type: ServiceType::ClusterIp,
        cluster_ips: vec![vip(number)],
        external_ips: Vec::new(),
        load_balancer_ips: Vec::new(),
        ports: vec![ServicePort {
            name: "http".into(),
            protocol: Protocol::Tcp,
            port: 80,
            node_port: None,
        }],
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
    Change::Service(name, Some(Box::new(service)))
}

pub fn slice(number: u8, pods: &[u8]) -> Change {
    let endpoint = |pod: &u8| Endpoint {
        address: [10, 244, 0, *pod].into(),
        conditions: Conditions::default(),
        node_name: None,
        hints: None,
    };
    let slice = EndpointSlice {
        name: ObjectName::new("default", format!("slice-{number}")),
        service: format!("service-{number}").into(),
        family: Family::V4,
        ports: vec![EndpointPort { name: "http".into(), protocol: Protocol::Tcp, port: 8080 }],
        endpoints: pods.iter().map(endpoint).collect(),
        described: Box::default(),
        trigger_time: None,
    };
    Change::EndpointSlice(slice.name.clone(), Some(Box::new(slice)))
}

/// An engine that has programmed Services 1 to 4 with two endpoints each.
pub fn running(kernel: FakeKernel) -> (Engine<FakeKernel>, Committed) {
    let mut engine = engine(kernel);
    for number in 1..5 {
        engine.apply(service(number));
        engine.apply(slice(number, &[number, number + 10]));
    }
    let committed = engine.sync().unwrap();
    (engine, committed)
}

/// The kernel, for the next process.
pub fn next(engine: &mut Engine<FakeKernel>) -> FakeKernel {
    let mut kernel = std::mem::take(engine.kernel_mut());
    kernel.next_process();
    kernel
}

pub fn is_served(engine: &mut Engine<FakeKernel>, number: u8) -> bool {
    engine.kernel_mut().get(TABLE, "service-ips4", &key(number)).is_some()
}
