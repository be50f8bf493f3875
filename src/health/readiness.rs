//! What has to happen before the proxy is ready for the first time: a list of named tasks, which
//! `/healthz` and `/statusz` show as long as it is not empty. `app::startup` says which there are.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

/// The start-up tasks that are not finished. Clones share one list.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    pending: Arc<Mutex<BTreeSet<&'static str>>>,
}

impl Readiness {
    /// Adds a task to wait for; it is done when the guard is dropped. Register all tasks before the
    /// servers start, or the list is empty for a moment.
    #[must_use = "the task is done as soon as the guard is dropped"]
    pub fn register_task(&self, name: &'static str) -> PendingTask {
        self.change(|pending| pending.insert(name));
        PendingTask { name, readiness: self.clone() }
    }

    /// Whether nothing is left to wait for.
    pub fn is_ready(&self) -> bool {
        self.change(|pending| pending.is_empty())
    }

    /// The names of what is left, sorted.
    pub fn pending(&self) -> Vec<&'static str> {
        self.change(|pending| pending.iter().copied().collect())
    }

    fn change<T>(&self, f: impl FnOnce(&mut BTreeSet<&'static str>) -> T) -> T {
        f(&mut self.pending.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A start-up task that is going on. Dropping it marks the task as done.
#[derive(Debug)]
pub struct PendingTask {
    name: &'static str,
    readiness: Readiness,
}

impl Drop for PendingTask {
    fn drop(&mut self) {
        let left = self.readiness.change(|pending| {
            pending.remove(self.name);
            pending.len()
        });
        tracing::debug!(task = self.name, left, "start-up task done");
    }
}
