//! The program itself: its start, its health, and changes of files that it sees on its own.

use crate::scenario::{at, lab};
use nft_table::Family;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use test_support::lab::{Lab, Outcome, cluster_ip};
use test_support::proxy::{Manifests, Program, endpoints, objects, program, service};
use test_support::skip::tell;

/// A Service with one pod.
fn web(lab: &Lab) -> Vec<Value> {
    objects![service("web").cluster_ip(10).tcp(80), endpoints("web").tcp().on(lab, &["b"])]
}

#[test]
fn it_serves_what_is_there_at_start_and_what_comes_and_goes() {
    let Some(lab) = lab() else { return };
    let manifests = Manifests::new();
    manifests.apply(web(&lab));
    let mut program = Program::start(&lab, &manifests, None);
    for family in Family::BOTH {
        // Healthy means that the first state is in the kernel.
        assert_eq!(lab.from("a").tcp(at(cluster_ip(10, family), 80)).endpoint(), "b");
    }
    let late =
        objects![service("late").cluster_ip(11).udp(53), endpoints("late").udp().on(&lab, &["c"]),];
    let vip = at(cluster_ip(11, Family::V6), 53);
    manifests.apply(late.clone());
    program.wait_until(|_| lab.from("a").udp(vip) == Outcome::reached("c", lab.v6("a")));
    manifests.apply(endpoints("late").udp().on(&lab, &["b"]));
    program.wait_until(|_| lab.from("a").udp(vip) == Outcome::reached("b", lab.v6("a")));
    manifests.delete(late);
    let gone = Outcome::Untouched { source: lab.v6("a") };
    program.wait_until(|_| lab.from("a").udp(vip) == gone);
    assert!(program.get(10256, "/livez").starts_with("HTTP/1.1 200"));
    assert!(program.get(10249, "/proxyMode").ends_with("nftables"));
}

/// The JSON of /healthz, with the status line.
fn health(program: &Program<'_>) -> Option<(String, Value)> {
    let answer = program.healthz();
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.lines().next()?.to_owned(), serde_json::from_str(body).ok()?))
}

#[test]
fn healthz_lists_what_is_still_to_come() {
    let Some(lab) = lab() else { return };
    // Nobody listens there.
    let flags = ["--proxy-mode", "nftables", "--master", "http://127.0.0.1:1"];
    let mut program = Program::spawn_with(&lab, &flags);
    let expected = json!(["first commit", "lists of the API server"]);
    program.wait_until(|program| {
        health(program).is_some_and(|(status, body)| {
            status.starts_with("HTTP/1.1 503")
                && body["healthy"] == false
                && body["pending"] == expected
        })
    });
    let page = program.get(10249, "/statusz");
    assert!(page.contains("Waiting for: first commit, lists of the API server"), "{page}");
    program.kill();

    let manifests = Manifests::new();
    manifests.apply(web(&lab));
    let program = Program::start(&lab, &manifests, None);
    let (status, body) = health(&program).expect("an answer");
    assert!(status.starts_with("HTTP/1.1 200"), "{status}");
    assert_eq!((body["healthy"].as_bool(), body.get("pending")), (Some(true), None), "{body}");
}

#[test]
fn a_flushed_ruleset_comes_back_by_itself() {
    let Some(lab) = lab() else { return };
    let manifests = Manifests::new();
    manifests.apply(web(&lab));
    let mut program = Program::start_with(&lab, &manifests, &["--own-table=false"]);
    lab.nft(&["flush", "ruleset"]);
    let vip = at(cluster_ip(10, Family::V4), 80);
    let reached = Outcome::reached("b", lab.v4("a"));
    program.wait_until(|_| lab.from("a").tcp(vip) == reached);
    program.wait_until(|program| program.log().contains("was gone; it has been written again"));
    let metrics = program.get(10249, "/metrics");
    assert!(
        metrics.contains("kubeproxy_nftables_table_rebuilds_total{reason=\"lost\"} 1"),
        "{metrics}"
    );
}

#[test]
fn invalid_objects_are_counted() {
    let Some(lab) = lab() else { return };
    let manifests = Manifests::new();
    manifests.apply(web(&lab));
    manifests.apply(service("bad").cluster_ip(11).tcp(0));
    let program = Program::start(&lab, &manifests, None);
    let metrics = program.get(10249, "/metrics");
    assert!(metrics.contains("kubeproxy_object_problems_total{kind=\"Service\"} 1"), "{metrics}");
}

