//! What the kernel refuses is named: the operation, the element, the chain, the cause.

use crate::scenario::{self, goto};
use kube_proxy::kernel::nft::{Cause, Error, Refusal};
use kube_proxy::kernel::{Kernel, Nft};
use nft_table::{Data, Key, Operation, Rule, Statement, Table, Transaction, Value};
use std::net::{IpAddr, Ipv4Addr};
use test_support::netns::{in_namespace, sh, skip_without};

fn commit(nft: &mut Nft, table: &mut Table) {
    nft.commit(&table.changes()).unwrap_or_else(|error| panic!("{error}"));
    table.committed();
}

fn vip(number: u32, port: u16) -> Key {
    let address = Ipv4Addr::from(0x0a60_0000 + number);
    Key::builder().address(address.into()).protocol(6).port(port).build()
}

fn first_refusal(result: Result<(), Error>) -> Refusal {
    let error = result.expect_err("the kernel refuses it");
    error.refusals().first().unwrap_or_else(|| panic!("no refusal: {error}")).clone()
}

/// A table with the base ruleset in the kernel.
fn base_in_kernel() -> (Nft, Table) {
    let mut nft = Nft::open().unwrap();
    let mut table = scenario::table();
    commit(&mut nft, &mut table);
    (nft, table)
}

#[test]
fn an_element_that_is_there_with_other_data() {
    in_namespace(|| {
        let (mut nft, mut table) = base_in_kernel();
        let map = table.set_id("service-ips4").unwrap();
        // So many that they fill several messages; the element at fault is in the last.
        for number in 0..3000 {
            table.insert(map, vip(number, 80), goto("external-none")).unwrap();
        }
        commit(&mut nft, &mut table);
        let (set, value) = (table.set(map).unwrap(), goto("reject-connection"));
        let keys: Vec<Key> = (0..5000).map(|number| vip(number, 443)).collect();
        let bad = vip(2999, 80);
        let mut elements: Vec<(&Key, &Value)> = keys.iter().map(|key| (key, &value)).collect();
        elements.insert(4321, (&bad, &value));
        let operations = vec![Operation::AddElements { set, elements }];
        let refusal = first_refusal(nft.commit(&Transaction::new("kube-proxy", operations)));
        assert_eq!(refusal.cause, Cause::Exists);
        assert_eq!(refusal.set.as_deref(), Some("service-ips4"));
        assert_eq!(refusal.key, Some(bad));
        assert_eq!(
            refusal.operation,
            "add element inet kube-proxy service-ips4 \
             { 10.96.11.183 . tcp . 80 : goto reject-connection }"
        );
        assert_eq!(refusal.errno, libc::EEXIST);
    });
}

#[test]
fn an_element_that_leads_nowhere() {
    in_namespace(|| {
        let (mut nft, mut table) = base_in_kernel();
        let map = table.set_id("service-ips4").unwrap();
        table.insert(map, vip(1, 80), goto("external-none")).unwrap();
        table.insert(map, vip(2, 80), goto("nowhere")).unwrap();
        let refusal = first_refusal(nft.commit(&table.changes()));
        assert_eq!((refusal.cause, refusal.key), (Cause::NotFound, Some(vip(2, 80))));
        let snapshot = nft.snapshot("kube-proxy").unwrap().unwrap();
        assert!(snapshot.sets["service-ips4"].elements.is_empty(), "nothing of it was done");
    });
}

#[test]
fn a_load_whose_last_stage_is_refused_leads_nowhere_and_goes_on_from_there() {
    in_namespace(|| {
        let mut nft = Nft::open().unwrap();
        let mut table = scenario::table();
        scenario::fill_slots(&mut table, 10_000);
        let map = table.set_id("service-ips4").unwrap();
        table.insert(map, vip(1, 80), goto("external-none")).unwrap();
        table.insert(map, vip(2, 80), goto("nowhere")).unwrap();
        let refusal = first_refusal(nft.commit(&table.changes()));
        assert_eq!((refusal.cause, refusal.key), (Cause::NotFound, Some(vip(2, 80))));
        let snapshot = nft.snapshot("kube-proxy").unwrap();
        assert!(snapshot.as_ref().unwrap().sets["service-ips4"].elements.is_empty());
        table.remove(map, &vip(2, 80));
        assert!(table.adopt(snapshot));
        assert_eq!(table.changes().len(), table.len(map), "all but the frontends is there");
        commit(&mut nft, &mut table);
        let snapshot = nft.snapshot("kube-proxy").unwrap().unwrap();
        assert_eq!(snapshot.sets["service-ips4"].elements.len(), table.len(map));
    });
}

