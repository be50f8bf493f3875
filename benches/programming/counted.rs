//! What counting connections costs: loads, changes, memory of the kernel, and reading all counts.

use crate::objects::{self, ENDPOINTS, service, slice};
use crate::{ms, quantiles, updates};
use kube_proxy::answers::connections_now;
use kube_proxy::kernel::Nft;
use kube_proxy::plan::Counting;
use kube_proxy::sync::Engine;
use std::time::{Duration, Instant};

const MODES: [Counting; 3] = [Counting::Off, Counting::Service, Counting::Endpoint];

/// Loads of which the best one counts.
const RUNS: usize = 5;

pub const HEADER: &str = "| Services | counted | load | longer | kernel memory, MiB | replaced endpoint p50 / p99 | N changes p50 / p99 | all counts by Service read |\n|---|---|---|---|---|---|---|---|";

/// Prints a line for each of what can be counted. The modes take turns, so that none has a quieter machine.
pub fn measure(services: u32) {
    let mut best = [Duration::MAX; MODES.len()];
    let mut memory = [0.0; MODES.len()];
    for _ in 0..RUNS {
        for (mode, counting) in MODES.into_iter().enumerate() {
            namespace();
            let before = kernel_memory();
            let (engine, load) = loaded(services, counting);
            best[mode] = best[mode].min(load);
            memory[mode] = kernel_memory() - before;
            drop(engine);
        }
    }
    for (mode, counting) in MODES.into_iter().enumerate() {
        namespace();
        let (mut engine, _) = loaded(services, counting);
        let replaced = updates(&mut engine, |round| {
            let first = 100 + round;
            slice(round * 7919 % services, (first..first + 1).chain(1..ENDPOINTS))
        });
        let resized = updates(&mut engine, |round| {
            slice(round * 7919 % services, 0..ENDPOINTS + 1 + round % 2)
        });
        let read = (0..10).map(|_| {
            let start = Instant::now();
            connections_now(&engine.view(), None).expect("the kernel answers");
            start.elapsed()
        });
        let read = read.min().expect("some");
        let longer = best[mode].as_secs_f64() / best[0].as_secs_f64();
        println!(
            "| {services} | {counting:?} | {} | {longer:.2} | {:.1} | {} | {} | {} |",
            ms(best[mode]),
            memory[mode],
            quantiles(replaced),
            quantiles(resized),
            ms(read),
        );
    }
}

/// Another network namespace, so that nothing is there.
fn namespace() {
    // SAFETY: only this thread is in it, and nothing is shared.
    assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNET) }, 0, "needs root: a network namespace");
}

fn loaded(services: u32, counting: Counting) -> (Engine<Nft>, Duration) {
    let nft = Nft::open().expect("an nftables socket");
    let mut engine = objects::engine_counting(nft, counting);
    for number in 0..services {
        engine.apply(service(number));
        engine.apply(slice(number, 0..ENDPOINTS));
    }
    let start = Instant::now();
    engine.sync().expect("the first load");
    (engine, start.elapsed())
}

/// Slabs and memory of each processor, in MiB.
fn kernel_memory() -> f64 {
    let all = std::fs::read_to_string("/proc/meminfo").expect("/proc");
    let of = |field: &str| -> f64 {
        let line = all.lines().find(|line| line.starts_with(field));
        let number = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
        number.unwrap_or_default()
    };
    (of("Slab:") + of("Percpu:")) / 1024.0
}
