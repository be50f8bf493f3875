//! Among others: what other programs do to the table, and proxies to each other, unserves nobody for long.

use crate::scenario::{assert_same, at, lab};
use kube_proxy::kernel::{Kernel, Nft};
use nft_table::Family;
use serde_json::{Value, json};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use test_support::lab::{Lab, Load, Outcome, cluster_ip, external_ip};
use test_support::proxy::{
    Config, Manifests, Program, Proxy, endpoints, objects, service, service_cidr,
};

/// What must have happened after this long, however slow the machine.
const PATIENCE: Duration = Duration::from_secs(60);

const SHARED: &[&str] = &["--own-table=false"];

fn cluster(lab: &Lab) -> Vec<Value> {
    objects![
        service_cidr("kubernetes", &["10.96.0.0/16", "fd00:10:96::/112"]),
        service("web").cluster_ip(10).external_ip(7).tcp(80).node_port(30080),
        endpoints("web").tcp().on(lab, &["a", "b", "c"]),
        service("idle").cluster_ip(11).udp(53).node_port(30053),
    ]
}

fn manifests(lab: &Lab) -> Manifests {
    let manifests = Manifests::new();
    manifests.apply(cluster(lab));
    manifests
}

fn listing(lab: &Lab) -> String {
    lab.nft(&["list", "table", "inet", "kube-proxy"])
}

/// Waits until something holds.
#[track_caller]
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "{what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Whether two listings say the same.
fn is_same(one: &str, other: &str) -> bool {
    std::panic::catch_unwind(|| assert_same(one, other)).is_ok()
}

/// The kernel has an owner for tables; asked for with a table that is never there.
fn can_own(lab: &Lab) -> bool {
    lab.node()
        .namespace
        .run(|| Nft::open().and_then(|mut nft| nft.supports_ownership()).expect("ask the kernel"))
}

#[test]
fn nobody_changes_a_table_that_is_owned() {
    let Some(lab) = lab() else { return };
    if !can_own(&lab) {
        return;
    }
    let manifests = manifests(&lab);
    let _program = Program::start(&lab, &manifests, None);
    let before = listing(&lab);
    let (report, ()) = Load::during(&lab.from("client"), "192.0.2.1:30080", 2, |load| {
        load.wait_for(10);
        lab.nft(&["flush ruleset"]);
        for refused in [
            "delete table inet kube-proxy",
            "flush table inet kube-proxy",
            "add element inet kube-proxy cluster-ips4 { 10.96.9.9 }",
            "add chain inet kube-proxy mine",
        ] {
            let refusal = lab.try_nft(&[refused]).expect_err(refused);
            assert!(refusal.contains("Operation not permitted"), "{refused}: {refusal}");
        }
        load.wait_for(10);
    });
    report.assert_no_loss();
    assert_eq!(before, listing(&lab));
}

#[test]
fn a_second_proxy_waits_until_the_owner_is_gone() {
    let Some(lab) = lab() else { return };
    if !can_own(&lab) {
        return;
    }
    let manifests = manifests(&lab);
    let first = Program::start(&lab, &manifests, None);
    let ports = ["--healthz-bind-address=0.0.0.0:10266", "--metrics-bind-address=0.0.0.0:10259"];
    let mut flags = vec!["--manifests", manifests.path().to_str().unwrap()];
    flags.extend(ports);
    let second = Program::spawn_with(&lab, &flags);
    let owner = format!("table inet kube-proxy is owned by process {} (kube-proxy)", first.pid());
    eventually("the second one waits", || second.log().contains(&owner));
    let (report, ()) = Load::during(&lab.from("client"), "192.0.2.1:30080", 2, |load| {
        load.wait_for(10);
        first.kill();
        let answer = || second.get(10266, "/livez");
        eventually("the second one takes over", || answer().starts_with("HTTP/1.1 200"));
        manifests.apply(endpoints("web").tcp().on(&lab, &["b"]));
        let vip = at(cluster_ip(10, Family::V4), 80);
        eventually("it writes", || (0..9).all(|_| lab.from("a").tcp(vip).endpoint() == "b"));
        load.wait_for(10);
    });
    report.assert_no_loss();
}

#[test]
fn of_two_who_share_the_table_the_older_one_ends() {
    let Some(lab) = lab() else { return };
    let manifests = manifests(&lab);
    let mut first = Program::start_with(&lab, &manifests, SHARED);
    let mut flags = vec!["--manifests", manifests.path().to_str().unwrap()];
    flags.extend(["--healthz-bind-address=0.0.0.0:10266", "--metrics-bind-address=0.0.0.0:10259"]);
    flags.extend(SHARED);
    let second = Program::spawn_with(&lab, &flags);
    let status = first.wait(PATIENCE).expect("the older one ends");
    assert!(!status.success(), "{status}");
    let reason = "another proxy writes table inet kube-proxy";
    eventually("it says why", || first.log().contains(reason));
    let answer = || second.get(10266, "/livez");
    eventually("the newer one serves", || answer().starts_with("HTTP/1.1 200"));
    assert_eq!(listing(&lab).matches("chain writer-").count(), 1);
}

