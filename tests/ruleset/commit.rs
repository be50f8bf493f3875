//! What is committed is what nft lists, what nft loads again, and what is read back.

use crate::scenario;
use kube_proxy::kernel::{Kernel, Nft};
use nft_table::Family;
use nft_table::{Count, Counts, Data, DataType, Key, Operation, Table, Transaction, Value, text};
use std::collections::HashMap;
use std::io::Write;
use std::sync::{Arc, mpsc};
use test_support::listing::sorted_lines;
use test_support::netns::{in_namespace, sh, skip_without};
use test_support::nft_versions;

fn filled() -> Table {
    let mut table = scenario::table();
    scenario::fill(&mut table);
    table
}

/// What is read back is the table, and nothing else.
#[track_caller]
fn assert_filled(nft: &mut Nft) {
    let mut again = filled();
    again.adopt(nft.snapshot("kube-proxy").unwrap());
    assert!(again.changes().is_empty(), "{:#?}", again.changes());
}

/// The table with all that nft 1.0.6 cannot load, but newer versions can.
fn filled_for_newer() -> Table {
    let mut table = filled();
    scenario::affinity(&mut table, Family::V6, "shop/cart/tcp/http");
    table
}

fn commit(nft: &mut Nft, table: &mut Table) {
    nft.commit(&table.changes()).unwrap_or_else(|error| panic!("{error}"));
    table.committed();
}

#[test]
fn nft_lists_the_base_table_as_it_is_planned() {
    if skip_without("nft") {
        return;
    }
    in_namespace(|| {
        let mut table = scenario::table();
        commit(&mut Nft::open().unwrap(), &mut table);
        assert_eq!(sh("nft list table inet kube-proxy"), table.to_string());
    });
}

#[test]
fn nft_lists_a_filled_table_as_it_is_planned() {
    if skip_without("nft") {
        return;
    }
    in_namespace(|| {
        let mut table = filled_for_newer();
        commit(&mut Nft::open().unwrap(), &mut table);
        let listing = sh("nft list table inet kube-proxy");
        assert_eq!(sorted_lines(&listing), sorted_lines(&table.to_string()));
    });
}

#[test]
fn what_was_committed_is_there() {
    in_namespace(|| {
        let mut nft = Nft::open().unwrap();
        commit(&mut nft, &mut filled());
        assert_filled(&mut nft);
    });
}

/// Runs a body in a namespace and returns what it returns.
fn from_namespace<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (sender, receiver) = mpsc::channel();
    in_namespace(move || sender.send(body()).unwrap());
    receiver.recv().ok()
}

/// Loads a listing with nft in a namespace of its own and returns what nft lists there.
fn load_again(listing: &str) -> Option<String> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(listing.as_bytes()).unwrap();
    let file = file.into_temp_path();
    from_namespace(move || {
        sh(&format!("nft -f {}", file.display()));
        sh("nft list table inet kube-proxy")
    })
}

#[test]
fn nft_loads_its_listing_again() {
    if skip_without("nft") {
        return;
    }
    let first = from_namespace(|| {
        commit(&mut Nft::open().unwrap(), &mut filled());
        sh("nft list table inet kube-proxy")
    });
    let Some(first) = first else { return };
    assert_eq!(load_again(&first), Some(first));
}

#[test]
fn nft_loads_our_text() {
    if skip_without("nft") {
        return;
    }
    let text = filled().to_string();
    let Some(listing) = load_again(&text) else { return };
    assert_eq!(sorted_lines(&listing), sorted_lines(&text));
}

/// Loads the text of a table with nft: then its slot numbers are of type `integer`, as they were in releases before
/// old nfts could live beside the table.
fn load_with_nft(table: &Table) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), table.to_string()).unwrap();
    sh(&format!("nft -f {}", file.path().display()));
}

