//! How much one Service may ask for. An object of a few kilobytes multiplies: ports by addresses, those by source
//! ranges. What goes beyond is cut and reported, so that the Services of others do not wait for it. Endpoints are no
//! part of the object; the plan cuts them.

use super::annotations;
use super::problem::Findings;
use crate::model::{Family, Service};
use std::fmt;
use std::net::IpAddr;

/// Frontends of a Service at most: ports by addresses, and NodePorts. All of them take some 50 ms to write.
pub const FRONTENDS: usize = 10_000;

/// Source ranges of a Service at most, counted for each of the frontends that they are for. The kernel copies all
/// ranges of a family with every change of one (`nft_pipapo_commit`).
pub const RANGES: usize = 2_048;

/// Ports with session affinity at most, and with limits: of each of them the kernel keeps up to 65,535 clients.
pub const CLIENT_PORTS: usize = 64;

/// Cuts a Service to what it may ask for. ClusterIPs stay longest, then load balancer addresses, then external ones;
/// of the ports and of the addresses the first ones.
pub(super) fn keep(service: &mut Service, findings: &mut Findings<'_>) {
    keep_ports(service, findings);
    keep_addresses(service, findings);
    keep_ranges(service, findings);
    if service.ports.len() > CLIENT_PORTS {
        let limits = format!("metadata.annotations[{}]", annotations::LIMITS);
        for (is_there, field) in [
            (service.affinity.take().is_some(), "spec.sessionAffinity"),
            (service.limits.take().is_some(), &limits),
        ] {
            if is_there {
                let error = format_args!("left out, there are more than {CLIENT_PORTS} ports");
                findings.add(field, error);
            }
        }
    }
}

/// Keeps as many ports as fit with their ClusterIPs and NodePorts alone.
fn keep_ports(service: &mut Service, findings: &mut Findings<'_>) {
    let families = service.cluster_ips.len();
    let mut frontends = 0;
    let all = service.ports.len();
    let too_many = service.ports.iter().position(|port| {
        frontends += families * (1 + usize::from(port.node_port.is_some()));
        frontends > FRONTENDS
    });
    if let Some(kept) = too_many {
        service.ports.truncate(kept);
        findings.add("spec.ports", Cut { kept, all });
    }
}

/// Keeps as many addresses as fit for all ports.
fn keep_addresses(service: &mut Service, findings: &mut Findings<'_>) {
    let families = service.cluster_ips.len();
    let ports = service.ports.len();
    let node_ports = service.ports.iter().filter(|port| port.node_port.is_some()).count();
    let left = FRONTENDS.saturating_sub(families * (ports + node_ports));
    let mut room = left / ports.max(1);
    for (field, addresses) in [
        ("status.loadBalancer.ingress", &mut service.load_balancer_ips),
        ("spec.externalIPs", &mut service.external_ips),
    ] {
        let all = addresses.len();
        addresses.truncate(room);
        let kept = addresses.len();
        room -= kept;
        if kept < all {
            findings.add(field, Cut { kept, all });
        }
    }
}

/// Keeps as many ranges as fit for all load balancer addresses of their family.
fn keep_ranges(service: &mut Service, findings: &mut Findings<'_>) {
    let ports = service.ports.len();
    let of = |family| move |ip: &&IpAddr| Family::of(ip) == family;
    for family in Family::BOTH {
        let addresses = service.load_balancer_ips.iter().filter(of(family)).count();
        let most = RANGES / (ports * addresses).max(1);
        let is_own = |range: &ipnet::IpNet| Family::of(&range.addr()) == family;
        let all = service.source_ranges.iter().filter(|range| is_own(range)).count();
        if all <= most {
            continue;
        }
        let mut kept = 0;
        service.source_ranges.retain(|range| {
            kept += usize::from(is_own(range));
            !is_own(range) || kept <= most
        });
        // Not one of them may be left, and that must not let everybody in.
        service.unreadable_ranges.push(family);
        findings.add("spec.loadBalancerSourceRanges", Cut { kept: most, all });
    }
}