/// What somebody does to a shared table is put right: the table is soon what it was.
fn is_put_right(tamper: impl FnOnce(&Lab)) {
    let Some(lab) = lab() else { return };
    let manifests = manifests(&lab);
    let mut program = Program::start_with(&lab, &manifests, SHARED);
    let before = listing(&lab);
    tamper(&lab);
    eventually("the listing is what it was", || {
        lab.try_nft(&["list", "table", "inet", "kube-proxy"])
            .is_ok_and(|now| is_same(&before, &now))
    });
    for family in Family::BOTH {
        let counts = lab.from("a").spread(at(cluster_ip(10, family), 80), 60);
        assert_eq!(counts.len(), 3, "{counts:?}");
    }
    program.wait_until(|program| program.healthz().starts_with("HTTP/1.1 200"));
    // And changes go on.
    manifests.apply(endpoints("web").tcp().on(&lab, &["b"]));
    let vip = at(cluster_ip(10, Family::V4), 80);
    eventually("it writes", || (0..9).all(|_| lab.from("a").tcp(vip).endpoint() == "b"));
}

#[test]
fn a_flushed_ruleset_is_put_right() {
    is_put_right(|lab| drop(lab.nft(&["flush ruleset"])));
}

#[test]
fn a_flushed_table_is_put_right() {
    is_put_right(|lab| drop(lab.nft(&["flush table inet kube-proxy"])));
}

#[test]
fn elements_that_others_delete_and_add_are_put_right() {
    is_put_right(|lab| {
        lab.nft(&["delete element inet kube-proxy service-ips4 { 10.96.0.10 . tcp . 80 }"]);
        lab.nft(&["add element inet kube-proxy service-ips4 { 10.96.0.99 . tcp . 80 : drop }"]);
        lab.nft(&["add element inet kube-proxy cluster-ips6 { fd00:10:96::99 }"]);
        lab.nft(&["delete element inet kube-proxy cluster-endpoints6 \
            { fd00:10:96::a . tcp . 80 . 0x00000001 }"]);
    });
}

#[test]
fn a_catch_all_element_is_put_right() {
    is_put_right(|lab| {
        // Before 5.13 there are none, and the kernel refuses it.
        let _ = lab.try_nft(&["add element inet kube-proxy service-ips4 { * : drop }"]);
    });
}

#[test]
fn foreign_chains_sets_and_rules_are_put_right() {
    is_put_right(|lab| {
        // At once, for what is done one by one goes one by one.
        lab.nft(&["add chain inet kube-proxy early \
            { type filter hook prerouting priority -300; policy drop; }; \
            add set inet kube-proxy mine { type ipv4_addr; }; \
            add chain inet kube-proxy theirs; \
            add rule inet kube-proxy theirs ip saddr @mine drop; \
            insert rule inet kube-proxy nat-prerouting jump theirs"]);
        lab.nft(&["add rule inet kube-proxy nat-postrouting accept"]);
    });
}

#[test]
fn a_ruleset_that_somebody_saved_and_loads_again_is_put_right() {
    let Some(lab) = lab() else { return };
    let manifests = manifests(&lab);
    let _program = Program::start_with(&lab, &manifests, SHARED);
    let saved = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(saved.path(), format!("flush ruleset\n{}", lab.nft(&["list ruleset"]))).unwrap();
    let vip = at(cluster_ip(10, Family::V4), 80);
    manifests.apply(endpoints("web").tcp().on(&lab, &["b"]));
    manifests.delete(service("idle").cluster_ip(11).udp(53).node_port(30053));
    eventually("only b serves", || (0..9).all(|_| lab.from("a").tcp(vip).endpoint() == "b"));
    eventually("idle is gone", || !listing(&lab).contains("default/idle"));
    // And the chains that were for it alone, which go when it is quiet for two seconds: they would not come back.
    let mut before = listing(&lab);
    eventually("it has tidied up", || {
        thread::sleep(Duration::from_millis(2500));
        let now = listing(&lab);
        std::mem::replace(&mut before, now.clone()) == now
    });
    lab.nft(&["-f", saved.path().to_str().unwrap()]);
    eventually("the listing is what it was", || {
        lab.try_nft(&["list", "table", "inet", "kube-proxy"])
            .is_ok_and(|now| is_same(&before, &now))
    });
}

#[test]
fn a_start_needs_no_quiet_namespace() {
    let Some(lab) = lab() else { return };
    for own_table in [true, false] {
        let config = || Config { own_table, ..Config::default() };
        let mut proxy = Proxy::new(&lab, config());
        proxy.apply(cluster(&lab));
        proxy.tidy();
        let before = proxy.listing();
        let is_over = AtomicBool::new(false);
        let mut written = Vec::new();
        let after = thread::scope(|scope| {
            // As fast as it can, which is a few hundred times a second.
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    lab.nft(&["add table inet other; delete table inet other"]);
                }
            });
            let restarts = std::panic::catch_unwind(AssertUnwindSafe(|| {
                let mut proxy = proxy;
                for _ in 0..20 {
                    proxy = proxy.restart(config());
                    written.push(proxy.commit().operations);
                }
                proxy.listing()
            }));
            is_over.store(true, Ordering::Relaxed);
            restarts.expect("restarts")
        });
        // The chain of the one before goes, and the own one comes.
        assert!(written.iter().all(|written| *written <= 3), "nothing but who writes: {written:?}");
        assert_same(&before, &after);
        lab.nft(&["flush ruleset"]);
    }
}

