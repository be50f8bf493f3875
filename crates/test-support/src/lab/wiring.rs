//! Lays the cables of a lab: machines, links, addresses, routes and sysctls.

use super::netlink::{LOOPBACK, Mac, VethEnd};
use super::server::Server;
use super::{GATEWAY, Host, Lab, LabBuilder, Machine, NODE, PORT, gateway};
use ipnet::IpNet;
use std::io;
use std::net::{IpAddr, Ipv6Addr};

/// Interface index of `eth0` in pods and nodes, of the bridge in the gateway and on a bridged node.
const FIRST: u32 = 2;
const BRIDGE: u32 = 3;
/// Interface index on a node of its first pod, and in the gateway of its first node.
const PORTS: u32 = 10;

/// The gateway is 192.0.2.254.
const GATEWAY_NUMBER: u8 = 254;

/// Hardware address of the node's end of every pod link, and the link-local address made of it.
const ROUTER_MAC: Mac = [0xee; 6];
const ROUTER6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0xecee, 0xeeff, 0xfeee, 0xeeee);
/// The pods' IPv4 gateway; nobody has it, the neighbour entry suffices.
const ROUTER4: &str = "169.254.1.1";

/// Set in every namespace: no waiting for duplicate address detection, no way around the node, no reverse path
/// filter, no limit on the ICMP errors that reject tests count on.
const COMMON: &[(&str, &str)] = &[
    ("net.ipv6.conf.all.accept_dad", "0"),
    ("net.ipv6.conf.default.accept_dad", "0"),
    ("net.ipv6.conf.default.accept_ra", "0"),
    ("net.ipv6.conf.default.router_solicitations", "0"),
    ("net.ipv6.conf.all.accept_redirects", "0"),
    ("net.ipv6.conf.default.accept_redirects", "0"),
    ("net.ipv4.conf.all.rp_filter", "0"),
    ("net.ipv4.conf.default.rp_filter", "0"),
    ("net.ipv4.icmp_ratelimit", "0"),
    ("net.ipv4.icmp_ratemask", "0"),
    ("net.ipv6.icmp.ratelimit", "0"),
    // Errors are not in it, so the limit of all ICMP per second and namespace is not for them either.
    ("net.ipv6.icmp.ratemask", "255"),
];

/// Set on the nodes.
const ROUTER: &[(&str, &str)] = &[
    ("net.ipv4.ip_forward", "1"),
    ("net.ipv6.conf.all.forwarding", "1"),
    ("net.ipv4.conf.all.send_redirects", "0"),
    ("net.ipv4.conf.default.send_redirects", "0"),
];

