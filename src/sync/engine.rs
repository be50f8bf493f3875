//! One sync: plan what changed, write the difference, and get over refusals.
//!
//! A refused transaction leaves the kernel as it was. Then, in this order:
//! 1. the table is read again, for somebody may have changed it, and the difference to what is really
//!    there is written;
//! 2. if the kernel still refuses, the Service that the refused operation belongs to is put into
//!    quarantine, and the others are written; where the operation does not tell, the Services that
//!    changed are tried in halves until the one is found;
//! 3. if even that fails, the caller waits and calls again.

use super::SelectNodePorts;
use super::quarantine::Quarantine;
use super::replacement;
use crate::kernel::addresses::{LocalAddresses, NodePortSelection, nodeport_networks};
use crate::kernel::nft::{Error, Kernel};
use crate::memory;
use crate::metrics::kernel::Rebuild;
use crate::model::{Change, ObjectName};
use crate::plan::layout::{INTERIM, TABLE};
use crate::plan::{Backend, Dispute, Effects, Planner, Settings, is_this_layout};
use hashbrown::HashSet;
use nft_table::Family;
use nft_table::{Key, Operation, SetId, Snapshot, Value, text};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The most Services that are left out in one sync. If more are refused, they are not single bad Services.
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
    /// Services in quarantine.
    pub quarantined: usize,
    /// Trigger times of the slices that are now in the kernel, nanoseconds since 1970.
    pub triggers: Vec<(Family, i64)>,
}

/// The plan and the kernel it is written to.
pub struct Engine<K> {
    kernel: K,
    planner: Planner,
    select_nodeports: SelectNodePorts,
    addresses: LocalAddresses,
    quarantine: Quarantine,
    /// It is known what the kernel has.
    in_step: bool,
    /// There was a successful sync.
    running: bool,
    /// There may be a table beside, from the replacement of another one.
    has_interim: bool,
    /// Services that changed since the last successful sync.
    suspects: Vec<ObjectName>,
    triggers: Vec<(Family, i64)>,
    /// Affinity maps that may remember endpoints which are gone, with the endpoints that may stay.
    purges: BTreeMap<Arc<str>, Vec<Backend>>,
}

impl<K: Kernel> Engine<K> {
    pub fn new(kernel: K, settings: Settings, select_nodeports: SelectNodePorts) -> Engine<K> {
        Engine {
            kernel,
            planner: Planner::new(settings),
            select_nodeports,
            addresses: LocalAddresses::default(),
            quarantine: Quarantine::default(),
            in_step: false,
            running: false,
            // A run that was killed may have left it.
            has_interim: true,
            suspects: Vec::new(),
            triggers: Vec::new(),
            purges: BTreeMap::new(),
        }
    }

    /// The plan, to look at.
    pub fn planner(&self) -> &Planner {
        &self.planner
    }

    /// The kernel, to look at.
    pub fn kernel_mut(&mut self) -> &mut K {
        &mut self.kernel
    }

