//! What the kernel lacks, found by trying and not by its version.

use super::{Cause, Error, Fault, Nft, Refusal, Refusals};
use nft_table::Family;
use nft_table::{
    BaseChain, Chain, ChainType, Constant, DataType, Expression, Hook, Key, Operation, Ownership,
    Reject, Rule, Set, SetData, SetFlags, Statement, Transaction, Verdict,
};
use std::net::Ipv4Addr;

/// Name of the table that is tried and never committed.
const TABLE: &str = "kube-proxy-probe";

impl Nft {
    /// Sends a transaction whose last operation must fail, so that nothing of it is ever committed.
    ///
    /// # Errors
    /// What the kernel has against the rest of it.
    pub(super) fn try_out(&mut self, transaction: &Transaction<'_>) -> Result<(), Error> {
        let mut operations = transaction.operations.clone();
        operations.push(Operation::DeleteChain(NEVER));
        let tried = Transaction::new(transaction.table, operations);
        match self.commit_at(&tried, None) {
            Err(Error::Refused(Refusals(mut refusals))) => {
                refusals.retain(|refusal| !is_deliberate(refusal));
                if refusals.is_empty() { Ok(()) } else { Err(Error::Refused(Refusals(refusals))) }
            }
            result => result,
        }
    }

    pub(super) fn probe_ownership(&mut self) -> Result<bool, Error> {
        self.probe(vec![Operation::AddTable(Ownership::OwnedPersistent)])
    }

    pub(super) fn probe_destroy(&mut self) -> Result<bool, Error> {
        let mut sets = sets();
        let set = sets.swap_remove(0);
        let key = Key::builder().address(Ipv4Addr::LOCALHOST.into()).build();
        self.probe(vec![
            Operation::AddTable(Ownership::Nobody),
            Operation::AddSet(&set),
            Operation::DestroyElements { set: &set, keys: vec![&key] },
        ])
    }

    /// Whether the kernel knows how to do this.
    fn probe(&mut self, operations: Vec<Operation<'_>>) -> Result<bool, Error> {
        match self.try_out(&Transaction::new(TABLE, operations)) {
            Ok(()) => Ok(true),
            Err(error) if error.fault() == Fault::Content => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Tries everything that rulesets of this library are made of, in a transaction whose last operation
    /// must fail, so that nothing of it is ever committed.
    ///
    /// Returns what the kernel refused, with the module that is missing where that is known; nothing if
    /// all is there.
    ///
    /// # Errors
    /// [`Error::Permission`]; [`Error::Request`] if the kernel has no nftables at all.
    pub fn missing_features(&mut self) -> Result<Vec<String>, Error> {
        let (sets, chains) = (sets(), chains());
        let mut operations = vec![Operation::AddTable(Ownership::Nobody)];
        operations.extend(sets.iter().map(Operation::AddSet));
        operations.extend(chains.iter().map(Operation::AddChain));
        for chain in &chains {
            let add = |rule| Operation::AddRule { chain: &chain.name, rule };
            operations.extend(chain.rules.iter().map(add));
        }
        let error = match self.try_out(&Transaction::new(TABLE, operations)) {
            Err(error @ Error::Refused(_)) => error,
            Err(error) => return Err(error),
            Ok(()) => return Ok(Vec::new()),
        };
        let refusals = || error.refusals().iter();
        let is_missing = |cause: &Cause| matches!(cause, Cause::MissingFeature { .. });
        // What refers to a thing that is missing is refused as well, but is not the point.
        let any_missing = refusals().any(|refusal| is_missing(&refusal.cause));
        let shown = refusals().filter(|refusal| !any_missing || is_missing(&refusal.cause));
        Ok(shown.map(ToString::to_string).collect())
    }
}

/// No chain has this name.
const NEVER: &str = "never-there";

fn is_deliberate(refusal: &Refusal) -> bool {
    refusal.chain.as_deref() == Some(NEVER)
}

/// A set of each kind.
fn sets() -> Vec<Set> {
    use DataType::{InetProto, InetService, InterfaceName, Ipv4Address, Slot};
    let set = |name: &str, key: &[DataType], data, interval| Set {
        name: name.into(),
        key: key.to_vec(),
        data,
        flags: SetFlags { interval, dynamic: false, timeout: false },
        type_of: None,
        size: None,
        counter: false,
    };
    let backend = || SetData::Fields(vec![Ipv4Address, InetService]);
    let mut dynamic = set("dynamic", &[Ipv4Address], backend(), false);
    dynamic.flags = SetFlags { interval: false, dynamic: true, timeout: true };
    vec![
        set("members", &[Ipv4Address], SetData::None, false),
        set("ranges", &[Ipv4Address], SetData::None, true),
        set("interfaces", &[InterfaceName], SetData::None, true),
        set("concatenated-ranges", &[Ipv4Address, Ipv4Address], SetData::None, true),
        set("verdicts", &[Ipv4Address, InetProto, InetService], SetData::Verdict, false),
        set("slots", &[InetProto, InetService, Slot], backend(), false),
        dynamic,
    ]
}

/// Base chains of each kind, and a rule with each expression and statement.
fn chains() -> Vec<Chain> {
    let v4 = Family::V4;
    let vip = |address, port| vec![address, Expression::Protocol, port];
    let port = Expression::DestinationPort;
    let saddr = || vec![Expression::SourceAddress(v4)];
    let matches = |expression, constant| Statement::Match { expression, constant, negated: false };
    let in_set = |key, set: &str| Statement::InSet { key, set: set.into(), negated: false };
    let verdicts = |key| Statement::VerdictMap { key, map: "verdicts".into() };
    let data = vec![Expression::DestinationAddress(v4), port];
    let slot = vec![Expression::Protocol, port, Expression::Random(2)];
    let statements = vec![
        matches(Expression::NetworkFamily, Constant::Family(v4)),
        matches(Expression::CtState, Constant::StateNew),
        matches(Expression::CtStatus, Constant::StatusDnat),
        matches(Expression::SourceAddressType, Constant::TypeLocal),
        Statement::ProtocolIn(&[6, 17, 132]),
        in_set(saddr(), "members"),
        in_set(vec![Expression::InputInterface], "interfaces"),
        verdicts(vip(Expression::DestinationAddress(v4), port)),
        verdicts(vip(Expression::CtOriginalDestination(v4), Expression::CtOriginalPort)),
        Statement::Dnat { family: v4, key: slot, map: "slots".into() },
        Statement::Update { map: "dynamic".into(), key: saddr(), data, timeout_seconds: 1 },
        Statement::Counter,
        Statement::Masquerade,
        Statement::Reject(Reject::AnyFamily),
        Statement::Reject(Reject::Family(v4)),
        Statement::Verdict(Verdict::Accept),
    ];
    let rules = statements.into_iter().map(|statement| Rule::new(vec![statement])).collect();
    let base = |name, chain_type, hook| {
        Chain::base(name, BaseChain { chain_type, hook, priority: 0 }, Vec::new())
    };
    vec![
        base("filter", ChainType::Filter, Hook::Input),
        base("nat", ChainType::Nat, Hook::Postrouting),
        Chain::regular("rules", rules),
    ]
}