pub fn build(plan: &LabBuilder) -> io::Result<Lab> {
    let mut lab =
        Lab { machines: vec![node()?, the_gateway()?], hosts: Vec::new(), server: Server::new() };
    lab.uplink(NODE, 1);
    lab.hosts.push(host("node", NODE, &["192.0.2.1", "2001:db8::1"], "node"));
    lab.hosts.push(host("gateway", GATEWAY, &["192.0.2.254", "2001:db8::fe"], "elsewhere"));
    for range in ["10.96.0.0/16", "203.0.113.0/24", "10.244.0.0/24"] {
        lab.machines[GATEWAY].netlink.route(net(range), Some(ip("192.0.2.1")), FIRST);
    }
    for range in ["fd00:10:96::/112", "2001:db8:203::/64", "fd00:10:244::/64"] {
        lab.machines[GATEWAY].netlink.route(net(range), Some(ip("2001:db8::1")), FIRST);
    }
    if let Some(name) = &plan.bridge {
        let netlink = &lab.machines[NODE].netlink;
        netlink.bridge(name, BRIDGE, ROUTER_MAC);
        netlink.address(BRIDGE, net("10.244.0.1/24"));
        netlink.address(BRIDGE, net("fd00:10:244::1/64"));
    }
    let prefix = plan.interface_prefix.as_deref().unwrap_or("veth-");
    for (number, name) in (0..).zip(&plan.pods) {
        lab.pod(NODE, 0, name, number, &format!("{prefix}{name}"), plan.bridge.is_some())?;
    }
    if plan.on_link {
        lab.make_neighbours();
    }
    if !plan.remote_pods.is_empty() {
        let remote = lab.machines.len();
        lab.machines.push(node()?);
        lab.uplink(remote, 2);
        lab.hosts.push(host("remote", remote, &["192.0.2.2", "2001:db8::2"], "remote"));
        for (number, name) in (0..).zip(&plan.remote_pods) {
            lab.pod(remote, 1, name, number, &format!("veth-{name}"), false)?;
        }
        for (from, to, nets) in [
            (NODE, ["192.0.2.2", "2001:db8::2"], ["10.244.1.0/24", "fd00:10:244:1::/64"]),
            (remote, ["192.0.2.1", "2001:db8::1"], ["10.244.0.0/24", "fd00:10:244::/64"]),
            (GATEWAY, ["192.0.2.2", "2001:db8::2"], ["10.244.1.0/24", "fd00:10:244:1::/64"]),
        ] {
            for (gateway, destination) in to.into_iter().zip(nets) {
                lab.machines[from].netlink.route(net(destination), Some(ip(gateway)), FIRST);
            }
        }
    }
    for (number, (name, owned)) in (0..).zip(&plan.outside) {
        let own =
            [format!("198.51.100.{}", 11 + number), format!("2001:db8:100::{:x}", 0x11 + number)];
        let mut addresses: Vec<IpAddr> = own.iter().map(|text| ip(text)).collect();
        addresses.extend(owned);
        for address in &addresses {
            lab.machines[GATEWAY].netlink.address(LOOPBACK, IpNet::from(*address));
        }
        let own: Vec<String> = addresses.iter().map(IpAddr::to_string).collect();
        let own: Vec<&str> = own.iter().map(String::as_str).collect();
        lab.hosts.push(host(name, GATEWAY, &own, "elsewhere"));
    }
    lab.serve(&plan.ports);
    Ok(lab)
}

impl Lab {
    /// Connects a node (1 or 2) to the gateway: 192.0.2.NUMBER and 2001:db8::NUMBER.
    fn uplink(&self, machine: usize, number: u8) {
        let (node, gateway) = (&self.machines[machine], &self.machines[GATEWAY]);
        let port = PORTS + u32::from(number);
        gateway.netlink.veth(
            VethEnd { name: &format!("node{number}"), index: port, mac: [2, 0, 0, 1, 0, number] },
            VethEnd { name: "eth0", index: FIRST, mac: uplink_mac(number) },
            node,
        );
        gateway.netlink.enslave(port, FIRST);
        for (from, to) in [(gateway, number), (node, GATEWAY_NUMBER), (node, 3 - number)] {
            let addresses = [ip(&format!("192.0.2.{to}")), ip(&format!("2001:db8::{to:x}"))];
            for address in addresses {
                from.netlink.neighbour(FIRST, address, uplink_mac(to));
            }
        }
        node.netlink.address(FIRST, net(&format!("192.0.2.{number}/24")));
        node.netlink.address(FIRST, net(&format!("2001:db8::{number}/64")));
        node.netlink.route(net("0.0.0.0/0"), Some(ip("192.0.2.254")), FIRST);
        node.netlink.route(net("::/0"), Some(ip("2001:db8::fe")), FIRST);
    }

    /// Connects a pod to a node.
    fn pod(
        &mut self,
        node: usize,
        subnet: u8,
        name: &str,
        number: u8,
        interface: &str,
        bridged: bool,
    ) -> io::Result<()> {
        let pod = Machine::new()?;
        pod.namespace.sysctls(COMMON);
        pod.netlink.up(LOOPBACK);
        let router = &self.machines[node];
        let index = PORTS + u32::from(number);
        let mac = pod_mac(subnet, number);
        let router_mac = if bridged { [2, 0, 0, 3, subnet, number] } else { ROUTER_MAC };
        router.netlink.veth(
            VethEnd { name: interface, index, mac: router_mac },
            VethEnd { name: "eth0", index: FIRST, mac },
            &pod,
        );
        let addresses =
            [format!("10.244.{subnet}.{}", 11 + number), pod6(subnet, 0x11 + u16::from(number))];
        let leads_to_pods = if bridged { BRIDGE } else { index };
        if bridged {
            router.netlink.enslave(index, BRIDGE);
            router.netlink.hairpin(index);
        }
        for (address, gateway) in addresses.iter().zip([ip(ROUTER4), ROUTER6.into()]) {
            let address = IpNet::from(ip(address));
            pod.netlink.address(FIRST, address);
            pod.netlink.neighbour(FIRST, gateway, ROUTER_MAC);
            let everywhere = if address.addr().is_ipv4() { "0.0.0.0/0" } else { "::/0" };
            pod.netlink.route(net(everywhere), Some(gateway), FIRST);
            router.netlink.route(address, None, leads_to_pods);
            router.netlink.neighbour(leads_to_pods, address.addr(), mac);
        }
        let machine = self.machines.len();
        self.machines.push(pod);
        let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
        let node = if node == NODE { "node" } else { "remote" };
        self.hosts.push(host(name, machine, &addresses, node));
        Ok(())
    }

