//! Some Services ask for what the kernel has no module for. The others are served.

use crate::world::{is_served, running, service, slice};
use kube_proxy::kernel::fake::FakeKernel;
use kube_proxy::model::{Algorithm, Change, Limits, ObjectName, Service};
use kube_proxy::plan::layout::TABLE;
use kube_proxy::sync::Engine;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A Service that asks for something.
fn asking(number: u8, ask: impl Fn(&mut Service)) -> Change {
    let Change::Service(name, Some(mut service)) = service(number) else { unreachable!() };
    ask(&mut service);
    Change::Service(name, Some(service))
}

fn hashed(service: &mut Service) {
    service.algorithm = Some(Algorithm::HashFlow);
}

fn limited(service: &mut Service) {
    service.limits = Limits::parse("open=5").ok();
}

fn names(numbers: &[u8]) -> Vec<ObjectName> {
    numbers.iter().map(|n| ObjectName::new("default", format!("service-{n}"))).collect()
}

#[test]
fn all_who_ask_for_it_are_held_at_once_and_nobody_else() {
    for (module, ask) in [
        ("nft_hash", hashed as fn(&mut Service)),
        ("nft_limit", limited),
        ("nft_connlimit", limited),
    ] {
        let mut kernel = FakeKernel::new();
        kernel.lack(&[module]);
        let mut engine = crate::world::engine(kernel);
        for number in 1..40 {
            let asks = number % 2 == 0;
            engine.apply(if asks { asking(number, ask) } else { service(number) });
            engine.apply(slice(number, &[number, number + 100]));
        }
        let committed = engine.sync().unwrap();
        let refused: Vec<ObjectName> =
            committed.refused.iter().map(|(name, _)| name.clone()).collect();
        let mut expected = names(&(1..20).map(|half| 2 * half).collect::<Vec<u8>>());
        expected.sort();
        assert_eq!(refused, expected, "{module}");
        assert!(
            committed.refused.iter().all(|(_, reason)| reason.contains(module)),
            "{committed:?}"
        );
        for number in 1..40 {
            assert_eq!(is_served(&mut engine, number), number % 2 == 1, "{module}: {number}");
        }
        // They are tried again, and harm nobody by it.
        let later = Instant::now() + Duration::from_secs(31);
        assert!(engine.release_quarantined(later));
        engine.apply(slice(1, &[7]));
        let committed = engine.sync().unwrap();
        assert_eq!((committed.refused.len(), committed.quarantined), (19, 19));
        assert!(is_served(&mut engine, 1) && !is_served(&mut engine, 2));
        // Somebody has loaded the module.
        engine.kernel_mut().lack(&[]);
        assert!(engine.release_quarantined(later + Duration::from_secs(600)));
        let committed = engine.sync().unwrap();
        assert_eq!((committed.refused.len(), committed.quarantined), (0, 0));
        assert!((1..40).all(|number| is_served(&mut engine, number)));
    }
}

/// Each Service is told what it is that it asked for.
#[test]
fn a_service_is_not_told_what_another_one_lacks() {
    let mut kernel = FakeKernel::new();
    kernel.lack(&["nft_hash", "nft_limit"]);
    let mut engine = crate::world::engine(kernel);
    for change in [asking(1, hashed), asking(2, limited), service(3)] {
        engine.apply(change);
    }
    (1..4).for_each(|number| engine.apply(slice(number, &[number])));
    let refused = engine.sync().unwrap().refused;
    let [(first, hash), (second, limit)] = &refused[..] else { panic!("{refused:?}") };
    assert_eq!([first.clone(), second.clone()][..], names(&[1, 2]));
    assert!(hash.contains("nft_hash") && limit.contains("nft_limit"), "{refused:?}");
    assert!(is_served(&mut engine, 3));
}

#[test]
fn who_comes_to_ask_for_it_stays_what_it_was() {
    for ask in [hashed as fn(&mut Service), limited] {
        let (mut engine, _) = running(FakeKernel::new());
        engine.kernel_mut().lack(&["nft_hash", "nft_limit"]);
        let chains = |engine: &mut Engine<FakeKernel>| -> BTreeSet<Arc<str>> {
            engine.kernel_mut().content(TABLE).unwrap().chains.into_keys().collect()
        };
        let before = chains(&mut engine);
        engine.apply(asking(2, ask));
        engine.apply(asking(3, ask));
        let committed = engine.sync().unwrap();
        assert_eq!(committed.refused.len(), 2);
        assert!((1..5).all(|number| is_served(&mut engine, number)));
        engine.delete_unused().unwrap();
        assert_eq!(chains(&mut engine), before);
        // Its endpoints go on to change.
        engine.apply(slice(1, &[9]));
        assert_eq!(engine.sync().unwrap().refused, []);
    }
}
