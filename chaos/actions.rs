//! What happens to the proxy: by its operator, by others on the node, and by the cluster.

use crate::clients::Loss;
use kube_proxy::kernel::{Kernel, Nft};
use nft_table::Family;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use test_support::lab::{Lab, Namespace};
use test_support::listing::differences;
use test_support::proxy::{Manifests, Program, endpoints, objects, service, service_cidr};

/// Whether others may write to the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    Owned,
    Shared,
}

/// How long something may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

const PODS: [&[&str]; 5] = [&["a"], &["b", "c"], &["a", "c"], &["a", "b", "c"], &["b"]];

/// Whether this kernel has owners of tables.
pub fn can_own() -> bool {
    let namespace = Namespace::new().expect("a namespace");
    namespace.run(|| {
        let mut nft = Nft::open().expect("an nftables socket");
        nft.supports_ownership().expect("ask the kernel")
    })
}

/// The proxy and all that is done to it.
pub struct Chaos<'l> {
    lab: &'l Lab,
    variant: Variant,
    manifests: Manifests,
    program: Option<Program<'l>>,
    random: u64,
    /// What was done how often.
    pub done: BTreeMap<&'static str, usize>,
    /// When somebody took the table, or something of it, away.
    pub away: Vec<Instant>,
    /// From when to when a table was put by hand into the place of the proxy's.
    pub exchanged: Vec<(Instant, Instant)>,
    /// What was done when.
    events: Vec<(Instant, &'static str)>,
    logs: Vec<String>,
    others: Option<JoinHandle<()>>,
    is_over: Arc<AtomicBool>,
}

/// What the process and the table take.
#[derive(Clone, Debug, Default)]
pub struct Resources {
    resident_mib: u64,
    descriptors: usize,
    chains: usize,
    maps: usize,
}

impl fmt::Display for Resources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} MiB, {} descriptors, {} chains, {} maps and sets",
            self.resident_mib, self.descriptors, self.chains, self.maps
        )
    }
}

impl Resources {
    /// What grew.
    pub fn complaints(&self, before: &Resources) -> Vec<String> {
        let mut complaints = Vec::new();
        if self.resident_mib > before.resident_mib * 3 / 2 + 8 {
            complaints.push(format!("the process grew to {} MiB", self.resident_mib));
        }
        if self.descriptors > before.descriptors + 8 {
            complaints.push(format!("{} descriptors are open", self.descriptors));
        }
        if (self.chains, self.maps) != (before.chains, before.maps) {
            complaints.push("the table has other chains or maps than at the beginning".to_owned());
        }
        complaints
    }
}

impl<'l> Chaos<'l> {
    /// Starts the proxy, and others that commit something every 50 ms.
    pub fn begin(lab: &'l Lab, variant: Variant, seed: u64) -> Chaos<'l> {
        let is_over = Arc::new(AtomicBool::new(false));
        let mut chaos = Chaos {
            lab,
            variant,
            manifests: Manifests::new(),
            program: None,
            random: seed.wrapping_mul(2).wrapping_add(1),
            done: BTreeMap::new(),
            away: Vec::new(),
            exchanged: Vec::new(),
            events: Vec::new(),
            logs: Vec::new(),
            others: None,
            is_over,
        };
        chaos.manifests.apply(steady(lab));
        chaos.start();
        chaos.wait_until_healthy();
        chaos.tidy();
        chaos.others = Some(chaos.commit_elsewhere());
        chaos
    }

    fn commit_elsewhere(&self) -> JoinHandle<()> {
        let (is_over, node) = (self.is_over.clone(), self.lab.node().namespace.try_clone());
        thread::spawn(move || {
            nix::sched::setns(&node, nix::sched::CloneFlags::CLONE_NEWNET).expect("the node");
            while !is_over.load(Ordering::Relaxed) {
                let command = "add table inet other; delete table inet other";
                let _ = std::process::Command::new("nft").arg(command).output();
                thread::sleep(Duration::from_millis(50));
            }
        })
    }

    /// Does one thing, and waits a moment.
    pub fn act(&mut self) {
        let what = match self.below(20) {
            0 => self.restart(Signal::SIGTERM),
            1 => self.restart(Signal::SIGKILL),
            2 => self.upgrade(),
            3 | 4 => self.tamper(),
            5..=7 => {
                let pods = PODS[self.below(PODS.len())];
                self.manifests.apply(endpoints("web").tcp().on(self.lab, pods));
                self.manifests.apply(endpoints("cart").only(Family::V4).tcp().on(self.lab, pods));
                "other endpoints of Services that clients use"
            }
            number => {
                let name = format!("churn-{}", self.below(20));
                self.churn(&name, number % 3);
                "a Service comes, goes or changes"
            }
        };
        self.events.push((Instant::now(), what));
        *self.done.entry(what).or_default() += 1;
        thread::sleep(Duration::from_millis(20 + self.below(150) as u64));
    }

    fn churn(&mut self, name: &str, kind: usize) {
        let number = 100 + name.bytes().last().map_or(0, |byte| byte % 100);
        let plain = service(name).cluster_ip(number).tcp(80);
        let with = match kind {
            0 => plain.spec("sessionAffinity", json!("ClientIP")),
            1 => plain.node_port(31000 + u16::from(number)),
            _ => plain,
        };
        let pods = PODS[self.below(PODS.len())];
        match self.below(3) {
            0 => {
                self.manifests.delete_if_there(with);
                self.manifests.delete_if_there(endpoints(name).tcp().on(self.lab, pods));
            }
            _ => self.manifests.apply(objects![with, endpoints(name).tcp().on(self.lab, pods)]),
        }
    }

    fn start(&mut self) {
        let owned = format!("--own-table={}", self.variant == Variant::Owned);
        let flags = [
            &*owned,
            "--detect-local-mode=ClusterCIDR",
            "--cluster-cidr=10.244.0.0/16,fd00:10:244::/56",
            "--nodeport-addresses=192.0.2.0/24,2001:db8::/64",
        ];
        self.program = Some(Program::spawn_with_manifests(self.lab, &self.manifests, &flags));
    }

    fn end(&mut self, signal: Signal) {
        let Some(mut program) = self.program.take() else { return };
        program.signal(signal);
        program.wait(PATIENCE).expect("it ends");
        self.logs.push(program.log());
    }

    fn wait_until_healthy(&mut self) {
        let program = self.program.as_mut().expect("it runs");
        program.wait_until(|program| program.healthz().starts_with("HTTP/1.1 200"));
    }

    fn restart(&mut self, signal: Signal) -> &'static str {
        self.end(signal);
        self.start();
        if self.below(2) == 0 {
            self.wait_until_healthy();
        }
        if signal == Signal::SIGTERM { "restart by SIGTERM" } else { "restart by SIGKILL" }
    }

