//! What elements have counted outlives the changes of what they lead to.

use crate::world::{engine_counting, key, next, service, slice};
use kube_proxy::kernel::fake::{FakeKernel, Fault};
use kube_proxy::kernel::nft::Kernel;
use kube_proxy::model::*;
use kube_proxy::plan::layout::{SetKind, SetName, TABLE};
use kube_proxy::plan::{Counting, Frontend, slot_keys};
use kube_proxy::sync::Engine;
use nft_table::{Data, Family, Key, Value};

const FRONTENDS: SetName = SetName::new(SetKind::ServiceIps, Family::V4);
const SLOTS: SetName = SetName::new(SetKind::ClusterEndpoints, Family::V4);

/// One Service with these endpoints.
fn running(pods: &[u8]) -> Engine<FakeKernel> {
    let mut engine = engine_counting(FakeKernel::new(), Counting::Endpoint);
    engine.apply(service(1));
    engine.apply(slice(1, pods));
    engine.sync().unwrap();
    engine
}

fn packets(engine: &mut Engine<FakeKernel>, set: SetName, key: &Key) -> u64 {
    let set = set.declaration(Counting::Endpoint);
    let counts = engine.kernel_mut().counts(TABLE, &set, &[key]).unwrap();
    counts[0].as_ref().map_or(0, |(_, count)| count.packets)
}

fn served(engine: &mut Engine<FakeKernel>) -> u64 {
    packets(engine, FRONTENDS, &key(1))
}

/// The slots of the Service with their endpoints.
fn slots(engine: &mut Engine<FakeKernel>) -> Vec<(Key, u8)> {
    let frontend =
        Frontend::Ip { address: [10, 96, 0, 1].into(), protocol: Protocol::Tcp, port: 80 };
    let keys = slot_keys(&frontend, 0..10);
    let pod = |key: Key| {
        let there = engine.kernel_mut().get(TABLE, &SLOTS.nft(), &key)?;
        let pods = 1..100;
        let pod = pods
            .into_iter()
            .find(|pod| *there == Value::Data(Data::address_port([10, 244, 0, *pod].into(), 8080)));
        Some((key, pod?))
    };
    keys.filter_map(pod).collect()
}

/// Connections come: each endpoint gets its own number of them.
fn connect(engine: &mut Engine<FakeKernel>) {
    let slots = slots(engine);
    for (key, pod) in slots {
        engine.kernel_mut().count(TABLE, &SLOTS.nft(), &key, pod.into());
    }
    engine.kernel_mut().count(TABLE, &FRONTENDS.nft(), &key(1), 100);
}

/// What each endpoint got.
fn by_endpoint(engine: &mut Engine<FakeKernel>) -> Vec<(u8, u64)> {
    let slots = slots(engine);
    let mut counts: Vec<(u8, u64)> =
        slots.into_iter().map(|(key, pod)| (pod, packets(engine, SLOTS, &key))).collect();
    counts.sort_unstable();
    counts
}

#[test]
fn endpoints_that_come_and_go_leave_the_counts_of_others() {
    let mut engine = running(&[1, 2, 3]);
    connect(&mut engine);
    assert_eq!(by_endpoint(&mut engine), [(1, 1), (2, 2), (3, 3)]);
    // One more: the number in the frontend's element changes.
    engine.apply(slice(1, &[1, 2, 3, 4]));
    engine.sync().unwrap();
    assert_eq!(by_endpoint(&mut engine), [(1, 1), (2, 2), (3, 3), (4, 0)]);
    assert_eq!(served(&mut engine), 100);
    // The first goes, and the last takes its slot.
    engine.apply(slice(1, &[2, 3, 4]));
    engine.sync().unwrap();
    connect(&mut engine);
    assert_eq!(by_endpoint(&mut engine), [(2, 4), (3, 6), (4, 4)]);
    assert_eq!(served(&mut engine), 200);
    // In the place of another.
    engine.apply(slice(1, &[2, 3, 5]));
    engine.sync().unwrap();
    assert_eq!(by_endpoint(&mut engine), [(2, 4), (3, 6), (5, 0)]);
}

#[test]
fn what_was_served_is_not_what_was_refused() {
    let mut engine = running(&[1, 2]);
    connect(&mut engine);
    engine.apply(slice(1, &[]));
    engine.sync().unwrap();
    assert_eq!(served(&mut engine), 0, "the element now refuses");
    let aside = engine.view().aside.get(&(FRONTENDS, key(1))).copied().unwrap();
    assert_eq!(aside.map(|count| count.packets), [100, 0, 0]);
    engine.kernel_mut().count(TABLE, &FRONTENDS.nft(), &key(1), 7);
    engine.apply(slice(1, &[1]));
    engine.sync().unwrap();
    assert_eq!(served(&mut engine), 100);
    let aside = engine.view().aside.get(&(FRONTENDS, key(1))).copied().unwrap();
    assert_eq!(aside.map(|count| count.packets), [0, 7, 0]);
    // Without endpoints again: it goes on.
    engine.apply(slice(1, &[]));
    engine.sync().unwrap();
    assert_eq!(served(&mut engine), 7);
    // Nothing is remembered of a Service that is gone.
    let Change::Service(name, _) = service(1) else { unreachable!() };
    engine.apply(Change::Service(name, None));
    engine.sync().unwrap();
    assert!(engine.view().aside.is_empty());
}

#[test]
fn a_restart_keeps_all() {
    let mut engine = running(&[1, 2, 3]);
    connect(&mut engine);
    let mut engine = engine_counting(next(&mut engine), Counting::Endpoint);
    engine.apply(service(1));
    engine.apply(slice(1, &[1, 2, 3]));
    let committed = engine.sync().unwrap();
    assert_eq!(committed.rebuilt, None);
    assert_eq!(by_endpoint(&mut engine), [(1, 1), (2, 2), (3, 3)]);
    assert_eq!(served(&mut engine), 100);
}

#[test]
fn a_refused_change_counts_nothing_twice() {
    let mut engine = running(&[1, 2]);
    connect(&mut engine);
    engine.apply(slice(1, &[]));
    let refuse = Fault::Refuse { errno: libc::EBUSY, operation: Some(0) };
    engine.kernel_mut().plan_faults([None, Some(refuse)]);
    let _ = engine.sync();
    engine.sync().unwrap();
    engine.apply(slice(1, &[1, 2]));
    engine.sync().unwrap();
    assert_eq!(served(&mut engine), 100);
}

#[test]
fn counts_that_cannot_be_read_stop_nothing() {
    let mut engine = running(&[1, 2]);
    connect(&mut engine);
    engine.apply(slice(1, &[1, 2, 3]));
    engine.kernel_mut().plan_faults([Some(Fault::FailRead(libc::EINTR))]);
    engine.sync().unwrap();
    assert_eq!(slots(&mut engine).len(), 3);
}

#[test]
fn what_is_counted_can_change() {
    let mut engine = running(&[1, 2]);
    connect(&mut engine);
    for (counting, is_counted) in [(Counting::Service, true), (Counting::Off, false)] {
        let mut other = engine_counting(next(&mut engine), counting);
        other.apply(service(1));
        other.apply(slice(1, &[1, 2]));
        let before = slots(&mut other);
        other.sync().unwrap();
        assert_eq!(slots(&mut other), before, "every endpoint stays in its slot");
        let declared = other.kernel_mut().declarations(TABLE).unwrap().unwrap();
        let counter = |set: SetName| declared.sets[&*set.nft()].set.as_ref().unwrap().counter;
        assert_eq!((counter(FRONTENDS), counter(SLOTS)), (is_counted, false));
        engine = other;
    }
}
