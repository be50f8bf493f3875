//! The shared balancing chains: one for every kind, family and number of endpoints, used by all Services with
//! that number.

use super::sets::parse_bank;
use super::{Bank, SetKind, SetName, digit};
use crate::model::Algorithm;
use crate::plan::pods::Pods;
use nft_table::{Chain, Constant, Expression, Family, Hash, Hashed, Rule, Statement, Verdict};
use std::fmt;
use std::sync::Arc;

/// The seed of hashes, the same on every node and in every release: "kube".
const HASH_SEED: u32 = 0x6b75_6265;

/// Which list of endpoints, looked up how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// All endpoints, by address.
    Cluster,
    /// The endpoints on this node, by address.
    Local,
    /// All endpoints, by NodePort.
    NodePortCluster,
    /// The endpoints on this node, by NodePort.
    NodePortLocal,
    /// External policy Local, by address: pods and the node itself go to [`Kind::Cluster`], others to [`Kind::Local`].
    ExternalLocal,
    /// External policy Local, by NodePort.
    ExternalNodePortLocal,
    /// An address from outside the cluster without endpoints: if it is also that of a NodePort, the NodePort has
    /// it, else the connection is refused. Its rules are those of [`super::chains`].
    ExternalReject,
}

impl Kind {
    pub(crate) const ALL: [Kind; 7] = [
        Kind::Cluster,
        Kind::Local,
        Kind::NodePortCluster,
        Kind::NodePortLocal,
        Kind::ExternalLocal,
        Kind::ExternalNodePortLocal,
        Kind::ExternalReject,
    ];

    /// The name in chains, and what stands for the chain among those of a Service with session affinity.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Cluster => "cluster",
            Kind::Local => "local",
            Kind::NodePortCluster => "nodeport-cluster",
            Kind::NodePortLocal => "nodeport-local",
            Kind::ExternalLocal => "external-local",
            Kind::ExternalNodePortLocal => "external-nodeport-local",
            Kind::ExternalReject => "external-reject",
        }
    }

    /// The kinds that pods and the node itself, and that others are led to, where it parts them.
    pub const fn parts(self) -> Option<[Kind; 2]> {
        match self {
            Kind::ExternalLocal => Some([Kind::Cluster, Kind::Local]),
            Kind::ExternalNodePortLocal => Some([Kind::NodePortCluster, Kind::NodePortLocal]),
            _ => None,
        }
    }

    /// Whether there is one such chain per family, whatever the number of endpoints; its rules follow what is in use,
    /// so [`super::chains`] makes it.
    pub const fn is_single(self) -> bool {
        matches!(self, Kind::ExternalReject)
    }

    /// Whether its list is that of endpoints on this node alone.
    pub const fn is_local(self) -> bool {
        matches!(self, Kind::Local | Kind::NodePortLocal)
    }

    /// The data map with the slots.
    const fn map(self) -> SetKind {
        match self {
            Kind::Cluster => SetKind::ClusterEndpoints,
            Kind::NodePortCluster => SetKind::NodeportClusterEndpoints,
            Kind::NodePortLocal => SetKind::NodeportLocalEndpoints,
            _ => SetKind::LocalEndpoints,
        }
    }
}

/// A shared balancing chain: `cluster4-3`, or `cluster4.2-3` for slots in the second bank; `hash-flow-cluster4-251` where
/// the slots are a table for hashed flows; `external-local4-2-3` for a list of two endpoints on this node and one of three
/// in all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Balancing {
    pub kind: Kind,
    pub family: Family,
    /// The bank in which the slots of its endpoints are.
    pub bank: Bank,
    /// Number of slots, at least 1; 0 for the kind of which there is one per family. By chance each endpoint has one. Where
    /// others are parted from pods and the node, it is that of the cluster list.
    pub endpoints: u32,
    /// Where others are parted from pods and the node: number of slots of the local list. Without one their packets are
    /// dropped.
    pub here: u32,
    /// How a slot is chosen.
    pub algorithm: Algorithm,
}

impl fmt::Display for Balancing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.algorithm {
            Algorithm::Random => {}
            other => write!(f, "{}-", other.name())?,
        }
        write!(f, "{}{}{}", self.kind.name(), digit(self.family), self.bank)?;
        match self.kind {
            kind if kind.is_single() => Ok(()),
            kind if kind.parts().is_some() => write!(f, "-{}-{}", self.here, self.endpoints),
            _ => write!(f, "-{}", self.endpoints),
        }
    }
}

impl Balancing {
    /// The chain of a kind for lists of so many slots: of all endpoints, and of those on this node.
    pub fn new(kind: Kind, family: Family, bank: Bank, [cluster, local]: [usize; 2]) -> Balancing {
        let number = |slots| u32::try_from(slots).unwrap_or(u32::MAX);
        let endpoints = number(if kind.is_local() { local } else { cluster });
        let here = if kind.parts().is_some() { number(local) } else { 0 };
        Balancing { kind, family, bank, endpoints, here, algorithm: Algorithm::Random }
    }

