//! Small clusters out of bytes: few addresses, ports and names, so that what is made has to do with each other.

use arbitrary::{Arbitrary, Result, Unstructured};
use kube_proxy::model::{
    Algorithm, Change, Conditions, Endpoint, EndpointPort, EndpointSlice, Family, Hints, Limits,
    Node, ObjectName, Protocol, Service, ServicePort, ServiceType, Weights,
};
use kube_proxy::plan::{Counting, DetectLocal, Settings};
use nft_table::evaluate::Packet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

pub const NODE: &str = "node-1";
/// Services have numbers below this.
const SERVICES: u8 = 4;
/// Pods have numbers below this, the first half of them is on this node. Number 0 is in the node's own network.
const PODS: u8 = 8;
/// Names of ports.
const NAMES: [&str; 3] = ["", "http", "dns"];
/// Where Services listen, and where their endpoints do.
const PORTS: [u16; 3] = [80, 81, 30000];
const POD_PORTS: [u16; 2] = [8080, 8081];

fn address(family: Family, v4: [u8; 4], v6: u16) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::from(v4).into(),
        Family::V6 => Ipv6Addr::new(0xfd00, v6, 0, 0, 0, 0, 0, v4[3].into()).into(),
    }
}

pub fn node_address(family: Family) -> IpAddr {
    address(family, [192, 0, 2, 1], 0x192)
}

pub fn cluster_ip(family: Family, number: u8) -> IpAddr {
    address(family, [10, 96, 0, 10 + number], 0x96)
}

/// An address for externalIPs and load balancers; number 0 is the node's.
pub fn external(family: Family, number: u8) -> IpAddr {
    match number {
        0 => node_address(family),
        _ => address(family, [203, 0, 113, number], 0x203),
    }
}

pub fn pod(family: Family, number: u8) -> IpAddr {
    match number {
        0 => node_address(family),
        _ if is_here(number) => address(family, [10, 244, 1, number], 0x244),
        _ => address(family, [10, 244, 2, number], 0x245),
    }
}

fn is_here(pod: u8) -> bool {
    pod < PODS / 2
}

pub fn loopback(family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::LOCALHOST.into(),
        Family::V6 => Ipv6Addr::LOCALHOST.into(),
    }
}

fn client(family: Family, number: u8) -> IpAddr {
    address(family, [198, 51, 100, number], 0x198)
}

fn below(u: &mut Unstructured<'_>, bound: u8) -> Result<u8> {
    u.int_in_range(0..=bound - 1)
}

fn families(u: &mut Unstructured<'_>) -> Result<Vec<Family>> {
    Ok(match below(u, 4)? {
        0 => vec![Family::V4],
        1 => vec![Family::V6],
        2 => vec![Family::V6, Family::V4],
        _ => vec![Family::V4, Family::V6],
    })
}

