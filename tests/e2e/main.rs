//! End-to-end tests: the real etcd and kube-apiserver, the manifests of `deploy/`, the real program with the
//! ServiceAccount's token and rights, real packets.
//!
//! `make e2e` builds the servers (`tests/e2e/build-tools`) and names their directory in KUBE_PROXY_E2E_TOOLS.
//! All scenarios share one cluster and run one after the other, each with Services of its own; arguments
//! select those whose name contains one of them.

mod proxy;
mod scenarios;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;
use test_support::cluster::Cluster;
use test_support::lab::Lab;

/// A named scenario.
type Scenario = (&'static str, fn(&mut World));

/// What scenarios work on.
pub struct World {
    pub lab: Lab,
    pub cluster: Cluster,
    /// The proxy on `node`, once a scenario has started it.
    pub proxy: Option<proxy::Proxy>,
    /// It is being started; still so after a scenario: it cannot be.
    pub starting: bool,
}

fn main() -> ExitCode {
    let wanted: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let Some(tools) = std::env::var_os("KUBE_PROXY_E2E_TOOLS").map(PathBuf::from) else {
        println!("skipped: run make e2e");
        return ExitCode::SUCCESS;
    };
    let lab =
        Lab::builder().pod("a").pod("b").remote_pod("c").outside("api").outside("client").build();
    let Some(lab) = lab else { return ExitCode::SUCCESS };
    let start = Instant::now();
    let cluster = Cluster::start(&lab, tools);
    println!("etcd and kube-apiserver are ready after {:.1?}", start.elapsed());
    let mut world = World { lab, cluster, proxy: None, starting: false };
    let mut failed = Vec::new();
    let mut ran = 0;
    for (name, scenario) in scenarios::ALL {
        if !wanted.is_empty() && !wanted.iter().any(|word| name.contains(word.as_str())) {
            continue;
        }
        let start = Instant::now();
        ran += 1;
        match catch_unwind(AssertUnwindSafe(|| scenario(&mut world))) {
            Ok(()) => println!("{name} ... ok ({:.1?})", start.elapsed()),
            Err(_) => {
                println!("{name} ... FAILED ({:.1?})", start.elapsed());
                world.tell_logs();
                failed.push(*name);
            }
        }
        if world.starting {
            println!("the proxy does not start: no more scenarios");
            break;
        }
    }
    println!("{} of {ran} scenarios passed", ran - failed.len());
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

impl World {
    /// Prints the ends of all logs.
    fn tell_logs(&self) {
        let proxies = self.proxy.iter().map(proxy::Proxy::process);
        for process in self.cluster.processes().into_iter().chain(proxies) {
            process.tell_log();
        }
    }
}
