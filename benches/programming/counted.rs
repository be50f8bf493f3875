//! What counting connections costs: loads, changes, memory of the kernel, and reading all counts.

use crate::objects::{self, ENDPOINTS, service, slice};
use crate::{ms, quantiles, updates};
use kube_proxy::answers::connections_now;
use kube_proxy::kernel::Nft;
use kube_proxy::plan::Counting;
use kube_proxy::sync::Engine;
use std::process::Command;
use std::time::{Duration, Instant};

const MODES: [Counting; 3] = [Counting::Off, Counting::Service, Counting::Endpoint];

/// Loads of which the best one counts.
const RUNS: usize = 5;

pub const HEADER: &str = "| Services | counted | load | longer | more kernel memory, MiB | replaced endpoint p50 / p99 | N changes p50 / p99 | all counts by Service read |\n|---|---|---|---|---|---|---|---|";

/// Prints a line for each of what can be counted. The modes take turns, so that none has a quieter machine.
pub fn measure(services: u32) {
    let mut best = [f64::MAX; MODES.len()];
    let mut memory = [f64::MAX; MODES.len()];
    for _ in 0..RUNS {
        for mode in 0..MODES.len() {
            // The kernel takes away in the background what the one before has left.
            std::thread::sleep(Duration::from_micros(500_000 + 100 * u64::from(services)));
            let program = std::env::current_exe().expect("this program's path");
            let arguments = ["--counted-load".to_owned(), format!("{services}/{mode}")];
            let output = Command::new(program).args(arguments).output().expect("a child process");
            let said = String::from_utf8(output.stdout).expect("numbers");
            let mut numbers = said.split_whitespace().map(|n| n.parse().expect("a number"));
            best[mode] = best[mode].min(numbers.next().expect("a time"));
            memory[mode] = memory[mode].min(numbers.next().expect("MiB"));
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
        let longer = best[mode] / best[0];
        println!(
            "| {services} | {counting:?} | {:.0} | {longer:.2} | {:.1} | {} | {} | {} |",
            best[mode],
            memory[mode] - memory[0],
            quantiles(replaced),
            quantiles(resized),
            ms(read),
        );
    }
}

/// Loads `SERVICES/MODE` in a process of its own, and prints milliseconds and MiB of the kernel's memory.
pub fn load(what: &str) {
    let (services, mode) = what.split_once('/').expect("SERVICES/MODE");
    let mode: usize = mode.parse().expect("a number");
    namespace();
    let before = kernel_memory();
    let (_engine, took) = loaded(services.parse().expect("a number"), MODES[mode]);
    println!("{} {}", took.as_secs_f64() * 1e3, kernel_memory() - before);
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
