//! The variants: whose rules a node has, and how they get there.

use crate::node::{ENDPOINT_PORT, Node, load};
use crate::rows::Row;
use crate::services::{self, PLAIN, PORT, endpoint};
use kube_proxy::model::Algorithm;
use nft_table::Family;
use serde_json::{Value, json};
use std::fmt;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use test_support::cluster::process::Process;
use test_support::cluster::{Cluster, objects};
use test_support::lab;

/// Whose rules, and for how many Services beside the measured ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rules {
    Nothing,
    Conntrack,
    Dnat,
    Ours(usize),
    /// Ours, counting connections by Service.
    ByService(usize),
    /// The same by endpoint.
    ByEndpoint(usize),
    /// Ours, choosing endpoints otherwise.
    By(Algorithm, usize),
    /// The least that a table of so many Services could have, written by hand: one look to choose an endpoint, or two as
    /// ours has them, and one rule that masquerades.
    Least(Looks, usize),
    /// Ours, where all Services have limits that nobody reaches: what they are, and how many Services.
    Limited(&'static str, usize),
    Upstream(usize),
}

/// In how many maps a packet is looked up before it has an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Looks {
    /// Only where all Services have as many endpoints.
    One,
    Two,
}

/// Limits for [`Rules::Limited`]. All flows of a source are open ones of one client, so the second is measured at its
/// worst: the kernel looks at all of them for each new one.
pub const LIMITS: [&str; 2] = ["new-per-second=1000000", "new-per-second=1000000, open=1000000"];

/// Switches conntrack on; no packet ever meets the rule.
const CONNTRACK: &str = "table inet tracked {
    chain nowhere {
        ct state new
    }
}
";
/// A proxy that takes longer counts as broken. Upstream's needs a minute for 10,000 Services.
const PATIENCE: Duration = Duration::from_secs(1200);
/// Objects in a transaction of etcd, which has at most 128 operations.
const AT_ONCE: usize = 120;

impl Rules {
    /// Gives a node its rules, but for the hand-written ones, which change from row to row.
    pub fn load(self, node: &Node, tools: Option<&Path>) {
        match self {
            Rules::Nothing | Rules::Dnat => {}
            Rules::Conntrack => load(&node.lab.node().namespace, CONNTRACK),
            Rules::Ours(size) => ours(node, size, &[], None),
            Rules::ByService(size) => ours(node, size, &["--count-connections=service"], None),
            Rules::ByEndpoint(size) => ours(node, size, &["--count-connections=endpoint"], None),
            Rules::By(algorithm, size) => {
                ours(node, size, &[&format!("--balancing={}", algorithm.name())], None);
            }
            Rules::Least(looks, size) => load(&node.lab.node().namespace, &least(looks, size)),
            Rules::Limited(limits, size) => ours(node, size, &[], Some(limits)),
            Rules::Upstream(size) => upstream(node, size, tools.expect("build-tools ran")),
        }
    }
}

/// Loads the one rule that translates (or refuses) what a row sends.
pub fn load_dnat(node: &Node, row: Row, family: Family) {
    let target = match row {
        Row::NoService | Row::EstablishedNoService => Row::ClusterIp,
        other => other,
    };
    let target = target.target(Rules::Dnat, family, 0);
    let (ip, pods) = match family {
        Family::V4 => ("ip", "10.244.0.0/16"),
        Family::V6 => ("ip6", "fd00:10:244::/56"),
    };
    let protocol = if row == Row::Connection { "tcp" } else { "udp" };
    let action = match row {
        Row::NoEndpoints => "reject".to_owned(),
        _ => {
            let to = SocketAddr::new(endpoint(0, family), ENDPOINT_PORT);
            format!("dnat {ip} to {to}")
        }
    };
    let rule = format!("{ip} daddr {} {protocol} dport {} {action}", target.ip(), target.port());
    let masquerade = match row {
        Row::Local => String::new(),
        _ => format!("ct status dnat {ip} saddr != {pods} masquerade"),
    };
    let ruleset = format!(
        "flush ruleset
table inet by-hand {{
    chain prerouting {{
        type nat hook prerouting priority -100
        {rule}
    }}
    chain output {{
        type nat hook output priority -100
        {rule}
    }}
    chain postrouting {{
        type nat hook postrouting priority 100
        {masquerade}
    }}
}}
"
    );
    load(&node.lab.node().namespace, &ruleset);
}

/// A table that serves ClusterIPs and nothing else.
fn least(looks: Looks, size: usize) -> String {
    let mut text = "table inet least {\n".to_owned();
    for (digit, ip, family, pods) in
        [(4, "ip", Family::V4, "10.244.0.0/16"), (6, "ip6", Family::V6, "fd00:10:244::/56")]
    {
        let vips = (0..size).map(|number| services::other_ip(number, family));
        let vips: Vec<_> = std::iter::once(lab::cluster_ip(PLAIN, family)).chain(vips).collect();
        let (mut frontends, mut slots) = (Vec::new(), Vec::new());
        for vip in vips {
            for protocol in ["tcp", "udp"] {
                frontends.push(format!("{vip} . {protocol} . {PORT} : goto balance{digit}"));
                slots.extend((0..services::ENDPOINTS).map(|slot| {
                    let to = endpoint(slot, family);
                    format!("{vip} . {protocol} . {PORT} . {slot} : {to} . {ENDPOINT_PORT}")
                }));
            }
        }
        let (frontends, slots) = (frontends.join(", "), slots.join(", "));
        let key = format!("{ip} daddr . meta l4proto . th dport");
        let random = format!("numgen random mod {}", services::ENDPOINTS);
        let dnat = format!("dnat {ip} to {key} . {random} map @slots{digit}");
        let entrance = match looks {
            Looks::One => dnat.clone(),
            Looks::Two => format!("{key} vmap @frontends{digit}"),
        };
        text += &format!(
            "map slots{digit} {{ typeof {key} . {random} : {ip} daddr . th dport; elements = {{ {slots} }}; }}
chain balance{digit} {{ {dnat}; }}
map frontends{digit} {{ typeof {key} : verdict; elements = {{ {frontends} }}; }}
chain prerouting {{ type nat hook prerouting priority -100; {entrance}; }}
chain output {{ type nat hook output priority -100; {entrance}; }}
chain postrouting {{ type nat hook postrouting priority 100; ct status dnat {ip} saddr != {pods} masquerade; }}
"
        );
    }
    text + "}\n"
}

