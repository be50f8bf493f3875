//! `make bench-peer`: upstream's kube-proxy and this one beside each other, against the same API server, on the
//! same node, one after the other, with the same probes.
//!
//! ```text
//! cargo bench --bench peer -- [--sizes 1000,5000,10000] [--alone 50000] [--seconds 30]
//! ```
//!
//! Method. The cluster has N Services with ten endpoints each (one slice; the endpoints do not exist) and one
//! more, `probe`, whose endpoint is a real pod. They are written into etcd directly (see `workload`). A client pod opens a new connection to `probe` several times a
//! millisecond and asks who answers.
//! * load: from starting the program, on a node without rules, to the first connection answered; the median of
//!   three starts
//! * update: the slice of `probe` is switched from one pod to another; from the API server's acknowledgement to
//!   the first connection answered by the new pod
//! * CPU: what the program and its children spent until the start was over, and during the updates, by update
//! * memory: resident after the updates, and at its highest
//! * server: processor time of the API server and bytes that it sends, for a start (the lists) and for an update, in
//!   which its own work for the change is contained

mod probe;
mod report;
mod workload;

use nix::sys::signal::Signal;
use report::{Measured, Report};
use serde_json::json;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};
use test_support::cluster::Cluster;
use test_support::cluster::objects;
use test_support::cluster::process::Process;
use test_support::lab::Lab;

/// Starts of each program at each size.
const STARTS: usize = 3;
/// Updates at most.
const UPDATES: usize = 300;

/// Whom to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    Ours,
    Upstream,
}

/// What something costs the API server.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// Seconds of a processor.
    pub cpu: f64,
    pub bytes: f64,
}

impl Cost {
    /// What each of so many has cost since then.
    fn since(self, before: &Cost, count: usize) -> Cost {
        let each = |now: f64, before: f64| (now - before) / count as f64;
        Cost { cpu: each(self.cpu, before.cpu), bytes: each(self.bytes, before.bytes) }
    }
}

struct Arguments {
    sizes: Vec<usize>,
    alone: Vec<usize>,
    /// For the updates of one program at one size.
    time: Duration,
}

impl Arguments {
    fn read() -> Arguments {
        let mut arguments = Arguments {
            sizes: vec![1000, 5000, 10_000],
            alone: vec![50_000],
            time: Duration::from_secs(30),
        };
        let list = |text: Option<String>| -> Vec<usize> {
            let text = text.unwrap_or_default();
            text.split(',')
                .filter(|one| !one.is_empty())
                .map(|one| one.parse().expect("a number"))
                .collect()
        };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            match word.as_str() {
                "--sizes" => arguments.sizes = list(words.next()),
                "--alone" => arguments.alone = list(words.next()),
                "--seconds" => {
                    let seconds = words.next().and_then(|one| one.parse().ok());
                    arguments.time = Duration::from_secs(seconds.expect("a number"));
                }
                // What cargo passes.
                "--bench" => {}
                other => panic!("unknown argument {other}"),
            }
        }
        arguments
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::read();
    let Some(tools) = std::env::var_os("KUBE_PROXY_E2E_TOOLS").map(PathBuf::from) else {
        println!("skipped: run make bench-peer");
        return ExitCode::SUCCESS;
    };
    let lab = Lab::builder().pod("a").pod("b").pod("client").outside("api").build();
    let Some(lab) = lab else { return ExitCode::FAILURE };
    let cluster = Cluster::start(&lab, tools);
    let bench = Bench { lab, cluster, time: arguments.time };
    let addresses = [bench.lab.v4("node"), bench.lab.v6("node")];
    bench.cluster.apply(&objects::node("node", &addresses, &["10.244.0.0/24", "fd00:10:244::/64"]));
    let vip = bench.make_probe_service();

    let mut report = Report::default();
    let mut there = 0;
    let mut sizes: Vec<(usize, &[Who])> = Vec::new();
    sizes.extend(arguments.sizes.iter().map(|size| (*size, &[Who::Ours, Who::Upstream][..])));
    sizes.extend(arguments.alone.iter().map(|size| (*size, &[Who::Ours][..])));
    for (size, both) in sizes {
        eprintln!("making {} Services x {}", size - there, workload::ENDPOINTS);
        workload::create(&bench.cluster, there..size);
        there = size;
        for who in both {
            let measured = bench.measure(*who, vip);
            eprintln!("{size} Services, {who:?}: {measured}");
            report.add(size, *who, measured);
        }
    }
    println!("{report}");
    if let Some(path) = std::env::var_os("BENCH_RESULTS") {
        fs::write(&path, report.raw()).expect("write the results");
    }
    ExitCode::SUCCESS
}