fn some<T>(
    u: &mut Unstructured<'_>,
    most: u8,
    mut one: impl FnMut(&mut Unstructured<'_>) -> Result<T>,
) -> Result<Vec<T>> {
    (0..below(u, most + 1)?).map(|_| one(u)).collect()
}

fn networks(u: &mut Unstructured<'_>, choice: &[&str]) -> Result<Vec<ipnet::IpNet>> {
    some(u, 3, |u| Ok(u.choose(choice)?.parse().expect("a network")))
}

pub fn settings(u: &mut Unstructured<'_>) -> Result<Settings> {
    let detect_local = match below(u, 6)? {
        0 => DetectLocal::ClusterCidr(Vec::new()),
        1 => DetectLocal::ClusterCidr(networks(u, &["0.0.0.0/0", "10.244.0.0/16", "::/0"])?),
        2 => DetectLocal::NodeCidr,
        3 => DetectLocal::BridgeInterface("cni0".into()),
        4 => DetectLocal::InterfaceNamePrefix("veth".into()),
        _ => DetectLocal::ClusterCidr(networks(u, &["10.244.0.0/16", "fd00:244::/31"])?),
    };
    let localhost_nodeports = if u.arbitrary()? { Family::BOTH.into() } else { Vec::new() };
    let masquerade_all = u.ratio(1, 4)?;
    Ok(Settings {
        node_name: NODE.into(),
        detect_local,
        masquerade_all,
        localhost_nodeports,
        counting: Counting::Off,
        algorithm: Algorithm::Random,
        reset_gone: false,
    })
}

fn service_name(number: u8) -> ObjectName {
    ObjectName::new("default", format!("service-{number}"))
}

fn service(u: &mut Unstructured<'_>, number: u8) -> Result<Service> {
    let families = families(u)?;
    let of = |number: u8| families.iter().map(move |family| external(*family, number));
    let addresses = |u: &mut Unstructured<'_>| -> Result<Vec<IpAddr>> {
        Ok(some(u, 2, |u| below(u, 4))?.into_iter().flat_map(of).collect())
    };
    let (external_ips, load_balancer_ips) = (addresses(u)?, addresses(u)?);
    let mut ports: Vec<ServicePort> = Vec::new();
    for _ in 0..=below(u, 3)? {
        let port = ServicePort {
            name: (*u.choose(&NAMES)?).into(),
            protocol: *u.choose(&Protocol::ALL)?,
            port: *u.choose(&PORTS)?,
            node_port: if u.arbitrary()? { Some(30000 + u16::from(below(u, 3)?)) } else { None },
        };
        if ports.iter().all(|there| there.name != port.name) {
            ports.push(port);
        }
    }
    Ok(Service {
        name: service_name(number),
        created: below(u, 3)?.into(),
        service_type: ServiceType::LoadBalancer,
        cluster_ips: families.iter().map(|family| cluster_ip(*family, number)).collect(),
        external_ips,
        load_balancer_ips,
        ports,
        internal_local: u.ratio(1, 3)?,
        external_local: u.ratio(1, 3)?,
        affinity: if u.ratio(1, 4)? { Some(Duration::from_secs(60)) } else { None },
        // Those with which all endpoints get as many connections.
        algorithm: *u.choose(&[None, Some(Algorithm::RoundRobin)])?,
        weights: if u.ratio(1, 4)? {
            Weights::parse("node/node-2=0, *=7").ok().map(Arc::new)
        } else {
            None
        },
        table_size: None,
        limits: if u.ratio(1, 4)? { Limits::parse("open=5").ok() } else { None },
        reset_gone: None,
        source_ranges: if u.ratio(1, 3)? {
            let ranges = [
                "198.51.100.0/31",
                "198.51.100.2/32",
                "192.0.2.0/24",
                "10.244.1.0/24",
                "0.0.0.0/0",
                "fd00:198::/127",
                "fd00:192::/64",
            ];
            networks(u, &ranges)?
        } else {
            Vec::new()
        },
        unreadable_ranges: if u.ratio(1, 8)? {
            vec![*u.choose(&Family::BOTH)?]
        } else {
            Vec::new()
        },
        health_check_node_port: None,
    })
}

/// The ServiceCIDRs, or none.
pub fn service_cidrs(there: bool) -> Change {
    let networks = ["10.96.0.0/16", "fd00:96::/32"].map(|network| network.parse().unwrap());
    Change::ServiceCidr("kubernetes".into(), there.then(|| networks.into()))
}

fn slice_name(service: u8, number: u8) -> ObjectName {
    ObjectName::new("default", format!("slice-{service}-{number}"))
}