#[test]
fn a_configuration_file_decides_who_is_masqueraded() {
    let Some(lab) = lab() else { return };
    let manifests = Manifests::new();
    manifests.apply(web(&lab));
    let vip = at(cluster_ip(10, Family::V4), 80);
    for (config, pod_keeps, client_keeps) in [
        (json!({}), true, true),
        (json!({ "clusterCIDR": "10.244.0.0/16,fd00:10:244::/56" }), true, false),
        (
            json!({ "clusterCIDR": "10.244.0.0/16", "mode": "nftables", "nftables": { "masqueradeAll": true } }),
            false,
            false,
        ),
        (
            json!({ "detectLocalMode": "InterfaceNamePrefix", "detectLocal": { "interfaceNamePrefix": "veth-" } }),
            true,
            false,
        ),
    ] {
        let program = Program::start(&lab, &manifests, Some(config.clone()));
        for (host, keeps) in [("a", pod_keeps), ("client", client_keeps)] {
            let seen = lab.v4(if keeps { host } else { "node" });
            assert_eq!(lab.from(host).tcp(vip), Outcome::reached("b", seen), "{host}: {config}");
        }
        program.kill();
    }
}

#[test]
fn files_are_yaml_with_several_documents_and_a_broken_one_keeps_its_last_state() {
    let Some(lab) = lab() else { return };
    let manifests = Manifests::new();
    let text = |endpoint: &str| {
        format!(
            "apiVersion: v1
kind: Service
metadata: {{ name: web }}
spec:
  clusterIP: 10.96.0.10
  ports:
  - port: 80
---
# Nothing but what is needed: the API server's defaults apply.
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{ name: web-1, labels: {{ kubernetes.io/service-name: web }} }}
addressType: IPv4
ports:
- port: 8080
endpoints:
- addresses: [{endpoint}]
"
        )
    };
    manifests.write("web.yaml", &text("10.244.0.12"));
    let mut program = Program::start(&lab, &manifests, None);
    let from_a = |lab: &Lab| lab.from("a").tcp("10.96.0.10:80");
    assert_eq!(from_a(&lab).endpoint(), "b");
    manifests.write("web.yaml", "apiVersion: v1\nkind: [");
    program.wait_until(|program| program.log().contains("web.yaml"));
    assert_eq!(from_a(&lab).endpoint(), "b", "the last good state stays");
    manifests.write("web.yaml", &text("10.244.1.11"));
    program.wait_until(|_| from_a(&lab).endpoint() == "c");
}

#[test]
fn a_symlink_swap_as_of_a_config_map_volume_is_seen() {
    use std::os::unix::fs::symlink;
    let Some(lab) = lab() else { return };
    let manifests = Manifests::new();
    let state = |name: &str, pods: &[&str]| {
        let directory = manifests.path().join(name);
        std::fs::create_dir(&directory).expect("make a directory");
        let list =
            objects![service("web").cluster_ip(10).tcp(80), endpoints("web").tcp().on(&lab, pods),];
        let list = json!({ "apiVersion": "v1", "kind": "List", "items": list });
        std::fs::write(directory.join("all.yaml"), list.to_string()).expect("write");
        let draft = manifests.path().join("..data_tmp");
        symlink(name, &draft).expect("link");
        std::fs::rename(draft, manifests.path().join("..data")).expect("swap");
    };
    state("..one", &["b"]);
    symlink("..data/all.yaml", manifests.path().join("all.yaml")).expect("link");
    let mut program = Program::start(&lab, &manifests, None);
    let vip = at(cluster_ip(10, Family::V6), 80);
    assert_eq!(lab.from("a").tcp(vip).endpoint(), "b");
    state("..two", &["c"]);
    program.wait_until(|_| lab.from("a").tcp(vip).endpoint() == "c");
}

#[test]
fn cleanup_removes_the_table_and_nothing_else() {
    let Some(lab) = lab() else { return };
    let manifests = Manifests::new();
    manifests.apply(service("web").cluster_ip(10).tcp(80));
    lab.nft(&["add table inet mine"]);
    let status = Program::start(&lab, &manifests, None).terminate();
    assert!(status.success(), "{status}");
    let tables = || lab.nft(&["list", "tables"]);
    assert!(tables().contains("table inet kube-proxy"), "the rules stay");
    lab.node().output(env!("CARGO_BIN_EXE_kube-proxy"), &["--cleanup"]);
    assert_eq!(tables(), "table inet mine\n");
}

