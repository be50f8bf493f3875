//! What can go wrong between a transaction and the kernel.

use crate::kernel::netlink::{Answer, Error as NetlinkError};
use netlink_packet_core::DecodeError;
use nft_table::netlink::{Batch, EncodeError};
use nft_table::{BaseChain, Key, Operation, Rule, Statement, Transaction, text};
use std::fmt;
use std::io;
use std::sync::Arc;

/// An error of the nftables part of the kernel, or of the way to it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel has refused a transaction. Nothing of it was done.
    #[error("the kernel refused the transaction: {0}")]
    Refused(Refusals),
    /// The ruleset changed, by somebody else, under a dump or since the generation that a
    /// transaction was made for. Nothing was done; try again.
    #[error("the ruleset was changed by another program in between")]
    Interrupted,
    /// The transaction is none that the kernel could take.
    #[error("the transaction cannot be sent: {0}")]
    Encode(#[from] EncodeError),
    /// Another process owns the table: it alone may change it as long as it lives.
    #[error("table inet {table} is owned by {by}; waiting until that ends")]
    Owned { table: String, by: String },
    /// Another process began to write the table after this one.
    #[error("another proxy writes table inet {table} by now; two would undo each other's work")]
    Superseded { table: String },
    /// More Services are refused than single bad ones can be.
    #[error("the kernel refuses {0} Services and more")]
    TooMany(usize),
    /// The process may not change nftables.
    #[error("the kernel does not let this process change nftables: it needs CAP_NET_ADMIN")]
    Permission,
    /// The kernel has no nftables.
    #[error("the kernel has no nftables (is the module nf_tables there?): {0}")]
    Unsupported(NetlinkError),
    /// It has no netlink of netfilter, by which nftables is spoken to.
    #[error(
        "the kernel has no netfilter netlink (may modules be loaded? they are nfnetlink and nf_tables): {0}"
    )]
    NoNetfilter(io::Error),
    /// The transaction does not fit into the send buffer, which only a process with CAP_NET_ADMIN in the
    /// initial user namespace can enlarge at will.
    #[error(
        "a transaction of {bytes} bytes does not fit into the send buffer of {limit} bytes: \
         raise net.core.wmem_max or run with CAP_NET_ADMIN"
    )]
    TooLarge { bytes: usize, limit: usize },
    /// It is not known whether the kernel has taken a transaction: its answer was lost.
    #[error("the kernel's answer to a transaction was lost: the receive buffer was full")]
    AnswerLost,
    /// The kernel answered a request other than a transaction with an error.
    #[error("{request}: {source}")]
    Request { request: String, source: NetlinkError },
    #[error("{what}: {source}")]
    Socket { what: &'static str, source: io::Error },
    #[error("the kernel's answer cannot be read: {0}")]
    Malformed(#[from] DecodeError),
}

impl Error {
    /// What went wrong with a request.
    pub(super) fn of_request(request: &str, error: NetlinkError) -> Error {
        match error {
            NetlinkError::Socket { what, source } => Error::Socket { what, source },
            NetlinkError::TooLarge { bytes, limit } => Error::TooLarge { bytes, limit },
            NetlinkError::Malformed(error) => Error::Malformed(error),
            NetlinkError::Interrupted { .. } => Error::Interrupted,
            error if error.errno() == Some(libc::EPERM) => Error::Permission,
            source => Error::Request { request: request.to_owned(), source },
        }
    }

    /// Whose fault it is.
    pub fn fault(&self) -> Fault {
        match self {
            Error::Refused(Refusals(refusals)) => {
                let faults = refusals.iter().map(Refusal::fault);
                // What is wrong with a message may make others fail; what is nobody's fault may be behind all of it.
                faults.min().unwrap_or(Fault::Nobody)
            }
            Error::Encode(_) => Fault::Content,
            _ => Fault::Nobody,
        }
    }

    /// Whether it is known that nothing was done.
    pub fn has_done_nothing(&self) -> bool {
        matches!(self, Error::Refused(_) | Error::Encode(_) | Error::Interrupted)
    }

    /// What the kernel has refused, the first cause first; empty for other errors.
    pub fn refusals(&self) -> &[Refusal] {
        match self {
            Error::Refused(Refusals(refusals)) => refusals,
            _ => &[],
        }
    }
}

/// Whose fault an error is, and so what to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// Nobody's: the kernel is out of memory or busy, the table is owned by somebody else, an answer was lost. Wait
    /// and try again.
    Nobody,
    /// What is believed of the kernel is wrong: something is there that should not be, or the other way round. Look and
    /// try again.
    Belief,
    /// Something in the transaction is nothing that the kernel takes.
    Content,
}

