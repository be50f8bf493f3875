//! What most tests of a feature start from.

use kube_proxy::kernel::nft::{Kernel, Nft};
use std::net::{IpAddr, SocketAddr};
use test_support::lab::{Client, Lab, Outcome, PORT, has_nft};
pub use test_support::listing::assert_same;
use test_support::proxy::{Endpoints, Service, endpoints, service};

/// Pods a and b on the node, pod c on another one, a client outside and a load balancer, which owns
/// 203.0.113.50 and 2001:db8:203::32. None where it cannot be.
pub fn lab() -> Option<Lab> {
    if !has_nft() {
        return None;
    }
    Lab::builder()
        .pod("a")
        .pod("b")
        .remote_pod("c")
        .outside("client")
        .outside_owning("lb", &["203.0.113.50", "2001:db8:203::32"])
        .port(8443)
        .build()
}

/// [`lab`] without a load balancer, and with a second client outside.
pub fn two_clients() -> Option<Lab> {
    if !has_nft() {
        return None;
    }
    Lab::builder().pod("a").pod("b").remote_pod("c").outside("client").outside("stranger").build()
}

/// A probe over one protocol.
pub type Probe = fn(&Client, SocketAddr) -> Outcome;

pub const TCP: Probe = |client, target| client.tcp(target);
pub const UDP: Probe = |client, target| client.udp(target);
pub const SCTP: Probe = |client, target| client.sctp(target);
pub const PROTOCOLS: [(&str, Probe); 3] = [("TCP", TCP), ("UDP", UDP), ("SCTP", SCTP)];

/// A refusal as clients of a protocol see it: a reset for TCP, "port unreachable" for the others.
pub fn refused(protocol: &str) -> Outcome {
    if protocol == "TCP" { Outcome::Reset } else { Outcome::Refused }
}

/// An address and a port.
pub fn at(ip: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(ip, port)
}

/// A Service with port 80 over every protocol; give it an address.
pub fn everything(name: &str) -> Service {
    service(name).tcp(80).named("tcp").udp(80).named("udp").sctp(80).named("sctp")
}

/// Endpoints of such a Service; put them on hosts.
pub fn for_everything(name: &str) -> Endpoints {
    endpoints(name).port("tcp", "TCP", PORT).port("udp", "UDP", PORT).port("sctp", "SCTP", PORT)
}

/// The generation of the node's ruleset, which every commit counts up.
pub fn generation(lab: &Lab) -> u32 {
    let mut nft = lab.node().namespace.run(|| Nft::open().expect("open an nftables socket"));
    nft.generation().expect("the generation")
}
