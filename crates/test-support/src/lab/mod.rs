//! A lab: one node with pods, a gateway with outside hosts behind it and, where asked for, a second
//! node with pods, every machine in a network namespace of its own, dual stack.
//!
//! ```text
//!   pod a   pod b                          client   lb
//!      \     /                                \     /
//!       node ------------- 192.0.2.0/24 ----- gateway
//!    192.0.2.1                 |            192.0.2.254
//!                           remote
//!                          192.0.2.2
//!                              |
//!                            pod c
//! ```
//!
//! Pods are routed as Calico does it: one veth pair each, a host route on the node, no address on the
//! node's end, so what the node masquerades always comes from 192.0.2.1 or 2001:db8::1.
//! Outside hosts are addresses of the gateway's namespace. The gateway sends the VIP ranges to the node,
//! forwards nothing itself, and notes every packet that reaches it for an address that nobody owns.

mod addresses;
mod client;
mod connection;
mod gateway;
mod icmp;
mod load;
mod namespace;
mod netlink;
mod outcome;
mod sctp;
mod server;
mod spread;
mod wait;
mod wiring;

pub use addresses::{cluster_ip, external_ip};
pub use client::Client;
pub use connection::{Connection, Flow};
pub use load::{Load, Report};
pub use namespace::Namespace;
pub use netlink::{Netlink, VethEnd};
pub use outcome::Outcome;
pub use spread::assert_even;

use nft_table::Family;
use server::Server;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::Command;

/// TCP, UDP and SCTP port that every host serves; [`LabBuilder::port`] adds others.
pub const PORT: u16 = 8080;

/// One network namespace with its route netlink socket.
pub struct Machine {
    pub namespace: Namespace,
    pub netlink: Netlink,
}

/// A name with addresses on one of the machines. It serves, and it can be a client.
pub struct Host {
    pub name: String,
    machine: usize,
    addresses: Vec<IpAddr>,
    /// The node that it is on.
    node: &'static str,
    /// The kernel chooses the source address of its connections (only the node's own processes).
    unbound: bool,
}

/// A running lab. Dropping it ends its server; the namespaces go with their last descriptor.
pub struct Lab {
    machines: Vec<Machine>,
    hosts: Vec<Host>,
    server: Server,
}

/// Machines by number.
const NODE: usize = 0;
const GATEWAY: usize = 1;

/// What a lab shall consist of.
#[derive(Default)]
pub struct LabBuilder {
    pods: Vec<String>,
    remote_pods: Vec<String>,
    outside: Vec<(String, Vec<IpAddr>)>,
    ports: Vec<u16>,
    bridge: Option<String>,
    on_link: bool,
    interface_prefix: Option<String>,
}

impl Lab {
    /// A node and a gateway, so far.
    pub fn builder() -> LabBuilder {
        LabBuilder::default()
    }

    /// The node that the proxy under test runs on.
    pub fn node(&self) -> &Machine {
        &self.machines[NODE]
    }

    /// A machine by the name of one of its hosts.
    pub fn machine(&self, host: &str) -> &Machine {
        &self.machines[self.host(host).machine]
    }

    /// A host's address of a family: of pods `10.244.0.11`, `.12`, ... and `fd00:10:244::11`, ... in
    /// the order in which they were named, of remote pods `10.244.1.11` and `fd00:10:244:1::11`, of
    /// outside hosts `198.51.100.11` and `2001:db8:100::11`.
    pub fn ip(&self, host: &str, family: Family) -> IpAddr {
        let host = self.host(host);
        let address = host.addresses.iter().copied().find(|ip| Family::of(ip) == family);
        address.unwrap_or_else(|| panic!("{} has no {family} address", host.name))
    }