struct Bench {
    lab: Lab,
    cluster: Cluster,
    time: Duration,
}

impl Bench {
    fn make_probe_service(&self) -> std::net::SocketAddr {
        let mut service = objects::service("probe");
        service["spec"]["ipFamilyPolicy"] = json!("SingleStack");
        service["spec"]["clusterIP"] = json!("10.96.0.100");
        let made = self.cluster.apply(&service);
        self.point_at("a");
        (objects::cluster_ips(&made)[0], 80).into()
    }

    fn point_at(&self, pod: &str) {
        self.cluster.apply(&objects::slice("probe", "probe", &[(self.lab.v4(pod), "node")]));
    }

    fn start(&self, who: Who) -> Process {
        let directory = self.cluster.directory();
        let config = json!({
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration",
            "mode": "nftables", "clusterCIDR": "10.244.0.0/16,fd00:10:244::/48",
            "clientConnection": {"kubeconfig": directory.join("admin.kubeconfig")},
            // Upstream takes 0s for its default of a second.
            "nftables": {"minSyncPeriod": "10ms"}, "conntrack": {"maxPerCore": 0},
            "hostnameOverride": "node",
        });
        let path = directory.join("peer.conf");
        fs::write(&path, config.to_string()).expect("write the configuration");
        let program = match who {
            Who::Ours => PathBuf::from(env!("CARGO_BIN_EXE_kube-proxy")),
            Who::Upstream => self.cluster.tool("kube-proxy"),
        };
        let mut command = Command::new(program);
        command.arg("--config").arg(path).arg("--hostname-override=node");
        let log = directory.join(format!("{who:?}.log"));
        Process::start(&self.lab.node().namespace, command, &log)
    }

    fn measure(&self, who: Who, vip: std::net::SocketAddr) -> Measured {
        let client = &self.lab.machine("client").namespace;
        self.point_at("a");
        let (mut loads, mut load_cpu, mut load_costs) = (Vec::new(), Vec::new(), Vec::new());
        let mut process = None;
        for _ in 0..STARTS {
            drop(process.take());
            self.lab.nft(&["flush", "ruleset"]);
            self.cluster.wait_idle();
            let before = self.server();
            let start = Instant::now();
            let mut started = self.start(who);
            let answered =
                client.run(|| probe::first_answer(vip, "a", || started.assert_running()));
            loads.push(answered.duration_since(start));
            // Whatever the start leaves to be done is not the updates' cost.
            started.wait_idle();
            load_cpu.push(Duration::from_secs_f64(started.cpu()));
            load_costs.push(self.server().since(&before, 1));
            process = Some(started);
        }
        let process = process.expect("started");

        let mut updates = Vec::new();
        let before = self.server();
        let (cpu, began) = (process.cpu(), Instant::now());
        let mut pods = ["b", "a"].into_iter().cycle();
        while updates.len() < UPDATES && (updates.len() < 5 || began.elapsed() < self.time) {
            let pod = pods.next().expect("endless");
            let (acknowledged, answered) = std::thread::scope(|scope| {
                let watch = scope.spawn(|| client.run(|| probe::first_answer(vip, pod, || {})));
                self.point_at(pod);
                let acknowledged = Instant::now();
                (acknowledged, watch.join().expect("no panic"))
            });
            updates.push(answered.saturating_duration_since(acknowledged));
        }
        let cpu = (process.cpu() - cpu) / updates.len() as f64;
        let update_cost = self.server().since(&before, updates.len());
        let (memory, peak) = process.memory();
        process.stop(Signal::SIGTERM);
        let load_cost = load_costs.into_iter().min_by(|a, b| a.cpu.total_cmp(&b.cpu));
        let load_cost = load_cost.expect("it was started");
        let cpu = Duration::from_secs_f64(cpu);
        Measured { loads, load_cpu, updates, cpu, memory, peak, load_cost, update_cost }
    }

    /// What the API server has spent so far.
    fn server(&self) -> Cost {
        let cpu = self.cluster.processes().iter().map(|process| process.cpu()).sum();
        let table = self.lab.machine("api").namespace.run(|| fs::read("/proc/thread-self/net/dev"));
        let table = String::from_utf8(table.expect("the interfaces")).expect("text");
        let sent = |line: &str| {
            let (name, counters) = line.split_once(':')?;
            let sent: f64 = counters.split_whitespace().nth(8)?.parse().ok()?;
            (name.trim() != "lo").then_some(sent)
        };
        Cost { cpu, bytes: table.lines().filter_map(sent).sum() }
    }
}
