//! How long it takes from parsed objects to the kernel, and how much memory, in a network namespace of
//! its own: `cargo bench --bench programming [SERVICES ...]` (as root).
//!
//! For every size: the first load, one replaced endpoint (N stays), the first Service with one endpoint more than any
//! other (next N), or with a number of endpoints far from that of any other (new N), each the best of some, one endpoint
//! more or less (N changes), one new Service, and a restart on an unchanged table. The commit includes the encoding.
//!
//! Then the first load again, and the first sync on a table of the first layout (an upgrade), while another
//! program commits small transactions to a table of its own, one after the other: how long one of them
//! waits at most, and how long one commit of ours takes at most; and a restart beside another program, and how long it
//! takes to write a table again that somebody deleted.
//!
//! And what it costs to count connections by Service, or also by endpoint.
//!
//! Each size runs in a process of its own, so that peaks of memory are its own. It prints figures and
//! asserts nothing about them.

mod features;
mod first_layout;
mod objects;
mod others;

use kube_proxy::answers::{Query, explain_now};
use kube_proxy::explain::{self, Filter};
use kube_proxy::kernel::Nft;
use kube_proxy::model::Change;
use kube_proxy::plan::Planner;
use kube_proxy::sync::Engine;
use nft_table::netlink::Batch;
use objects::{ENDPOINTS, service, settings, slice};
use std::hint::black_box;
use std::process::Command;
use std::time::{Duration, Instant};

const UPDATES: u32 = 1000;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    if let [flag, what] = &arguments[..]
        && flag == "--feature-load"
    {
        return features::load(what);
    }
    if let [flag, size] = &arguments[..] {
        let size = || size.parse().expect("a number of Services");
        match flag.as_str() {
            "--alone" => return measure(size()),
            "--features" => return features::measure(size()),
            "--beside-others" => return others::measure(size()),
            _ => {}
        }
    }
    let sizes = if arguments.is_empty() {
        vec!["1000".into(), "10000".into(), "50000".into()]
    } else {
        arguments
    };
    println!("{ENDPOINTS} endpoints a Service; times in milliseconds, memory in MiB\n");
    println!(
        "| Services | plan | encode | commit | load in all | RSS (peak) | replaced endpoint p50 / p99 | next N | new N | N changes p50 / p99 | new Service p50 / p99 | restart | explain p50 / p99 | a page of Services |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|---|---|---|");
    each(&sizes, "--alone");
    println!(
        "\nThe best of {} runs; waits of another program that commits all the while\n",
        others::RUNS
    );
    println!(
        "| Services | others wait without us, max | load: others wait, max | our longest commit | upgrade | upgrade: others wait, max | our longest commit | restart, a commit of others each 100 ms | a deleted table written again |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    each(&sizes, "--beside-others");
    println!("\n{}", features::HEADER);
    each(&sizes, "--features");
}

/// Has each size measured in a process of its own.
fn each(sizes: &[String], what: &str) {
    for size in sizes {
        let program = std::env::current_exe().expect("this program's path");
        let status = Command::new(program).args([what, size]).status().expect("a child process");
        assert!(status.success(), "the run with {size} Services failed");
    }
}

fn measure(services: u32) {
    // SAFETY: no other thread runs yet, and nothing is shared.
    assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNET) }, 0, "needs root: a network namespace");
    let mut engine = engine(services);
    let start = Instant::now();
    let loaded = engine.sync().expect("the first load");
    let load = start.elapsed();
    let memory = memory();
    let encoding = encoding(services);

    let replaced = updates(&mut engine, |round| {
        let first = 100 + round;
        slice(round * 7919 % services, (first..first + 1).chain(1..ENDPOINTS))
    });
    let next = numbers(&mut engine, 1);
    let new = numbers(&mut engine, 100);
    let resized =
        updates(&mut engine, |round| slice(round * 7919 % services, 0..ENDPOINTS + 1 + round % 2));
    let created = updates(&mut engine, |round| service(services + round));
    drop(engine);

    let mut engine = self::engine(services);
    // What the updates changed is written once, then the table is as this run wants it.
    engine.sync().expect("a restart");
    drop(engine);
    let start = Instant::now();
    let mut engine = self::engine(services);
    let again = engine.sync().expect("a restart");
    let restart = start.elapsed();
    assert_eq!(again.operations, 0, "a restart on an unchanged table writes nothing");
    println!(
        "| {services} | {} | {} | {} | {} | {:.0} ({:.0}) | {} | {} | {} | {} | {} | {} | {} | {} |",
        ms(loaded.planning),
        ms(encoding),
        ms(loaded.writing),
        ms(load),
        memory.0,
        memory.1,
        quantiles(replaced),
        ms(next),
        ms(new),
        quantiles(resized),
        quantiles(created),
        ms(restart),
        quantiles(explanations(&engine, services)),
        ms(page(&engine)),
    );
}

