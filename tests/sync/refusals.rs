//! What becomes of Services that the kernel refuses, and of the others.

use crate::world::*;
use kube_proxy::kernel::Kernel;
use kube_proxy::kernel::fake::FakeKernel;
use kube_proxy::metrics::kernel::Rebuild;
use kube_proxy::model::Change;
use kube_proxy::plan::layout::{INTERIM, TABLE};
use kube_proxy::sync::Engine;
use nft_table::{Key, Operation, Ownership, Transaction, Value, Verdict};
use std::net::IpAddr;
use std::time::{Duration, Instant};

#[test]
fn a_restart_writes_nothing() {
    let (mut first, _) = running(FakeKernel::new());
    // A history that leaves slots in an order of its own.
    for pods in [&[3, 14, 15][..], &[14, 15], &[13, 14, 15, 16], &[14, 16]] {
        first.apply(slice(3, pods));
        first.sync().unwrap();
    }
    let mut second = engine(next(&mut first));
    for number in [1, 2, 4] {
        second.apply(service(number));
        second.apply(slice(number, &[number, number + 10]));
    }
    second.apply(service(3));
    second.apply(slice(3, &[14, 16]));
    assert_eq!(second.sync().unwrap().operations, 0);
}

#[test]
fn a_table_beside_that_does_not_go_yet_is_nobodys_fault() {
    let (mut first, _) = running(FakeKernel::new());
    let mut kernel = next(&mut first);
    let operations = vec![Operation::AddTable(Ownership::Nobody)];
    kernel.commit(&Transaction::new(INTERIM, operations)).unwrap();
    let mut engine = engine(kernel);
    for number in 1..5 {
        engine.apply(service(number));
        engine.apply(slice(number, &[number, number + 10]));
    }
    // It is another process's for a while.
    engine.kernel_mut().set_owner(INTERIM, Some(99));
    for _ in 0..2 {
        let committed = engine.sync().unwrap();
        assert_eq!(committed.quarantined, 0);
        assert!(engine.kernel_mut().has_table(INTERIM));
    }
    engine.kernel_mut().set_owner(INTERIM, None);
    engine.sync().unwrap();
    assert!(!engine.kernel_mut().has_table(INTERIM));
}

#[test]
fn a_refused_service_is_left_out_and_the_others_are_served() {
    let mut kernel = FakeKernel::new();
    kernel.refuse("service-ips4", key(3), libc::EINVAL);
    let (mut engine, committed) = running(kernel);
    assert_eq!(committed.quarantined, 1);
    let served: Vec<bool> = (1..5).map(|number| is_served(&mut engine, number)).collect();
    assert_eq!(served, [true, true, false, true]);

    // The others go on, and the refused one is tried again when its time has come.
    engine.apply(slice(1, &[7]));
    assert!(engine.sync().unwrap().operations > 0);
    assert!(!engine.release_quarantined(Instant::now()));
    engine.kernel_mut().refuse_nothing();
    assert!(engine.release_quarantined(Instant::now() + Duration::from_secs(3600)));
    assert_eq!(engine.sync().unwrap().quarantined, 0);
    assert!(is_served(&mut engine, 3));
}

#[test]
fn a_refused_service_is_found_by_an_element_that_names_nobody() {
    let mut kernel = FakeKernel::new();
    // A ClusterIP alone does not tell the port, and so not the owner.
    kernel.refuse("cluster-ips4", Key::builder().address(vip(2)).build(), libc::EINVAL);
    let (mut engine, committed) = running(kernel);
    assert_eq!(committed.quarantined, 1);
    let served: Vec<bool> = (1..5).map(|number| is_served(&mut engine, number)).collect();
    assert_eq!(served, [true, false, true, true]);
}

#[test]
fn what_was_kept_of_a_refused_service_stays_for_others_who_want_it() {
    let (mut first, _) = running(FakeKernel::new());
    let mut kernel = next(&mut first);
    // What it was is not known after a restart, so what there is of it stays: its endpoints on this node, too.
    kernel.refuse("service-ips4", key(3), libc::EINVAL);
    let mut engine = engine(kernel);
    for number in [1, 2, 4] {
        engine.apply(service(number));
        engine.apply(slice(number, &[number, number + 10]));
    }
    engine.apply(service(3));
    engine.apply(slice(3, &[3, 13, 23]));
    assert_eq!(engine.sync().unwrap().quarantined, 1);
    // Another one gets an endpoint of its.
    engine.apply(slice(1, &[1, 13]));
    engine.sync().unwrap();
    engine.kernel_mut().refuse_nothing();
    engine.apply(slice(3, &[3]));
    engine.sync().unwrap();
    let reaches_itself = |engine: &mut Engine<FakeKernel>, pod: u8| {
        let pod = IpAddr::from([10, 244, 0, pod]);
        let key = Key::builder().address(pod).address(pod).build();
        engine.kernel_mut().get(TABLE, "hairpin4", &key).is_some()
    };
    let there: Vec<bool> =
        [3, 13, 23].into_iter().map(|pod| reaches_itself(&mut engine, pod)).collect();
    assert_eq!(there, [true, true, false]);
}

