//! The shared balancing chains: one for every kind and number of endpoints, used by all Services with
//! that number.

use super::base::{external_rules, nodeport_key, set_name, vip_key};
use nft_table::Family;
use nft_table::{Chain, Constant, Expression, Rule, Statement, Verdict};
use std::fmt;
use std::sync::Arc;

/// Which list of endpoints, looked up how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// All endpoints, by VIP.
    Cluster,
    /// The endpoints on this node, by VIP.
    Local,
    /// All endpoints, by NodePort.
    NodePortCluster,
    /// The endpoints on this node, by NodePort.
    NodePortLocal,
    /// External policy Local, by VIP: pods and the node return, others go to [`Kind::Local`].
    ExternalLocal,
    /// External policy Local, by NodePort.
    ExternalNodePortLocal,
}

impl Kind {
    const ALL: [Kind; 6] = [
        Kind::Cluster,
        Kind::Local,
        Kind::NodePortCluster,
        Kind::NodePortLocal,
        Kind::ExternalLocal,
        Kind::ExternalNodePortLocal,
    ];

    const fn name(self) -> &'static str {
        match self {
            Kind::Cluster => "cluster",
            Kind::Local => "local",
            Kind::NodePortCluster => "nodeport-cluster",
            Kind::NodePortLocal => "nodeport-local",
            Kind::ExternalLocal => "external-local",
            Kind::ExternalNodePortLocal => "external-nodeport-local",
        }
    }

    /// The data map with the slots.
    const fn map(self) -> &'static str {
        match self {
            Kind::Cluster => "cluster-endpoints",
            Kind::Local | Kind::ExternalLocal => "local-endpoints",
            Kind::NodePortCluster => "nodeport-cluster-endpoints",
            Kind::NodePortLocal | Kind::ExternalNodePortLocal => "nodeport-local-endpoints",
        }
    }
}

/// A shared balancing chain: `cluster-3`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Balancing {
    pub kind: Kind,
    /// Number of endpoints, at least 1.
    pub endpoints: u32,
}

impl fmt::Display for Balancing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.kind.name(), self.endpoints)
    }
}

impl Balancing {
    pub fn new(kind: Kind, endpoints: usize) -> Balancing {
        Balancing { kind, endpoints: endpoints as u32 }
    }

    /// Reads a chain name back.
    pub fn parse(name: &str) -> Option<Balancing> {
        let (kind, endpoints) = name.rsplit_once('-')?;
        let kind = Kind::ALL.into_iter().find(|candidate| candidate.name() == kind)?;
        // As it is written: neither "+3" nor "03", and no 0.
        let is_number = endpoints.starts_with(|digit: char| matches!(digit, '1'..='9'));
        let endpoints = is_number.then(|| endpoints.parse().ok())??;
        Some(Balancing { kind, endpoints })
    }

    /// The chain that this one ends in, where it is not the end itself.
    pub fn next(self) -> Option<Balancing> {
        let kind = match self.kind {
            Kind::ExternalLocal => Kind::Local,
            Kind::ExternalNodePortLocal => Kind::NodePortLocal,
            _ => return None,
        };
        Some(Balancing { kind, ..self })
    }

    /// The chain with its rules.
    ///
    /// ```text
    /// dnat ip to ip daddr . meta l4proto . th dport . numgen random mod 3 map @cluster-endpoints4
    /// dnat ip to ip daddr . meta l4proto . th dport . numgen random mod 1 map @cluster-endpoints4
    /// ```
    ///
    /// and the same for ip6. The second line is a safety net: a packet that is evaluated while a
    /// transaction takes effect may draw a slot that has just gone; slot 0 is there as long as any.
    pub fn chain(self) -> Chain {
        let rules = match self.next() {
            Some(next) => external_rules(Verdict::Goto(next.to_string().into())),
            None => Family::BOTH
                .into_iter()
                .flat_map(|family| {
                    let net = (self.endpoints > 1).then_some(1);
                    [Some(self.endpoints), net]
                        .into_iter()
                        .flatten()
                        .map(move |modulus| self.dnat(family, modulus))
                })
                .collect(),
        };
        Chain::regular(self.to_string(), rules)
    }

    fn dnat(self, family: Family, modulus: u32) -> Rule {
        let map: Arc<str> = set_name(self.kind.map(), family);
        let slot = vec![Expression::Random(modulus)];
        let dnat =
            |key: Vec<Expression>| Statement::Dnat { family, key: [key, slot].concat(), map };
        match self.kind {
            Kind::Cluster | Kind::Local => Rule::new(vec![dnat(vip_key(family))]),
            // The key names no address, so the family has to be matched in so many words.
            _ => Rule::new(vec![
                Statement::Match {
                    expression: Expression::NetworkFamily,
                    constant: Constant::Family(family),
                    negated: false,
                },
                dnat(nodeport_key()),
            ]),
        }
    }
}