    /// What a first release left is found and replaced. Its table, written by hand, serves what the clients use.
    fn upgrade(&mut self) -> &'static str {
        self.manifests.apply(endpoints("web").tcp().on(self.lab, &["a", "b", "c"]));
        self.manifests
            .apply(endpoints("cart").only(Family::V4).tcp().on(self.lab, &["a", "b", "c"]));
        self.wait_until_healthy();
        thread::sleep(Duration::from_millis(100));
        self.end(Signal::SIGKILL);
        let reference = include_str!("../netns-tests/reference.nft");
        let text = format!("delete table inet kube-proxy\n{reference}\n{MORE_OF_THE_FIRST_LAYOUT}");
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), text).expect("write it");
        // In the place of the other one at one moment. A packet that is under way just then finds no frontend in the maps
        // that go. The proxy itself never does it like that.
        let before = Instant::now();
        self.lab.nft(&["-f", file.path().to_str().expect("UTF-8")]);
        self.exchanged.push((before, Instant::now()));
        self.start();
        self.wait_until_healthy();
        "upgrade from the first layout"
    }

    /// Somebody else does something to the table. Where it is owned the kernel refuses it.
    fn tamper(&mut self) -> &'static str {
        self.wait_until_healthy();
        let (command, what) = match self.below(5) {
            0 => ("flush ruleset", "flush ruleset"),
            1 => ("delete table inet kube-proxy", "delete table"),
            2 => ("flush table inet kube-proxy", "flush table"),
            3 => (
                "delete element inet kube-proxy service-ips4 { 10.96.0.10 . tcp . 80 }",
                "delete an element",
            ),
            _ => {
                ("add element inet kube-proxy service-ips4 { * : drop }", "add a catch-all element")
            }
        };
        self.away.push(Instant::now());
        let _ = self.lab.try_nft(&[command]);
        what
    }

    /// Everything that was done has its effect.
    pub fn calm(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(others) = self.others.take() {
            others.join().expect("the others");
        }
        for number in 0..20 {
            let name = format!("churn-{number}");
            self.manifests.delete_if_there(service(&name).cluster_ip(1).tcp(80));
            self.manifests.delete_if_there(endpoints(&name).tcp().on(self.lab, &["a"]));
        }
        self.manifests.apply(steady(self.lab));
        self.wait_until_healthy();
        self.tidy();
    }

    /// Waits until what nobody needs any more is deleted.
    fn tidy(&mut self) {
        let end = Instant::now() + PATIENCE;
        let mut last = String::new();
        while Instant::now() < end {
            thread::sleep(Duration::from_secs(3));
            let now = self.listing();
            if now == last {
                return;
            }
            last = now;
        }
    }

    fn listing(&self) -> String {
        self.lab.nft(&["-s", "list table inet kube-proxy"])
    }

    pub fn resources(&self) -> Resources {
        let program = self.program.as_ref().expect("it runs");
        let read = |file: &str| {
            std::fs::read_to_string(format!("/proc/{}/{file}", program.pid())).unwrap_or_default()
        };
        let status = read("status");
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = resident.and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok());
        let descriptors = std::fs::read_dir(format!("/proc/{}/fd", program.pid()));
        let listing = self.listing();
        let count = |starts: &[&str]| {
            let is_one = |line: &&str| starts.iter().any(|start| line.trim().starts_with(start));
            listing.lines().filter(is_one).count()
        };
        Resources {
            resident_mib: kib.unwrap_or_default() / 1024,
            descriptors: descriptors.map(Iterator::count).unwrap_or_default(),
            chains: count(&["chain "]),
            maps: count(&["map ", "set "]),
        }
    }

    /// What ended last before a loss began, and what ended first after that.
    pub fn nearest(&self, loss: &Loss) -> String {
        let millis = |from: Instant, to: Instant| to.saturating_duration_since(from).as_millis();
        let before = self.events.iter().rev().find(|(at, _)| *at <= loss.from);
        let after = self.events.iter().find(|(at, _)| *at > loss.from);
        let before =
            before.map(|(at, what)| format!("{} ms after: {what}", millis(*at, loss.from)));
        let after = after.map(|(at, what)| format!("{} ms before: {what}", millis(loss.from, *at)));
        before.into_iter().chain(after).collect::<Vec<String>>().join(", ")
    }

    /// What is not as it should be in the end.
    pub fn complaints(&mut self) -> Vec<String> {
        let mut complaints = Vec::new();
        let program = self.program.as_ref().expect("it runs");
        let metrics = program.get(10249, "/metrics");
        if !metrics.contains("kubeproxy_quarantined_services 0") {
            complaints.push("Services are held".to_owned());
        }
        let listing = self.listing();
        self.end(Signal::SIGTERM);
        if self.logs.iter().any(|log| log.contains(" died: ") || log.contains("panicked")) {
            complaints.push(format!("something panicked: {}", self.logs.join("\n")));
        }
        self.lab.nft(&["delete table inet kube-proxy"]);
        self.start();
        self.wait_until_healthy();
        self.tidy();
        let different = but_for_history(differences(&listing, &self.listing()));
        if !different.is_empty() {
            complaints.push(format!("a fresh start writes another table: {different:#?}"));
        }
        complaints
    }

    /// A random number below another.
    fn below(&mut self, limit: usize) -> usize {
        // xorshift64
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random % limit as u64) as usize
    }
}

