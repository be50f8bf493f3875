//! Packets that are under way in the rules at the moment when a transaction takes effect. Each is translated, refused or
//! dropped; none passes as if it was for no Service, after which its connection would never be translated.

use crate::scenario::{at, lab};
use nft_table::Family;
use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use test_support::lab::{Lab, cluster_ip};
use test_support::proxy::{Config, Proxy, endpoints, objects, service};

/// Drops what leaves the node for the Service, and counts what leaves untranslated. As it leaves before conntrack
/// confirms it, every packet is the first of a flow.
const WATCH: &str = "table inet watch {
    chain leaving {
        type filter hook postrouting priority 200; policy accept;
        ip daddr 10.96.0.10 counter comment \"untranslated\"
        ip6 daddr fd00:10:96::a counter comment \"untranslated\"
        ip daddr { 10.96.0.0/16, 10.244.0.0/16 } drop
        ip6 daddr { fd00:10:96::/112, fd00:10:244::/56 } drop
    }
}";

/// Sends to the Service, as fast as it goes, while the scenario runs; returns how many packets that were.
fn under_fire(lab: &Lab, scenario: impl FnOnce(&dyn Fn())) -> usize {
    let (sent, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let fire = || {
        let sockets = Family::BOTH.map(|family| {
            let any = if family == Family::V4 { "0.0.0.0:0" } else { "[::]:0" };
            let socket = UdpSocket::bind(any).expect("a UDP socket");
            (socket, at(cluster_ip(10, family), 80))
        });
        while !stop.load(Ordering::Relaxed) {
            for (socket, vip) in &sockets {
                // What the rules drop or reject is refused to the sender.
                let _ = socket.send_to(b"fire", vip);
                sent.fetch_add(1, Ordering::Relaxed);
            }
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| lab.node().namespace.run(fire));
        let goes_on = || {
            let goal = sent.load(Ordering::Relaxed) + 10;
            while sent.load(Ordering::Relaxed) < goal {
                std::thread::yield_now();
            }
        };
        goes_on();
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| scenario(&goes_on)));
        stop.store(true, Ordering::Relaxed);
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    sent.into_inner()
}

fn untranslated(lab: &Lab) -> Vec<String> {
    let listing = lab.nft(&["list", "table", "inet", "watch"]);
    let counters = listing.lines().filter(|line| line.contains("untranslated"));
    counters
        .map(|line| line.trim().to_owned())
        .filter(|line| !line.contains("packets 0 "))
        .collect()
}

#[test]
fn no_packet_passes_untranslated_while_endpoints_change() {
    let Some(lab) = lab() else { return };
    let mut proxy = Proxy::new(&lab, Config::default());
    let on = |pods: &[&str]| endpoints("web").udp().on(&lab, pods);
    proxy.apply(objects![service("web").cluster_ip(10).udp(80), on(&["b"])]);
    lab.nft(&[WATCH]);
    let sent = under_fire(&lab, |goes_on| {
        for _ in 0..150 {
            // A number of endpoints that no Service has had: its balancing chain is new.
            for pods in [&["b", "c"][..], &[], &["a", "b", "c"], &[]] {
                proxy.apply(on(pods));
                goes_on();
            }
            proxy.tidy();
        }
    });
    assert_eq!(untranslated(&lab), [""; 0], "of {sent} packets");
}