/// Many Services, with endpoints.
fn many(count: u32) -> Vec<Value> {
    let objects = (0..count).flat_map(|index| {
        let name = format!("many-{index}");
        let address = |base: u32| std::net::Ipv4Addr::from(base + index).to_string();
        let endpoints: Vec<Value> = (0..10)
            .map(|n| json!({ "addresses": [std::net::Ipv4Addr::from(0x0a80_0000 + index * 16 + n)] }))
            .collect();
        [
            json!({
                "apiVersion": "v1", "kind": "Service",
                "metadata": { "namespace": "default", "name": name },
                "spec": {
                    "clusterIP": address(0x0a60_0100), "clusterIPs": [address(0x0a60_0100)],
                    "ports": [{ "port": 80, "protocol": "TCP" }],
                },
            }),
            json!({
                "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
                "metadata": {
                    "namespace": "default", "name": name,
                    "labels": { "kubernetes.io/service-name": name },
                },
                "addressType": "IPv4",
                "ports": [{ "port": 8080, "protocol": "TCP" }],
                "endpoints": endpoints,
            }),
        ]
    });
    objects.collect()
}

/// Much longer than it may take, for the machine may be busy.
const SOON: Duration = Duration::from_secs(5);

#[test]
fn it_ends_soon_when_it_is_told_to_whatever_it_does() {
    let Some(lab) = lab() else { return };
    // With an API server that never answers.
    let listen = || std::net::TcpListener::bind(("127.0.0.1", 0)).expect("listen");
    let silent = lab.node().namespace.run(listen);
    let master = format!("--master=http://{}", silent.local_addr().expect("bound"));
    let mut waiting = Program::spawn_with(&lab, &[&master]);
    waiting.wait_until(|program| program.log().contains("listening"));
    waiting.signal(Signal::SIGTERM);
    assert!(waiting.wait(SOON).is_some_and(|status| status.success()), "{}", waiting.log());
    // While it reads and loads much. How far it is after a moment depends on the machine; all moments are tried.
    let manifests = Manifests::new();
    manifests.apply(many(5000));
    for milliseconds in [0, 50, 200, 400, 600, 800, 1200, 2000] {
        let mut loading = Program::spawn(&lab, &manifests, None);
        if milliseconds > 0 {
            loading.wait_until(|program| !program.log().is_empty());
            std::thread::sleep(Duration::from_millis(milliseconds));
        }
        loading.signal(Signal::SIGTERM);
        let status = loading.wait(SOON);
        // Before the first line there is nobody who could take a signal.
        let is_good = status.is_some_and(|status| status.success() || milliseconds == 0);
        assert!(is_good, "after {milliseconds} ms: {status:?}\n{}", loading.log());
    }
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut idle = Program::start(&lab, &manifests, None);
        idle.signal(signal);
        assert!(idle.wait(SOON).is_some_and(|status| status.success()), "{}", idle.log());
    }
}

#[test]
fn nobody_has_to_read_its_log() {
    let Some(lab) = lab() else { return };
    let manifests = Manifests::new();
    manifests.apply(web(&lab));
    let mut program = Program::start(&lab, &manifests, None);
    program.stop_reading();
    // Much to say: more than a pipe and the queue of lines hold.
    let dropped = |program: &Program<'_>| {
        let metrics = program.get(10249, "/metrics");
        let line =
            metrics.lines().find(|line| line.starts_with("kubeproxy_log_lines_dropped_total "));
        line.and_then(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).unwrap_or_default()
    };
    let bad = |index: u32| {
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": { "namespace": "default", "name": format!("bad-{index}") },
            "spec": { "clusterIP": "10.96.1.1", "ports": [{ "port": 0 }] },
        })
    };
    let items: Vec<Value> = (0..20_000).map(bad).collect();
    let list = json!({ "apiVersion": "v1", "kind": "List", "items": items });
    manifests.write("bad.json", &list.to_string());
    program.wait_until(|program| dropped(program) > 0);
    manifests.apply(endpoints("web").tcp().on(&lab, &["a"]));
    let vip = at(cluster_ip(10, Family::V4), 80);
    program.wait_until(|_| lab.from("b").tcp(vip).endpoint() == "a");
    program.signal(Signal::SIGTERM);
    assert!(program.wait(SOON).is_some_and(|status| status.success()));
}

