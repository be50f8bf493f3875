//! Coming from the ipvs mode of kube-proxy: its virtual servers and its device go once the table serves, and those of
//! others stay.
//!
//! It needs a kernel with ip_vs, and the program ipvsadm.

use nft_table::Family;
use serde_json::json;
use std::process::Command;
use test_support::lab::{Lab, Outcome, PORT, cluster_ip, external_ip};
use test_support::proxy::{Manifests, Program, endpoints, objects, program, service};

/// As the ipvs mode would have it for a Service with a NodePort and an external IP; and what belongs to others.
fn set_up(lab: &Lab) {
    let run = |program: &str, arguments: &str| {
        let arguments: Vec<&str> = arguments.split(' ').collect();
        lab.node().namespace.output(program, &arguments)
    };
    run("ip", "link add kube-ipvs0 type dummy");
    for family in Family::BOTH {
        let addresses = [cluster_ip(10, family), external_ip(9, family)];
        for address in addresses {
            run("ip", &format!("addr add {address} dev kube-ipvs0"));
        }
        let pod = lab.ip("b", family);
        let node = lab.ip("node", family);
        let servers = [(addresses[0], 80), (addresses[1], 80), (node, 30080), (node, 8080)];
        for (address, port) in servers {
            let (server, real) =
                (std::net::SocketAddr::new(address, port), std::net::SocketAddr::new(pod, PORT));
            run("ipvsadm", &format!("-A -t {server} -s rr"));
            run("ipvsadm", &format!("-a -t {server} -r {real} -m"));
        }
    }
    run("ipvsadm", "-A -f 7 -s rr");
}

/// The virtual servers, as ipvsadm says them.
fn servers(lab: &Lab) -> Vec<String> {
    let rules = lab.node().namespace.output("ipvsadm", &["-S", "-n"]);
    let mut servers: Vec<String> = rules
        .lines()
        .filter_map(|line| line.strip_prefix("-A ")?.split(" -s").next())
        .map(str::to_owned)
        .collect();
    servers.sort();
    servers
}

fn has_device(lab: &Lab) -> bool {
    lab.node().namespace.try_output("ip", &["link", "show", "kube-ipvs0"]).is_ok()
}

/// What is left: the external IP is in `excludeCIDRs`, port 8080 is no NodePort.
fn of_others(lab: &Lab) -> Vec<String> {
    let [v4, v6] = Family::BOTH.map(|family| (external_ip(9, family), lab.ip("node", family)));
    let mut others = vec![
        "-f 7".to_owned(),
        format!("-t {}:80", v4.0),
        format!("-t {}:8080", v4.1),
        format!("-t [{}]:80", v6.0),
        format!("-t [{}]:8080", v6.1),
    ];
    others.sort();
    others
}

fn lab() -> Lab {
    let status = Command::new("modprobe").args(["-a", "ip_vs", "ip_vs_rr", "dummy"]).status();
    assert!(status.expect("modprobe").success(), "the kernel has no IPVS");
    Lab::builder().pod("a").pod("b").outside("client").build().expect("a lab")
}

fn excluded() -> serde_json::Value {
    let networks = Family::BOTH.map(|family| {
        format!("{}/{}", external_ip(9, family), if family == Family::V4 { 32 } else { 128 })
    });
    json!({"mode": "ipvs", "ipvs": {"excludeCIDRs": networks}})
}

#[test]
fn what_the_ipvs_mode_left_goes_and_what_is_others_stays() {
    let lab = lab();
    set_up(&lab);
    assert_eq!(servers(&lab).len(), 9);
    let manifests = Manifests::new();
    manifests.apply(objects![
        service("web").cluster_ip(10).tcp(80).node_port(30080),
        endpoints("web").tcp().on(&lab, &["b"]),
    ]);
    let mut program = Program::start(&lab, &manifests, Some(excluded()));
    program.wait_until(|_| !has_device(&lab));
    assert_eq!(servers(&lab), of_others(&lab));
    for family in Family::BOTH {
        let reached = lab.from("a").tcp(std::net::SocketAddr::new(cluster_ip(10, family), 80));
        assert_eq!(reached, Outcome::reached("b", lab.ip("a", family)));
        let node_port = std::net::SocketAddr::new(lab.ip("node", family), 30080);
        assert_eq!(lab.from("client").tcp(node_port).endpoint(), "b");
    }
    assert!(program.log().contains("kube-ipvs0 and 4 virtual servers"), "{}", program.log());
}

#[test]
fn cleanup_removes_it_as_well() {
    let lab = lab();
    set_up(&lab);
    let directory = tempfile::tempdir().expect("a directory");
    let mut config = excluded();
    config["apiVersion"] = "kubeproxy.config.k8s.io/v1alpha1".into();
    config["kind"] = "KubeProxyConfiguration".into();
    let path = directory.path().join("config.yaml");
    std::fs::write(&path, config.to_string()).expect("write the configuration");
    let arguments = ["--cleanup", "--config", path.to_str().expect("text")];
    lab.node().namespace.output(program().to_str().expect("text"), &arguments);
    assert!(!has_device(&lab));
    // Nobody knows any more which ports were NodePorts.
    let mut expected = of_others(&lab);
    expected.extend(
        Family::BOTH.map(|family| {
            format!("-t {}", std::net::SocketAddr::new(lab.ip("node", family), 30080))
        }),
    );
    expected.sort();
    assert_eq!(servers(&lab), expected);
}