/// Says that a list is cut.
struct Cut {
    kept: usize,
    all: usize,
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Cut { kept, all } = self;
        write!(f, "only the first {kept} of {all} count, one Service may not have more")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::intake::problem::ObjectKey;
    use crate::model::{Limits, ObjectName, Protocol, ServicePort, ServiceType};
    use std::net::Ipv4Addr;
    use std::time::Duration;

    fn service(ports: u16, node_ports: bool, external: u32, balancers: u32) -> Service {
        let port = |number| ServicePort {
            name: format!("p{number}").into(),
            protocol: Protocol::Tcp,
            port: number,
            node_port: node_ports.then_some(number),
        };
        let ips = |base: u32, count| (0..count).map(|n| Ipv4Addr::from(base + n).into()).collect();
        Service {
            name: ObjectName::new("default", "large"),
            created: 0,
            service_type: ServiceType::LoadBalancer,
            cluster_ips: vec![Ipv4Addr::new(10, 96, 0, 1).into(), "fd00::1".parse().unwrap()],
            external_ips: ips(0xcb00_0000, external),
            load_balancer_ips: ips(0xc633_0000, balancers),
            ports: (1..=ports).map(port).collect(),
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
        }
    }

    fn kept(mut service: Service) -> (Service, Vec<String>) {
        let key = ObjectKey::Service(service.name.clone());
        let mut findings = Findings::of(&key);
        keep(&mut service, &mut findings);
        (service, findings.into_problems().iter().map(ToString::to_string).collect())
    }

    #[test]
    fn what_fits_stays_whole() {
        let whole = service(100, true, 90, 6);
        assert_eq!(kept(whole.clone()), (whole, Vec::new()));
    }

    #[test]
    fn external_addresses_go_first_and_cluster_ips_stay() {
        let (cut, problems) = kept(service(1000, false, 300, 3));
        let sizes = (cut.ports.len(), cut.load_balancer_ips.len(), cut.external_ips.len());
        assert_eq!(sizes, (1000, 3, 5));
        assert_eq!(
            problems,
            [
                "Service default/large: spec.externalIPs: only the first 5 of 300 count, one Service may not have more"
            ]
        );
        let (cut, problems) = kept(service(6000, true, 10, 10));
        assert_eq!((cut.ports.len(), cut.external_ips.len()), (2500, 0));
        assert_eq!(problems.len(), 3, "{problems:?}");
    }

    #[test]
    fn ranges_are_counted_for_each_frontend_and_cutting_them_opens_nothing() {
        let mut many = service(2, false, 0, 2);
        let range = |n: u32| ipnet::Ipv4Net::new_assert(Ipv4Addr::from(n << 8), 24).into();
        many.source_ranges = (0..3000).map(range).collect();
        many.source_ranges.push("fd00::/8".parse().unwrap());
        let (cut, problems) = kept(many);
        assert_eq!(cut.source_ranges.len(), RANGES / 4 + 1);
        assert_eq!(cut.unreadable_ranges, [Family::V4]);
        assert_eq!(problems.len(), 1, "{problems:?}");
    }

    #[test]
    fn affinity_and_limits_are_for_services_of_few_ports() {
        let with = |ports| Service {
            affinity: Some(Duration::from_secs(1)),
            limits: Limits::parse("open=5").ok(),
            ..service(ports, false, 0, 0)
        };
        let (kept_all, problems) = kept(with(64));
        assert!(kept_all.affinity.is_some() && kept_all.limits.is_some() && problems.is_empty());
        let (cut, problems) = kept(with(65));
        assert!(cut.affinity.is_none() && cut.limits.is_none());
        assert_eq!(
            problems,
            [
                "Service default/large: spec.sessionAffinity: left out, there are more than 64 ports",
                "Service default/large: metadata.annotations[nft.kube-proxy/limits]: left out, there are more than 64 ports"
            ]
        );
    }
}