    /// The same with another way to choose.
    pub const fn by(self, algorithm: Algorithm) -> Balancing {
        Balancing { algorithm, ..self }
    }

    /// The chain of a kind that there is once per family.
    pub const fn single(kind: Kind, family: Family) -> Balancing {
        let algorithm = Algorithm::Random;
        Balancing { kind, family, bank: Bank(0), endpoints: 0, here: 0, algorithm }
    }

    /// Reads a chain name back.
    pub fn parse(name: &str) -> Option<Balancing> {
        let of = |name: &str| {
            let family = Family::BOTH.into_iter().find(|family| name.ends_with(digit(*family)))?;
            let name = &name[..name.len() - 1];
            Kind::ALL.into_iter().find(|kind| kind.name() == name).map(|kind| (kind, family))
        };
        if let Some((kind, family)) = of(name).filter(|(kind, _)| kind.is_single()) {
            return Some(Balancing::single(kind, family));
        }
        let strip = |one: Algorithm| name.strip_prefix(one.name())?.strip_prefix('-');
        let hashed = [Algorithm::HashClient, Algorithm::HashFlow];
        let hashed = hashed.into_iter().find_map(|one| Some((one, strip(one)?)));
        let (algorithm, name) = hashed.unwrap_or((Algorithm::Random, name));
        let (first, endpoints) = name.rsplit_once('-')?;
        let endpoints = number(endpoints)?;
        let read = |first| {
            let (kind, bank) = parse_bank(first)?;
            let (kind, family) = of(kind)?;
            Some(Balancing { kind, family, bank, endpoints, here: 0, algorithm })
        };
        if let Some(chain) = read(first) {
            let is_whole = !chain.kind.is_single() && chain.kind.parts().is_none() && endpoints > 0;
            return is_whole.then_some(chain);
        }
        let (first, here) = first.rsplit_once('-')?;
        let chain = read(first).filter(|chain| chain.kind.parts().is_some())?;
        Some(Balancing { here: number(here)?, ..chain })
    }

    /// The chains that pods and the node itself, and that others go on to; None for a list without endpoints.
    fn parts(self) -> Option<[Option<Balancing>; 2]> {
        let [inside, outside] = self.kind.parts()?;
        let list = |kind, endpoints| {
            (endpoints > 0).then_some(Balancing { kind, endpoints, here: 0, ..self })
        };
        Some([list(inside, self.endpoints), list(outside, self.here)])
    }

    /// The chain for lists of one endpoint more; None where the number of slots is not that of endpoints.
    pub fn one_more(self) -> Option<Balancing> {
        let endpoints = self.endpoints.checked_add(1).filter(|_| self.has_slot_for_each())?;
        Some(Balancing { endpoints, ..self })
    }

    /// The chain for lists of one endpoint less; None where that is none, too.
    pub fn one_less(self) -> Option<Balancing> {
        let less = self.endpoints.checked_sub(1).filter(|_| self.has_slot_for_each());
        less.filter(|endpoints| *endpoints > 0).map(|endpoints| Balancing { endpoints, ..self })
    }

    fn has_slot_for_each(self) -> bool {
        self.map().is_some() && !self.algorithm.is_hash()
    }

    /// The chains that this one leads to.
    pub fn leads_to(self) -> impl Iterator<Item = Balancing> {
        self.parts().into_iter().flatten().flatten()
    }

    /// The map that its rules look into, where they do.
    pub fn map(self) -> Option<SetName> {
        let looks = !self.kind.is_single() && self.kind.parts().is_none();
        looks.then(|| SetName::new(self.kind.map(), self.family).in_bank(self.bank))
    }

    /// The chain with its rules.
    ///
    /// ```text
    /// dnat ip to ip daddr . meta l4proto . th dport . numgen random mod 3 map @cluster-endpoints4
    /// dnat ip to ip daddr . meta l4proto . th dport . numgen random mod 1 map @cluster-endpoints4
    /// drop
    /// ```
    ///
    /// The other lines are for a packet that is evaluated while a transaction takes effect: it sees elements as
    /// they are when it looks them up. It may draw a slot that has just gone; slot 0 is there as long as any.
    /// Where all have gone, it must not pass as if it was for no Service, for then the connection would never be
    /// translated, however often the client tries: dropped, it is sent again and finds what is then.
    ///
    /// A table for hashes has another rule before, for a connection that another node knew until now: where it may be one
    /// to an endpoint that is terminating, the entries behind the table say to which.
    ///
    /// ```text
    /// tcp flags != syn / syn,ack dnat ip to ip daddr . meta l4proto . th dport .
    ///     jhash ip saddr . th sport mod 251 seed 0x6b756265 offset 251 map @cluster-endpoints4
    /// ```
    pub fn chain(self, pods: &Pods) -> Chain {
        let rules = match self.parts() {
            Some(parts) => parting_rules(
                self.family,
                pods,
                parts.map(|chain| chain.map(|chain| chain.to_string().into())),
            ),
            None => {
                let net = (self.endpoints > 1).then_some(Expression::Random(1));
                let slots = [Some(self.slot(0)), net].into_iter().flatten();
                let drop = Rule::new(vec![Statement::Verdict(Verdict::Drop)]);
                let rules = slots.map(|slot| self.dnat(slot)).chain([drop]);
                let lost = self.algorithm.is_hash().then(|| {
                    let mut rule = self.dnat(self.slot(self.endpoints));
                    rule.statements.insert(0, Statement::NotOpening);
                    rule
                });
                lost.into_iter().chain(rules).collect()
            }
        };
        Chain::regular(self.to_string(), rules)
    }