    /// `nodeName` of a host, as an endpoint has it: `node`, `remote`, or `elsewhere` for outside hosts.
    pub fn node_of(&self, host: &str) -> &'static str {
        self.host(host).node
    }

    /// [`Lab::ip`] of IPv4.
    pub fn v4(&self, host: &str) -> IpAddr {
        self.ip(host, Family::V4)
    }

    /// [`Lab::ip`] of IPv6.
    pub fn v6(&self, host: &str) -> IpAddr {
        self.ip(host, Family::V6)
    }

    /// A client on a host: a pod, an outside host, `node`, `gateway` or `remote`.
    pub fn from<'l>(&'l self, host: &str) -> Client<'l> {
        Client::new(self, self.host(host))
    }

    /// Runs nft in the node's namespace on a ruleset and returns what it prints.
    pub fn nft(&self, arguments: &[&str]) -> String {
        self.node().output("nft", arguments)
    }

    /// The same, with what it says where it fails.
    pub fn try_nft(&self, arguments: &[&str]) -> Result<String, String> {
        self.node().namespace.try_output("nft", arguments)
    }

    /// Gives the node a further address, served under a name of its own on this port, as a host process that
    /// binds to it would.
    pub fn serve_on_node(&mut self, name: &str, address: IpAddr, port: u16) {
        let node = &self.machines[NODE];
        node.netlink.address(netlink::LOOPBACK, address.into());
        node.namespace.run(|| self.server.serve(name, address, &[port]));
        match self.hosts.iter_mut().find(|host| host.name == name) {
            Some(host) => host.addresses.push(address),
            None => self.hosts.push(Host {
                name: name.to_owned(),
                machine: NODE,
                addresses: vec![address],
                node: "node",
                unbound: false,
            }),
        }
    }

    fn host(&self, name: &str) -> &Host {
        self.hosts.iter().find(|host| host.name == name).unwrap_or_else(|| {
            let names: Vec<_> = self.hosts.iter().map(|host| host.name.as_str()).collect();
            panic!("no host {name} in this lab, only {}", names.join(", "))
        })
    }
}

impl Machine {
    fn new() -> std::io::Result<Machine> {
        let namespace = Namespace::new()?;
        let netlink = Netlink::new(&namespace);
        Ok(Machine { namespace, netlink })
    }

    /// Runs a program inside and returns its standard output; panics when it fails.
    pub fn output(&self, program: &str, arguments: &[&str]) -> String {
        self.namespace.output(program, arguments)
    }
}

impl LabBuilder {
    /// A pod on the node, served by one veth pair (`veth-NAME` on the node).
    pub fn pod(mut self, name: &str) -> Self {
        self.pods.push(name.to_owned());
        self
    }

    /// A pod on a second node, `remote`.
    pub fn remote_pod(mut self, name: &str) -> Self {
        self.remote_pods.push(name.to_owned());
        self
    }

    /// A host behind the gateway.
    pub fn outside(self, name: &str) -> Self {
        self.outside_owning(name, &[])
    }

    /// A host behind the gateway that owns addresses, as a load balancer owns its VIPs.
    pub fn outside_owning(mut self, name: &str, addresses: &[&str]) -> Self {
        let addresses = addresses.iter().map(|text| text.parse().expect("an address")).collect();
        self.outside.push((name.to_owned(), addresses));
        self
    }

    /// One more port that every host serves.
    pub fn port(mut self, port: u16) -> Self {
        self.ports.push(port);
        self
    }

    /// Attaches the pods to a bridge of this name on the node, which then has 10.244.0.1 and
    /// fd00:10:244::1, as the bridge CNI plugin does it.
    pub fn bridge(mut self, name: &str) -> Self {
        self.bridge = Some(name.to_owned());
        self
    }

    /// Lets pods on a bridge take their node's other pods for neighbours, as the bridge CNI plugin does: what they
    /// say to each other is bridged, never routed.
    pub fn on_link(mut self) -> Self {
        self.on_link = true;
        self
    }

    /// Names the node's ends of the pods' links `PREFIX` + pod name instead of `veth-` + pod name.
    pub fn pod_interfaces(mut self, prefix: &str) -> Self {
        self.interface_prefix = Some(prefix.to_owned());
        self
    }

    /// Builds it, or says why this machine cannot and returns None; in CI that is a panic.
    pub fn build(self) -> Option<Lab> {
        if !nix::unistd::geteuid().is_root() {
            return skip("network namespaces need root");
        }
        match wiring::build(&self) {
            Ok(lab) => Some(lab),
            Err(error) => skip(&format!("cannot make a network namespace: {error}")),
        }
    }
}

/// Says why a test is skipped, which is a failure where the environment has `CI`.
pub fn skip<T>(why: &str) -> Option<T> {
    crate::skip::skip(why);
    None
}

/// Is `nft` there? If not, says so as [`skip`] does.
pub fn has_nft() -> bool {
    Command::new("nft").arg("--version").output().is_ok_and(|output| output.status.success())
        || skip::<()>("no nft in PATH").is_some()
}

/// The unspecified address of the family of another.
fn unspecified(like: IpAddr) -> IpAddr {
    if like.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }
}