    /// Takes in a change; [`Engine::sync`] writes it.
    pub fn apply(&mut self, change: Change) {
        match &change {
            Change::Service(name, _) => {
                self.quarantine.forget(name);
                self.suspects.push(name.clone());
            }
            Change::EndpointSlice(_, Some(slice)) => {
                let service = slice.service_name();
                self.quarantine.forget(&service);
                self.suspects.push(service);
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
        let (selection, addresses) = self.nodeport_selection();
        let networks = nodeport_networks(&selection, addresses);
        self.planner.set_nodeport_networks(&networks);
    }

    /// Which addresses NodePorts answer on, and the addresses that this machine has.
    pub fn nodeport_selection(&self) -> (NodePortSelection, &LocalAddresses) {
        ((self.select_nodeports)(self.planner.node()), &self.addresses)
    }

    /// What follows from the last commit outside the table.
    pub fn effects(&mut self) -> &mut Effects {
        self.planner.effects()
    }

    /// Writes what changed. After an error the kernel has its last good state.
    pub fn sync(&mut self) -> Result<Committed, Error> {
        let mut committed = Committed { full: !self.in_step, ..Committed::default() };
        if !self.in_step {
            committed.rebuilt = self.read_kernel()?;
        }
        let start = Instant::now();
        self.planner.plan();
        committed.planning = start.elapsed();
        self.log_disputes();
        let start = Instant::now();
        committed.operations = match self.write() {
            Ok(operations) => operations,
            Err(error) => {
                committed.full = true;
                self.recover(error, &mut committed)?
            }
        };
        committed.writing = start.elapsed();
        if committed.full {
            memory::give_back();
        }
        self.quarantine.acquit();
        self.running = true;
        // After the first load there may be as many as there are Services.
        self.suspects = Vec::new();
        committed.quarantined = self.quarantine.len();
        committed.triggers = std::mem::take(&mut self.triggers);
        Ok(committed)
    }

    /// Writes the difference to what the kernel has; returns how much it was.
    fn write(&mut self) -> Result<usize, Error> {
        self.purges.append(&mut self.planner.take_purges());
        // A table that comes in stages refuses nobody before it is complete.
        self.planner.hold_refusals(self.planner.table().changes().is_staged());
        let mut written = self.write_once()?;
        self.planner.hold_refusals(false);
        written += self.write_once()?;
        if self.has_interim {
            // The table is there; what is beside it is no Service's fault, and is tried again with the next change.
            match replacement::clear_up(&mut self.kernel, self.planner.table()) {
                Ok(()) => self.has_interim = false,
                Err(error) => tracing::warn!("cannot delete table inet {INTERIM} yet: {error}"),
            }
        }
        if !self.purges.is_empty() {
            // A connection that was on its way may have been remembered meanwhile.
            self.write_once()?;
            self.purges.clear();
        }
        Ok(written)
    }

    fn write_once(&mut self) -> Result<usize, Error> {
        let stale = self.stale_clients()?;
        let table = self.planner.table();
        let mut transaction = table.changes();
        for (map, keys) in &stale {
            if let Some(set) = table.set(*map) {
                let keys = keys.iter().collect();
                transaction.operations.insert(0, Operation::DeleteElements { set, keys });
            }
        }
        let operations = transaction.len();
        if tracing::enabled!(tracing::Level::TRACE) {
            for operation in &transaction.operations {
                tracing::trace!("{}", text::operation(transaction.table, operation));
            }
        }
        if operations > 0 {
            if let Err(error) = self.kernel.commit(&transaction) {
                self.in_step = false;
                return Err(error);
            }
            self.planner.table_mut().committed();
        }
        Ok(operations)
    }

    /// Clients that are remembered on an endpoint which is gone.
    fn stale_clients(&mut self) -> Result<Vec<(SetId, Vec<Key>)>, Error> {
        let mut stale = Vec::new();
        let table = self.planner.table();
        for (map, endpoints) in &self.purges {
            let Some(id) = table.set_id(map).filter(|id| table.is_in_kernel(*id)) else { continue };
            let Some(set) = table.set(id) else { continue };
            let kept: HashSet<Value> = endpoints.iter().map(Backend::to_value).collect();
            let clients = self.kernel.elements(table.name(), set)?.into_iter();
            let keys: Vec<Key> =
                clients.filter(|(_, value)| !kept.contains(value)).map(|(key, _)| key).collect();
            if !keys.is_empty() {
                stale.push((id, keys));
            }
        }
        Ok(stale)
    }

    /// Finds out what the kernel has. Says why the table has to be written from nothing, if so.
    fn read_kernel(&mut self) -> Result<Option<Rebuild>, Error> {
        let declared = self.kernel.declarations(TABLE)?;
        if let Some(old) = declared.filter(|there| !is_this_layout(there)) {
            self.planner.plan();
            self.replace(&old);
            self.in_step = true;
            return Ok(Some(Rebuild::Layout));
        }
        let snapshot = self.kernel.snapshot(TABLE)?;
        if let Some(snapshot) = &snapshot
            && !self.running
        {
            self.planner.learn_from(snapshot);
            self.planner.plan();
        }
        let absent = snapshot.is_none();
        let fits = self.planner.table_mut().adopt(snapshot);
        self.in_step = true;
        Ok(match (absent, fits, self.running) {
            (true, _, false) => Some(Rebuild::Absent),
            (true, _, true) => Some(Rebuild::Lost),
            (false, false, false) => Some(Rebuild::Layout),
            (false, false, true) => Some(Rebuild::Drift),
            (false, true, _) => None,
        })
    }

    /// Makes room for the table where there is one of another layout.
    fn replace(&mut self, old: &Snapshot) {
        self.planner.table_mut().adopt(None);
        self.planner.hold_refusals(true);
        self.has_interim = true;
        if let Err(error) = replacement::make_room(&mut self.kernel, old, self.planner.table()) {
            tracing::warn!("the table is replaced in one transaction: {error}");
            let other = Snapshot { is_foreign: true, ..Snapshot::default() };
            self.planner.table_mut().adopt(Some(other));
        }
    }

    fn recover(&mut self, first: Error, committed: &mut Committed) -> Result<usize, Error> {
        tracing::warn!("the kernel refused a transaction, reading its table again: {first}");
        committed.rebuilt = self.read_kernel()?;
        let mut error = match self.write() {
            Ok(operations) => return Ok(operations),
            Err(error) => error,
        };
        for _ in 0..REFUSALS_MAX {
            let Some(service) = self.culprit(&error) else { return Err(error) };
            let wait = self.quarantine.add(service.clone(), Instant::now());
            tracing::error!(
                "Service {service} is left out for {}, because the kernel refuses it: {error}",
                humantime::format_duration(wait)
            );
            self.planner.quarantine(&service);
            self.planner.plan();
            self.read_kernel()?;
            error = match self.write() {
                Ok(operations) => return Ok(operations),
                Err(error) => error,
            };
        }
        Err(error)
    }

    /// The Service that a refused operation belongs to.
    fn culprit(&mut self, error: &Error) -> Option<ObjectName> {
        let refusal = error.refusals().first()?;
        if let (Some(set), Some(key)) = (&refusal.set, &refusal.key)
            && let Some(set) = self.planner.table().set_id(set)
            && let Some(owner) = self.planner.owner_of(set, key)
        {
            return Some(owner);
        }
        self.search()
    }

    /// Finds a Service without which the transaction is taken, among those that changed.
    fn search(&mut self) -> Option<ObjectName> {
        let mut suspects = std::mem::take(&mut self.suspects);
        suspects.sort_unstable();
        suspects.dedup();
        suspects.retain(|service| !self.quarantine.contains(service));
        self.suspects = suspects.clone();
        // Without any of them it must work, or it is none of them.
        if suspects.is_empty() || self.works_without(&suspects).is_none() {
            return None;
        }
        while suspects.len() > 1 {
            let half = suspects.split_off(suspects.len() / 2);
            // The second half is to blame when the first half alone is taken.
            if self.works_without(&half).is_some() {
                suspects = half;
            }
        }
        suspects.pop()
    }

    /// Whether the kernel takes the table without these Services. Afterwards they are back in the plan.
    fn works_without(&mut self, services: &[ObjectName]) -> Option<()> {
        services.iter().for_each(|service| self.planner.quarantine(service));
        self.planner.plan();
        let result = self.read_kernel().and_then(|_| self.write());
        services.iter().for_each(|service| self.planner.release(service));
        self.planner.plan();
        result.ok().map(|_| ())
    }

    /// Whether somebody has taken the table away; then the next sync writes it anew. Asking takes
    /// microseconds.
    pub fn has_lost_table(&mut self) -> bool {
        // A kernel that does not answer is the next sync's to report.
        let is_lost = self.in_step && matches!(self.kernel.has_table(TABLE), Ok(false));
        if is_lost {
            self.in_step = false;
        }
        is_lost
    }

    /// When a Service in quarantine is to be tried again.
    pub fn quarantine_time(&self) -> Option<Instant> {
        self.quarantine.next()
    }

    /// Lets out the Services whose time has come; whether there are any.
    pub fn release_quarantined(&mut self, now: Instant) -> bool {
        let released = self.quarantine.release(now);
        for service in &released {
            self.planner.release(service);
            self.suspects.push(service.clone());
        }
        !released.is_empty()
    }

    /// Whether there are chains or sets that nothing leads to any more.
    pub fn has_unused(&self) -> bool {
        self.in_step && self.planner.has_unused()
    }

    /// Deletes the chains and sets that nothing leads to. A refusal harms nothing: they stay.
    pub fn delete_unused(&mut self) -> Result<(), Error> {
        self.planner.delete_unused();
        self.write().map(|_| ())
    }

    fn log_disputes(&mut self) {
        for dispute in self.planner.take_disputes() {
            match dispute {
                Dispute::Lost { service, frontend, to } => tracing::warn!(
                    "Service {service} does not get {frontend}: the older Service {to} has it"
                ),
                Dispute::TookOver { service, frontend } => {
                    tracing::info!("Service {service} takes over {frontend}");
                }
            }
        }
    }
}