#[test]
fn what_nft_loaded_is_ours_but_for_the_type_of_slots() {
    if skip_without("nft") {
        return;
    }
    in_namespace(|| {
        let table = filled();
        load_with_nft(&table);
        let there = Nft::open().unwrap().snapshot("kube-proxy").unwrap().unwrap();
        assert!(!there.is_foreign);
        assert_eq!(there.chains.len(), table.chains().len());
        for chain in table.chains() {
            let loaded = &there.chains[&chain.name];
            assert!(loaded.base == chain.base && loaded.has_rules_of(chain), "{chain}");
        }
        assert_eq!(there.sets.len(), table.sets().count());
        for (id, set) in table.sets() {
            let loaded = &there.sets[&set.name];
            if set.key.contains(&DataType::Slot) {
                assert_eq!(loaded.set, None);
                continue;
            }
            assert_eq!(loaded.set.as_ref(), Some(set));
            let elements: HashMap<&Key, &Value> = table.elements(id).collect();
            let loaded = loaded.elements.iter().map(|(key, value)| (key, value)).collect();
            assert_eq!(elements, loaded, "{}", set.name);
        }
    });
}

#[test]
fn a_table_with_slots_of_another_type_is_replaced() {
    if skip_without("nft") {
        return;
    }
    in_namespace(|| {
        load_with_nft(&filled());
        let mut nft = Nft::open().unwrap();
        let mut table = filled();
        assert!(!table.adopt(nft.snapshot("kube-proxy").unwrap()));
        assert!(table.changes().operations.contains(&Operation::DeleteTable));
        commit(&mut nft, &mut table);
        let mut again = filled();
        assert!(again.adopt(nft.snapshot("kube-proxy").unwrap()));
        assert!(again.changes().is_empty(), "{:#?}", again.changes());
    });
}

#[test]
fn a_table_of_another_layout_is_replaced() {
    if skip_without("nft") {
        return;
    }
    let others = [
        // A set of another type, a chain that is in the way, one with a policy, a map that is not ours.
        "table inet kube-proxy { set cluster-ips4 { type ipv6_addr; }; }",
        "table inet kube-proxy { chain services { type filter hook input priority 0; }; }",
        "table inet kube-proxy { chain nat-output { type nat hook output priority -100; policy drop; }; }",
        "table inet kube-proxy { chain mine { type route hook output priority -100; }; }",
        "table inet kube-proxy { set service-cidrs4 { type ipv4_addr; flags interval; auto-merge; }; }",
        "table inet kube-proxy { flags dormant; }",
    ];
    in_namespace(move || {
        let mut nft = Nft::open().unwrap();
        for other in others {
            sh(&format!("nft -f - <<'E'\n{other}\nE"));
            let mut table = filled();
            table.adopt(nft.snapshot("kube-proxy").unwrap());
            let replaces = table.changes().operations.contains(&Operation::DeleteTable);
            // A chain that nobody asked for is only deleted.
            assert!(replaces || other.contains("chain"), "{other}");
            commit(&mut nft, &mut table);
            let mut again = filled();
            again.adopt(nft.snapshot("kube-proxy").unwrap());
            assert!(again.changes().is_empty(), "{other}: {:#?}", again.changes());
            sh("nft delete table inet kube-proxy");
        }
    });
}

