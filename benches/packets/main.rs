//! `make bench-packets`: what a packet costs, in ns: with this proxy's rules, with upstream's kube-proxy in
//! nftables mode, with conntrack alone, with one hand-written `dnat` rule, and with nothing.
//!
//! ```text
//! cargo bench --bench packets -- [--sizes 1,1000,10000,50000] [--upstream 1,1000,10000] [--counted 1000] [--balanced 100]
//!                                [--least 1000] [--rows TEXT,...] [--passes 4]
//! ```
//!
//! `make bench-packets ARGUMENTS='--sizes 1,1000 --upstream 1,1000 --passes 2'` takes three minutes.
//!
//! Method. Every variant is a node with pods and an outside of its own, and all are there at once. Both proxies
//! program their nodes themselves from the same objects: N dual-stack Services with ten endpoints each, and the few
//! that are measured, so every feature of a row is in use in every table. Then they end, and their rules stay.
//! Upstream's takes time that grows with the square of N, so it is left out at 50,000.
//!
//! A row is a kind of packet, from a pod, from the node itself or from outside: 32 bytes over UDP, from many
//! sockets, each a flow of its own, to ten endpoints in a second pod, which drops them at its door. One thread on
//! one processor sends, and the kernel takes each packet all the way before `send` returns. So a figure is the
//! whole cost of a packet, from the system call to the pod's door; what rules add is its difference to another
//! column. The variants take turns, all rows are gone through several times, and of many short steps the fastest
//! counts, because a shared machine only adds. What was tracked is forgotten before each step, except where
//! established flows are measured. Checked are: before, that every flow is answered through its Service (or
//! refused); in every step, that exactly what was sent has arrived when the clock stops.
//!
//! Where nobody translates ("nothing", "conntrack") packets go to the endpoints themselves, so that the way is the
//! same. The hand-written rule is the one that its row needs, and where 512 Services take turns it knows one.

mod connections;
mod flows;
mod node;
mod report;
mod rows;
mod rules;
mod services;

use flows::Cell;
use kube_proxy::model::Algorithm;
use nft_table::Family;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::Pid;
use node::Node;
use report::Report;
use rows::{Row, Source};
use rules::{Looks, Rules};
use std::path::PathBuf;
use std::process::ExitCode;

struct Arguments {
    sizes: Vec<usize>,
    upstream: Vec<usize>,
    /// Sizes at which ours counts connections as well.
    counted: Vec<usize>,
    /// Sizes at which ours chooses endpoints in other ways as well. Tables for hashes are large.
    balanced: Vec<usize>,
    least: Vec<usize>,
    /// Rows whose names hold one of these; all when empty.
    rows: Vec<String>,
    passes: usize,
}

/// Of each variant, in each row of a pass.
const STEPS: usize = 10;

impl Arguments {
    fn read() -> Arguments {
        let mut arguments = Arguments {
            sizes: vec![1, 1000, 10_000, 50_000],
            upstream: vec![1, 1000, 10_000],
            counted: vec![1000],
            balanced: vec![100],
            least: vec![1000],
            rows: Vec::new(),
            passes: 4,
        };
        let mut words = std::env::args().skip(1).filter(|word| word != "--bench");
        while let Some(word) = words.next() {
            let list = words.next().unwrap_or_default();
            let list = list.split(',').filter(|one| !one.is_empty());
            let numbers =
                || list.clone().map(|one| one.parse().expect("a number")).collect::<Vec<usize>>();
            match word.as_str() {
                "--sizes" => arguments.sizes = numbers(),
                "--upstream" => arguments.upstream = numbers(),
                "--counted" => arguments.counted = numbers(),
                "--least" => arguments.least = numbers(),
                "--balanced" => arguments.balanced = numbers(),
                "--rows" => arguments.rows = list.map(str::to_owned).collect(),
                "--passes" => arguments.passes = numbers()[0],
                other => panic!("unknown argument {other}"),
            }
        }
        arguments
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::read();
    raise_descriptor_limit();
    let Some(nodes) = nodes(&arguments) else { return ExitCode::FAILURE };
    // Not before: the programs that were needed so far would have had to share one processor.
    stay_on_one_processor();
    let mut report = Report::default();
    let names = &arguments.rows;
    let wanted = |row: &Row| names.is_empty() || names.iter().any(|n| row.name().contains(n));
    let rows: Vec<Row> = Row::ALL.into_iter().filter(wanted).collect();
    for pass in 1..=arguments.passes {
        for row in &rows {
            eprintln!("pass {pass} of {}: {}", arguments.passes, row.name());
            for (family, source) in
                Family::BOTH.into_iter().flat_map(|f| Source::ALL.map(|s| (f, s)))
            {
                measure(&nodes, *row, family, source, &mut report);
            }
        }
    }
    println!("{report}");
    if let Some(path) = std::env::var_os("BENCH_RESULTS") {
        std::fs::write(path, report.raw()).expect("write the results");
    }
    ExitCode::SUCCESS
}

/// All nodes, with their rules.
fn nodes(arguments: &Arguments) -> Option<Vec<Node>> {
    let tools = std::env::var_os("KUBE_PROXY_E2E_TOOLS").map(PathBuf::from);
    if tools.is_none() {
        eprintln!("without upstream's kube-proxy: run make bench-packets");
    }
    let mut all = vec![Rules::Nothing, Rules::Conntrack, Rules::Dnat];
    all.extend(arguments.sizes.iter().copied().map(Rules::Ours));
    all.extend(arguments.counted.iter().copied().map(Rules::ByService));
    all.extend(arguments.counted.iter().copied().map(Rules::ByEndpoint));
    for algorithm in Algorithm::ALL {
        all.extend(arguments.balanced.iter().map(|size| Rules::By(algorithm, *size)));
    }
    for looks in [Looks::One, Looks::Two] {
        all.extend(arguments.least.iter().map(|size| Rules::Least(looks, *size)));
    }
    for limits in rules::LIMITS {
        all.extend(arguments.balanced.iter().map(|size| Rules::Limited(limits, *size)));
    }
    if tools.is_some() {
        all.extend(arguments.upstream.iter().copied().map(Rules::Upstream));
    }
    all.into_iter()
        .map(|rules| {
            eprintln!("loading {rules}");
            let node = Node::new(rules)?;
            rules.load(&node, tools.as_deref());
            Some(node)
        })
        .collect()
}

fn measure(nodes: &[Node], row: Row, family: Family, source: Source, report: &mut Report) {
    let nodes = nodes.iter().filter(|node| row.can_be_measured_with(node.rules));
    let mut cells: Vec<Cell> = nodes.map(|node| Cell::open(node, row, family, source)).collect();
    for _ in 0..STEPS {
        cells.iter_mut().for_each(Cell::step);
    }
    for cell in cells {
        report.add(row, family, source, cell.node.rules, cell.result());
    }
}

/// Every flow is a socket.
fn raise_descriptor_limit() {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).expect("getrlimit");
    setrlimit(Resource::RLIMIT_NOFILE, most, most).expect("setrlimit");
}

/// On the last one that this thread may use.
fn stay_on_one_processor() {
    let this = Pid::from_raw(0);
    let may = sched_getaffinity(this).expect("sched_getaffinity");
    let last = (0..CpuSet::count()).rev().find(|cpu| may.is_set(*cpu).unwrap_or(false));
    let mut one = CpuSet::new();
    one.set(last.expect("a processor")).expect("a processor's number");
    sched_setaffinity(this, &one).expect("sched_setaffinity");
}
