//! Objects of hostile or careless neighbours: whatever they ask for, a Service beside them is served, keeps its updates,
//! and the proxy keeps its health and its memory.

use crate::scenario::{at, lab};
use nft_table::Family;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};
use test_support::lab::{Lab, Load, Outcome, cluster_ip};
use test_support::proxy::{Manifests, Program, endpoints, objects, service};

/// How long an update of the victim may take, in a debug build on a busy machine. The worst is printed.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often the victim changes beside each case, and as often while that changes as well.
const UPDATES: usize = 6;

/// The most memory of the process, in MiB.
const MEMORY: u64 = 512;

fn ports(count: u32) -> Value {
    (0..count)
        .map(|n| json!({ "name": format!("p{n}"), "port": 1 + n, "targetPort": 8080 }))
        .collect()
}

fn addresses(count: u32) -> Value {
    (0..count).map(|n| std::net::Ipv4Addr::from(0xcb00_7200 + n).to_string()).collect()
}

/// A Service in the namespace of the hostile, whose endpoints have all its ports; with an address of its own, as the API
/// server gives it.
fn hostile(lab: &Lab, name: &str, ports: Value) -> (Value, Value) {
    static LAST: AtomicU8 = AtomicU8::new(100);
    let ip = LAST.fetch_add(1, Ordering::Relaxed);
    let [mut service]: [Value; 1] =
        objects![service(&format!("hostile/{name}")).only(Family::V4).cluster_ip(ip).tcp(1)]
            .try_into()
            .expect("one object");
    let of_slice: Vec<Value> = ports
        .as_array()
        .expect("a list")
        .iter()
        .map(|port| json!({ "name": port["name"], "protocol": "TCP", "port": 8080 }))
        .collect();
    service["spec"]["ports"] = ports;
    let [mut slice]: [Value; 1] =
        objects![endpoints(&format!("hostile/{name}")).only(Family::V4).tcp().on(lab, &["a"])]
            .try_into()
            .expect("one object");
    slice["ports"] = of_slice.into();
    (service, slice)
}

/// What a neighbour does, by name.
fn cases(lab: &Lab) -> Vec<(&'static str, Vec<Value>)> {
    let with = |name: &str, count: u32, change: &dyn Fn(&mut Value)| {
        let (mut service, slice) = hostile(lab, name, ports(count));
        change(&mut service["spec"]);
        vec![service, slice]
    };
    let external = |count| move |spec: &mut Value| spec["externalIPs"] = addresses(count);
    let mut many_endpoints = with("endpoints", 500, &|_| {});
    many_endpoints[1]["endpoints"] = (0..1000)
        .map(|n| json!({ "addresses": [std::net::Ipv4Addr::from(0x0af5_0000 + n).to_string()] }))
        .collect();
    let mut restricted = with("ranges", 2, &|spec| {
        spec["type"] = json!("LoadBalancer");
        let range = |n: u32| format!("{}/32", std::net::Ipv4Addr::from(0x0b00_0000 + 2 * n));
        spec["loadBalancerSourceRanges"] = (0..20_000).map(range).collect();
    });
    restricted[0]["status"]["loadBalancer"]["ingress"] = json!([{ "ip": "198.51.100.66" }]);
    let mut thief = with("thief", 1, &|spec| {
        spec["ports"] = json!([{ "name": "p0", "port": 80 }]);
        spec["externalIPs"] = json!([cluster_ip(10, Family::V4).to_string()]);
    });
    thief[0]["metadata"]["creationTimestamp"] = json!("2001-01-01T00:00:00Z");
    let both = [with("same-a", 200, &external(200)), with("same-b", 200, &external(200))].concat();
    vec![
        ("1,000 ports by 300 external addresses", with("wide", 1000, &external(300))),
        ("1,000 ports by 1,000 external addresses", with("wider", 1000, &external(1000))),
        ("20,000 ports", with("ports", 20_000, &|_| {})),
        ("500 ports by 1,000 endpoints", many_endpoints),
        ("20,000 source ranges", restricted),
        (
            "session affinity on 1,000 ports",
            with("sticky", 1000, &|spec| spec["sessionAffinity"] = json!("ClientIP")),
        ),
        ("the ClusterIP of somebody else, twenty years before", thief),
        ("two Services with the same 200 ports by 200 addresses", both),
    ]
}