#[test]
fn flows_that_began_while_the_table_was_away_find_endpoints() {
    let Some(lab) = lab() else { return };
    let manifests = manifests(&lab);
    manifests.apply(objects![
        service("dns").cluster_ip(12).udp(53),
        endpoints("dns").udp().on(&lab, &["b"]),
    ]);
    let program = Program::start(&lab, &manifests, None);
    let vip = at(cluster_ip(12, Family::V4), 53);
    assert_eq!(lab.from("a").udp(vip).endpoint(), "b");
    // Nobody is there to write it again; a client that does not mind talks on.
    program.kill();
    lab.nft(&["flush ruleset"]);
    let client = lab.from("a");
    let flow = client.flow(vip);
    assert_ne!(flow.ask(), Outcome::reached("b", lab.v4("a")), "nobody translates");
    let _program = Program::start(&lab, &manifests, None);
    let reached = Outcome::reached("b", lab.v4("a"));
    eventually("the flow finds an endpoint", || flow.ask() == reached);
}

#[test]
fn a_connection_that_was_tried_before_its_service_is_known_gets_through() {
    let Some(lab) = lab() else { return };
    let manifests = Manifests::new();
    let _program = Program::start(&lab, &manifests, None);
    // Nobody answers, so the client tries again, and conntrack remembers that nobody translated it.
    lab.machine("gateway").namespace.output(
        "nft",
        &["add table inet silent; add chain inet silent first \
            { type filter hook prerouting priority -400; }; \
            add rule inet silent first tcp dport 80 drop"],
    );
    for family in Family::BOTH {
        let vip = at(external_ip(9, family), 80);
        let client = lab.from("a");
        thread::scope(|scope| {
            let connected = scope.spawn(|| Load::once(&client, vip));
            thread::sleep(Duration::from_millis(200));
            manifests.apply(objects![
                service("late").cluster_ip(30).external_ip(9).tcp(80),
                endpoints("late").tcp().on(&lab, &["b"]),
            ]);
            let again = connected.join().expect("the client");
            assert!(again.as_ref().is_ok_and(|again| *again > 0), "{family}: {again:?}");
        });
        manifests.delete(objects![
            service("late").cluster_ip(30).external_ip(9).tcp(80),
            endpoints("late").tcp().on(&lab, &["b"]),
        ]);
        eventually("it is gone", || !listing(&lab).contains("default/late"));
    }
}

#[test]
fn clients_that_expire_and_endpoints_that_flap_hold_nobody_up() {
    let Some(lab) = lab() else { return };
    let manifests = manifests(&lab);
    let timeout = json!({ "clientIP": { "timeoutSeconds": 2 } });
    let cart = || {
        let cart = service("cart").cluster_ip(20).tcp(80);
        cart.spec("sessionAffinity", json!("ClientIP"))
            .spec("sessionAffinityConfig", timeout.clone())
    };
    manifests.apply(objects![cart(), endpoints("cart").tcp().on(&lab, &["a", "b"])]);
    let program = Program::start(&lab, &manifests, None);
    let carts = Family::BOTH.map(|family| at(cluster_ip(20, family), 80));
    let web = at(cluster_ip(10, Family::V4), 80);
    // Not a pod that is an endpoint now and then: remembered on itself just when it ceases to be one, it is not
    // masqueraded any more.
    let host = "client";
    let (report, ()) = Load::on_each(&lab.from(host), &carts, 2, |_| {
        for round in 0..40_u32 {
            let pods: &[&str] = if round.is_multiple_of(2) { &["a"] } else { &["b"] };
            manifests.apply(endpoints("cart").tcp().on(&lab, pods));
            thread::sleep(Duration::from_millis(60));
            if round.is_multiple_of(8) {
                // Another Service's change is served at once all the while.
                let pod = ["b", "c"][round as usize / 8 % 2];
                manifests.apply(endpoints("web").tcp().on(&lab, &[pod]));
                eventually("others are served", || lab.from("a").tcp(web).endpoint() == pod);
            }
        }
    });
    report.assert_no_loss();
    // Whoever was remembered elsewhere goes to the one that is left.
    manifests.apply(endpoints("cart").tcp().on(&lab, &["b"]));
    for vip in carts {
        let client = lab.from(host);
        eventually("only b serves", || (0..5).all(|_| client.tcp(vip).endpoint() == "b"));
    }
    let metrics = program.get(10249, "/metrics");
    assert!(metrics.contains("kubeproxy_quarantined_services 0"), "{metrics}");
    assert!(!program.log().contains("the kernel refused"), "{}", program.log());
}
