//! Many objects at once.

use super::eventually;
use crate::World;
use futures::StreamExt;
use serde_json::Value;
use std::net::IpAddr;
use std::time::Instant;
use test_support::cluster::Cluster;
use test_support::cluster::objects::{apply, cluster_ips, delete, service, slice};
use test_support::lab::Outcome;

const MANY: usize = 1000;
/// Requests in flight.
const AT_ONCE: usize = 16;

async fn all<T>(work: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    futures::stream::iter(work).buffered(AT_ONCE).collect().await
}

fn create(cluster: &Cluster, endpoint: IpAddr) -> Vec<IpAddr> {
    cluster.with(async |client| {
        let made = all((0..MANY).map(|number| {
            let client = &client;
            async move {
                let name = format!("burst-{number}");
                let made: Value = apply(client, &service(&name)).await;
                apply(client, &slice(&name, &name, &[(endpoint, "node")])).await;
                cluster_ips(&made)[0]
            }
        }));
        made.await
    })
}

fn remove(cluster: &Cluster) {
    cluster.with(async |client| {
        let client = &client;
        let gone = (0..MANY).map(|number| async move {
            let name = format!("burst-{number}");
            delete(client, &service(&name)).await;
            delete(client, &slice::<&str>(&name, &name, &[])).await;
        });
        all(gone).await;
    });
}

/// All of them work, and all of them go.
pub fn a_thousand_services_at_once(world: &mut World) {
    world.need_proxy();
    let World { lab, cluster, .. } = world;
    let start = Instant::now();
    let vips = create(cluster, lab.v4("a"));
    let created = start.elapsed();
    let reached = Outcome::reached("a", lab.v4("b"));
    for vip in &vips {
        eventually(&reached, || lab.from("b").tcp((*vip, 80)));
    }
    println!("  {MANY} Services and slices created in {created:.1?}");
    remove(cluster);
    for vip in vips.iter().step_by(100) {
        eventually(&Outcome::TimedOut, || lab.from("b").tcp((*vip, 80)));
    }
}