#[test]
fn what_somebody_added_is_taken_away() {
    if skip_without("nft") {
        return;
    }
    in_namespace(|| {
        let mut nft = Nft::open().unwrap();
        commit(&mut nft, &mut filled());
        let before = sh("nft list table inet kube-proxy");
        sh("nft -f - <<'E'
add rule inet kube-proxy services counter
insert rule inet kube-proxy pods meta l4proto { tcp, udp } accept
add chain inet kube-proxy mine
add map inet kube-proxy mine { type ipv4_addr : verdict; }
add element inet kube-proxy mine { 192.0.2.1 : jump mine }
add element inet kube-proxy cluster-ips4 { 192.0.2.1 }
delete element inet kube-proxy cluster-ips6 { fd00:10:96::a }
add element inet kube-proxy pod-sources4 { 198.51.100.0/24 }
E");
        let mut table = filled();
        table.adopt(nft.snapshot("kube-proxy").unwrap());
        assert!(!table.changes().operations.contains(&Operation::DeleteTable));
        table.delete_unused();
        commit(&mut nft, &mut table);
        let after = sh("nft list table inet kube-proxy");
        assert_eq!(sorted_lines(&after), sorted_lines(&before));
    });
}

#[test]
fn a_rule_is_compared_with_all_that_it_says() {
    if skip_without("nft") {
        return;
    }
    // Chain, a part of its rules, and another that is written much the same.
    let parts = [
        ("reject-connection", "bytes 0 reject\n", "bytes 0 reject with icmpx host-unreachable\n"),
        ("reject-connection", "with tcp reset", "with icmpx port-unreachable"),
        (
            "services",
            "ip daddr . meta l4proto . th dport vmap",
            "ip saddr . meta l4proto . th dport vmap",
        ),
        ("prerouting", "jump", "goto"),
        ("forward", "state new", "state established"),
        ("forward", "state new", "state ! new"),
        ("postrouting", "status ! dnat", "status ! snat"),
        ("pods", "masquerade fully-random", "masquerade random"),
        ("pods", "masquerade fully", "masquerade persistent,fully"),
        ("pods", "saddr 10.244.0.0/16", "saddr 10.245.0.0/16"),
        ("pods", "saddr 10.244.0.0/16", "saddr 10.244.0.0/15"),
        ("pods", "saddr != 10.128.0.0/9", "saddr 10.128.0.0/9"),
        ("pods", "fd00:10:244::/61", "fd00:10:244::/60"),
        ("pods", "\"cni0\"", "\"cni1\""),
        ("pods", "\"cali*\"", "\"cal*\""),
        ("pods", "fib saddr type != local", "fib saddr type local"),
        ("postrouting", "{ tcp, udp, sctp }", "{ tcp, udp }"),
        ("postrouting", "{ tcp, udp, sctp }", "{ tcp, udp, dccp }"),
        ("postrouting", "original ip daddr", "reply ip daddr"),
        ("services", "!= @allowed", "@allowed"),
        ("services", "fib daddr type != local", "fib daddr type local"),
        ("pods", "@pod-interfaces accept", "@pod-interfaces counter accept"),
        ("cluster-1", "mod 1", "mod 2"),
        ("cluster-1", "mod 1", "mod 1 offset 1"),
        ("cluster-1", "numgen random", "numgen inc"),
        ("cluster-1", "map @cluster-endpoints4", "map @local-endpoints4"),
        ("cluster-1", "map @cluster-endpoints4", "map @cluster-endpoints4 random"),
        ("affinity4-shop/cart/tcp/http-remember", "timeout 3h", "timeout 2h"),
        ("affinity4-shop/cart/tcp/http-remember", "update", "add"),
        ("affinity4-shop/cart/tcp/http-cluster", "l4proto tcp", "l4proto udp"),
    ];
    in_namespace(move || {
        let mut nft = Nft::open().unwrap();
        let table = filled();
        for (name, part, other) in parts {
            let chain = table.chain(name).unwrap();
            let text = chain.to_string().replace(part, other);
            assert_ne!(text, chain.to_string(), "{part}");
            let text = table.to_string().replace(&chain.to_string(), &text);
            sh(&format!("nft -f - <<'E'\n{text}\nE"));
            let snapshot = nft.snapshot("kube-proxy").unwrap().unwrap();
            assert!(!snapshot.chains[name].has_rules_of(chain), "{other} is not {part}");
            sh("nft delete table inet kube-proxy");
        }
    });
}

#[test]
fn an_affinity_comes_and_goes() {
    in_namespace(|| {
        let mut nft = Nft::open().unwrap();
        let mut table = filled();
        commit(&mut nft, &mut table);
        for family in Family::BOTH {
            scenario::affinity(&mut table, family, "x/y/tcp/z");
            commit(&mut nft, &mut table);
            let digit = if family == Family::V4 { 4 } else { 6 };
            let name = format!("affinity{digit}-x/y/tcp/z-cluster");
            assert!(table.chain(&name).is_some());
            table.remove_chain(&name);
            table.remove_chain(&format!("affinity{digit}-x/y/tcp/z-remember"));
            table.remove_set(table.set_id(&name).unwrap());
            commit(&mut nft, &mut table);
        }
        assert_filled(&mut nft);
    });
}

#[test]
fn elements_go_on_from_what_they_have_counted() {
    if skip_without("nft") {
        return;
    }
    in_namespace(|| {
        let mut nft = Nft::open().unwrap();
        let mut table = filled();
        commit(&mut nft, &mut table);
        let set = table.set(table.set_id("service-nodeports4").unwrap()).unwrap().clone();
        let there = nft.elements("kube-proxy", &set).unwrap();
        let (key, value) = &there[0];
        let count = Count { packets: 1 << 40, bytes: u64::MAX };
        let mut transaction = Transaction::new(
            "kube-proxy",
            vec![
                Operation::DeleteElements { set: &set, keys: vec![key] },
                Operation::AddElements { set: &set, elements: vec![(key, value)] },
            ],
        );
        let counts = Counts::from([(set.name.clone(), HashMap::from([(key.clone(), count)]))]);
        transaction.counts = Arc::new(counts);
        nft.commit(&transaction).unwrap();
        let absent = Key::builder().protocol(6).port(1).build();
        let counted = nft.counts("kube-proxy", &set, &[key, &absent]).unwrap();
        assert_eq!(counted, [Some((value.clone(), count)), None]);
        // Others count nothing yet, and what elements have counted is no difference.
        let others: Vec<&Key> = there[1..].iter().map(|(key, _)| key).collect();
        let counted = nft.counts("kube-proxy", &set, &others).unwrap();
        assert!(counted.iter().flatten().all(|(_, count)| *count == Count::default()));
        assert_filled(&mut nft);
        let listed = sh("nft list map inet kube-proxy service-nodeports4");
        assert!(listed.contains(&text::counted(&set, key, value, count)), "{listed}");
    });
}

#[test]
fn elements_of_a_dynamic_map_are_read_and_deleted() {
    if skip_without("nft") {
        return;
    }
    in_namespace(|| {
        let mut nft = Nft::open().unwrap();
        let mut table = filled();
        commit(&mut nft, &mut table);
        let name = "affinity4-shop/cart/tcp/http-cluster";
        sh(&format!(
            "nft add element inet kube-proxy {name} '{{ 192.0.2.7 timeout 1h : 10.244.0.11 . 8080, 192.0.2.8 timeout 1h : 10.244.0.12 . 8080 }}'"
        ));
        let set = table.set(table.set_id(name).unwrap()).unwrap();
        let mut elements = nft.elements("kube-proxy", set).unwrap();
        elements.sort_by(|(a, _), (b, _)| a.cmp(b));
        let element = |client: &str, endpoint: &str| {
            let key = Key::builder().address(client.parse().unwrap()).build();
            (key, Value::Data(Data::address_port(endpoint.parse().unwrap(), 8080)))
        };
        let expected = [element("192.0.2.7", "10.244.0.11"), element("192.0.2.8", "10.244.0.12")];
        assert_eq!(elements, expected);
        let operations = vec![Operation::DeleteElements { set, keys: vec![&elements[0].0] }];
        nft.commit(&Transaction::new("kube-proxy", operations)).unwrap();
        assert_eq!(nft.elements("kube-proxy", set).unwrap(), expected[1..]);
    });
}

#[test]
fn two_hundred_thousand_elements() {
    in_namespace(|| {
        let fill = || {
            let mut table = scenario::table();
            scenario::fill_slots(&mut table, 200_000);
            table
        };
        let mut nft = Nft::open().unwrap();
        commit(&mut nft, &mut fill());
        let mut again = fill();
        again.adopt(nft.snapshot("kube-proxy").unwrap());
        assert!(again.changes().is_empty());
    });
}

#[test]
fn newer_nfts_list_it_and_load_their_listings_again() {
    for release in ["trixie", "forky"] {
        if let Some(nft) = nft_versions::of_debian(release) {
            lists_it_and_loads_its_listing_again(nft);
        }
    }
}

fn lists_it_and_loads_its_listing_again(newer: String) {
    let list = format!("{newer} list table inet kube-proxy");
    let first = from_namespace({
        let list = list.clone();
        move || {
            commit(&mut Nft::open().unwrap(), &mut filled_for_newer());
            sh(&list)
        }
    });
    let Some(first) = first else { return };
    // Newer versions name priorities around well-known ones for all hooks.
    let named = |text: &str| {
        text.replace("output priority -110", "output priority dstnat - 10")
            .replace("output priority -100", "output priority dstnat")
            .replace("output priority -99", "output priority dstnat + 1")
    };
    assert_eq!(sorted_lines(&first), sorted_lines(&named(&filled_for_newer().to_string())));
    let second = from_namespace({
        let first = first.clone();
        move || {
            sh(&format!("{newer} -f - <<'E'\n{first}\nE"));
            sh(&list)
        }
    });
    assert_eq!(second, Some(first));
}
