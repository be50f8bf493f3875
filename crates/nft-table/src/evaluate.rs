//! What the kernel would do with the first packet of a flow, given a [`Table`].
//!
//! An interpreter of the statements that this library has, for tests and for explaining a table. It
//! follows one packet through the hooks of the inet family the way the kernel does: translation
//! decides where it is routed, a base chain that accepts hands over to the next one, and what a
//! dynamic map learns is kept in [`Machine::learned`].

pub use crate::odds::{Learned, Possibility, possibilities};

use super::{
    Chain, ChainType, Constant, Expression, Hash, Hook, Key, Set, Statement, Table, Value, Verdict,
};
use crate::{Family, jhash};
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

/// The first packet of a flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Of the same family as the destination.
    pub source: IpAddr,
    /// Where it is sent to, before any translation.
    pub destination: IpAddr,
    /// IANA protocol number.
    pub protocol: u8,
    /// Source port; None: any of any client like this one, so that numbers that are computed from the source are drawn.
    pub source_port: Option<u16>,
    /// Destination port; 0 where the protocol has none.
    pub port: u16,
    /// Name of the interface it comes in on; None: the machine itself sends it.
    pub input: Option<String>,
}

/// What becomes of the flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It goes on to this destination.
    Passed {
        /// Its address.
        destination: IpAddr,
        /// Its port.
        port: u16,
        /// Whether it is another one than the packet was sent to.
        translated: bool,
        /// Whether the source becomes an address of the machine.
        masqueraded: bool,
    },
    /// It is answered with "port unreachable" or a TCP reset.
    Rejected,
    /// It vanishes.
    Dropped,
}

/// A rule that decided something about a flow: all of it matched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The chain.
    pub chain: Arc<str>,
    /// Which of its rules, from 0 on.
    pub rule: usize,
    /// What an element of a verdict map said, where the rule asked one.
    pub verdict: Option<Verdict>,
}

/// Why it cannot be said what becomes of a flow. The kernel would not have taken such a table.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EvaluateError {
    /// A verdict leads to a chain that is not there.
    #[error("there is no chain {0}")]
    NoChain(Arc<str>),
    /// A rule looks into a set or map that is not there.
    #[error("there is no set {0}")]
    NoSet(Arc<str>),
    /// Chains lead to each other in a circle, or too deep.
    #[error("chain {0} is in a loop, or reached by more than {DEPTH} jumps")]
    Loop(Arc<str>),
    /// A rule looks up a key of another length than the set has.
    #[error("a key of {len} bytes is looked up in set {set}")]
    Key {
        /// Name of the set.
        set: Arc<str>,
        /// Bytes of the key.
        len: usize,
    },
    /// A key with a part that no set has a type for, or with `numgen random mod 0`.
    #[error("{} is no part of a key", .0.nft())]
    NoKey(Expression),
    /// An expression is compared with a constant of another kind.
    #[error("{} is not compared with {}", .0.nft(), .1.nft())]
    Comparison(Expression, Constant),
    /// A map that `dnat` looks into holds something else than an address with a port.
    #[error("map {0} holds no address with a port")]
    NoAddress(Arc<str>),
}

/// The machine around the table.
pub struct Machine<'a> {
    /// Whether an address is this machine's own (routing type `local`).
    pub is_local: &'a dyn Fn(IpAddr) -> bool,
    /// Draws a number below the given one.
    pub random: &'a mut dyn FnMut(u32) -> u32,
    /// Elements that rules put into dynamic maps: map, key and data. They do not expire.
    pub learned: &'a mut HashMap<(Arc<str>, Vec<u8>), Vec<u8>>,
}

/// A flow on its way.
struct Flow {
    packet: Packet,
    original_destination: IpAddr,
    original_port: u16,
    translated: bool,
    masqueraded: bool,
    /// The destination is settled: nat chains for it are not asked a second time.
    destination_settled: bool,
    /// And the source.
    source_settled: bool,
    decisions: Vec<Decision>,
}

/// Why the evaluation of a chain ended.
enum End {
    /// The rules ran out, or `return`.
    Returned,
    Accepted,
    Dropped,
    Rejected,
}

/// Chains deeper than this are a loop (`NFT_JUMP_STACK_SIZE` in the kernel's `nf_tables.h`).
const DEPTH: usize = 16;

/// Follows the first packet of a flow through the table.
///
/// # Errors
/// If the packet comes to a rule that makes no sense.
pub fn evaluate(
    table: &Table,
    packet: Packet,
    machine: &mut Machine<'_>,
) -> Result<Outcome, EvaluateError> {
    trace(table, packet, machine).map(|(outcome, _)| outcome)
}

