//! Kernel modules: none need be loaded before the start, and one that is missing is named.
//!
//! For a machine of its own: it unloads modules, and hides their files. `vm-tests/run` has loaded those that other tests
//! need.

use nft_table::Family;
use nix::sched::{CloneFlags, unshare};
use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;
use test_support::lab::{Lab, PORT, cluster_ip};
use test_support::proxy::{Manifests, Program, endpoints, objects, program, service};

/// What the ruleset needs, where it is a module and not a part of the kernel or of another module.
const NEEDED: [&str; 9] = [
    "nf_tables",
    "nft_chain_nat",
    "nft_counter",
    "nft_ct",
    "nft_fib_inet",
    "nft_masq",
    "nft_nat",
    "nft_numgen",
    "nft_reject_inet",
];

/// How long what uses a module may take to be gone.
const TRIES: usize = 100;

/// The modules of netfilter that are loaded.
fn loaded() -> BTreeSet<String> {
    let text = fs::read_to_string("/proc/modules").expect("the modules");
    let names = text.lines().filter_map(|line| line.split(' ').next());
    names
        .filter(|name| name.starts_with("nf") || name.starts_with("xt_"))
        .map(str::to_owned)
        .collect()
}

/// Unloads them all. Tables and namespaces that use them go a while after their process.
fn unload_all() {
    for _ in 0..TRIES {
        for module in loaded() {
            let _ = Command::new("rmmod").arg(module).output();
        }
        if !loaded().iter().any(|module| module.starts_with("nft") || module == "nf_tables") {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("these stay loaded: {:?}", loaded());
}

/// The file of a module; None: this kernel has no such module.
fn file(module: &str) -> Option<PathBuf> {
    let output = Command::new("modinfo").args(["-n", module]).output().expect("modinfo");
    let path = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    path.is_absolute().then_some(path)
}

/// A module that is missing for as long as this is there.
struct Hidden {
    file: PathBuf,
    away: PathBuf,
}

impl Hidden {
    fn new(file: PathBuf) -> Hidden {
        let away = file.with_extension("away");
        fs::rename(&file, &away).expect("hide the module");
        Hidden { file, away }
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        fs::rename(&self.away, &self.file).expect("show the module");
    }
}

/// What the program says when it cannot start, in a network namespace of its own.
fn refusal() -> String {
    let manifests = Manifests::new();
    let mut command = Command::new("timeout");
    command.arg("300").arg(program()).arg("--manifests").arg(manifests.path());
    command.args(["--hostname-override=node", "--conntrack-max-per-core=0"]);
    let output = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace");
        command.output().expect("start the program")
    });
    let output = output.join().expect("no panic");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// One test, for modules are the whole machine's.
#[test]
fn modules_are_loaded_or_named() {
    unload_all();
    let lab = Lab::builder().pod("a").pod("b").build().expect("a lab");
    let manifests = Manifests::new();
    manifests.apply(objects![
        service("web").cluster_ip(10).tcp(80),
        endpoints("web").port("", "TCP", PORT).on(&lab, &["b"]),
    ]);
    unload_all();
    let vip = |number, family| std::net::SocketAddr::new(cluster_ip(number, family), 80);
    let running = Program::start(&lab, &manifests, None);
    for family in Family::BOTH {
        assert_eq!(lab.from("a").tcp(vip(10, family)).endpoint(), "b");
    }
    drop(running);
    // What is there keeps its modules.
    let delete_table = || lab.nft(&["delete", "table", "inet", "kube-proxy"]);
    delete_table();

    // What only some Services need harms no others.
    manifests.apply(objects![
        service("limited").cluster_ip(11).tcp(80).annotation("nft.kube-proxy/limits", "open=5"),
        endpoints("limited").port("", "TCP", PORT).on(&lab, &["b"]),
        service("hashed")
            .cluster_ip(12)
            .tcp(80)
            .annotation("nft.kube-proxy/balancing", "hash-flow"),
        endpoints("hashed").port("", "TCP", PORT).on(&lab, &["b"]),
    ]);
    unload_all();
    let asked_for =
        ["nft_limit", "nft_hash"].map(|module| Hidden::new(file(module).expect(module)));
    let running = Program::start(&lab, &manifests, None);
    println!("nft_limit, nft_hash: {}", running.log());
    for name in ["nft_limit", "nft_hash", "default/limited", "default/hashed"] {
        assert!(running.log().contains(name), "{name} is not named: {}", running.log());
    }
    assert_eq!(lab.from("a").tcp(vip(10, Family::V4)).endpoint(), "b");
    drop((running, asked_for));
    delete_table();
    drop(lab);

    for module in NEEDED {
        let Some(file) = file(module) else {
            println!("{module}: no module of this kernel");
            continue;
        };
        unload_all();
        let hidden = Hidden::new(file);
        let said = refusal();
        println!("{module}: {said}");
        assert!(said.contains(module), "{module} is not named: {said}");
        assert!(said.lines().count() < 8, "{said}");
        drop(hidden);
    }

    unload_all();
    fs::write("/proc/sys/kernel/modprobe", "/bin/false").expect("no module loading");
    let said = refusal();
    println!("no module loading: {said}");
    assert!(said.contains("nf_tables"), "{said}");
    assert!(said.lines().count() < 8, "{said}");
    fs::write("/proc/sys/kernel/modprobe", "/sbin/modprobe").expect("module loading");
}
