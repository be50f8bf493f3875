//! The API server goes away, comes back, and forgets.

use super::eventually;
use crate::World;
use std::net::IpAddr;
use std::process::Command;
use std::time::{Duration, Instant};
use test_support::cluster::objects::{cluster_ips, service, slice};
use test_support::lab::{Load, Machine, Outcome};

/// Makes a Service with one endpoint and returns its address.
fn serve(world: &World, name: &str, pod: &str) -> (IpAddr, u16) {
    let made = world.cluster.apply(&service(name));
    world.cluster.apply(&slice(name, name, &[(world.lab.v4(pod), "node")]));
    (cluster_ips(&made)[0], 80)
}

fn remove(world: &World, name: &str) {
    world.cluster.delete(&service(name));
    world.cluster.delete(&slice::<&str>(name, name, &[]));
}

/// How long it is away. The longer, the longer the waits between attempts, up to a minute.
const AWAY: Duration = Duration::from_secs(15);

/// While it is away the last state is served, and what happens after is seen. The token with which the
/// proxy started has been replaced and revoked meanwhile. It is told in a few lines that say what about.
pub fn may_go_away(world: &mut World) {
    world.need_proxy();
    let vip = serve(world, "lasting", "a");
    let World { lab, cluster, proxy, .. } = world;
    let reached = |pod: &str| Outcome::reached(pod, lab.v4("b"));
    eventually(&reached("a"), || lab.from("b").tcp(vip));
    let proxy = proxy.as_mut().expect("started");
    proxy.replace_token(cluster);
    let target = format!("{}:80", vip.0);
    let logged = proxy.process().log().len();
    let (report, ()) = Load::during(&lab.from("b"), &target, 2, |load| {
        cluster.stop_api();
        std::thread::sleep(AWAY);
        load.wait_for(200);
        cluster.start_api(&lab.machine("api").namespace);
        load.wait_for(50);
    });
    report.assert_no_loss();
    proxy.assert_running();
    let log = proxy.process().log().split_off(logged);
    // For each kind the first, second and fourth failure, and that the server is back.
    assert!((1..=16).contains(&log.lines().count()), "{log}");
    assert!(log.lines().all(|line| !line.ends_with("client error (Connect)")), "{log}");
    cluster.apply(&slice("lasting", "lasting", &[(lab.v4("c"), "remote")]));
    eventually(&reached("c"), || lab.from("b").tcp(vip));
    remove(world, "lasting");
}

/// While the proxy is cut off objects come, change and go, and then the history of all that is
/// thrown away.
pub fn an_expired_watch_is_listed_again(world: &mut World) {
    world.need_proxy();
    let [kept, changed, deleted] =
        ["kept", "changed", "deleted"].map(|name| serve(world, name, "a"));
    let from_b = |world: &World, vip| world.lab.from("b").tcp(vip);
    let reached = |world: &World, pod: &str| Outcome::reached(pod, world.lab.v4("b"));
    for vip in [kept, changed, deleted] {
        eventually(&reached(world, "a"), || from_b(world, vip));
    }
    world.cluster.stop_api();
    let namespace = &world.lab.machine("api").namespace;
    world.cluster.start_api_unreachable(namespace);
    remove(world, "deleted");
    world.cluster.apply(&slice("changed", "changed", &[(world.lab.v4("c"), "remote")]));
    let created = serve(world, "created", "a");
    world.cluster.compact();
    for vip in [kept, changed, deleted] {
        assert_eq!(from_b(world, vip), reached(world, "a"), "cut off, the last state stays");
    }
    world.cluster.stop_api();
    world.cluster.start_api(namespace);
    eventually(&reached(world, "a"), || from_b(world, created));
    eventually(&Outcome::TimedOut, || from_b(world, deleted));
    eventually(&reached(world, "c"), || from_b(world, changed));
    assert_eq!(from_b(world, kept), reached(world, "a"));
    for name in ["kept", "changed", "created"] {
        remove(world, name);
    }
}

/// A balancer forgets the connection: nothing comes on it any more, and nothing tells. It is noticed in some 40 s.
pub fn a_silent_connection_is_noticed(world: &mut World) {
    world.need_proxy();
    let vip = serve(world, "silent", "a");
    let World { lab, cluster, .. } = world;
    let reached = |pod: &str| Outcome::reached(pod, lab.v4("b"));
    eventually(&reached("a"), || lab.from("b").tcp(vip));
    let url = cluster.url();
    let port = url.rsplit_once(':').expect("a port").1;
    let run = |machine: &Machine, program: &str, arguments: &[&str]| {
        let output = machine.namespace.run(|| Command::new(program).args(arguments).output());
        let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
        assert!(output.status.success(), "{program}: {output:?}");
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    let filter = format!("dport = :{port}");
    let sockets = run(lab.node(), "ss", &["-tnH", "state", "established", &filter]);
    let own = sockets.lines().filter_map(|line| line.split_whitespace().nth(2)?.rsplit_once(':'));
    let ports: Vec<&str> = own.map(|(_, port)| port).collect();
    assert!(!ports.is_empty(), "no connection: {sockets}");
    let ports = ports.join(", ");
    let rules = format!(
        "table inet silent {{
            chain input {{
                type filter hook input priority 0
                tcp dport {port} tcp sport {{ {ports} }} drop
            }}
            chain output {{
                type filter hook output priority 0
                tcp sport {port} tcp dport {{ {ports} }} drop
            }}
        }}"
    );
    let api = lab.machine("api");
    run(api, "nft", &[&rules]);
    let start = Instant::now();
    cluster.apply(&slice("silent", "silent", &[(lab.v4("c"), "remote")]));
    while lab.from("b").tcp(vip) != reached("c") {
        assert!(start.elapsed() < Duration::from_secs(90), "not noticed");
        std::thread::sleep(Duration::from_millis(200));
    }
    println!("a silent connection was noticed after {:.1?}", start.elapsed());
    run(api, "nft", &["delete table inet silent"]);
    remove(world, "silent");
}