/// How long it takes to explain connections to some Services, with the kernel's part.
fn explanations(engine: &Engine<Nft>, services: u32) -> Vec<Duration> {
    let one = |round: u32| {
        let Change::Service(_, Some(service)) = service(round * 7919 % services) else {
            unreachable!("a Service is made")
        };
        let query = Query {
            address: service.cluster_ips.first().copied(),
            port: service.ports.first().map(|port| port.port),
            ..Query::default()
        };
        let start = Instant::now();
        let explained = explain_now(&engine.view(), &query).expect("an explanation");
        let took = start.elapsed();
        let kernel = explained[0].kernel.as_ref().expect("the kernel was asked");
        assert_eq!(kernel.differences, Vec::<String>::new());
        took
    };
    (0..200).map(one).collect()
}

/// How long it takes to list a page of Services in the middle.
fn page(engine: &Engine<Nft>) -> Duration {
    let filter = Filter { offset: 500, limit: Some(50), ..Filter::default() };
    let once = || {
        let start = Instant::now();
        black_box(explain::services(engine.view().planner, &filter));
        start.elapsed()
    };
    (0..20).map(|_| once()).min().expect("some")
}

fn engine(services: u32) -> Engine<Nft> {
    objects::engine(Nft::open().expect("an nftables socket"), services)
}

/// How long the first load takes to encode, which is a part of its commit.
fn encoding(services: u32) -> Duration {
    let mut planner = Planner::new(settings());
    for number in 0..services {
        planner.apply(service(number));
        planner.apply(slice(number, 0..ENDPOINTS));
    }
    planner.plan();
    planner.remove_emptied();
    let transaction = planner.table().changes();
    let start = Instant::now();
    black_box(Batch::encode(&transaction, 1, None).expect("a transaction that can be sent"));
    start.elapsed()
}

/// Applies one change after the other, each with a sync of its own.
fn updates(engine: &mut Engine<Nft>, change: impl Fn(u32) -> Change) -> Vec<Duration> {
    (0..UPDATES)
        .map(|round| {
            let change = change(round);
            let start = Instant::now();
            engine.apply(change);
            engine.sync().expect("an update");
            start.elapsed()
        })
        .collect()
}

/// A Service gets a number of endpoints that none has, again and again so many more, with the time between that the program
/// has to put things in order. The best of some.
fn numbers(engine: &mut Engine<Nft>, more: u32) -> Duration {
    let one = |round: u32| {
        while engine.has_unused() {
            engine.delete_unused().expect("chains that nothing leads to");
        }
        engine.apply(slice(0, 0..ENDPOINTS + more * (1 + round)));
        let start = Instant::now();
        engine.sync().expect("an update");
        start.elapsed()
    };
    (0..5).map(one).min().expect("some")
}

fn ms(duration: Duration) -> String {
    format!("{:.1}", duration.as_secs_f64() * 1e3)
}

fn quantiles(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    format!("{:.3} / {:.3}", at(0.5), at(0.99))
}

/// Resident memory now and at its peak, in MiB.
fn memory() -> (f64, f64) {
    let status = std::fs::read_to_string("/proc/self/status").expect("/proc");
    let of = |field: &str| {
        let line = status.lines().find(|line| line.starts_with(field)).expect("a field of /proc");
        let kib: f64 =
            line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("a number");
        kib / 1024.0
    };
    (of("VmRSS:"), of("VmHWM:"))
}
