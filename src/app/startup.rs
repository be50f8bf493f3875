//! What has to happen before /healthz says that this proxy works. All of it is registered at once, before
//! anybody can ask, and each task is given to whoever does it.

use crate::config::Source;
use crate::health::{PendingTask, Readiness};

/// The tasks, named as /healthz and /statusz list them.
pub struct StartUp {
    /// The servers listen, or have been reported as not able to. A port that somebody else has is no
    /// reason to keep traffic away, so that nothing waits for the attempts after the first.
    pub servers: PendingTask,
    /// The source has told all that there is.
    pub source: PendingTask,
    /// All of that is in the kernel.
    pub first_commit: PendingTask,
}

impl StartUp {
    pub fn new(readiness: &Readiness, source: &Source) -> StartUp {
        let source = match source {
            Source::Manifests(_) => "manifests",
            Source::Kubeconfig { .. } | Source::Master(_) | Source::InCluster => {
                "lists of the API server"
            }
        };
        StartUp {
            servers: readiness.register_task("servers"),
            source: readiness.register_task(source),
            first_commit: readiness.register_task("first commit"),
        }
    }
}