#[test]
fn overlapping_ranges() {
    in_namespace(|| {
        let (mut nft, mut table) = base_in_kernel();
        let set = table.set_id("pod-sources4").unwrap();
        let network = |text: &str| Key::builder().network(text.parse().unwrap());
        table.insert(set, network("10.0.0.0/8"), Value::Member).unwrap();
        table.insert(set, network("10.1.0.0/16"), Value::Member).unwrap();
        let refusal = first_refusal(nft.commit(&table.changes()));
        assert_eq!(refusal.cause, Cause::Exists);
        assert_eq!(refusal.key, Some(network("10.1.0.0/16")));
        assert_eq!(refusal.operation, "add element inet kube-proxy pod-sources4 { 10.1.0.0/16 }");
    });
}

#[test]
fn a_deleted_element_that_is_not_there() {
    in_namespace(|| {
        let (mut nft, table) = base_in_kernel();
        let set = table.set(table.set_id("cluster-endpoints4").unwrap()).unwrap();
        let key = Key(vip(1, 80).0.iter().copied().chain([0; 4]).collect());
        let operations = vec![Operation::DeleteElements { set, keys: vec![&key] }];
        let refusal = first_refusal(nft.commit(&Transaction::new("kube-proxy", operations)));
        assert_eq!(refusal.cause, Cause::NotFound);
        assert_eq!(
            refusal.operation,
            "delete element inet kube-proxy cluster-endpoints4 { 10.96.0.1 . tcp . 80 . 0 }"
        );
    });
}

#[test]
fn a_full_set() {
    in_namespace(|| {
        let mut nft = Nft::open().unwrap();
        let mut table = scenario::table();
        let mut set = table.set(table.set_id("cluster-endpoints4").unwrap()).unwrap().clone();
        set.name = "small".into();
        set.size = Some(2);
        let small = table.add_set(set).unwrap();
        for slot in 0..3 {
            let address = IpAddr::from(Ipv4Addr::new(10, 96, 0, 10));
            let key = Key::builder().address(address).protocol(6).port(80).slot(slot).build();
            table.insert(small, key, Value::Data(Data::address_port(address, 80))).unwrap();
        }
        let refusal = first_refusal(nft.commit(&table.changes()));
        assert_eq!((refusal.cause, refusal.errno), (Cause::Full, libc::ENFILE));
        assert_eq!(refusal.set.as_deref(), Some("small"));
        assert!(nft.snapshot("kube-proxy").unwrap().is_none());
    });
}

#[test]
fn a_rule_that_leads_nowhere_and_one_whose_set_is_not_there() {
    in_namespace(|| {
        let (mut nft, mut table) = base_in_kernel();
        let mut chain = table.chain("services").unwrap().clone();
        let mut rules = chain.rules.clone();
        if let Some(Statement::VerdictMap { map, .. }) = rules[1].statements.last_mut() {
            *map = "nothing".into();
        }
        chain.rules = rules.split_off(1);
        chain.rules.truncate(1);
        table.set_chain(chain.clone());
        let refusal = first_refusal(nft.commit(&table.changes()));
        assert_eq!((refusal.cause, refusal.chain.as_deref()), (Cause::NotFound, Some("services")));
        assert!(refusal.operation.ends_with("vmap @nothing"), "{}", refusal.operation);
        chain.rules =
            vec![Rule::new(vec![Statement::Verdict(nft_table::Verdict::Jump("nowhere".into()))])];
        table.set_chain(chain);
        let refusal = first_refusal(nft.commit(&table.changes()));
        assert_eq!(
            refusal.operation, "add rule inet kube-proxy services jump nowhere",
            "{refusal}"
        );
    });
}

