//! One sync: plan what changed, write the difference, and get over refusals.
//!
//! ```text
//! stand   whose is the table: ours to own, shared, somebody else's
//!   |
//! look    what does the kernel have, as far as it is in doubt
//!   |
//! write   the difference -- refused? -- nobody's fault: say so, try again later
//!   |                                |- what was believed is wrong: look, write again
//!   |                                '- a Service's fault: blame finds it, it is held, write again
//! forget  clients that are remembered on endpoints which are gone
//! ```
//!
//! A refused transaction leaves the kernel as it was, and nothing is ever committed to try something out.
//! So at every commit each Service is served that was served before and is still wanted.

mod blame;
mod counts;
mod disputes;
mod forget;
mod look;
mod stand;

use super::SelectNodePorts;
use super::inbox::View;
use super::quarantine::Quarantine;
use super::replacement;
use crate::kernel::addresses::{LocalAddresses, NodePortSelection, nodeport_networks};
use crate::kernel::nft::{Error, Fault, Kernel};
use crate::memory;
use crate::metrics::kernel::Rebuild;
use crate::model::{Change, ObjectName};
use crate::plan::layout::INTERIM;
use crate::plan::{Aside, Counting, Effects, Planner, Settings};
use counts::{Carried, carry};
pub use disputes::Shortage;
use forget::{Forget, Purges};
use ipnet::IpNet;
use look::Looks;
use nft_table::{Family, Key, Operation, text};
use stand::Standing;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The most Services that are held in one sync. If more are refused, they are not single bad Services.
const REFUSALS_MAX: usize = 50;

/// What a sync did.
#[derive(Debug, Default)]
pub struct Committed {
    /// Objects and elements added, changed or deleted; 0 when there was nothing to write.
    pub operations: usize,
    /// The table was compared with the kernel's as a whole.
    pub full: bool,
    /// The table was written from nothing.
    pub rebuilt: Option<Rebuild>,
    pub planning: Duration,
    pub writing: Duration,
    /// Services that are held.
    pub quarantined: usize,
    /// Services that are held since this sync, and why.
    pub refused: Vec<(ObjectName, String)>,
    /// Services that ask for more than they get since this sync, and how.
    pub short: Vec<(ObjectName, Shortage, String)>,
    /// Trigger times of the slices that are now in the kernel, nanoseconds since 1970.
    pub triggers: Vec<(Family, i64)>,
}

/// What became of transactions.
#[derive(Debug, Default)]
pub struct Transactions {
    /// How many operations each had, and how long the kernel took.
    pub committed: Vec<(usize, Duration)>,
    /// Whose fault it was, and the name of the errno.
    pub refused: Vec<(Fault, &'static str)>,
}

/// The plan and the kernel it is written to.
pub struct Engine<K> {
    kernel: K,
    planner: Planner,
    select_nodeports: SelectNodePorts,
    selection: NodePortSelection,
    addresses: LocalAddresses,
    quarantine: Quarantine,
    standing: Standing,
    looks: Looks,
    forget: Forget,
    /// Services that get less than they ask for, since the last sync that succeeded.
    short: Vec<(ObjectName, Shortage, String)>,
    /// Maps to be read when what is planned is committed.
    purges: Purges,
    /// What they hold that goes with the next transaction.
    stale: Vec<(Arc<str>, Vec<Key>)>,
    /// There was a successful sync.
    running: bool,
    /// There may be a table beside, from the replacement of another one.
    has_interim: bool,
    triggers: Vec<(Family, i64)>,
    /// What frontends counted before they led elsewhere.
    aside: Aside,
    /// Since they were taken last.
    transactions: Transactions,
}

impl<K: Kernel> Engine<K> {
    /// With `own_table` the table is owned, where the kernel can.
    pub fn new(
        kernel: K,
        settings: Settings,
        mut select_nodeports: SelectNodePorts,
        own_table: bool,
    ) -> Engine<K> {
        Engine {
            kernel,
            planner: Planner::new(settings),
            selection: select_nodeports(None),
            select_nodeports,
            addresses: LocalAddresses::default(),
            quarantine: Quarantine::default(),
            standing: Standing::new(own_table),
            looks: Looks::default(),
            forget: Forget::default(),
            short: Vec::new(),
            purges: Purges::new(),
            stale: Vec::new(),
            running: false,
            // A run that was killed may have left it.
            has_interim: true,
            triggers: Vec::new(),
            aside: Aside::default(),
            transactions: Transactions::default(),
        }
    }

    /// What became of transactions since the last call, also of those that were made up for.
    pub fn take_transactions(&mut self) -> Transactions {
        std::mem::take(&mut self.transactions)
    }

    /// The plan, to look at.
    pub fn planner(&self) -> &Planner {
        &self.planner
    }