/// The objects of a neighbour with these pods for endpoints.
fn changed(lab: &Lab, objects: &[Value], pods: &[&str]) -> Vec<Value> {
    let mut objects = objects.to_vec();
    for slice in objects.iter_mut().filter(|object| object["kind"] == "EndpointSlice") {
        let address = |pod: &&str| json!({ "addresses": [lab.v4(pod).to_string()] });
        slice["endpoints"] = pods.iter().map(address).collect();
    }
    objects
}

/// Points the victim at another pod and waits until clients get there.
fn update(lab: &Lab, program: &mut Program<'_>, manifests: &Manifests, pod: &str) -> Duration {
    let start = Instant::now();
    manifests.apply(endpoints("victim").tcp().on(lab, &[pod]));
    let vip = at(cluster_ip(10, Family::V4), 80);
    program.wait_until(
        |_| matches!(lab.from("a").tcp(vip), Outcome::Reached { endpoint, .. } if endpoint == pod),
    );
    start.elapsed()
}

fn resident_mib(program: &Program<'_>) -> u64 {
    let status =
        std::fs::read_to_string(format!("/proc/{}/status", program.pid())).expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("its memory");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") / 1024
}

#[test]
fn a_neighbour_harms_nobody() {
    let Some(lab) = lab() else { return };
    let manifests = Manifests::new();
    manifests.apply(objects![
        service("victim").cluster_ip(10).tcp(80).created("2024-01-01T00:00:00Z"),
        endpoints("victim").tcp().on(&lab, &["c"]),
    ]);
    let mut program = Program::start(&lab, &manifests, None);
    let vip = at(cluster_ip(10, Family::V4), 80).to_string();
    let client = lab.from("a");
    let mut updates: Vec<Duration> = Vec::new();
    let (report, ()) = Load::during(&client, &vip, 1, |load| {
        for (name, hostile) in cases(&lab) {
            manifests.apply(hostile.clone());
            let pods = || ["b", "c"].into_iter().cycle().take(UPDATES);
            let beside: Vec<Duration> =
                pods().map(|pod| update(&lab, &mut program, &manifests, pod)).collect();
            let changing: Vec<Duration> = pods()
                .zip([&["a", "c"][..], &["c"], &["a"]].into_iter().cycle())
                .map(|(pod, endpoints)| {
                    manifests.apply(changed(&lab, &hostile, endpoints));
                    update(&lab, &mut program, &manifests, pod)
                })
                .collect();
            println!("{name}: updates beside it {beside:?}, while it changes {changing:?}");
            updates.extend(beside.into_iter().chain(changing));
            assert!(program.get(10256, "/livez").starts_with("HTTP/1.1 200"), "{name}");
            load.wait_for(1);
            manifests.delete(hostile);
            for pod in ["b", "c"] {
                updates.push(update(&lab, &mut program, &manifests, pod));
            }
        }
    });
    updates.sort_unstable();
    let (p99, worst) = (updates[updates.len() * 99 / 100], updates[updates.len() - 1]);
    println!("{} updates, 99 of 100 within {p99:?}, all within {worst:?}", updates.len());
    assert!(worst < PATIENCE, "{worst:?}");
    // A port that a client takes again within seconds may cost a packet whatever a proxy does.
    println!("{} connections, {} lost their first packet", report.answered, report.lost.len());
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    let memory = resident_mib(&program);
    let lines = program.log().lines().count();
    println!("{memory} MiB at most, {lines} lines of log");
    assert!(memory < MEMORY, "{memory} MiB");
    assert!(lines < 200, "{}", program.log());
}