#[test]
fn a_circle_of_chains() {
    in_namespace(|| {
        let (mut nft, mut table) = base_in_kernel();
        for (from, to) in
            [("external-none", "reject-connection"), ("reject-connection", "external-none")]
        {
            let mut chain = table.chain(from).unwrap().clone();
            let jump = nft_table::Verdict::Jump(to.into());
            chain.rules.push(Rule::new(vec![Statement::Verdict(jump)]));
            table.set_chain(chain);
        }
        let error = nft.commit(&table.changes()).unwrap_err();
        let Error::Refused(refusals) = &error else { panic!("{error}") };
        assert_eq!(refusals.0[0].cause, Cause::Loop, "{error}");
    });
}

#[test]
fn a_table_that_somebody_else_deleted() {
    if skip_without("nft") {
        return;
    }
    in_namespace(|| {
        let (mut nft, mut table) = base_in_kernel();
        sh("nft delete table inet kube-proxy");
        let map = table.set_id("service-ips4").unwrap();
        table.insert(map, vip(1, 80), goto("external-none")).unwrap();
        let refusal = first_refusal(nft.commit(&table.changes()));
        assert_eq!(refusal.cause, Cause::NotFound);
        table.adopt(nft.snapshot("kube-proxy").unwrap());
        commit(&mut nft, &mut table);
    });
}

#[test]
fn a_transaction_for_an_older_generation() {
    if skip_without("nft") {
        return;
    }
    in_namespace(|| {
        let (mut nft, mut table) = base_in_kernel();
        let generation = nft.generation().unwrap();
        sh("nft add table inet other");
        assert_ne!(nft.generation().unwrap(), generation);
        let map = table.set_id("service-ips4").unwrap();
        table.insert(map, vip(1, 80), goto("external-none")).unwrap();
        let error = nft.commit_at(&table.changes(), Some(generation)).unwrap_err();
        assert!(matches!(error, Error::Interrupted), "{error}");
        let generation = nft.generation().unwrap();
        nft.commit_at(&table.changes(), Some(generation)).unwrap();
    });
}

#[test]
fn without_the_right_to_change_nftables() {
    in_namespace(|| {
        let table = scenario::table();
        let mut nft = Nft::open().unwrap();
        // The kernel asks for CAP_NET_ADMIN at every message, of this thread.
        let (header, mut data) =
            (CapabilityHeader { version: 0x2008_0522, pid: 0 }, [[0_u32; 3]; 2]);
        // SAFETY: both point to what capget(2) and capset(2) ask for.
        unsafe {
            assert_eq!(libc::syscall(libc::SYS_capget, &header, &mut data), 0);
            data[0][0] &= !(1 << 12);
            assert_eq!(libc::syscall(libc::SYS_capset, &header, &data), 0);
        }
        let error = nft.commit(&table.changes()).unwrap_err();
        assert!(matches!(error, Error::Permission), "{error}");
    });
}

/// `struct __user_cap_header_struct` of `linux/capability.h`
#[repr(C)]
struct CapabilityHeader {
    version: u32,
    pid: i32,
}

#[test]
fn nothing_is_missing_here_and_nothing_is_left_of_the_probe() {
    in_namespace(|| {
        let mut nft = Nft::open().unwrap();
        let generation = nft.generation().unwrap();
        assert_eq!(nft.missing_features().unwrap(), Vec::<String>::new());
        assert_eq!(nft.generation().unwrap(), generation);
        assert!(nft.snapshot("kube-proxy-probe").unwrap().is_none());
    });
}

#[test]
fn more_errors_than_the_receive_buffer_holds() {
    in_namespace(|| {
        let (mut nft, mut table) = base_in_kernel();
        let names: Vec<String> = (0..30_000).map(|number| format!("no-{number}")).collect();
        let operations = names.iter().map(|name| Operation::DeleteChain(name)).collect();
        let error = nft.commit(&Transaction::new("kube-proxy", operations)).unwrap_err();
        let refusals = error.refusals();
        assert_eq!(refusals[0].operation, "delete chain inet kube-proxy no-0");
        assert!(refusals.len() > 1000 && refusals.len() < names.len(), "{}", refusals.len());
        // The next one is not confused by what is left of this one.
        let map = table.set_id("service-ips4").unwrap();
        table.insert(map, vip(1, 80), goto("external-none")).unwrap();
        commit(&mut nft, &mut table);
    });
}