/// As [`evaluate`], and says which rules decided, in the order in which the packet met them.
///
/// # Errors
/// If the packet comes to a rule that makes no sense.
pub fn trace(
    table: &Table,
    packet: Packet,
    machine: &mut Machine<'_>,
) -> Result<(Outcome, Vec<Decision>), EvaluateError> {
    let mut flow = Flow {
        original_destination: packet.destination,
        original_port: packet.port,
        packet,
        translated: false,
        masqueraded: false,
        destination_settled: false,
        source_settled: false,
        decisions: Vec::new(),
    };
    let outcome = route(table, &mut flow, machine)?;
    Ok((outcome, flow.decisions))
}

/// Takes a flow through the hooks.
fn route(
    table: &Table,
    flow: &mut Flow,
    machine: &mut Machine<'_>,
) -> Result<Outcome, EvaluateError> {
    let own = flow.packet.input.is_none();
    let first = if own { Hook::Output } else { Hook::Prerouting };
    if let Some(outcome) = pass(table, first, flow, machine)? {
        return Ok(outcome);
    }
    let to_itself = (machine.is_local)(flow.packet.destination);
    let hooks: &[Hook] = match (own, to_itself) {
        (false, true) => &[Hook::Input],
        (false, false) => &[Hook::Forward, Hook::Postrouting],
        // What the machine sends to itself leaves, and comes in again through the loopback interface.
        (true, true) => &[Hook::Postrouting, Hook::Prerouting, Hook::Input],
        (true, false) => &[Hook::Postrouting],
    };
    for hook in hooks {
        if own && *hook != Hook::Postrouting {
            flow.packet.input = Some("lo".into());
        }
        if let Some(outcome) = pass(table, *hook, flow, machine)? {
            return Ok(outcome);
        }
    }
    Ok(Outcome::Passed {
        destination: flow.packet.destination,
        port: flow.packet.port,
        translated: flow.translated,
        masqueraded: flow.masqueraded,
    })
}

/// Evaluates the base chains of a hook; Some when the way ends there.
fn pass(
    table: &Table,
    hook: Hook,
    flow: &mut Flow,
    machine: &mut Machine<'_>,
) -> Result<Option<Outcome>, EvaluateError> {
    // Which end of the flow nat chains decide about there (`HOOK2MANIP` in the kernel's `nf_nat.h`).
    let settled = match hook {
        Hook::Postrouting | Hook::Input => &mut flow.source_settled,
        _ => &mut flow.destination_settled,
    };
    let is_settled = std::mem::replace(settled, hook != Hook::Forward);
    let mut chains: Vec<(i32, &Chain)> = table
        .chains()
        .into_iter()
        .filter_map(|chain| chain.base.filter(|b| b.hook == hook).map(|b| (b.priority, chain)))
        .collect();
    chains.sort_by_key(|(priority, _)| *priority);
    for (_, chain) in chains {
        let is_nat = chain.base.is_some_and(|base| base.chain_type == ChainType::Nat);
        if is_nat && is_settled {
            continue;
        }
        match (Evaluation { table, flow, machine }).chain(chain, 0)? {
            End::Returned | End::Accepted => {}
            End::Dropped => return Ok(Some(Outcome::Dropped)),
            End::Rejected => return Ok(Some(Outcome::Rejected)),
        }
    }
    Ok(None)
}

struct Evaluation<'a, 'm> {
    table: &'a Table,
    flow: &'a mut Flow,
    machine: &'a mut Machine<'m>,
}

/// What a statement says about going on.
enum Step {
    Next,
    /// The rule does not match.
    Break,
    Verdict(Verdict),
    End(End),
}

