//! Local routes and interface addresses by event.

use ipnet::IpNet;
use kube_proxy::kernel::addresses::{
    AddressWatch, LocalAddresses, NodePortSelection, available_families, nodeport_networks,
};
use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;
use test_support::netns::{in_namespace, sh};

/// Only a bound on how long a broken test hangs.
const PATIENCE: Duration = Duration::from_secs(30);

fn watch() -> (AddressWatch, LocalAddresses, Receiver<LocalAddresses>) {
    let (sender, receiver) = mpsc::channel();
    let (watch, first) =
        AddressWatch::start(move |snapshot| sender.send(snapshot).unwrap()).unwrap();
    (watch, first, receiver)
}

/// Waits for a snapshot that `wanted` accepts; those before it are states on the way.
#[track_caller]
fn wait_for(
    receiver: &Receiver<LocalAddresses>,
    wanted: impl Fn(&LocalAddresses) -> bool,
) -> LocalAddresses {
    let mut last = None;
    loop {
        match receiver.recv_timeout(PATIENCE) {
            Ok(snapshot) if wanted(&snapshot) => return snapshot,
            Ok(snapshot) => last = Some(snapshot),
            Err(error) => panic!("{error}; the last snapshot was {last:#?}"),
        }
    }
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn has_route(text: &str) -> impl Fn(&LocalAddresses) -> bool {
    let wanted = net(text);
    move |snapshot| snapshot.local_routes.contains(&wanted)
}

fn lacks_route(text: &str) -> impl Fn(&LocalAddresses) -> bool {
    let has = has_route(text);
    move |snapshot| !has(snapshot)
}

#[test]
fn the_first_snapshot_holds_what_is_there() {
    in_namespace(|| {
        sh("ip link add eth0 type bridge; ip link set eth0 up
            ip addr add 192.0.2.10/24 dev eth0
            ip addr add 192.0.2.20 peer 198.51.100.1 dev eth0
            ip addr add 2001:db8::10/64 dev eth0 nodad
            ip route add local 203.0.113.0/28 dev eth0
            ip route add local 203.0.113.77 dev lo
            ip -6 route add local 2001:db8:1::/64 dev lo
            ip route add 10.0.0.0/8 via 192.0.2.1
            ip route add local 10.9.9.9 dev eth0 table 100");
        let (_watch, first, _) = watch();
        for address in ["127.0.0.1", "192.0.2.10", "192.0.2.20", "::1", "2001:db8::10"] {
            assert!(first.interface_addresses.contains(&ip(address)), "{address} {first:#?}");
        }
        assert!(!first.interface_addresses.contains(&ip("198.51.100.1")), "a peer is elsewhere");
        let v4: Vec<IpNet> =
            first.local_routes.iter().copied().filter(|net| net.addr().is_ipv4()).collect();
        assert_eq!(
            v4,
            ["192.0.2.10/32", "192.0.2.20/32", "203.0.113.0/28", "203.0.113.77/32"].map(net)
        );
        assert!(first.local_routes.contains(&net("2001:db8::10/128")));
        assert!(first.local_routes.contains(&net("2001:db8:1::/64")));
        assert!(first.local_routes.iter().all(|net| !net.addr().is_multicast()));
        assert_eq!(
            first.loopback_routes,
            ["127.0.0.0/8", "127.0.0.1/32", "::1/128"].map(net),
            "loopback is kept apart"
        );
        assert!(
            nodeport_networks(&NodePortSelection::ALL, &first).contains(&net("203.0.113.0/28"))
        );
    });
}

#[test]
fn addresses_and_bare_routes_come_and_go_by_event() {
    in_namespace(|| {
        sh("ip link add eth0 type bridge; ip link set eth0 up");
        let (_watch, first, changes) = watch();
        assert!(lacks_route("192.0.2.10/32")(&first));

        sh("ip addr add 192.0.2.10/24 dev eth0");
        let both = |snapshot: &LocalAddresses| {
            has_route("192.0.2.10/32")(snapshot)
                && snapshot.interface_addresses.contains(&ip("192.0.2.10"))
        };
        wait_for(&changes, both);
        sh("ip addr add 2001:db8::10/64 dev eth0 nodad");
        wait_for(&changes, has_route("2001:db8::10/128"));

        sh("ip route add local 203.0.113.0/28 dev eth0");
        wait_for(&changes, has_route("203.0.113.0/28"));
        sh("ip -6 route add local 2001:db8:7::7 dev eth0");
        wait_for(&changes, has_route("2001:db8:7::7/128"));
        sh("ip route del local 203.0.113.0/28 dev eth0");
        wait_for(&changes, lacks_route("203.0.113.0/28"));

        sh("ip addr del 192.0.2.10/24 dev eth0");
        wait_for(&changes, |snapshot| {
            lacks_route("192.0.2.10/32")(snapshot)
                && !snapshot.interface_addresses.contains(&ip("192.0.2.10"))
        });
    });
}

#[test]
fn a_bare_route_goes_with_its_interface() {
    in_namespace(|| {
        sh("ip link add eth0 type bridge; ip link set eth0 up
            ip link add eth1 type bridge; ip link set eth1 up
            ip addr add 192.0.2.10/24 dev eth0
            ip route add local 203.0.113.5 dev eth1");
        let (_watch, first, changes) = watch();
        assert!(has_route("203.0.113.5/32")(&first));
        sh("ip link del eth1");
        let after = wait_for(&changes, lacks_route("203.0.113.5/32"));
        assert!(has_route("192.0.2.10/32")(&after));
    });
}

#[test]
fn routes_of_other_types_and_the_same_state_again_are_not_told() {
    in_namespace(|| {
        sh("ip link add eth0 type bridge; ip link set eth0 up; ip addr add 192.0.2.10/24 dev eth0");
        let (_watch, _, changes) = watch();
        sh("ip route add 10.0.0.0/8 via 192.0.2.1
            ip route add blackhole 10.1.0.0/16
            ip route del 10.0.0.0/8 via 192.0.2.1
            ip addr change 192.0.2.10/24 dev eth0 valid_lft 1000 preferred_lft 500
            ip route add local 203.0.113.5 dev eth0");
        // Everything before it was seen by the time the last change arrives. The interface's
        // link-local address may show up meanwhile, so only IPv4 is looked at.
        let v4 = |snapshot: &LocalAddresses| -> Vec<IpNet> {
            snapshot.local_routes.iter().copied().filter(|net| net.addr().is_ipv4()).collect()
        };
        let next = wait_for(&changes, |snapshot| v4(snapshot) != [net("192.0.2.10/32")]);
        assert_eq!(v4(&next), ["192.0.2.10/32", "203.0.113.5/32"].map(net));
    });
}

#[test]
fn lost_events_lead_to_the_whole_state() {
    in_namespace(|| {
        sh("ip link add eth0 type bridge; ip link set eth0 up");
        // The callback holds the thread up at the first change, so that the socket overflows.
        let (seen, changes) = mpsc::channel();
        let (go, gate) = mpsc::channel::<()>();
        let mut held = false;
        let (_watch, _) = AddressWatch::start(move |snapshot: LocalAddresses| {
            seen.send(snapshot).unwrap();
            if !held {
                held = true;
                gate.recv().unwrap();
            }
        })
        .unwrap();
        sh("ip addr add 192.0.2.10/24 dev eth0");
        wait_for(&changes, |_| true);
        let mut batch = String::new();
        for i in 0..4000 {
            batch += &format!("addr add 10.1.{}.{}/32 dev eth0\n", i / 250, i % 250);
        }
        for i in 0..4000 {
            batch += &format!("addr del 10.1.{}.{}/32 dev eth0\n", i / 250, i % 250);
        }
        batch += "addr add 10.2.2.2/32 dev eth0\n";
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), batch).unwrap();
        sh(&format!("ip -batch {}", file.path().display()));
        let drops: u64 = fs::read_to_string("/proc/thread-self/net/netlink")
            .unwrap()
            .lines()
            .skip(1)
            .filter_map(|line| line.split_whitespace().nth(8)?.parse::<u64>().ok())
            .sum();
        assert!(drops > 0, "the test is to overflow the socket");
        go.send(()).unwrap();
        let last = wait_for(&changes, has_route("10.2.2.2/32"));
        assert!(has_route("192.0.2.10/32")(&last));
        assert!(lacks_route("10.1.0.0/32")(&last) && lacks_route("10.1.15.249/32")(&last));
    });
}

#[test]
fn a_namespace_without_any_address_is_empty() {
    in_namespace(|| {
        sh("ip link set lo down; ip addr flush dev lo");
        let (_watch, first, changes) = watch();
        assert_eq!(first, LocalAddresses::default());
        sh("ip link set lo up");
        wait_for(&changes, |snapshot| snapshot.loopback_routes.contains(&net("127.0.0.1/32")));
    });
}

#[test]
fn disabling_ipv6_is_seen() {
    in_namespace(|| {
        let proc = Path::new("/proc");
        if !proc.join("thread-self/net/if_inet6").exists() {
            return test_support::skip::skip("this kernel has no IPv6");
        }
        assert!(available_families(proc).v6);
        fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1").unwrap();
        assert!(!available_families(proc).v6);
        let (_watch, first, _) = watch();
        assert!(first.interface_addresses.iter().all(IpAddr::is_ipv4), "{first:#?}");
    });
}
