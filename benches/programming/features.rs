//! What it costs where all Services ask for more: counted connections, weights, other ways to choose an endpoint.
//! Loads, changes, memory of the kernel, and reading all counts.

use crate::objects::{self, ENDPOINTS, service, slice};
use crate::{ms, quantiles, updates};
use kube_proxy::answers::connections_now;
use kube_proxy::kernel::Nft;
use kube_proxy::model::{Algorithm, Change, Description};
use kube_proxy::plan::Counting;
use kube_proxy::sync::Engine;
use std::process::Command;
use std::time::{Duration, Instant};

/// What Services ask for.
struct Mode {
    name: &'static str,
    counting: Counting,
    algorithm: Algorithm,
    /// The first endpoint weighs 1, the others 9.
    has_weights: bool,
    /// With more Services it is not measured.
    most: u32,
}

const PLAIN: Mode = Mode {
    name: "nothing",
    counting: Counting::Off,
    algorithm: Algorithm::Random,
    has_weights: false,
    most: u32::MAX,
};

const MODES: [Mode; 6] = [
    PLAIN,
    Mode { name: "counted by Service", counting: Counting::Service, ..PLAIN },
    Mode { name: "counted by endpoint", counting: Counting::Endpoint, ..PLAIN },
    Mode { name: "round robin", algorithm: Algorithm::RoundRobin, ..PLAIN },
    Mode { name: "weights 1 : 9", has_weights: true, most: 10_000, ..PLAIN },
    Mode { name: "hashed flows", algorithm: Algorithm::HashFlow, most: 1_000, ..PLAIN },
];

impl Mode {
    fn service(&self, number: u32) -> Change {
        let mut change = service(number);
        if let Change::Service(_, Some(service)) = &mut change {
            service.algorithm = Some(self.algorithm);
        }
        change
    }

    fn slice(&self, number: u32, endpoints: impl Iterator<Item = u32>) -> Change {
        let mut change = slice(number, endpoints);
        if let (true, Change::EndpointSlice(_, Some(slice))) = (self.has_weights, &mut change) {
            let weight = |place| Some(if place == 0 { 1 } else { 9 });
            let described = |place| Description { weight: weight(place), ..Description::default() };
            slice.described = (0..slice.endpoints.len()).map(described).collect();
        }
        change
    }
}

/// Loads of which the best one counts.
const RUNS: usize = 5;

pub const HEADER: &str = "| Services | all of them ask for | load | longer | more kernel memory, MiB | replaced endpoint p50 / p99 | N changes p50 / p99 | all counts by Service read |\n|---|---|---|---|---|---|---|---|";

/// Prints a line for each mode. They take turns, so that none has a quieter machine.
pub fn measure(services: u32) {
    let measured = || MODES.iter().enumerate().filter(|(_, mode)| services <= mode.most);
    let mut best = [f64::MAX; MODES.len()];
    let mut memory = [f64::MAX; MODES.len()];
    for _ in 0..RUNS {
        for (mode, _) in measured() {
            // The kernel takes away in the background what the one before has left.
            std::thread::sleep(Duration::from_micros(500_000 + 100 * u64::from(services)));
            let program = std::env::current_exe().expect("this program's path");
            let arguments = ["--feature-load".to_owned(), format!("{services}/{mode}")];
            let output = Command::new(program).args(arguments).output().expect("a child process");
            let said = String::from_utf8(output.stdout).expect("numbers");
            let mut numbers = said.split_whitespace().map(|n| n.parse().expect("a number"));
            best[mode] = best[mode].min(numbers.next().expect("a time"));
            memory[mode] = memory[mode].min(numbers.next().expect("MiB"));
        }
    }
    for (mode, asked) in measured() {
        namespace();
        let (mut engine, _) = loaded(services, asked);
        let replaced = updates(&mut engine, |round| {
            let first = 100 + round;
            asked.slice(round * 7919 % services, (first..first + 1).chain(1..ENDPOINTS))
        });
        let resized = updates(&mut engine, |round| {
            asked.slice(round * 7919 % services, 0..ENDPOINTS + 1 + round % 2)
        });
        let read = (0..10).map(|_| {
            let start = Instant::now();
            connections_now(&engine.view(), None).expect("the kernel answers");
            start.elapsed()
        });
        let read = read.min().expect("some");
        let longer = best[mode] / best[0];
        println!(
            "| {services} | {} | {:.0} | {longer:.2} | {:.1} | {} | {} | {} |",
            asked.name,
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
    let (_engine, took) = loaded(services.parse().expect("a number"), &MODES[mode]);
    println!("{} {}", took.as_secs_f64() * 1e3, kernel_memory() - before);
}

/// Another network namespace, so that nothing is there.
fn namespace() {
    // SAFETY: only this thread is in it, and nothing is shared.
    assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNET) }, 0, "needs root: a network namespace");
}

fn loaded(services: u32, mode: &Mode) -> (Engine<Nft>, Duration) {
    let nft = Nft::open().expect("an nftables socket");
    let mut engine = objects::engine_counting(nft, mode.counting);
    for number in 0..services {
        engine.apply(mode.service(number));
        engine.apply(mode.slice(number, 0..ENDPOINTS));
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