    /// The plan and what it was made for, to look at.
    pub fn view(&self) -> View<'_> {
        View {
            planner: &self.planner,
            addresses: &self.addresses,
            aside: &self.aside,
            is_running: self.running,
        }
    }

    /// The kernel, to look at.
    pub fn kernel_mut(&mut self) -> &mut K {
        &mut self.kernel
    }

    /// Takes in a change; [`Engine::sync`] writes it.
    pub fn apply(&mut self, change: Change) {
        match &change {
            Change::Service(name, _) => self.quarantine.forget(name),
            Change::EndpointSlice(_, Some(slice)) => {
                self.quarantine.forget(&slice.service_name());
                // What happened before this process watched says nothing about it.
                if self.running {
                    self.triggers.extend(slice.trigger_time.map(|time| (slice.family, time)));
                }
            }
            _ => {}
        }
        let is_node = matches!(change, Change::Node(_));
        self.planner.apply(change);
        if is_node {
            self.write_nodeport_networks();
        }
    }

    /// Takes in the addresses of this machine.
    pub fn set_addresses(&mut self, addresses: LocalAddresses) {
        self.addresses = addresses;
        self.write_nodeport_networks();
    }

    fn write_nodeport_networks(&mut self) {
        self.selection = (self.select_nodeports)(self.planner.node());
        let networks = nodeport_networks(&self.selection, &self.addresses);
        self.planner.set_nodeport_networks(&networks);
    }

    /// Which addresses NodePorts answer on, and the addresses that this machine has.
    pub fn nodeport_selection(&self) -> (&NodePortSelection, &LocalAddresses) {
        (&self.selection, &self.addresses)
    }

    /// The networks of the addresses that NodePorts answer on.
    pub fn nodeport_networks(&self) -> &[IpNet] {
        self.planner.nodeport_networks()
    }

    /// What follows from the last commit outside the table.
    pub fn effects(&mut self) -> &mut Effects {
        self.planner.effects()
    }

    /// Writes what changed. After an error the kernel has its last good state.
    ///
    /// # Errors
    /// Nobody's fault, or none that could be found: it has to be tried again. [`Error::Superseded`]: somebody else
    /// writes the table from now on.
    pub fn sync(&mut self) -> Result<Committed, Error> {
        let mut committed = Committed { full: !self.looks.is_sure(), ..Committed::default() };
        if committed.full {
            committed.rebuilt = self.look()?;
        }
        let start = Instant::now();
        self.planner.plan();
        committed.planning = start.elapsed();
        self.log_disputes();
        let start = Instant::now();
        self.purges.append(&mut self.planner.take_purges());
        let purges = std::mem::take(&mut self.purges);
        self.stale = self.known_stale(&purges);
        self.purges = purges;
        self.write(&mut committed)?;
        committed.writing = start.elapsed();
        self.note_missed_events();
        if committed.full {
            memory::give_back();
        }
        self.running = true;
        self.planner.committed();
        self.quarantine.acquit();
        committed.quarantined = self.quarantine.len();
        committed.short = std::mem::take(&mut self.short);
        committed.triggers = std::mem::take(&mut self.triggers);
        // Holding a Service may have added to them.
        self.purges.append(&mut self.planner.take_purges());
        self.forget.note(std::mem::take(&mut self.purges), Instant::now());
        Ok(committed)
    }

    /// Writes the difference to what the kernel has, whatever it refuses at first.
    fn write(&mut self, committed: &mut Committed) -> Result<(), Error> {
        let mut looks = 0;
        for attempt in 0..REFUSALS_MAX {
            let error = match self.write_all(attempt == 0) {
                Ok(operations) => {
                    committed.operations += operations;
                    return Ok(());
                }
                Err(error) => error,
            };
            let fault = error.fault();
            if fault == Fault::Nobody {
                return Err(error);
            }
            committed.full = true;
            // Whoever is to blame, what is known of the kernel has to be right first: what is about to change, and if
            // that does not help, all of it.
            if looks == 0 || (looks == 1 && fault == Fault::Belief) {
                tracing::warn!(
                    "the kernel refused a transaction, looking at its table again: {error}"
                );
                if looks == 1 {
                    self.looks.doubt_all();
                }
                looks += 1;
                committed.rebuilt = committed.rebuilt.or(self.look()?);
                // What was found of Services that are held has to stay.
                self.planner.plan();
                continue;
            }
            if !self.looks.is_sure() {
                // A part of it may have been taken, which has to be known before anything else is planned.
                self.look()?;
            }
            let culprits = self.hold_culprits(&error);
            if culprits.is_empty() {
                return Err(error);
            }
            for (service, reason) in culprits {
                let wait = self.quarantine.add(service.clone(), Instant::now());
                tracing::error!(
                    "Service {service} stays as it was for {}, because the kernel refuses it: {reason}",
                    humantime::format_duration(wait)
                );
                committed.refused.push((service, reason));
            }
        }
        Err(Error::TooMany(REFUSALS_MAX))
    }

