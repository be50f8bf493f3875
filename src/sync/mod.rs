//! The one thread that owns the plan and writes to the kernel.
//!
//! ```text
//! sources, kernel events --Input--> thread: Planner --Transaction--> Kernel
//!                                      |
//!                                      +--> health, metrics
//! ```
//!
//! * `follow_up`: what follows outside the table, see below
//! * `inbox`: what the thread is told and has not taken yet
//! * `engine`: one sync, from what changed to what is committed, with everything that can go wrong
//! * `turns`: the thread's loop: takes what came, and does what is due
//! * `pace`: when to do what: a sync at once, but no more often than `minSyncPeriod`, and again after a failure
//! * `quarantine`: Services that the kernel refused, and when to try them again
//!
//! Nothing is written before the source has said [`Input::Complete`].
//!
//! # What follows from a commit
//!
//! After every sync that went well, in this order. The sync thread waits for none of the others.
//!
//! | What follows | Who sees to it | Where it happens |
//! |---|---|---|
//! | Memory is given back after a full sync; Services on trial are free | [`Engine::sync`] | sync thread |
//! | The proxy counts as healthy | [`Health::synced`]; servers read it | sync thread |
//! | Stale flows are deleted from conntrack | [`FollowUp::committed`], [`ConntrackCleaner`] | thread `conntrack` |
//! | Health check node ports open, close and count anew | [`FollowUp::committed`], `http::service_checks` | tasks of the runtime |
//! | Localhost NodePorts open, close and change endpoints | [`FollowUp::committed`], [`localhost::run`] | tasks of the runtime |
//! | What other modes of kube-proxy left is removed until it is gone; after the first sync | [`Observers::first_sync`], [`leftovers::remove`] | thread `leftovers` |
//! | Metrics and the log say what was done, how long it took, and what there is | here, from [`Committed`] and the plan | sync thread |
//! | Clients that are remembered on endpoints which are gone are forgotten | [`Engine::forget_clients`] | sync thread |
//! | Chains and sets that nothing leads to any more are deleted, after two quiet seconds or ten busy ones | [`Engine::delete_unused`] | sync thread |
//!
//! What [`FollowUp::committed`] passes on comes from [`Effects`], which the planner keeps in step and which
//! is taken only here. After a failed sync nothing follows but a later attempt: the kernel's error arrives
//! here as it was made, and is logged and counted.
//!
//! [`ConntrackCleaner`]: crate::kernel::conntrack::ConntrackCleaner
//! [`Effects`]: crate::plan::Effects
//! [`leftovers::remove`]: crate::kernel::leftovers::remove
//! [`localhost::run`]: crate::localhost::run

mod engine;
mod follow_up;
mod inbox;
mod pace;
mod quarantine;
mod replacement;
mod turns;
mod verify;

pub use engine::{Committed, Engine, Shortage, Transactions};
pub use follow_up::FollowUp;
pub use inbox::{Asker, Inbox, InboxWatch, Sender, View, inbox};
pub use replacement::delete_table;
pub use turns::run;
pub use verify::difference;

use crate::health::Health;
use crate::kernel::addresses::{LocalAddresses, NodePortSelection};
use crate::kernel::nft::Touched;
use crate::metrics::Metrics;
use crate::model::{Change, Node, ObjectName};
use crate::plan::Settings;
use std::sync::Arc;
use std::time::Duration;

/// What the thread is told.
#[derive(Clone, Debug)]
pub enum Input {
    /// Objects changed.
    Changes(Vec<Change>),
    /// The source has sent everything that there was at start.
    Complete,
    /// The addresses of this machine changed.
    Addresses(LocalAddresses),
    /// Somebody else changed the table.
    Touched(Touched),
}

/// Which addresses NodePorts answer on, as far as it depends on the Node object.
pub type SelectNodePorts = Box<dyn FnMut(Option<&Node>) -> NodePortSelection + Send>;

/// What the operator configured for the thread.
pub struct Options {
    pub settings: Settings,
    pub select_nodeports: SelectNodePorts,
    /// The table is owned, where the kernel can: nobody else changes it.
    pub own_table: bool,
    /// The least time from the end of a sync to the next one; zero: none.
    pub min_sync_period: Duration,
    /// The longest time to wait before a failed sync is tried again.
    pub sync_period: Duration,
}

/// Is told of a Service, with what is to be said of it.
pub type OnService = Box<dyn Fn(&ObjectName, &str) + Send>;

/// Is told of a Service that gets less than it asks for, how, and what is to be said of it.
pub type OnShortage = Box<dyn Fn(&ObjectName, Shortage, &str) + Send>;

/// Whom the thread tells.
pub struct Observers {
    pub health: Arc<Health>,
    pub metrics: Arc<Metrics>,
    pub follow_up: FollowUp,
    /// Called for a Service that the kernel refuses, with what it says.
    pub refused: OnService,
    /// Called for a Service that asks for more than it gets, with how.
    pub short: OnShortage,
    /// Called once, after the first sync that succeeded.
    pub first_sync: Option<Box<dyn FnOnce() + Send>>,
}
