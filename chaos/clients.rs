//! Clients that connect all the time and remember what went wrong, and when.

use nft_table::Family;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use test_support::lab::{Client, Lab, Load, Outcome, cluster_ip};

const LATE: &str = "its first packet was lost";

/// A connection that failed, or whose first packet was lost.
#[derive(Debug)]
pub struct Loss {
    pub from: Instant,
    pub took: Duration,
    pub what: String,
    /// It was answered all the same, after its first packet had been sent again.
    pub is_late: bool,
}

impl Loss {
    /// Whether it began within a time. One that times out would overlap with whatever happens in the next seconds.
    pub fn began(&self, from: Instant, to: Instant) -> bool {
        (from..=to).contains(&self.from)
    }
}

/// What all clients saw.
#[derive(Debug, Default)]
pub struct Clients {
    pub answered: usize,
    pub losses: Vec<Loss>,
}

impl Clients {
    /// Runs clients while something happens: TCP over all ways from everywhere, UDP, and clients with session affinity.
    pub fn during(lab: &Lab, work: impl FnOnce()) -> Clients {
        let ends = AtomicBool::new(false);
        let answered = AtomicUsize::new(0);
        let losses = Mutex::new(Vec::new());
        let tcp = |host: &'static str, targets: Vec<SocketAddr>| {
            let (ends, answered, losses) = (&ends, &answered, &losses);
            move || {
                let client = lab.from(host);
                for target in targets.iter().cycle() {
                    if ends.load(Ordering::Relaxed) {
                        return;
                    }
                    let from = Instant::now();
                    let problem = match Load::once(&client, *target) {
                        Ok(0) => None,
                        Ok(_) => Some(LATE.to_owned()),
                        Err(error) => Some(error.to_string()),
                    };
                    note(answered, losses, from, host, *target, problem);
                    // Fast enough to meet everything, and slow enough for others to run.
                    std::thread::sleep(Duration::from_millis(2));
                }
            }
        };
        let udp = |host: &'static str, target: SocketAddr| {
            let (ends, answered, losses) = (&ends, &answered, &losses);
            move || {
                while !ends.load(Ordering::Relaxed) {
                    let from = Instant::now();
                    let client: Client<'_> = lab.from(host);
                    let problem = match client.udp(target) {
                        Outcome::Reached { .. } => None,
                        other => Some(format!("{other:?}")),
                    };
                    note(answered, losses, from, host, target, problem);
                    std::thread::sleep(Duration::from_millis(2));
                }
            }
        };
        let [v4, v6] = [Family::V4, Family::V6];
        let web = |family| SocketAddr::new(cluster_ip(10, family), 80);
        let node_port = |family| SocketAddr::new(lab.ip("node", family), 30080);
        let cart = SocketAddr::new(cluster_ip(20, v4), 80);
        std::thread::scope(|scope| {
            scope.spawn(tcp("a", vec![web(v4), web(v6), node_port(v4)]));
            scope.spawn(tcp("client", vec![node_port(v4), node_port(v6), web(v4)]));
            scope.spawn(tcp("node", vec![web(v6), web(v4)]));
            // Not from a pod that is an endpoint of it now and then: remembered on itself just when it ceases to be
            // one, it is not masqueraded any more.
            scope.spawn(tcp("node", vec![cart]));
            scope.spawn(udp("a", SocketAddr::new(cluster_ip(30, v4), 53)));
            let _end = EndOnDrop(&ends);
            work();
        });
        let losses = losses.into_inner().unwrap_or_else(PoisonError::into_inner);
        Clients { answered: answered.into_inner(), losses }
    }
}

fn note(
    answered: &AtomicUsize,
    losses: &Mutex<Vec<Loss>>,
    from: Instant,
    host: &str,
    target: SocketAddr,
    problem: Option<String>,
) {
    match problem {
        None => drop(answered.fetch_add(1, Ordering::Relaxed)),
        Some(problem) => {
            let is_late = problem == LATE;
            let what = format!("{host} to {target}: {problem}");
            let loss = Loss { from, took: from.elapsed(), what, is_late };
            losses.lock().unwrap_or_else(PoisonError::into_inner).push(loss);
        }
    }
}

/// Ends the clients also when the work panics.
struct EndOnDrop<'a>(&'a AtomicBool);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