#[test]
fn what_is_kept_of_an_earlier_layout_is_found_by_its_address() {
    let with_external_ip = || {
        let mut change = service(3);
        if let Change::Service(_, Some(service)) = &mut change {
            service.external_ips = vec![vip(203)];
        }
        change
    };
    let mut first = engine(FakeKernel::new());
    first.apply(with_external_ip());
    first.apply(slice(3, &[3, 13]));
    first.sync().unwrap();
    let mut kernel = next(&mut first);
    let address = Key::builder().address(vip(203)).build();
    let has = |kernel: &FakeKernel, set: &str, key: &Key| kernel.get(TABLE, set, key).is_some();
    assert!(has(&kernel, "external-ips4", &address));
    // An earlier version did not ask for the address first.
    let addresses = kernel.content(TABLE).unwrap().sets["external-ips4"].set.clone().unwrap();
    let flush = Transaction::new(TABLE, vec![Operation::FlushSet(&addresses)]);
    kernel.commit(&flush).unwrap();

    kernel.refuse("service-ips4", key(203), libc::EINVAL);
    let mut engine = engine(kernel);
    engine.apply(with_external_ip());
    engine.apply(slice(3, &[3, 13, 23]));
    assert_eq!(engine.sync().unwrap().quarantined, 1);
    // Its packets are still looked up, and so masqueraded.
    assert!(has(engine.kernel_mut(), "external-services4", &key(203)));
    assert!(has(engine.kernel_mut(), "external-ips4", &address));

    // It does not stay there for nobody.
    engine.kernel_mut().refuse_nothing();
    engine.apply(service(3));
    assert_eq!(engine.sync().unwrap().quarantined, 0);
    assert!(!has(engine.kernel_mut(), "external-services4", &key(203)));
    assert!(!has(engine.kernel_mut(), "external-ips4", &address));
}

#[test]
fn a_changed_service_gets_a_new_trial_at_once() {
    let mut kernel = FakeKernel::new();
    kernel.refuse("service-ips4", key(3), libc::EINVAL);
    let (mut engine, _) = running(kernel);
    engine.kernel_mut().refuse_nothing();
    engine.apply(slice(3, &[9]));
    engine.sync().unwrap();
    assert!(is_served(&mut engine, 3));
}

#[test]
fn what_others_did_to_the_table_is_put_right() {
    let (mut engine, _) = running(FakeKernel::new());
    // Somebody took an element that is about to be ours.
    let theirs = Value::verdict(Verdict::Drop, None);
    engine.kernel_mut().put(TABLE, "service-ips4", key(5), theirs.clone());
    engine.apply(service(5));
    engine.apply(slice(5, &[5]));
    let committed = engine.sync().unwrap();
    assert_eq!(committed.quarantined, 0);
    assert_ne!(engine.kernel_mut().get(TABLE, "service-ips4", &key(5)), Some(&theirs));

    // Somebody deleted the table.
    engine.kernel_mut().delete_table(TABLE);
    engine.apply(slice(1, &[99]));
    let committed = engine.sync().unwrap();
    assert!(committed.rebuilt.is_some());
    assert!((1..6).all(|number| is_served(&mut engine, number)));
}

#[test]
fn a_lost_table_is_noticed_and_written_again() {
    let (mut engine, _) = running(FakeKernel::default());
    assert!(!engine.has_lost_table());
    let delete = Transaction::new(TABLE, vec![Operation::DeleteTable]);
    engine.kernel_mut().commit(&delete).unwrap();
    assert!(engine.has_lost_table());
    assert!(!engine.has_lost_table(), "noticed once");
    let committed = engine.sync().unwrap();
    assert_eq!(committed.rebuilt, Some(Rebuild::Lost));
    assert!(is_served(&mut engine, 1));
}

#[test]
fn an_unreachable_kernel_is_a_failure_and_nothing_is_lost() {
    let (mut engine, _) = running(FakeKernel::new());
    engine.apply(slice(1, &[50]));
    engine.kernel_mut().fail_next(kube_proxy::kernel::nft::Error::Permission);
    engine.kernel_mut().fail_next(kube_proxy::kernel::nft::Error::Permission);
    assert!(engine.sync().is_err());
    let mut wanted = Vec::new();
    for _ in 0..3 {
        if let Ok(committed) = engine.sync() {
            wanted.push(committed.operations);
        }
    }
    assert!(wanted.iter().any(|operations| *operations > 0), "the change is written later");
}
