//! NodeLocal DNSCache binds the DNS Service's ClusterIP on the node and takes its packets out of connection
//! tracking; the proxy must let them pass.

use crate::scenario::at;
use nft_table::Family;
use test_support::lab::{Lab, Outcome, cluster_ip};
use test_support::proxy::{Config, Proxy, endpoints, objects, service, service_cidr};

/// As the cache writes them, with a port that this lab's service is on.
const RULES: &str = "
table inet dns-cache {
	set addresses4 { type ipv4_addr; elements = { 10.96.0.10 } }
	set addresses6 { type ipv6_addr; elements = { fd00:10:96::a } }
	chain in {
		type filter hook prerouting priority raw;
		ip daddr @addresses4 th dport 5300 notrack
		ip6 daddr @addresses6 th dport 5300 notrack
	}
	chain out {
		type filter hook output priority raw;
		ip daddr @addresses4 th dport 5300 notrack
		ip6 daddr @addresses6 th dport 5300 notrack
		ip saddr @addresses4 th sport 5300 notrack
		ip6 saddr @addresses6 th sport 5300 notrack
	}
}
";

#[test]
fn a_cluster_ip_that_is_bound_on_the_node_and_not_tracked_is_reached() {
    if !test_support::lab::has_nft() {
        return;
    }
    let Some(mut lab) = Lab::builder().pod("a").pod("b").outside("client").build() else { return };
    let mut proxy = Proxy::new(&lab, Config::default());
    let cluster = objects![
        service("kube-system/kube-dns")
            .cluster_ip(10)
            .udp(5300)
            .named("dns")
            .tcp(5300)
            .named("dns-tcp"),
        endpoints("kube-system/kube-dns")
            .port("dns", "UDP", 8080)
            .port("dns-tcp", "TCP", 8080)
            .on(&lab, &["b"]),
        service_cidr("kubernetes", &["10.96.0.0/16", "fd00:10:96::/112"]),
    ];
    proxy.apply(cluster);
    let ask = |lab: &Lab, host: &str, family| {
        let target = at(cluster_ip(10, family), 5300);
        (lab.from(host).udp(target), lab.from(host).tcp(target))
    };
    for family in Family::BOTH {
        let reached = Outcome::reached("b", lab.ip("a", family));
        assert_eq!(ask(&lab, "a", family), (reached.clone(), reached));
    }
    let rules = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(rules.path(), RULES).expect("write");
    lab.nft(&["-f", rules.path().to_str().expect("UTF-8")]);
    for family in Family::BOTH {
        lab.serve_on_node("cache", cluster_ip(10, family), 5300);
        for host in ["a", "node"] {
            let (udp, tcp) = ask(&lab, host, family);
            assert_eq!(udp.endpoint(), "cache:5300", "{host} {family}");
            assert_eq!(tcp.endpoint(), "cache:5300", "{host} {family}");
        }
    }
    lab.nft(&["delete table inet dns-cache"]);
    for family in Family::BOTH {
        assert_eq!(ask(&lab, "a", family).0.endpoint(), "b", "tracked again: a Service");
    }
}