/// What both proxies are configured to.
fn config() -> Value {
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration",
        "mode": "nftables", "clusterCIDR": "10.244.0.0/16,fd00:10:244::/56",
        "nodePortAddresses": ["192.0.2.0/24", "2001:db8::/64"],
        // The table's size is the whole machine's, so it is left alone.
        "conntrack": {"maxPerCore": 0},
    })
}

fn node_object(node: &Node) -> Value {
    let addresses = [node.lab.v4("node"), node.lab.v6("node")];
    objects::node("node", &addresses, &["10.244.0.0/24", "fd00:10:244::/64"])
}

/// Runs this project's program on manifests until traffic flows.
fn ours(node: &Node, size: usize, flags: &[&str], limits: Option<&str>) {
    let directory = tempfile::TempDir::new().expect("a directory");
    let path = |name: &str| directory.path().join(name);
    std::fs::create_dir(path("manifests")).expect("a directory");
    let mut items = services::all(size);
    for service in items.iter_mut().filter(|item| item["kind"] == "Service") {
        if let Some(limits) = limits {
            service["metadata"]["annotations"] = json!({"nft.kube-proxy/limits": limits});
        }
    }
    items.push(node_object(node));
    let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
    std::fs::write(path("manifests/all.json"), list.to_string()).expect("write the manifests");
    std::fs::write(path("config"), config().to_string()).expect("write the configuration");
    let mut command = Command::new(env!("CARGO_BIN_EXE_kube-proxy"));
    command.arg("--manifests").arg(path("manifests")).arg("--config").arg(path("config"));
    command.arg("--hostname-override=node").args(flags);
    let process = Process::start(&node.lab.node().namespace, command, &path("log"));
    wait_until_served(node, process);
}

/// Runs an API server and upstream's program until traffic flows.
fn upstream(node: &Node, size: usize, tools: &Path) {
    let cluster = Cluster::start(&node.lab, tools.to_owned());
    let key = |object: &Value| {
        let name = object["metadata"]["name"].as_str().expect("a name");
        match object["kind"] == "Service" {
            true => format!("services/specs/default/{name}"),
            false => format!("endpointslices/default/{name}"),
        }
    };
    for some in services::all(size).chunks(AT_ONCE) {
        let pairs: Vec<(String, Value)> =
            some.iter().map(|object| (key(object), object.clone())).collect();
        cluster.store(&pairs);
    }
    cluster.apply(&node_object(node));
    cluster.wait_idle();
    let mut config = config();
    let kubeconfig = cluster.directory().join("admin.kubeconfig");
    config["clientConnection"] = json!({"kubeconfig": kubeconfig});
    let path = cluster.directory().join("packets.conf");
    std::fs::write(&path, config.to_string()).expect("write the configuration");
    let mut command = Command::new(cluster.tool("kube-proxy"));
    command.arg("--config").arg(path).arg("--hostname-override=node");
    let log = cluster.directory().join("kube-proxy.log");
    let process = Process::start(&node.lab.node().namespace, command, &log);
    wait_until_served(node, process);
}

/// Waits until Services of both families are served and the program has nothing more to write. Then it is killed,
/// and what it has written stays.
fn wait_until_served(node: &Node, mut process: Process) {
    let start = Instant::now();
    for family in Family::BOTH {
        let target = SocketAddr::new(lab::cluster_ip(PLAIN, family), PORT);
        let connect = || TcpStream::connect_timeout(&target, Duration::from_millis(500));
        while node.lab.machine("pod").namespace.run(|| connect().is_err()) {
            process.assert_running();
            assert!(start.elapsed() < PATIENCE, "{family} Services are never served");
            std::thread::sleep(Duration::from_millis(100));
        }
        drop(node.listener.accept().expect("the connection"));
    }
    process.wait_idle();
}

impl fmt::Display for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rules::Nothing => f.pad("nothing"),
            Rules::Conntrack => f.pad("conntrack"),
            Rules::Dnat => f.pad("one `dnat` rule"),
            Rules::Ours(size) => write!(f, "ours, {size}"),
            Rules::ByService(size) => write!(f, "counted by Service, {size}"),
            Rules::ByEndpoint(size) => write!(f, "counted by endpoint, {size}"),
            Rules::By(algorithm, size) => write!(f, "{}, {size}", algorithm.name()),
            Rules::Least(Looks::One, size) => write!(f, "one look, {size}"),
            Rules::Least(Looks::Two, size) => write!(f, "two looks, {size}"),
            Rules::Limited(limits, size) => write!(f, "{limits}, {size}"),
            Rules::Upstream(size) => write!(f, "upstream, {size}"),
        }
    }
}