impl Evaluation<'_, '_> {
    fn chain(&mut self, chain: &Chain, depth: usize) -> Result<End, EvaluateError> {
        if depth >= DEPTH {
            return Err(EvaluateError::Loop(chain.name.clone()));
        }
        'rules: for (index, rule) in chain.rules.iter().enumerate() {
            for statement in &rule.statements {
                let step = self.statement(statement)?;
                if matches!(step, Step::Verdict(_) | Step::End(_)) {
                    let verdict = match (&step, statement) {
                        (Step::Verdict(verdict), Statement::VerdictMap { .. }) => {
                            Some(verdict.clone())
                        }
                        _ => None,
                    };
                    let chain = chain.name.clone();
                    self.flow.decisions.push(Decision { chain, rule: index, verdict });
                }
                let verdict = match step {
                    Step::Next => continue,
                    Step::Break => continue 'rules,
                    Step::End(end) => return Ok(end),
                    Step::Verdict(verdict) => verdict,
                };
                let target = |name: &Arc<str>| {
                    self.table.chain(name).ok_or_else(|| EvaluateError::NoChain(name.clone()))
                };
                match &verdict {
                    Verdict::Accept => return Ok(End::Accepted),
                    Verdict::Drop => return Ok(End::Dropped),
                    Verdict::Return => return Ok(End::Returned),
                    Verdict::Goto(name) => {
                        let target = target(name)?;
                        return self.chain(target, depth + 1);
                    }
                    Verdict::Jump(name) => {
                        let target = target(name)?;
                        match self.chain(target, depth + 1)? {
                            End::Returned => continue 'rules,
                            end => return Ok(end),
                        }
                    }
                }
            }
        }
        Ok(End::Returned)
    }

    fn statement(&mut self, statement: &Statement) -> Result<Step, EvaluateError> {
        let when = |matched: bool| if matched { Step::Next } else { Step::Break };
        Ok(match statement {
            Statement::Match { expression, constant, negated } => {
                when(self.is(*expression, constant)? != *negated)
            }
            // It is the first packet.
            Statement::NotOpening => when(false),
            Statement::ProtocolIn(numbers) => when(numbers.contains(&self.flow.packet.protocol)),
            Statement::InSet { key, set, negated } => match self.key(key)? {
                Some(key) => when(self.look_up(set, &key)?.is_some() != *negated),
                None => Step::Break,
            },
            Statement::VerdictMap { key, map } => {
                let Some(key) = self.key(key)? else { return Ok(Step::Break) };
                match self.look_up(map, &key)? {
                    Some(Value::Verdict(element)) => Step::Verdict(element.verdict),
                    _ => Step::Break,
                }
            }
            Statement::Dnat { family, key, map } => {
                if self.family() != *family {
                    return Ok(Step::Break);
                }
                let Some(key) = self.key(key)? else { return Ok(Step::Break) };
                let data = match self.look_up(map, &key)? {
                    Some(Value::Data(data)) => data.bytes().to_vec(),
                    _ => match self.machine.learned.get(&(map.clone(), key)) {
                        Some(data) => data.clone(),
                        None => return Ok(Step::Break),
                    },
                };
                self.translate(&data).ok_or_else(|| EvaluateError::NoAddress(map.clone()))?;
                Step::End(End::Accepted)
            }
            Statement::Update { map, key, data, .. } => {
                let (Some(key), Some(data)) = (self.key(key)?, self.key(data)?) else {
                    return Ok(Step::Break);
                };
                self.machine.learned.insert((map.clone(), key), data);
                Step::Next
            }
            // A client within its limits.
            Statement::RateOver { .. } | Statement::ConnectionsOver { .. } => Step::Break,
            Statement::Counter => Step::Next,
            Statement::Masquerade => {
                self.flow.masqueraded = true;
                Step::End(End::Accepted)
            }
            Statement::Reject(_) => Step::End(End::Rejected),
            Statement::Verdict(verdict) => Step::Verdict(verdict.clone()),
        })
    }

    /// None if the data are no address with a port.
    fn translate(&mut self, data: &[u8]) -> Option<()> {
        let (address, [high, low, _, _]) = data.split_last_chunk()?;
        let before = (self.flow.packet.destination, self.flow.packet.port);
        self.flow.packet.destination = match <[u8; 4]>::try_from(address) {
            Ok(octets) => octets.into(),
            Err(_) => <[u8; 16]>::try_from(address).ok()?.into(),
        };
        self.flow.packet.port = u16::from_be_bytes([*high, *low]);
        // A translation to the same destination is none (`nf_nat_setup_info` in the kernel).
        self.flow.translated |= before != (self.flow.packet.destination, self.flow.packet.port);
        Some(())
    }

    fn family(&self) -> Family {
        Family::of(&self.flow.packet.source)
    }

    fn is(&self, expression: Expression, constant: &Constant) -> Result<bool, EvaluateError> {
        Ok(match (expression, constant) {
            (Expression::NetworkFamily, Constant::Family(family)) => self.family() == *family,
            (Expression::Protocol, Constant::Protocol(n)) => self.flow.packet.protocol == *n,
            // It is the first packet.
            (Expression::CtState, Constant::StateNew) => true,
            (Expression::CtStatus, Constant::StatusDnat) => self.flow.translated,
            (Expression::SourceAddressType, Constant::TypeLocal) => {
                (self.machine.is_local)(self.flow.packet.source)
            }
            (Expression::DestinationAddressType, Constant::TypeLocal) => {
                (self.machine.is_local)(self.flow.packet.destination)
            }
            (Expression::SourceAddress(_), Constant::Network(network)) => {
                network.contains(&self.flow.packet.source)
            }
            (Expression::DestinationAddress(_), Constant::Network(network)) => {
                network.contains(&self.flow.packet.destination)
            }
            (Expression::InputInterface, Constant::Interface(name)) => {
                self.flow.packet.input.as_deref() == Some(&**name)
            }
            (Expression::InputInterface, Constant::InterfacePrefix(prefix)) => {
                self.flow.packet.input.as_ref().is_some_and(|name| name.starts_with(&**prefix))
            }
            // Which interface it leaves by is not known here.
            (Expression::OutputInterface, _) => false,
            (Expression::InputInterfaceIndex, Constant::NoInterface) => {
                self.flow.packet.input.is_none()
            }
            _ => return Err(EvaluateError::Comparison(expression, constant.clone())),
        })
    }

    /// The registers that the expressions fill; None where one of them does not apply.
    fn key(&mut self, expressions: &[Expression]) -> Result<Option<Vec<u8>>, EvaluateError> {
        let mut key = Vec::new();
        for expression in expressions {
            let modulus = match expression {
                Expression::Random(modulus) | Expression::Incremental(modulus) => *modulus,
                Expression::Hash(hash) => hash.modulus,
                _ => 1,
            };
            if expression.data_type().is_none() || modulus == 0 {
                return Err(EvaluateError::NoKey(*expression));
            }
            let loaded = match expression {
                Expression::Hash(hash) => self.hash(*hash)?,
                expression => self.load(*expression),
            };
            let Some(field) = loaded else { return Ok(None) };
            key.extend(field);
            key.resize(key.len().next_multiple_of(4), 0);
        }
        Ok(Some(key))
    }

    fn hash(&mut self, hash: Hash) -> Result<Option<Vec<u8>>, EvaluateError> {
        let is_known = self.flow.packet.source_port.is_some();
        if Family::of(&self.flow.packet.source) != hash.family {
            return Ok(None);
        }
        let number = match is_known {
            true => self.key(hash.key())?.map(|key| jhash::below(hash.modulus, &key, hash.seed)),
            false => Some((self.machine.random)(hash.modulus)),
        };
        let number = number.map(|number| number + hash.offset);
        Ok(number.map(|number| number.to_ne_bytes().to_vec()))
    }

    fn load(&mut self, expression: Expression) -> Option<Vec<u8>> {
        let packet = &self.flow.packet;
        let of = |address: IpAddr, family: Family| {
            (Family::of(&address) == family).then(|| match address {
                IpAddr::V4(address) => address.octets().to_vec(),
                IpAddr::V6(address) => address.octets().to_vec(),
            })
        };
        match expression {
            Expression::SourceAddress(family) => of(packet.source, family),
            Expression::DestinationAddress(family) => of(packet.destination, family),
            Expression::CtOriginalDestination(family) => of(self.flow.original_destination, family),
            Expression::Protocol => Some(vec![packet.protocol]),
            Expression::SourcePort => Some(packet.source_port?.to_be_bytes().to_vec()),
            Expression::DestinationPort => {
                // Only protocols with ports have one.
                let has_ports = matches!(packet.protocol, 6 | 17 | 132);
                has_ports.then(|| packet.port.to_be_bytes().to_vec())
            }
            Expression::CtOriginalPort => Some(self.flow.original_port.to_be_bytes().to_vec()),
            Expression::InputInterface => {
                let mut name = packet.input.as_ref()?.as_bytes().to_vec();
                name.resize(16, 0);
                Some(name)
            }
            // Which interface it leaves by is not known here.
            Expression::OutputInterface => None,
            // Others have counted on before.
            Expression::Random(modulus) | Expression::Incremental(modulus) => {
                Some((self.machine.random)(modulus).to_ne_bytes().to_vec())
            }
            Expression::NetworkFamily
            | Expression::CtState
            | Expression::CtStatus
            | Expression::InputInterfaceIndex
            | Expression::SourceAddressType
            | Expression::DestinationAddressType
            | Expression::Hash(_) => None,
        }
    }

    fn look_up(&self, name: &Arc<str>, key: &[u8]) -> Result<Option<Value>, EvaluateError> {
        let (id, set) = self
            .table
            .set_id(name)
            .and_then(|id| Some((id, self.table.set(id)?)))
            .ok_or_else(|| EvaluateError::NoSet(name.clone()))?;
        if key.len() != set.key_len() {
            return Err(EvaluateError::Key { set: name.clone(), len: key.len() });
        }
        if !set.flags.interval {
            return Ok(self.table.get(id, &Key(key.into())).cloned());
        }
        let mut elements = self.table.elements(id);
        let found = elements.find(|(range, _)| in_range(set, range, key));
        Ok(found.map(|(_, value)| value.clone()))
    }
}

/// Whether every field of a key lies in the range's. Both have the lengths of the set.
fn in_range(set: &Set, range: &Key, key: &[u8]) -> bool {
    let (mut first, mut last) = range.0.split_at(set.key_len());
    let mut key = key;
    set.key.iter().all(|field| {
        let len = field.padded_len();
        let inside = first[..len] <= key[..len] && key[..len] <= last[..len];
        (first, last, key) = (&first[len..], &last[len..], &key[len..]);
        inside
    })
}