impl Fault {
    /// What metrics call it.
    pub const fn name(self) -> &'static str {
        match self {
            Fault::Nobody => "transient",
            Fault::Belief => "drift",
            Fault::Content => "object",
        }
    }
}

/// All that the kernel had against a transaction, in the order in which it found it. What comes after the
/// first may be no more than a consequence.
#[derive(Debug)]
pub struct Refusals(pub Vec<Refusal>);

impl fmt::Display for Refusals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0[..] {
            [] => f.write_str("no reason given"),
            [only] => only.fmt(f),
            [first, more @ ..] => write!(f, "{first}; and {} more", more.len()),
        }
    }
}

/// What the kernel had against an operation.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// The operation in nft syntax, of elements the one at fault where that is known.
    pub operation: String,
    /// The set or map that it is about.
    pub set: Option<Arc<str>>,
    /// The element at fault.
    pub key: Option<Key>,
    /// The chain that it is about.
    pub chain: Option<Arc<str>>,
    /// A positive errno.
    pub errno: i32,
    /// What the kernel says beside the errno (extended ACK); mostly empty.
    pub message: String,
    pub cause: Cause,
}

/// What an errno means for an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The table, or what the operation refers to, is not there (ENOENT).
    NotFound,
    /// Something else is there already (EEXIST).
    Exists,
    /// It is still in use (EBUSY).
    InUse,
    /// The set has reached its size (ENFILE).
    Full,
    /// Chains call each other in a circle or too deep (ELOOP, EMLINK).
    Loop,
    /// The kernel lacks a feature: the module that has it.
    MissingFeature { module: String },
    /// Not permitted, as for a table that another process owns (EPERM).
    Permission,
    /// Anything else.
    Other,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let errno = io::Error::from_raw_os_error(self.errno);
        write!(f, "{}: {errno}", self.operation)?;
        if !self.message.is_empty() {
            write!(f, ": {}", self.message)?;
        }
        match &self.cause {
            Cause::NotFound => {
                f.write_str(" (the table, or what this refers to, is not there; did another program delete it?)")
            }
            Cause::Exists => f.write_str(" (it is there already, with another value)"),
            Cause::InUse => f.write_str(" (it is still referred to)"),
            Cause::Full => f.write_str(" (the set has as many elements as its size allows)"),
            Cause::MissingFeature { module } => {
                write!(f, " (the kernel lacks a feature: is the module {module} there?)")
            }
            Cause::Permission => {
                f.write_str(" (CAP_NET_ADMIN is needed, and no other process may own the table)")
            }
            Cause::Loop | Cause::Other => Ok(()),
        }
    }
}

/// The module for the limits that a rule sets; it looks into the set that was added for it.
fn limiting_module(rule: &Rule) -> Option<&'static str> {
    rule.statements.iter().find_map(|statement| match statement {
        Statement::RateOver { .. } => Some("nft_limit"),
        Statement::ConnectionsOver { .. } => Some("nft_connlimit"),
        _ => None,
    })
}