    /// Lets the pods there are so far send to each other without the node.
    fn make_neighbours(&self) {
        let pods: Vec<_> = (0..).zip(&self.hosts[2..]).collect();
        for (number, pod) in &pods {
            let netlink = &self.machines[pod.machine].netlink;
            for (other, neighbour) in pods.iter().filter(|(other, _)| other != number) {
                for address in &neighbour.addresses {
                    netlink.route(IpNet::from(*address), None, FIRST);
                    netlink.neighbour(FIRST, *address, pod_mac(0, *other));
                }
            }
        }
    }

    /// Opens the ports of all hosts, and the gateway's ears.
    fn serve(&self, more_ports: &[u16]) {
        let ports: Vec<u16> = [PORT].iter().chain(more_ports).copied().collect();
        for (number, machine) in self.machines.iter().enumerate() {
            let hosts = self.hosts.iter().filter(|host| host.machine == number);
            machine.namespace.run(|| {
                for host in hosts {
                    for address in &host.addresses {
                        self.server.serve(&host.name, *address, &ports);
                    }
                }
            });
        }
        let gateway = self.hosts.iter().filter(|host| host.machine == GATEWAY);
        let owned: Vec<IpAddr> = gateway.flat_map(|host| host.addresses.clone()).collect();
        for ears in self.machines[GATEWAY].namespace.run(|| gateway::ears(FIRST, &owned)) {
            self.server.listen(ears);
        }
    }
}

fn node() -> io::Result<Machine> {
    let node = Machine::new()?;
    node.namespace.sysctls(COMMON);
    node.namespace.sysctls(ROUTER);
    node.namespace.sysctl_if_there("net.bridge.bridge-nf-call-iptables", "1");
    node.namespace.sysctl_if_there("net.bridge.bridge-nf-call-ip6tables", "1");
    node.netlink.up(LOOPBACK);
    Ok(node)
}

fn the_gateway() -> io::Result<Machine> {
    let gateway = Machine::new()?;
    gateway.namespace.sysctls(COMMON);
    gateway.namespace.sysctl_if_there("net.bridge.bridge-nf-call-iptables", "0");
    gateway.namespace.sysctl_if_there("net.bridge.bridge-nf-call-ip6tables", "0");
    gateway.netlink.up(LOOPBACK);
    gateway.netlink.bridge("outside", FIRST, uplink_mac(GATEWAY_NUMBER));
    gateway.netlink.address(FIRST, net("192.0.2.254/24"));
    gateway.netlink.address(FIRST, net("2001:db8::fe/64"));
    Ok(gateway)
}

/// Hardware address of 192.0.2.NUMBER. Neighbour entries are static, so that no first packet waits for
/// neighbour discovery, which takes its time on a link that has just come up.
fn uplink_mac(number: u8) -> Mac {
    [2, 0, 0, 0, 0, number]
}

fn pod_mac(subnet: u8, number: u8) -> Mac {
    [2, 0, 0, 2, subnet, number]
}

fn pod6(subnet: u8, number: u16) -> String {
    Ipv6Addr::new(0xfd00, 0x10, 0x244, subnet.into(), 0, 0, 0, number).to_string()
}

fn host(name: &str, machine: usize, addresses: &[&str], node: &'static str) -> Host {
    let addresses = addresses.iter().map(|text| ip(text)).collect();
    Host { name: name.to_owned(), machine, addresses, node, unbound: name == node }
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn net(text: &str) -> IpNet {
    text.parse().expect("a prefix")
}
