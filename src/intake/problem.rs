//! What is wrong with an object, and saying so once.

use crate::model::ObjectName;
use foldhash::fast::FixedState;
use std::collections::HashMap;
use std::fmt::{self, Write};
use std::hash::BuildHasher;
use std::sync::Arc;
use tracing::{info, warn};

/// Kind and name of an object. It displays as `Service default/web` or `Node worker-1`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ObjectKey {
    Service(ObjectName),
    EndpointSlice(ObjectName),
    Node(Arc<str>),
    ServiceCidr(Arc<str>),
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ObjectKey::Service(name) => write!(f, "Service {name}"),
            ObjectKey::EndpointSlice(name) => write!(f, "EndpointSlice {name}"),
            ObjectKey::Node(name) => write!(f, "Node {name}"),
            ObjectKey::ServiceCidr(name) => write!(f, "ServiceCIDR {name}"),
        }
    }
}

/// A value that cannot be used. It displays as
/// `Service default/web: spec.ports[1].port: 0 is not a port (1-65535)`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Problem {
    pub object: ObjectKey,
    /// Path of the field, as in `spec.ports[1].port`.
    pub field: String,
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.object, self.field, self.message)
    }
}

/// The most problems of one object that are told one by one.
const TOLD: usize = 20;

/// Collects the problems of one object.
pub(super) struct Findings<'a> {
    object: &'a ObjectKey,
    problems: Vec<Problem>,
    /// Problems beyond those.
    more: usize,
}

impl<'a> Findings<'a> {
    pub(super) fn of(object: &'a ObjectKey) -> Self {
        Findings { object, problems: Vec::new(), more: 0 }
    }

    pub(super) fn add(&mut self, field: impl fmt::Display, message: impl fmt::Display) {
        if self.problems.len() == TOLD {
            self.more += 1;
            return;
        }
        self.problems.push(Problem {
            object: self.object.clone(),
            field: field.to_string(),
            message: message.to_string(),
        });
    }

    /// Passes a value on, or notes that there is none.
    pub(super) fn need<T>(
        &mut self,
        value: Option<T>,
        field: impl fmt::Display,
        message: impl fmt::Display,
    ) -> Option<T> {
        if value.is_none() {
            self.add(field, message);
        }
        value
    }

    pub(super) fn into_problems(mut self) -> Vec<Problem> {
        if self.more > 0
            && let Some(last) = self.problems.last_mut()
        {
            let _ = write!(last.message, "; and {} more problems", self.more);
        }
        self.problems
    }
}

/// The path of an entry of a list: `list[index]`, or `list[index].name`.
pub(super) struct Field(pub &'static str, pub usize, pub &'static str);

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Field(list, index, name) = self;
        write!(f, "{list}[{index}]")?;
        if name.is_empty() { Ok(()) } else { write!(f, ".{name}") }
    }
}

/// Says that a number is no port.
pub(super) struct NotAPort(pub i32);

impl fmt::Display for NotAPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is not a port (1-65535)", self.0)
    }
}

/// Says that a text is no address.
pub(super) struct NotAnIp<'a>(pub &'a str);

impl fmt::Display for NotAnIp<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not an IP address", self.0)
    }
}

/// Says that a text is no CIDR.
pub(super) struct NotACidr<'a>(pub &'a str);

impl fmt::Display for NotACidr<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not a CIDR", self.0)
    }
}

/// Takes the problems of an object.
type TakeProblems = dyn Fn(&[Problem]) + Send + Sync;

/// Called with the problems of an object when they are logged.
#[derive(Clone)]
pub struct OnProblem(pub Arc<TakeProblems>);

impl Default for OnProblem {
    fn default() -> Self {
        OnProblem(Arc::new(|_| {}))
    }
}

impl fmt::Debug for OnProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnProblem")
    }
}

/// Logs problems when they change: an object that is seen again with the same ones is not
/// mentioned again, one that has recovered is.
#[derive(Debug, Default)]
pub struct Reporter {
    on_problem: OnProblem,
    /// What was last logged, as a hash; only objects that have problems.
    logged: HashMap<ObjectKey, u64>,
}

impl Reporter {
    /// The number of problems of one object that are logged; the rest is counted.
    const SHOWN: usize = 10;

    pub fn new(on_problem: OnProblem) -> Reporter {
        Reporter { on_problem, ..Reporter::default() }
    }

    /// Logs the problems of an object's newest version, unless they are the last version's.
    /// Returns whether anything was logged.
    pub fn report(&mut self, object: &ObjectKey, problems: &[Problem]) -> bool {
        if problems.is_empty() {
            let recovered = self.logged.remove(object).is_some();
            if recovered {
                info!("{object}: all values are usable now");
            }
            return recovered;
        }
        let hash = FixedState::default().hash_one(problems);
        if self.logged.insert(object.clone(), hash) == Some(hash) {
            return false;
        }
        (self.on_problem.0)(problems);
        for problem in problems.iter().take(Self::SHOWN) {
            warn!("{problem}");
        }
        if problems.len() > Self::SHOWN {
            warn!("{object}: {} more problems like these", problems.len() - Self::SHOWN);
        }
        true
    }

    /// Forgets an object that is gone.
    pub fn forget(&mut self, object: &ObjectKey) {
        self.logged.remove(object);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn the_same_problems_are_logged_and_counted_once() {
        let object = ObjectKey::Service(ObjectName::new("default", "web"));
        let problem = |message: &str| Problem {
            object: object.clone(),
            field: "spec.ports[1].port".into(),
            message: message.into(),
        };
        assert_eq!(
            problem("0 is not a port (1-65535)").to_string(),
            "Service default/web: spec.ports[1].port: 0 is not a port (1-65535)"
        );

        let count = Arc::new(AtomicUsize::new(0));
        let counter = count.clone();
        let on_problem = move |problems: &[Problem]| {
            counter.fetch_add(problems.len(), Ordering::Relaxed);
        };
        let mut reporter = Reporter::new(OnProblem(Arc::new(on_problem)));
        assert!(!reporter.report(&object, &[]));
        assert!(reporter.report(&object, &[problem("a")]));
        assert!(!reporter.report(&object, &[problem("a")]));
        assert!(reporter.report(&object, &[problem("b")]));
        assert!(reporter.report(&object, &[]));
        assert!(!reporter.report(&object, &[]));
        assert!(reporter.report(&object, &[problem("b")]));
        reporter.forget(&object);
        assert!(reporter.report(&object, &[problem("b"), problem("c")]));
        assert_eq!(count.load(Ordering::Relaxed), 5);
    }
}