    /// Writes the difference to what the kernel has; returns how much it was.
    fn write_all(&mut self, is_first: bool) -> Result<usize, Error> {
        let changes = self.planner.table().changes();
        let (is_staged, has_last_part) = (changes.is_staged(), changes.has_last_part());
        // Once something was refused, sets may hold what has to stay.
        if is_first && !has_last_part {
            self.planner.remove_emptied();
        }
        // A table that comes in stages refuses nobody before it is complete.
        self.planner.hold_refusals(is_staged);
        let mut written = self.write_once()?;
        // Whatever becomes of the rest: what clients use by now is taken back from nobody.
        self.planner.committed();
        self.planner.hold_refusals(false);
        self.planner.remove_emptied();
        written += self.write_once()?;
        if self.has_interim {
            // The table is there; what is beside it is no Service's fault, and is tried again with the next change.
            match replacement::clear_up(&mut self.kernel, self.planner.table()) {
                Ok(()) => self.has_interim = false,
                Err(error) => tracing::warn!("cannot delete table inet {INTERIM} yet: {error}"),
            }
        }
        Ok(written)
    }

    fn write_once(&mut self) -> Result<usize, Error> {
        // Once: if it is refused, what was read is not tried again.
        let stale = std::mem::take(&mut self.stale);
        let table = self.planner.table();
        let mut transaction = table.changes();
        let operations = transaction.len();
        if operations == 0 {
            return Ok(0);
        }
        for (map, keys) in &stale {
            if let Some(set) = table.set_id(map).and_then(|id| table.set(id)) {
                let keys = keys.iter().collect();
                transaction.operations.push(Operation::DestroyElements { set, keys });
            }
        }
        if tracing::enabled!(tracing::Level::TRACE) {
            for operation in &transaction.operations {
                tracing::trace!("{}", text::operation(transaction.table, operation));
            }
        }
        let is_new = !table.is_present();
        let mut carried = Carried::default();
        if self.planner.settings().counting != Counting::Off {
            let (counts, of) = carry(&mut self.kernel, &self.aside, &transaction);
            transaction.counts = Arc::new(counts);
            carried = of;
        }
        self.standing.fence(&mut transaction);
        let start = Instant::now();
        match self.kernel.commit(&transaction) {
            Ok(()) => {
                self.transactions.committed.push((operations, start.elapsed()));
                self.planner.table_mut().committed();
                self.standing.committed();
                carried.note(&mut self.aside);
                if is_new {
                    self.note_handle();
                }
                Ok(operations)
            }
            Err(error) => {
                self.transactions.refused.push((error.fault(), errno_name(&error)));
                // What was sent in parts may be there in part.
                if transaction.stages().len() > 1 || !error.has_done_nothing() {
                    self.looks.doubt();
                    self.planner.may_be_committed();
                }
                Err(error)
            }
        }
    }

    /// When a Service that is held is to be tried again.
    pub fn quarantine_time(&self) -> Option<Instant> {
        self.quarantine.next()
    }

    /// Lets out the Services whose time has come; whether there are any.
    pub fn release_quarantined(&mut self, now: Instant) -> bool {
        let released = self.quarantine.release(now);
        released.iter().for_each(|service| self.planner.release(service));
        !released.is_empty()
    }

    /// Plans so many frontends and slots for a sync ([`Planner::set_work`]).
    pub fn set_work(&mut self, work: usize) {
        self.planner.set_work(work);
    }

    /// Whether changes were left for the next sync, because they are too many for one.
    pub fn has_postponed(&self) -> bool {
        self.planner.has_postponed()
    }

    /// Whether there are chains or sets that nothing leads to any more.
    pub fn has_unused(&self) -> bool {
        self.looks.is_sure() && self.planner.has_unused()
    }

    /// Deletes the chains and sets that nothing leads to, unless there is something else to write first. A refusal harms
    /// nothing: they stay.
    pub fn delete_unused(&mut self) -> Result<(), Error> {
        if !self.looks.is_done() || !self.planner.table().changes().is_empty() {
            return Ok(());
        }
        self.planner.delete_unused();
        let result = self.write_once().map(|_| ());
        if result.is_err() {
            self.looks.doubt();
        }
        result
    }
}

/// The errno of what the kernel refused first, for the metric.
fn errno_name(error: &Error) -> &'static str {
    match error.refusals().first().map_or(0, |refusal| refusal.errno) {
        0 => "none",
        libc::EPERM => "EPERM",
        libc::ENOENT => "ENOENT",
        libc::ENOMEM => "ENOMEM",
        libc::EBUSY => "EBUSY",
        libc::EEXIST => "EEXIST",
        libc::EINVAL => "EINVAL",
        libc::ENFILE => "ENFILE",
        libc::EOPNOTSUPP => "EOPNOTSUPP",
        _ => "other",
    }
}