/// Where the kernel watches no more files, because others use up what a user may have, changes are found all the same.
#[test]
fn without_inotify_changes_are_found() {
    if lab().is_none() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let log = directory.path().join(".log");
    // In namespaces of its own, for the limit is one of the whole user.
    let script =
        "ip link set lo up; echo 0 > /proc/sys/user/max_inotify_instances; exec \"$0\" \"$@\"";
    let mut child = Command::new("unshare")
        .args(["--user", "--map-root-user", "--net", "--kill-child", "--fork", "sh", "-c", script])
        .arg(program())
        .args(["--conntrack-max-per-core=0", "--hostname-override=node", "-v=4", "--manifests"])
        .arg(directory.path())
        .stderr(std::fs::File::create(&log).expect("a log"))
        .spawn()
        .expect("unshare of util-linux");
    let mut wait_for = |text: &str| {
        let start = Instant::now();
        loop {
            let log = std::fs::read_to_string(&log).expect("the log");
            if log.contains(text) {
                return;
            }
            let ended = child.try_wait().expect("wait");
            assert!(ended.is_none() && start.elapsed() < Duration::from_secs(30), "{text}:\n{log}");
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    wait_for("the kernel watches no more files");
    wait_for("0 Services are in the kernel");
    let [service]: [Value; 1] =
        objects![service("late").cluster_ip(1).tcp(80)].try_into().expect("one object");
    std::fs::write(directory.path().join("late.json"), service.to_string()).expect("written");
    // Of the second commit alone it is said how long planning took.
    wait_for(": planning ");
    child.kill().expect("it runs");
    child.wait().expect("it ends");
}

/// A firewall whose policy is to drop what is forwarded: the log says so, and what it says helps.
#[test]
fn a_firewall_that_drops_what_is_forwarded_is_named() {
    let Some(lab) = lab() else { return };
    let node = |script: &str| {
        let run = || Command::new("sh").args(["-ec", script]).status().expect("a shell");
        assert!(lab.node().namespace.run(run).success(), "{script}");
    };
    node("iptables-nft -P FORWARD DROP");
    let manifests = Manifests::new();
    manifests.apply(web(&lab));
    let mut program = Program::start(&lab, &manifests, None);
    program.wait_until(|program| program.log().contains("chain ip filter FORWARD drops"));
    let vip = at(cluster_ip(10, Family::V4), 80);
    assert_eq!(lab.from("client").tcp(vip), Outcome::TimedOut);
    let log = program.log();
    let advice = log.split_once("this does: ").expect("advice").1.lines().next().expect("a line");
    node(&advice.replacen("iptables", "iptables-nft", 1));
    assert_eq!(lab.from("client").tcp(vip).endpoint(), "b");
}

/// Rules that iptables-legacy keeps cannot be seen: the log names the command that removes those of kube-proxy, and no
/// others.
#[test]
fn what_iptables_legacy_left_is_named() {
    let Some(lab) = lab() else { return };
    let node = |script: &str| {
        let run = || Command::new("sh").args(["-ec", script]).output().expect("a shell");
        let output = lab.node().namespace.run(run);
        assert!(output.status.success(), "{script}: {output:?}");
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    let has_legacy = || Command::new("iptables-legacy").args(["-t", "nat", "-S"]).output();
    if !lab.node().namespace.run(has_legacy).is_ok_and(|output| output.status.success()) {
        return tell("this kernel has no iptables-legacy");
    }
    node(
        "iptables-legacy -t nat -N KUBE-SERVICES
         iptables-legacy -t nat -A PREROUTING -m comment --comment 'kubernetes service portals' -j KUBE-SERVICES
         iptables-legacy -t nat -N OTHERS
         iptables-legacy -t nat -A OUTPUT -j OTHERS",
    );
    let manifests = Manifests::new();
    let mut program = Program::start(&lab, &manifests, None);
    program.wait_until(|program| program.log().contains("iptables-legacy has rules, in nat"));
    let log = program.log();
    let advice = log.split_once("are removed by: ").expect("advice").1;
    node(advice.lines().next().expect("a line"));
    let rules = node("iptables-legacy-save");
    assert!(!rules.contains("KUBE-") && rules.contains("-A OUTPUT -j OTHERS"), "{rules}");
}

/// As in the container that serves, whose /proc/sys is read-only: an admin may have changed what the set-up container
/// had set.
#[test]
fn a_setting_of_conntrack_that_it_may_not_make_is_a_warning() {
    let Some(lab) = lab() else { return };
    let serve = format!(
        "mount --bind -o ro /proc/sys /proc/sys && exec {} --proxy-mode nftables --master http://127.0.0.1:1 \
         --hostname-override node --conntrack-max-per-core 0 --conntrack-tcp-timeout-established 7777s",
        program().display()
    );
    let mut child = lab.node().namespace.run(|| {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--kill-child", "sh", "-c", &serve]);
        command.stderr(Stdio::piped()).spawn().expect("start kube-proxy")
    });
    let lines = BufReader::new(child.stderr.take().expect("piped")).lines();
    let mut said = String::new();
    for line in lines.map_while(Result::ok) {
        said.push_str(&line);
        said.push('\n');
        if line.contains(" started ") {
            break;
        }
    }
    let _ = child.kill();
    let _ = child.wait();
    let warns = |line: &str| line.contains("WARN") && line.contains("tcp_timeout_established");
    assert!(said.lines().any(warns), "no warning in:\n{said}");
    assert!(said.contains(" started "), "it does not serve:\n{said}");
}
