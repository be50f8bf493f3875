//! Random histories: whatever the kernel refuses and others do, in the end the kernel holds what is planned, and no
//! commit takes away what was served and is still wanted.

use crate::world::key;
use kube_proxy::kernel::addresses::{FamilySelection, NodePortSelection};
use kube_proxy::kernel::fake::{FakeKernel, Fault, Tamper};
use kube_proxy::model::*;
use kube_proxy::plan::layout::{INTERIM, TABLE};
use kube_proxy::plan::{Counting, DetectLocal, Settings};
use kube_proxy::sync::Engine;
use nft_table::netlink::SnapshotChain;
use nft_table::{Family, Value};
use proptest::collection::{btree_set, vec};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// What a Service is, in small numbers.
#[derive(Clone, Debug, PartialEq)]
struct Wanted {
    pods: BTreeSet<u8>,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    ClusterIp,
    NodePort,
    ExternalLocal,
    Affinity,
    SourceRanges,
}

#[derive(Clone, Debug)]
enum Step {
    Change(u8, Option<Wanted>),
    /// The next calls of the kernel go wrong like this.
    Faults(Vec<Option<Fault>>),
    Sync,
    Tamper(Tamper),
    /// Somebody saves the ruleset.
    Save,
    Restart,
    /// The kernel refuses the element of a Service from now on, or nothing any more.
    Refuse(Option<u8>),
    Tidy,
}

const SERVICES: u8 = 5;

fn wanted() -> impl Strategy<Value = Wanted> {
    let kinds =
        [Kind::ClusterIp, Kind::NodePort, Kind::ExternalLocal, Kind::Affinity, Kind::SourceRanges];
    (btree_set(1..6_u8, 0..4), prop::sample::select(kinds.to_vec()))
        .prop_map(|(pods, kind)| Wanted { pods, kind })
}

fn tamper() -> impl Strategy<Value = Tamper> {
    prop_oneof![
        3 => Just(Tamper::Elsewhere),
        1 => Just(Tamper::DeleteTable),
        1 => Just(Tamper::FlushRules),
        1 => Just(Tamper::Reload),
        1 => Just(Tamper::AddChain),
        2 => (0..9_usize, 0..9_usize).prop_map(|(set, element)| Tamper::DeleteElement(set, element)),
        2 => (0..9_usize, 0..9_usize).prop_map(|(set, element)| Tamper::ChangeElement(set, element)),
        2 => (0..9_usize, any::<u8>()).prop_map(|(set, byte)| Tamper::AddElement(set, byte)),
        1 => (0..9_usize).prop_map(Tamper::AddCatchAll),
    ]
}

