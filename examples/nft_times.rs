//! How long a table takes to become messages, to be committed and to be read back.
//!
//! ```text
//! cargo run --release --example nft_times -- [SERVICES [ENDPOINTS]]
//! ```
//!
//! Runs as root, in a network namespace of its own.

use anyhow::Context;
use kube_proxy::kernel::{Kernel, Nft};
use kube_proxy::plan::base;
use nft_table::netlink::Batch;
use nft_table::{Chain, Data, Key, KeyBuilder, Table, Value, Verdict};
use nix::sched::{CloneFlags, unshare};
use std::net::Ipv4Addr;
use std::time::Instant;

fn frontend(service: u32) -> KeyBuilder {
    let address = Ipv4Addr::from(0x0a60_0000 + service);
    Key::builder().address(address.into()).protocol(6).port(80)
}

fn slot(service: u32, slot: u32, endpoint: u32) -> (Key, Value) {
    let endpoint = Ipv4Addr::from(0x0af4_0000 + endpoint);
    (frontend(service).slot(slot).build(), Value::Data(Data::address_port(endpoint.into(), 8080)))
}

fn table(services: u32, endpoints: u32) -> Table {
    let (mut table, _) = base::table();
    let frontends = table.set_id("service-ips4").expect("a set of the base table");
    let slots = table.set_id("cluster-endpoints4").expect("a set of the base table");
    let chain = format!("cluster-{endpoints}");
    table.set_chain(Chain::regular(chain.as_str(), Vec::new()));
    for service in 0..services {
        let comment = Some(format!("namespace/service-{service}:http").into());
        let verdict = Verdict::Goto(chain.as_str().into());
        table.insert(frontends, frontend(service).build(), Value::verdict(verdict, comment));
        for ordinal in 0..endpoints {
            let (key, value) = slot(service, ordinal, service * endpoints + ordinal);
            table.insert(slots, key, value);
        }
    }
    table
}

fn timed<T>(what: &str, run: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = run();
    println!("{what:>12} {:>10.1?}", start.elapsed());
    result
}

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<u32>());
    let services = arguments.next().transpose()?.unwrap_or(54_000);
    let endpoints = arguments.next().transpose()?.unwrap_or(10);
    unshare(CloneFlags::CLONE_NEWNET).context("making a network namespace")?;
    let mut nft = Nft::open()?;
    let mut table = timed("state", || table(services, endpoints));
    let changes = timed("difference", || table.changes());
    let batch = timed("encode", || Batch::encode(&changes, 1, None));
    println!("{:>12} {} elements, {} bytes", "", changes.len(), batch.bytes().len());
    drop(batch);
    // Encodes once more.
    timed("commit", || nft.commit(&changes))?;
    drop(changes);
    table.committed();
    let snapshot = timed("snapshot", || nft.snapshot(base::TABLE))?;
    timed("adopt", || table.adopt(snapshot));
    anyhow::ensure!(table.changes().is_empty(), "what was committed is not what is there");
    let slots = table.set_id("cluster-endpoints4").expect("a set of the base table");
    let mut times = Vec::new();
    for endpoint in 0..1000 {
        let (key, value) = slot(endpoint % services, 0, endpoint);
        table.insert(slots, key, value);
        let start = Instant::now();
        nft.commit(&table.changes())?;
        times.push(start.elapsed());
        table.committed();
    }
    times.sort_unstable();
    println!("{:>12} p50 {:.1?}, p99 {:.1?}", "replace", times[500], times[990]);
    Ok(())
}