impl Refusal {
    /// Whose fault it is.
    pub fn fault(&self) -> Fault {
        match self.errno {
            // It will not be there when all is known.
            _ if matches!(self.cause, Cause::MissingFeature { .. }) => Fault::Content,
            libc::ENOMEM
            | libc::ENOBUFS
            | libc::EINTR
            | libc::EAGAIN
            | libc::ERESTART
            | libc::EPERM
            | libc::EACCES
            | libc::ENFILE
            | libc::EMFILE
            | libc::ENOSPC => Fault::Nobody,
            libc::ENOENT | libc::EEXIST | libc::EBUSY => Fault::Belief,
            _ => Fault::Content,
        }
    }

    /// What an error message is about.
    pub(super) fn of(transaction: &Transaction<'_>, batch: &Batch, answer: Answer) -> Refusal {
        let Answer { sequence, errno, message, offset } = answer;
        let subject = batch.subject(sequence, offset);
        let operation = subject.as_ref().and_then(|of| transaction.operations.get(of.operation));
        let (Some(subject), Some(operation)) = (subject, operation) else {
            return Refusal { message, ..Refusal::of_batch(transaction.table, errno) };
        };
        let expression = subject.expression.as_deref();
        let mut refusal = Refusal::new(transaction.table, operation, subject.element, errno);
        refusal.cause = cause(errno, Some(operation), expression);
        // Of a base chain only the table or its type can be missing; the table is the first attribute. Older kernels do
        // not say where it is, but what the transaction itself adds is there.
        let adds_table = || matches!(transaction.operations.first(), Some(Operation::AddTable(_)));
        if let (libc::ENOENT, Operation::AddChain(chain)) = (errno, operation)
            && let Some(base) = chain.base
            && offset.map_or_else(adds_table, |offset| offset > FIRST_ATTRIBUTE)
        {
            refusal.cause = Cause::MissingFeature { module: chain_module(base) };
        }
        refusal.message = message;
        refusal
    }

    /// A refusal of a transaction as a whole.
    pub fn of_batch(table: &str, errno: i32) -> Refusal {
        Refusal {
            operation: format!("commit to table inet {table}"),
            set: None,
            key: None,
            chain: None,
            errno,
            message: String::new(),
            cause: cause(errno, None, None),
        }
    }

    /// A refusal of an operation on a table because of its element of an index.
    pub fn new(
        table: &str,
        operation: &Operation<'_>,
        element: Option<usize>,
        errno: i32,
    ) -> Refusal {
        let one = single(operation, element);
        Refusal {
            operation: text::operation(table, one.as_ref().unwrap_or(operation)),
            set: set_of(operation),
            key: one.as_ref().and_then(key_of),
            chain: chain_of(operation),
            errno,
            message: String::new(),
            cause: cause(errno, Some(operation), None),
        }
    }
}

/// The operation on just one of its elements.
fn single<'a>(operation: &Operation<'a>, element: Option<usize>) -> Option<Operation<'a>> {
    match operation {
        Operation::AddElements { set, elements } => {
            let element = *elements.get(element.or((elements.len() == 1).then_some(0))?)?;
            Some(Operation::AddElements { set, elements: vec![element] })
        }
        Operation::AddExpiring { set, elements } => {
            let element = *elements.get(element.or((elements.len() == 1).then_some(0))?)?;
            Some(Operation::AddExpiring { set, elements: vec![element] })
        }
        Operation::DeleteElements { set, keys } => {
            let key = *keys.get(element.or((keys.len() == 1).then_some(0))?)?;
            Some(Operation::DeleteElements { set, keys: vec![key] })
        }
        Operation::DestroyElements { set, keys } => {
            let key = *keys.get(element.or((keys.len() == 1).then_some(0))?)?;
            Some(Operation::DestroyElements { set, keys: vec![key] })
        }
        _ => None,
    }
}

fn key_of(operation: &Operation<'_>) -> Option<Key> {
    match operation {
        Operation::AddElements { elements, .. } => elements.first().map(|(key, _)| (*key).clone()),
        Operation::AddExpiring { elements, .. } => elements.first().map(|(key, ..)| (*key).clone()),
        Operation::DeleteElements { keys, .. } | Operation::DestroyElements { keys, .. } => {
            keys.first().map(|key| (*key).clone())
        }
        _ => None,
    }
}

