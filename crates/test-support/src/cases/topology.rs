//! The lab of the packet tests as data: who has which addresses, and from where packets come in.
//!
//! `netns-tests/cases.rs` checks that the lab is as it stands here.

use kube_proxy::kernel::addresses::LocalAddresses;
use nft_table::Family;
use serde_json::{Value, json};
use std::net::IpAddr;

/// A host of the lab.
#[derive(Clone, Debug)]
pub struct Host {
    pub name: String,
    pub addresses: Vec<IpAddr>,
    /// `nodeName`, as its endpoint would have it.
    pub node: String,
    /// The interface of the node that its packets come in on; None for the node itself.
    pub interface: Option<String>,
}

/// A lab.
#[derive(Clone, Debug)]
pub struct Topology {
    pub bridge: Option<String>,
    pub interface_prefix: Option<String>,
    pub hosts: Vec<Host>,
    /// Addresses of the node itself.
    pub local: Vec<IpAddr>,
    /// Those of them that a case gave to it.
    pub given: Vec<IpAddr>,
}

/// Pods on the node and on another one, hosts outside and what they own besides, and an additional port.
pub const PODS: [&str; 2] = ["a", "b"];
pub const REMOTE_PODS: [&str; 2] = ["c", "d"];
pub const OUTSIDE: [(&str, &[&str]); 3] =
    [("client", &[]), ("stranger", &[]), ("lb", &["203.0.113.50", "2001:db8:203::32"])];
pub const SECOND_PORT: u16 = 8443;

impl Topology {
    pub fn new(bridge: Option<&str>, interface_prefix: Option<&str>) -> Topology {
        let mut topology = Topology {
            bridge: bridge.map(str::to_owned),
            interface_prefix: interface_prefix.map(str::to_owned),
            hosts: Vec::new(),
            local: Vec::new(),
            given: Vec::new(),
        };
        topology.add("node", &["192.0.2.1", "2001:db8::1"], "node", None);
        topology.local = topology.hosts[0].addresses.clone();
        topology.add("remote", &["192.0.2.2", "2001:db8::2"], "remote", Some("eth0"));
        for (number, name) in (11..).zip(PODS) {
            let interface = match (bridge, interface_prefix) {
                (Some(bridge), _) => bridge.to_owned(),
                (None, Some(prefix)) => format!("{prefix}{name}"),
                (None, None) => format!("veth-{name}"),
            };
            let own = [format!("10.244.0.{number}"), format!("fd00:10:244::{number}")];
            topology.add(name, &own, "node", Some(&interface));
        }
        for (number, name) in (11..).zip(REMOTE_PODS) {
            let own = [format!("10.244.1.{number}"), format!("fd00:10:244:1::{number}")];
            topology.add(name, &own, "remote", Some("eth0"));
        }
        for (number, (name, owned)) in (11..).zip(OUTSIDE) {
            let own = [format!("198.51.100.{number}"), format!("2001:db8:100::{number}")];
            let owned = owned.iter().map(|text| (*text).to_owned());
            let all: Vec<String> = own.into_iter().chain(owned).collect();
            topology.add(name, &all, "elsewhere", Some("eth0"));
        }
        if bridge.is_some() {
            topology.local.extend(["10.244.0.1", "fd00:10:244::1"].map(ip));
        }
        topology
    }

    fn add(
        &mut self,
        name: &str,
        addresses: &[impl AsRef<str>],
        node: &str,
        interface: Option<&str>,
    ) {
        self.hosts.push(Host {
            name: name.to_owned(),
            addresses: addresses.iter().map(|text| ip(text.as_ref())).collect(),
            node: node.to_owned(),
            interface: interface.map(str::to_owned),
        });
    }

    /// Gives addresses to the node.
    pub fn give_to_node(&mut self, name: &str) {
        let addresses = self.addresses(name);
        assert!(!addresses.is_empty(), "what is {name}?");
        self.local.extend(&addresses);
        self.given.extend(addresses);
    }

    pub fn host(&self, name: &str) -> Option<&Host> {
        self.hosts.iter().find(|host| host.name == name)
    }

    /// The addresses that a name stands for, IPv4 first: a host, `cluster-N`, `external-N`, `second` (a second
    /// address of the node's network) or `loopback`; an address stands for itself.
    pub fn addresses(&self, name: &str) -> Vec<IpAddr> {
        if let Some(host) = self.host(name) {
            return host.addresses[..2].to_vec();
        }
        let numbered = |prefix: &str| name.strip_prefix(prefix)?.parse::<u8>().ok();
        if let Some(number) = numbered("cluster-") {
            return vec![ip(&format!("10.96.0.{number}")), ip(&format!("fd00:10:96::{number:x}"))];
        }
        if let Some(number) = numbered("external-") {
            let v6 = format!("2001:db8:203::{number:x}");
            return vec![ip(&format!("203.0.113.{number}")), ip(&v6)];
        }
        match name {
            "second" => ["192.0.2.77", "2001:db8::4d"].map(ip).to_vec(),
            "loopback" => ["127.0.0.1", "::1"].map(ip).to_vec(),
            _ => name.parse().into_iter().collect(),
        }
    }

    /// The host that has an address.
    pub fn owner(&self, address: IpAddr) -> Option<&str> {
        if self.is_local(address) {
            return Some("node");
        }
        let owner = self.hosts.iter().find(|host| host.addresses.contains(&address));
        owner.map(|host| host.name.as_str())
    }

    /// Is it one of the node's own?
    pub fn is_local(&self, address: IpAddr) -> bool {
        address.is_loopback() || self.local.contains(&address)
    }

    /// Where a packet of a host to some destination comes from. The node itself uses its own address that it
    /// sends to.
    pub fn source(&self, host: &str, to: IpAddr) -> IpAddr {
        if host == "node" && self.is_local(to) {
            return to;
        }
        let host = self.host(host).unwrap_or_else(|| panic!("no host {host}"));
        let family = Family::of(&to);
        *host.addresses.iter().find(|own| Family::of(own) == family).expect("dual stack")
    }

    /// What the kernel of the node would tell of its addresses.
    pub fn local_addresses(&self) -> LocalAddresses {
        let all = || self.local.iter().copied();
        LocalAddresses::new(all().map(Into::into), all())
    }

    /// The Node object that every case starts with.
    pub fn node_object(&self) -> Value {
        json!({
            "kind": "Node",
            "metadata": { "name": "node", "labels": { "topology.kubernetes.io/zone": "here" } },
            "spec": {
                "podCIDR": "10.244.0.0/24",
                "podCIDRs": ["10.244.0.0/24", "fd00:10:244::/64"],
            },
            "status": { "addresses": [
                { "type": "InternalIP", "address": "192.0.2.1" },
                { "type": "InternalIP", "address": "2001:db8::1" },
            ] },
        })
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap_or_else(|_| panic!("{text} is no address"))
}