    /// The number of the slot that a packet gets, and `offset` more where it is hashed.
    fn slot(self, offset: u32) -> Expression {
        let hash = |of| {
            let (family, modulus) = (self.family, self.endpoints);
            Expression::Hash(Hash { of, family, modulus, seed: HASH_SEED, offset })
        };
        match self.algorithm {
            Algorithm::Random => Expression::Random(self.endpoints),
            Algorithm::HashClient => hash(Hashed::Client),
            Algorithm::HashFlow => hash(Hashed::Flow),
            Algorithm::RoundRobin => Expression::Incremental(self.endpoints),
        }
    }

    fn dnat(self, slot: Expression) -> Rule {
        let family = self.family;
        let map = SetName::new(self.kind.map(), family).in_bank(self.bank);
        let dnat = Statement::Dnat { family, key: map.slot_key(slot), map: map.nft() };
        match self.kind {
            Kind::Cluster | Kind::Local => Rule::new(vec![dnat]),
            // The key names no address, so nft wants the family in so many words.
            _ => Rule::new(vec![
                Statement::Match {
                    expression: Expression::NetworkFamily,
                    constant: Constant::Family(family),
                    negated: false,
                },
                dnat,
            ]),
        }
    }
}

/// A number as it is written: neither "+3" nor "03".
fn number(text: &str) -> Option<u32> {
    text.parse().ok().filter(|number: &u32| number.to_string() == text)
}

/// The rules of external policy Local: pods and the node itself are not outside and go to the first chain, everybody else to
/// the second one; where there is none, packets are dropped.
///
/// ```text
/// ip saddr 10.244.0.0/16 goto cluster4-3
/// iif 0 goto cluster4-3
/// fib saddr type local goto cluster4-3
/// goto local4-2
/// ```
///
/// What the node sends has come in by no interface; the routing table is asked about the rest only.
pub fn parting_rules(family: Family, pods: &Pods, parts: [Option<Arc<str>>; 2]) -> Vec<Rule> {
    let [inside, outside] =
        parts.map(|chain| Statement::Verdict(chain.map_or(Verdict::Drop, Verdict::Goto)));
    let is = |expression, constant| Statement::Match { expression, constant, negated: false };
    let node = [
        is(Expression::InputInterfaceIndex, Constant::NoInterface),
        is(Expression::SourceAddressType, Constant::TypeLocal),
    ];
    let sources = pods.source(family).into_iter().chain(node);
    let rules = sources.map(|source| Rule::new(vec![source, inside.clone()]));
    rules.chain([Rule::new(vec![outside])]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SHARED: [Algorithm; 3] = [Algorithm::Random, Algorithm::HashClient, Algorithm::HashFlow];

    proptest! {
        #[test]
        fn names_are_read_back(
            kind in 0..6usize, v6: bool, bank: u16, endpoints in 1..u32::MAX, here: u32,
            algorithm in prop::sample::select(SHARED.to_vec())
        ) {
            let (kind, family) = (Kind::ALL[kind], Family::BOTH[usize::from(v6)]);
            let here = if kind.parts().is_some() { here } else { 0 };
            let chain = Balancing { kind, family, bank: Bank(bank), endpoints, here, algorithm };
            prop_assert_eq!(Balancing::parse(&chain.to_string()), Some(chain));
        }
    }

    #[test]
    fn other_names_are_not() {
        for name in [
            "cluster4-0",
            "cluster4-03",
            "cluster4-+3",
            "cluster-3",
            "external-reject4-1",
            "external-local4-1",
            "external-local4-01-1",
            "external-local4-1-",
            "local4-1-2",
            "x4-1",
            "cluster4.1-3",
            "external-reject4.2",
            "hash-client-external-reject4",
            "random-cluster4-3",
            "hash-flow-hash-client-cluster4-3",
        ] {
            assert_eq!(Balancing::parse(name), None, "{name}");
        }
        let reject = Balancing::single(Kind::ExternalReject, Family::V6);
        assert_eq!(Balancing::parse("external-reject6"), Some(reject));
        let none_here = Balancing::new(Kind::ExternalLocal, Family::V4, Bank(0), [3, 0]);
        assert_eq!(Balancing::parse("external-local4-0-3"), Some(none_here));
    }
}