fn set_of(operation: &Operation<'_>) -> Option<Arc<str>> {
    match operation {
        Operation::AddSet(set) | Operation::FlushSet(set) => Some(set.name.clone()),
        Operation::AddElements { set, .. }
        | Operation::AddExpiring { set, .. }
        | Operation::DeleteElements { set, .. }
        | Operation::DestroyElements { set, .. } => Some(set.name.clone()),
        Operation::DeleteSet(name) => Some(Arc::from(*name)),
        _ => None,
    }
}

fn chain_of(operation: &Operation<'_>) -> Option<Arc<str>> {
    match operation {
        Operation::AddChain(chain) => Some(chain.name.clone()),
        Operation::FlushChain(name)
        | Operation::DeleteChain(name)
        | Operation::AddRule { chain: name, .. } => Some(Arc::from(*name)),
        _ => None,
    }
}

fn cause(errno: i32, operation: Option<&Operation<'_>>, expression: Option<&str>) -> Cause {
    if let Some(module) = missing_module(errno, operation, expression) {
        return Cause::MissingFeature { module };
    }
    match errno {
        libc::ENOENT => Cause::NotFound,
        libc::EEXIST => Cause::Exists,
        libc::EBUSY => Cause::InUse,
        libc::ENFILE => Cause::Full,
        libc::ELOOP | libc::EMLINK => Cause::Loop,
        libc::EPERM => Cause::Permission,
        _ => Cause::Other,
    }
}

/// Where the first attribute of a message begins, in bytes: after the headers of netlink and netfilter.
const FIRST_ATTRIBUTE: usize = 20;

/// The module that has a type of base chains.
fn chain_module(base: BaseChain) -> String {
    format!("nft_chain_{}", base.chain_type.nft())
}

/// The module that is missing if an operation is refused so. "Not found" can as well mean a set or
/// chain, so it counts only for expressions that refer to none.
fn missing_module(
    errno: i32,
    operation: Option<&Operation<'_>>,
    expression: Option<&str>,
) -> Option<String> {
    if errno != libc::EOPNOTSUPP && errno != libc::ENOENT {
        return None;
    }
    let unsupported = errno == libc::EOPNOTSUPP;
    match operation? {
        Operation::AddChain(chain) => {
            let base = chain.base.as_ref()?;
            unsupported.then(|| chain_module(*base))
        }
        Operation::AddRule { rule, .. } => {
            let expression = expression?;
            match expression {
                // What it does for each key.
                "dynset" if limiting_module(rule).is_some() => {
                    limiting_module(rule).map(str::to_owned)
                }
                "fib" => Some("nft_fib_inet".to_owned()),
                "reject" => Some("nft_reject_inet".to_owned()),
                "counter" | "ct" | "hash" | "masq" | "nat" | "numgen" => {
                    Some(format!("nft_{expression}"))
                }
                _ => unsupported.then(|| format!("nf_tables (expression {expression})")),
            }
        }
        _ => unsupported.then(|| "nf_tables".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nft_table::{Expression, Family};

    #[test]
    fn what_is_missing_of_dynamic_sets_is_named() {
        let key = || vec![Expression::SourceAddress(Family::V4)];
        let set = || Arc::from("set");
        let update = Statement::Update { map: set(), key: key(), data: key(), timeout_seconds: 1 };
        let open = Statement::ConnectionsOver { set: set(), key: key(), most: 1 };
        for (statement, errno, expected) in [
            (update.clone(), libc::EOPNOTSUPP, Some("nf_tables (expression dynset)")),
            // The map may be what is not there.
            (update, libc::ENOENT, None),
            (open, libc::ENOENT, Some("nft_connlimit")),
        ] {
            let rule = Rule::new(vec![statement]);
            let operation = Operation::AddRule { chain: "chain", rule: &rule };
            let missing = missing_module(errno, Some(&operation), Some("dynset"));
            assert_eq!(missing.as_deref(), expected, "{rule}");
        }
    }
}
