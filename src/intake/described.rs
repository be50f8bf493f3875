//! Whose endpoints have to be described: names of pods and zones are kept for Services with weights only, for in a large
//! cluster they are most of what a slice holds.

use crate::model::ObjectName;
use hashbrown::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::mpsc::UnboundedSender;

/// What those who read slices are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// The endpoints of this Service are to be described from now on.
    Service(ObjectName),
    /// All Services that there are have been read.
    AllRead,
}

/// Shared by those who read Services and those who read slices.
#[derive(Clone, Debug, Default)]
pub enum Described {
    /// All endpoints, where objects come in any order and once.
    #[default]
    All,
    /// Those of Services that ask.
    Asked(Arc<Asked>),
}

/// The Services that ask.
#[derive(Debug)]
pub struct Asked {
    services: Mutex<HashSet<ObjectName>>,
    /// Told of each that asks for the first time: its slices may have been read before.
    tell: UnboundedSender<Ask>,
}

impl Described {
    /// Of Services that ask; `tell` is told of each.
    pub fn asked(tell: UnboundedSender<Ask>) -> Described {
        Described::Asked(Arc::new(Asked { services: Mutex::default(), tell }))
    }

    /// A Service asks. It does for as long as it is there: who changes their mind again and again has slices read once.
    pub(super) fn ask(&self, service: &ObjectName) {
        let Described::Asked(asked) = self else { return };
        if asked.services().insert(service.clone()) {
            // Nobody reads slices any more when nobody listens.
            let _ = asked.tell.send(Ask::Service(service.clone()));
        }
    }

    /// A Service is gone.
    pub(super) fn forget(&self, service: &ObjectName) {
        if let Described::Asked(asked) = self {
            asked.services().remove(service);
        }
    }

    /// Whether the endpoints of a Service are to be described.
    pub(super) fn are_wanted(&self, service: &ObjectName) -> bool {
        match self {
            Described::All => true,
            Described::Asked(asked) => asked.services().contains(service),
        }
    }
}

impl Asked {
    fn services(&self) -> MutexGuard<'_, HashSet<ObjectName>> {
        // Names are put in and taken out one by one.
        self.services.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