/// Differences of two listings that do not come of what happened before: in which slot an endpoint stands, and which
/// clients are remembered.
fn but_for_history(different: Vec<String>) -> Vec<String> {
    let without_slot = |line: &String| match line.split_once(" : ") {
        Some((key, endpoint)) => match key.rsplit_once(" . ") {
            Some((key, slot)) if slot.parse::<u32>().is_ok() => format!("{key} : {endpoint}"),
            _ => line.clone(),
        },
        None => line.clone(),
    };
    let kept = different.iter().filter(|line| !line.contains(" timeout ")).map(without_slot);
    let (first, mut second): (Vec<String>, Vec<String>) =
        kept.partition(|line| line.starts_with('-'));
    let mut left = Vec::new();
    for line in first {
        match second.iter().position(|other| other[1..] == line[1..]) {
            Some(place) => drop(second.swap_remove(place)),
            None => left.push(line),
        }
    }
    left.extend(second);
    left
}

/// What the reference table of the first layout lacks of what clients use.
const MORE_OF_THE_FIRST_LAYOUT: &str = "
add element inet kube-proxy cluster-endpoints4 {
    10.96.0.20 . tcp . 80 . 0 : 10.244.0.11 . 8080, 10.96.0.20 . tcp . 80 . 1 : 10.244.0.12 . 8080,
    10.96.0.20 . tcp . 80 . 2 : 10.244.1.11 . 8080, 10.96.0.30 . udp . 53 . 0 : 10.244.0.12 . 8080,
    10.96.0.30 . udp . 53 . 1 : 10.244.1.11 . 8080 }
add element inet kube-proxy service-ips4 {
    10.96.0.20 . tcp . 80 : goto cluster-3, 10.96.0.30 . udp . 53 : goto cluster-2 }
";

/// What clients use.
fn steady(lab: &Lab) -> Vec<Value> {
    objects![
        service_cidr("kubernetes", &["10.96.0.0/16", "fd00:10:96::/112"]),
        service("web").cluster_ip(10).tcp(80).node_port(30080),
        endpoints("web").tcp().on(lab, &["a", "b", "c"]),
        service("cart")
            .only(Family::V4)
            .cluster_ip(20)
            .tcp(80)
            .spec("sessionAffinity", json!("ClientIP")),
        endpoints("cart").only(Family::V4).tcp().on(lab, &["a", "b", "c"]),
        service("dns").cluster_ip(30).udp(53),
        endpoints("dns").udp().on(lab, &["b", "c"]),
    ]
}