fn slice(u: &mut Unstructured<'_>, service: u8, number: u8) -> Result<EndpointSlice> {
    let family = *u.choose(&Family::BOTH)?;
    let mut ports = Vec::new();
    for name in NAMES {
        if u.ratio(1, 6)? {
            continue;
        }
        let port = *u.choose(&POD_PORTS)?;
        ports.extend(Protocol::ALL.map(|protocol| EndpointPort {
            name: name.into(),
            protocol,
            port,
        }));
    }
    let endpoints = some(u, 6, |u| {
        let number = below(u, PODS)?;
        let node_name: Option<Arc<str>> = match (is_here(number), u.ratio(1, 5)?) {
            (true, true) => None,
            (true, false) => Some(NODE.into()),
            (false, _) => Some("node-2".into()),
        };
        let conditions = *u.choose(&[
            (true, true, false),
            (true, true, false),
            (false, true, true),
            (false, false, true),
            (false, false, false),
            (true, true, true),
        ])?;
        let (ready, serving, terminating) = conditions;
        let hint = |u: &mut Unstructured<'_>, names: [&str; 2]| {
            some(u, 2, |u| Ok(Arc::from(*u.choose(&names)?)))
        };
        let hints = if u.arbitrary()? {
            let nodes = if u.ratio(1, 3)? { hint(u, [NODE, "node-2"])? } else { Vec::new() };
            Some(Arc::new(Hints { zones: hint(u, ["a", "b"])?, nodes }))
        } else {
            None
        };
        Ok(Endpoint {
            address: pod(family, number),
            conditions: Conditions { ready, serving, terminating },
            node_name,
            hints,
        })
    })?;
    Ok(EndpointSlice {
        name: slice_name(service, number),
        service: format!("service-{service}").into(),
        family,
        ports,
        endpoints,
        described: Box::default(),
        trigger_time: None,
    })
}

fn node(u: &mut Unstructured<'_>) -> Result<Node> {
    let zones = [None, Some("a"), Some("b")];
    Ok(Node {
        name: NODE.into(),
        addresses: families(u)?.into_iter().map(node_address).collect(),
        zone: u.choose(&zones)?.map(Arc::from),
        pod_cidrs: networks(u, &["10.244.1.0/24", "fd00:244::/64", "10.244.2.0/24"])?,
        taints: Vec::new(),
        deleting: false,
    })
}

/// What happens to a cluster.
#[derive(Clone, Debug)]
pub enum Step {
    Service(ObjectName, Option<Service>),
    Slice(ObjectName, Option<EndpointSlice>),
    Node(Option<Node>),
    ServiceCidrs(bool),
    /// What is not used any more is deleted.
    Tidy,
    Packet(Packet),
}

impl<'a> Arbitrary<'a> for Step {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Step> {
        let number = below(u, SERVICES)?;
        Ok(match below(u, 16)? {
            0..=3 => Step::Service(service_name(number), Some(service(u, number)?)),
            4 => Step::Service(service_name(number), None),
            5..=8 => {
                let slice_number = below(u, 2)?;
                let name = slice_name(number, slice_number);
                Step::Slice(name, Some(slice(u, number, slice_number)?))
            }
            9 => Step::Slice(slice_name(number, below(u, 2)?), None),
            10 => Step::Node(if u.ratio(3, 4)? { Some(node(u)?) } else { None }),
            11 => Step::ServiceCidrs(u.arbitrary()?),
            12 => Step::Tidy,
            _ => Step::Packet(packet(u)?),
        })
    }
}

fn packet(u: &mut Unstructured<'_>) -> Result<Packet> {
    let family = *u.choose(&Family::BOTH)?;
    let number = below(u, PODS)?;
    let destination = match below(u, 8)? {
        0..=1 => cluster_ip(family, number % (SERVICES + 1)),
        2..=3 => external(family, number % 4),
        4 => node_address(family),
        5 => loopback(family),
        6 => pod(family, number),
        _ => client(family, number),
    };
    let is_own = u.ratio(1, 4)?;
    let source = match (is_own, below(u, 4)?) {
        (true, 0) => loopback(family),
        (true, _) => node_address(family),
        (false, 0..=1) => pod(family, 1 + below(u, PODS - 1)?),
        (false, 2) => client(family, below(u, 4)?),
        (false, _) => external(family, 1 + below(u, 3)?),
    };
    let interface = *u.choose(&["eth0", "cni0", "veth1", "cni"])?;
    let protocol = *u.choose(&[6, 6, 17, 132, if family == Family::V4 { 1 } else { 58 }])?;
    let port = *u.choose(&[80, 81, 30000, 30001, 30002, 8080])?;
    Ok(Packet {
        source,
        destination,
        protocol,
        source_port: None,
        port: if matches!(protocol, 1 | 58) { 0 } else { port },
        input: (!is_own).then(|| interface.to_owned()),
    })
}
