//! A table of the first layout, as releases before the second one left it: what an upgrade finds.
//!
//! It has the same frontends and endpoints, but slot numbers of type `integer` (4), which no set of the
//! ruleset library has any more. So nft declares everything, and only elements are added here.

use crate::objects::{ENDPOINTS, cluster_ip, endpoint_address};
use kube_proxy::kernel::{Kernel, Nft};
use nft_table::{
    Data, DataType, Key, Operation, Set, SetData, SetFlags, Transaction, Value, Verdict,
};
use std::io::Write;
use std::process::{Command, Stdio};

const DECLARATIONS: &str = "
table inet kube-proxy {
	map service-ips4 {
		type ipv4_addr . inet_proto . inet_service : verdict
	}

	map no-endpoint-services4 {
		type ipv4_addr . inet_proto . inet_service : verdict
	}

	map cluster-endpoints4 {
		typeof ip daddr . meta l4proto . th dport . numgen random mod 2 : ip daddr . th dport
	}

	set cluster-ips4 {
		type ipv4_addr
	}

	chain cluster-10 {
		dnat ip to ip daddr . meta l4proto . th dport . numgen random mod 10 map @cluster-endpoints4
		dnat ip to ip daddr . meta l4proto . th dport . numgen random mod 1 map @cluster-endpoints4
	}

	chain services {
		ip daddr . meta l4proto . th dport vmap @service-ips4
	}

	chain service-endpoints-check {
		ip daddr . meta l4proto . th dport vmap @no-endpoint-services4
	}

	chain masquerading {
		ct status ! dnat return
		ct original ip daddr @cluster-ips4 ip saddr != 10.244.0.0/16 masquerade fully-random
	}

	chain filter-forward {
		type filter hook forward priority filter; policy accept;
		ct state new jump service-endpoints-check
	}

	chain filter-output {
		type filter hook output priority filter; policy accept;
		ct state new jump service-endpoints-check
	}

	chain nat-prerouting {
		type nat hook prerouting priority dstnat; policy accept;
		jump services
	}

	chain nat-output {
		type nat hook output priority -100; policy accept;
		jump services
	}

	chain nat-postrouting {
		type nat hook postrouting priority srcnat; policy accept;
		jump masquerading
	}
}
";

/// Loads it in the network namespace of this thread.
pub fn load(services: u32) {
    declare();
    use DataType::{InetProto, InetService, Ipv4Address, Slot};
    let frontend = [Ipv4Address, InetProto, InetService];
    let endpoint = SetData::Fields(vec![Ipv4Address, InetService]);
    let key = |number| Key::builder().address(cluster_ip(number)).protocol(6).port(80);
    let mut kernel = Nft::open().expect("an nftables socket");
    let mut add = |name: &str, key: &[DataType], data, elements: Vec<(Key, Value)>| {
        let flags = SetFlags::default();
        let key = key.to_vec();
        // The kernel looks for the name; lengths are those of any slot number.
        let set =
            Set { name: name.into(), key, data, flags, type_of: None, size: None, counter: false };
        let mut left = &elements[..];
        let mut size = 4096;
        // In growing parts, as the program loads them.
        while !left.is_empty() {
            let (now, later) = left.split_at(left.len().min(size));
            let elements = now.iter().map(|(key, value)| (key, value)).collect();
            let operations = vec![Operation::AddElements { set: &set, elements }];
            kernel
                .commit(&Transaction::new("kube-proxy", operations))
                .expect("elements of the first layout");
            (left, size) = (later, 2 * size);
        }
    };
    let slots = |number| {
        let address = move |index| endpoint_address(number, index);
        let data = move |index| Value::Data(Data::address_port(address(index), 8080));
        (0..ENDPOINTS).map(move |index| (key(number).slot(index).build(), data(index)))
    };
    let slot_key = [&frontend[..], &[Slot]].concat();
    add("cluster-endpoints4", &slot_key, endpoint, (0..services).flat_map(slots).collect());
    let ip = |number| (Key::builder().address(cluster_ip(number)).build(), Value::Member);
    add("cluster-ips4", &[Ipv4Address], SetData::None, (0..services).map(ip).collect());
    let verdict = |number| {
        let comment = format!("default/service-{number}:http").into_boxed_str();
        let goto = Verdict::Goto("cluster-10".into());
        (key(number).build(), Value::verdict(goto, Some(comment)))
    };
    add("service-ips4", &frontend, SetData::Verdict, (0..services).map(verdict).collect());
}

fn declare() {
    let mut nft = Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn().expect("nft");
    let mut input = nft.stdin.take().expect("its input");
    input.write_all(DECLARATIONS.as_bytes()).expect("nft reads");
    drop(input);
    assert!(nft.wait().expect("nft").success(), "nft takes the declarations");
}