fn fault() -> impl Strategy<Value = Fault> {
    use libc::{EBUSY, EEXIST, EINTR, EINVAL, ENFILE, ENOENT, ENOMEM, EPERM};
    let errno =
        prop::sample::select(vec![EBUSY, EEXIST, EINTR, EINVAL, ENFILE, ENOENT, ENOMEM, EPERM]);
    let read_errno = prop::sample::select(vec![EINTR, ENOMEM, EPERM]);
    prop_oneof![
        4 => (errno, prop::option::of(0..9_usize))
            .prop_map(|(errno, operation)| Fault::Refuse { errno, operation }),
        2 => Just(Fault::LoseAnswer),
        2 => Just(Fault::LoseTransaction),
        2 => (2..5_usize).prop_map(Fault::Gap),
        1 => read_errno.prop_map(Fault::FailRead),
        3 => tamper().prop_map(Fault::Tamper),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let change = (1..=SERVICES, prop::option::weighted(0.8, wanted()));
    prop_oneof![
        8 => change.prop_map(|(service, wanted)| Step::Change(service, wanted)),
        4 => vec(prop::option::weighted(0.4, fault()), 1..12).prop_map(Step::Faults),
        8 => Just(Step::Sync),
        3 => tamper().prop_map(Step::Tamper),
        1 => Just(Step::Save),
        1 => Just(Step::Restart),
        1 => prop::option::of(1..=SERVICES).prop_map(Step::Refuse),
        1 => Just(Step::Tidy),
    ]
}

fn service(number: u8, wanted: &Wanted) -> Service {
    let mut service = Service {
        name: ObjectName::new("default", format!("service-{number}")),
        created: 0,
        service_type: ServiceType::ClusterIp,
        cluster_ips: vec![[10, 96, 0, number].into()],
        external_ips: Vec::new(),
        load_balancer_ips: Vec::new(),
        ports: vec![ServicePort {
            name: "http".into(),
            protocol: Protocol::Tcp,
            port: 80,
            node_port: None,
        }],
        internal_local: false,
        external_local: false,
        affinity: None,
        // Some have chains of their own, which are others with other pods.
        algorithm: (number >= 4).then_some(Algorithm::RoundRobin),
        weights: None,
        table_size: None,
        limits: (number % 3 == 1)
            .then(|| Limits::parse(&format!("open={}", wanted.pods.len() + 5)).unwrap()),
        reset_gone: None,
        source_ranges: Vec::new(),
        unreadable_ranges: Vec::new(),
        health_check_node_port: None,
    };
    match wanted.kind {
        Kind::ClusterIp => {}
        Kind::NodePort => {
            service.service_type = ServiceType::NodePort;
            service.ports[0].node_port = Some(30000 + u16::from(number));
        }
        Kind::ExternalLocal => {
            service.external_ips = vec![[203, 0, 113, number].into()];
            service.external_local = true;
        }
        Kind::Affinity => service.affinity = Some(Duration::from_secs(10)),
        Kind::SourceRanges => {
            service.service_type = ServiceType::LoadBalancer;
            service.load_balancer_ips = vec![[198, 51, 100, number].into()];
            service.source_ranges = vec!["192.0.2.0/24".parse().unwrap()];
        }
    }
    service
}

fn slice(number: u8, wanted: &Wanted) -> EndpointSlice {
    let endpoint = |pod: &u8| Endpoint {
        address: [10, 244, number, *pod].into(),
        conditions: Conditions::default(),
        node_name: pod.is_multiple_of(2).then(|| "node-1".into()),
        hints: None,
    };
    EndpointSlice {
        name: ObjectName::new("default", format!("slice-{number}")),
        service: format!("service-{number}").into(),
        family: Family::V4,
        ports: vec![EndpointPort { name: "http".into(), protocol: Protocol::Tcp, port: 8080 }],
        endpoints: wanted.pods.iter().map(endpoint).collect(),
        described: Box::default(),
        trigger_time: None,
    }
}

struct World {
    engine: Engine<FakeKernel>,
    own_table: bool,
    /// How much is planned in a turn.
    work: usize,
    wanted: BTreeMap<u8, Wanted>,
    /// Services that may not be what is wanted: the kernel refuses them.
    refused: BTreeSet<u8>,
    /// Somebody has put a table into the place of the one that was owned. It has to be replaced as a whole, and what
    /// the kernel refuses then cannot be kept.
    is_replaced: bool,
}

impl World {
    fn new(own_table: bool, work: usize) -> World {
        let mut engine = engine(FakeKernel::new(), own_table);
        engine.set_work(work);
        let mut world = World {
            engine,
            own_table,
            work,
            wanted: BTreeMap::new(),
            refused: BTreeSet::new(),
            is_replaced: false,
        };
        world.engine.kernel_mut().take_journal();
        world
    }

    fn change(&mut self, number: u8, wanted: Option<Wanted>) {
        let slice_name = ObjectName::new("default", format!("slice-{number}"));
        let name = ObjectName::new("default", format!("service-{number}"));
        let new = wanted.as_ref();
        let service = new.map(|wanted| Box::new(service(number, wanted)));
        let slice = new.map(|wanted| Box::new(slice(number, wanted)));
        self.engine.apply(Change::Service(name, service));
        self.engine.apply(Change::EndpointSlice(slice_name, slice));
        match wanted {
            Some(wanted) => self.wanted.insert(number, wanted),
            None => self.wanted.remove(&number),
        };
    }

    fn restart(&mut self) {
        let mut kernel = std::mem::take(self.engine.kernel_mut());
        kernel.next_process();
        self.engine = engine(kernel, self.own_table);
        self.engine.set_work(self.work);
        for (number, wanted) in self.wanted.clone() {
            self.change(number, Some(wanted));
        }
    }

    /// Syncs, and looks at what its commits did. What others did is told as events would tell it.
    fn sync(&mut self) -> Result<bool, TestCaseError> {
        let result = self.engine.sync();
        self.check_commits()?;
        self.tell();
        Ok(result.is_ok())
    }

    fn tell(&mut self) {
        let touched = self.engine.kernel_mut().take_touched();
        if !touched.is_nothing() {
            self.engine.touched(&touched);
        }
    }

    /// No commit takes a Service away that was there and is still wanted.
    fn check_commits(&mut self) -> Result<(), TestCaseError> {
        let is_served = |value: Option<&Value>| match value {
            Some(Value::Verdict(element)) => {
                element.verdict.chain().is_some_and(|chain| !chain.starts_with("reject"))
            }
            _ => false,
        };
        for commit in self.engine.kernel_mut().take_journal() {
            let can_stay = |number: &u8| !(self.is_replaced && self.refused.contains(number));
            let served = self.wanted.iter().filter(|(_, wanted)| !wanted.pods.is_empty());
            for number in served.map(|(number, _)| *number).filter(can_stay) {
                let (before, after) =
                    (commit.before.get(&key(number)), commit.after.get(&key(number)));
                prop_assert!(
                    !is_served(before) || is_served(after),
                    "service-{number} was served and is not any more: {commit:#?}"
                );
            }
        }
        Ok(())
    }

    fn step(&mut self, step: Step) -> Result<(), TestCaseError> {
        match step {
            Step::Change(number, wanted) => self.change(number, wanted),
            Step::Faults(faults) => {
                let is_reload = |fault: &Fault| matches!(fault, Fault::Tamper(Tamper::Reload));
                self.is_replaced |= self.own_table && faults.iter().flatten().any(is_reload);
                self.engine.kernel_mut().plan_faults(faults);
            }
            Step::Sync => drop(self.sync()?),
            Step::Tamper(tamper) => {
                self.is_replaced |= self.own_table && matches!(tamper, Tamper::Reload);
                self.engine.kernel_mut().tamper(TABLE, &tamper);
                self.tell();
            }
            Step::Save => self.engine.kernel_mut().save(TABLE),
            Step::Restart => self.restart(),
            Step::Refuse(None) => {
                self.refused.clear();
                self.engine.kernel_mut().refuse_nothing();
            }
            Step::Refuse(Some(number)) => {
                self.refused.insert(number);
                self.engine.kernel_mut().refuse("service-ips4", key(number), libc::EINVAL);
            }
            Step::Tidy => {
                let _ = self.engine.delete_unused();
                self.check_commits()?;
                self.tell();
            }
        }
        Ok(())
    }

    /// After the faults have ended all is well before long.
    fn settle(&mut self) -> Result<(), TestCaseError> {
        self.engine.kernel_mut().forget_faults();
        self.engine.kernel_mut().refuse_nothing();
        let later = Instant::now() + Duration::from_secs(3600);
        for _ in 0..5 {
            self.engine.release_quarantined(later);
            while self.engine.has_looks() {
                let looked = self.engine.look_at_next();
                prop_assert!(looked.is_ok(), "{looked:?}");
            }
            let mut is_first = true;
            while std::mem::take(&mut is_first) || self.engine.has_postponed() {
                let result = self.engine.sync();
                self.check_commits()?;
                prop_assert!(result.is_ok(), "{}", result.unwrap_err());
            }
            let result = self.engine.delete_unused();
            prop_assert!(result.is_ok(), "{}", result.unwrap_err());
        }
        prop_assert!(!self.engine.has_unused());
        self.check_content()
    }

    /// The kernel has what is planned, and nothing else.
    fn check_content(&mut self) -> Result<(), TestCaseError> {
        let there = self.engine.kernel_mut().content(TABLE);
        prop_assert!(!self.engine.kernel_mut().has_table(INTERIM));
        let Some(there) = there else { return Err(TestCaseError::fail("no table")) };
        let table = self.engine.planner().table();
        let names: BTreeSet<_> = table.sets().map(|(_, set)| set.name.clone()).collect();
        prop_assert_eq!(&names, &there.sets.keys().cloned().collect());
        for (id, set) in table.sets().filter(|(_, set)| !set.flags.dynamic) {
            let planned: BTreeMap<_, _> = table.elements(id).collect();
            let found = &there.sets[&set.name];
            prop_assert!(!found.has_catch_all, "{}", set.name);
            let found: BTreeMap<_, _> =
                found.elements.iter().map(|(key, value)| (key, value)).collect();
            prop_assert_eq!(planned, found, "{}", set.name);
        }
        let chains: BTreeMap<_, _> =
            table.chains().into_iter().map(|c| (c.name.clone(), SnapshotChain::of(c))).collect();
        prop_assert_eq!(chains, there.chains.into_iter().collect::<BTreeMap<_, _>>());
        for (number, wanted) in &self.wanted {
            let value = self
                .engine
                .planner()
                .table()
                .set_id("service-ips4")
                .and_then(|id| self.engine.planner().table().get(id, &key(*number)).cloned());
            let Some(Value::Verdict(element)) = value else {
                return Err(TestCaseError::fail(format!("service-{number} is not there")));
            };
            let chain = element.verdict.chain().map(|chain| chain.to_string()).unwrap_or_default();
            prop_assert_eq!(chain.starts_with("reject"), wanted.pods.is_empty(), "{}", chain);
        }
        Ok(())
    }
}

fn engine(kernel: FakeKernel, own_table: bool) -> Engine<FakeKernel> {
    let settings = Settings {
        node_name: "node-1".into(),
        detect_local: DetectLocal::ClusterCidr(vec!["10.244.0.0/16".parse().unwrap()]),
        masquerade_all: false,
        localhost_nodeports: Vec::new(),
        counting: Counting::Off,
        algorithm: Algorithm::Random,
        reset_gone: false,
    };
    let address = FamilySelection::Cidrs(vec!["192.0.2.1/32".parse().unwrap()]);
    let selection = NodePortSelection { v4: address.clone(), v6: address };
    Engine::new(kernel, settings, Box::new(move |_| selection.clone()), own_table)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases.max(3000), failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn nothing_unserves_what_is_served_and_all_is_well_in_the_end(
        own_table in any::<bool>(),
        work in prop_oneof![Just(1000usize), 1..12usize],
        steps in vec(step(), 1..40),
    ) {
        let mut world = World::new(own_table, work);
        for step in steps {
            world.step(step)?;
        }
        world.settle()?;
    }
}

/// A refusal without any harm done, and then a look that ends halfway: what it found of the sets that it came across is
/// not all that they hold.
#[test]
fn a_look_that_fails_is_done_again() {
    let wanted = |kind| Some(Wanted { pods: BTreeSet::from([1]), kind });
    let mut world = World::new(true, 1000);
    for step in [
        Step::Change(3, wanted(Kind::SourceRanges)),
        Step::Change(1, wanted(Kind::ClusterIp)),
        Step::Sync,
        Step::Faults(vec![
            Some(Fault::Refuse { errno: libc::EBUSY, operation: None }),
            None,
            None,
            Some(Fault::FailRead(libc::EINTR)),
        ]),
        Step::Change(3, None),
        Step::Sync,
        Step::Change(1, wanted(Kind::SourceRanges)),
    ] {
        world.step(step).unwrap();
    }
    world.settle().unwrap();
}

/// What somebody puts back of a Service that is wanted again, and waits for its turn, stays.
#[test]
fn what_is_put_back_before_it_is_planned_stays() {
    let wanted = || Some(Wanted { pods: BTreeSet::from([1]), kind: Kind::ClusterIp });
    let mut world = World::new(false, 1);
    for step in [
        Step::Change(5, wanted()),
        Step::Sync,
        Step::Change(5, None),
        Step::Save,
        Step::Sync,
        Step::Change(1, wanted()),
        Step::Change(5, wanted()),
        Step::Tamper(Tamper::Reload),
        Step::Change(2, None),
    ] {
        world.step(step).unwrap();
    }
    world.settle().unwrap();
}

/// Somebody has put a table in the place of the one that was owned, and the kernel refuses for a moment what replaces it.
#[test]
fn a_replacement_that_is_refused_takes_nothing_away() {
    let wanted = |pods: &[u8], kind| Some(Wanted { pods: pods.iter().copied().collect(), kind });
    let refuse = |errno| Some(Fault::Refuse { errno, operation: None });
    let mut world = World::new(true, 1000);
    for step in [
        Step::Change(1, wanted(&[], Kind::ClusterIp)),
        Step::Sync,
        Step::Save,
        Step::Change(1, wanted(&[1], Kind::Affinity)),
        Step::Restart,
        Step::Faults(vec![
            None,
            refuse(libc::EBUSY),
            None,
            refuse(libc::ENOENT),
            None,
            refuse(libc::EBUSY),
        ]),
        Step::Change(1, None),
        Step::Change(1, wanted(&[1], Kind::ClusterIp)),
        Step::Tamper(Tamper::Reload),
        Step::Sync,
    ] {
        world.step(step).unwrap();
    }
    world.settle().unwrap();
}

/// A chain that the kernel has was to lead to a new one, and nobody needs either any more: what is not written does not
/// lead there.
#[test]
fn what_was_to_lead_to_something_new_does_so_no_more() {
    let wanted = |pods: &[u8], kind| Some(Wanted { pods: pods.iter().copied().collect(), kind });
    let mut world = World::new(false, 1000);
    let mut lost = vec![None; 7];
    lost.push(Some(Fault::LoseTransaction));
    for step in [
        Step::Change(2, wanted(&[1], Kind::Affinity)),
        Step::Sync,
        Step::Faults(lost),
        Step::Change(4, wanted(&[1], Kind::ClusterIp)),
        Step::Change(2, wanted(&[], Kind::ClusterIp)),
        Step::Restart,
        Step::Faults(vec![Some(Fault::FailRead(libc::EINTR))]),
        Step::Refuse(Some(1)),
        Step::Sync,
        Step::Change(1, wanted(&[], Kind::ClusterIp)),
        Step::Change(4, wanted(&[1], Kind::Affinity)),
        Step::Sync,
        Step::Sync,
        Step::Change(4, None),
        Step::Sync,
    ] {
        world.step(step).unwrap();
    }
    world.settle().unwrap();
}

/// The kernel refuses the new version of a Service whose old one is known to no one but the kernel: what that has of it
/// leads to chains of its own, and they stay, whatever goes beside.
#[test]
fn chains_of_a_service_that_is_kept_as_it_was_stay() {
    let wanted = |pods: &[u8], kind| Some(Wanted { pods: pods.iter().copied().collect(), kind });
    for (number, before, after) in [
        (2, wanted(&[1], Kind::Affinity), wanted(&[1], Kind::ClusterIp)),
        (2, wanted(&[1], Kind::Affinity), wanted(&[1, 2], Kind::NodePort)),
        (4, wanted(&[1], Kind::ClusterIp), wanted(&[], Kind::Affinity)),
        (4, wanted(&[1, 2], Kind::Affinity), wanted(&[], Kind::ClusterIp)),
        (5, wanted(&[1, 2], Kind::Affinity), wanted(&[], Kind::ClusterIp)),
    ] {
        let mut world = World::new(false, 1000);
        for step in [
            Step::Change(number, before.clone()),
            Step::Change(3, wanted(&[1], Kind::NodePort)),
            Step::Sync,
            Step::Refuse(Some(number)),
            Step::Change(number, after.clone()),
            Step::Restart,
        ] {
            world.step(step).unwrap();
        }
        let of_it = |world: &mut World| {
            let content = world.engine.kernel_mut().content(TABLE).unwrap();
            let name = format!("/service-{number}/");
            let chains = content.chains.into_iter().filter(|(chain, _)| chain.contains(&name));
            chains.collect::<BTreeMap<_, _>>()
        };
        let there = of_it(&mut world);
        assert!(!there.is_empty());
        assert!(!world.engine.sync().unwrap().refused.is_empty(), "{before:?} {after:?}");
        world.engine.delete_unused().unwrap();
        assert_eq!(of_it(&mut world), there, "{before:?} {after:?}");
        world.step(Step::Change(3, None)).unwrap();
        world.engine.sync().unwrap();
        world.engine.doubt();
        world.engine.sync().unwrap();
        assert_eq!(of_it(&mut world), there, "{before:?} {after:?}");
        world.settle().unwrap();
    }
}

/// A Service gives up affinity, is refused and kept as it is, and goes: so do all of its chains.
#[test]
fn all_chains_of_a_service_that_was_kept_go_with_it() {
    let wanted = |kind| Some(Wanted { pods: BTreeSet::from([1]), kind });
    let mut world = World::new(false, 1000);
    for step in [
        Step::Change(5, wanted(Kind::Affinity)),
        Step::Sync,
        Step::Refuse(Some(5)),
        Step::Change(5, wanted(Kind::ClusterIp)),
        Step::Sync,
        Step::Change(5, None),
    ] {
        world.step(step).unwrap();
    }
    world.settle().unwrap();
}
