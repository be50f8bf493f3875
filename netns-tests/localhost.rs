//! NodePorts on the loopback addresses, for those who ask for them.

use crate::scenario::{at, lab};
use nft_table::Family;
use serde_json::{Value, json};
use test_support::lab::{Lab, Outcome};
use test_support::proxy::{Manifests, Program, endpoints, objects, service};

const LOOPBACK: [&str; 2] = ["127.0.0.1:30080", "[::1]:30080"];

fn web(lab: &Lab, pods: &[&str]) -> Vec<Value> {
    objects![
        service("web")
            .cluster_ip(10)
            .tcp(80)
            .named("tcp")
            .node_port(30080)
            .udp(80)
            .named("udp")
            .node_port(30080),
        endpoints("web").port("tcp", "TCP", 8080).port("udp", "UDP", 8080).on(lab, pods),
    ]
}

#[test]
fn tcp_is_served_and_udp_rejected() {
    let Some(lab) = lab() else { return };
    let manifests = Manifests::new();
    manifests.apply(web(&lab, &["b"]));
    let config = json!({ "nodePortAddresses": ["192.0.2.0/24", "2001:db8::/64", "localhost"] });
    let mut program = Program::start(&lab, &manifests, Some(config));
    for (family, target) in Family::BOTH.into_iter().zip(LOOPBACK) {
        program.wait_until(|_| {
            lab.from("node").tcp(target) == Outcome::reached("b", lab.ip("node", family))
        });
        let counted = format!("rejected_packets_total{{ip_family=\"{family}\",protocol=\"udp\"}}");
        assert!(program.get(10249, "/metrics").contains(&format!("{counted} 0")));
        assert_eq!(lab.from("node").udp(target), Outcome::Refused);
        assert!(program.get(10249, "/metrics").contains(&format!("{counted} 1")));
        let reached = lab.from("client").tcp(at(lab.ip("node", family), 30080));
        assert_eq!(reached.endpoint(), "b", "the others are as they were");
    }
    // Without an endpoint nobody listens.
    manifests.apply(web(&lab, &[]));
    for target in LOOPBACK {
        program.wait_until(|_| lab.from("node").tcp(target) == Outcome::Reset);
    }
    manifests.apply(web(&lab, &["c"]));
    for target in LOOPBACK {
        program.wait_until(|_| matches!(lab.from("node").tcp(target), Outcome::Reached { endpoint, .. } if endpoint == "c"));
    }
}

#[test]
fn nobody_listens_where_nobody_asked_for_it() {
    let Some(lab) = lab() else { return };
    let manifests = Manifests::new();
    manifests.apply(web(&lab, &["b"]));
    let config = json!({ "nodePortAddresses": ["0.0.0.0/0", "::/0"] });
    let _program = Program::start(&lab, &manifests, Some(config));
    for target in LOOPBACK {
        assert_eq!(lab.from("node").tcp(target), Outcome::Reset);
        assert_eq!(lab.from("node").udp(target), Outcome::Refused);
    }
}
