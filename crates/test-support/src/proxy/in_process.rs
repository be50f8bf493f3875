//! The proxy without its program: manifests -> intake -> plan -> kernel, each change committed before the call
//! that makes it returns.

use super::Manifests;
use crate::lab::Lab;
use ipnet::IpNet;
use kube_proxy::intake::Options;
use kube_proxy::kernel::addresses::{
    AddressWatch, FamilySelection, LocalAddresses, NodePortSelection,
};
use kube_proxy::kernel::nft::{Error, Kernel, Nft};
use kube_proxy::manifests::Source;
use kube_proxy::model::{Algorithm, Change, Node};
use kube_proxy::plan::{Counting, DetectLocal, Settings};
use kube_proxy::sync::{Committed, Engine, View};
use nft_table::{Family, Table};
use serde_json::Value;
use std::time::{Duration, Instant};

/// What the operator of the lab's node configured.
#[derive(Clone)]
pub struct Config {
    pub detect_local: DetectLocal,
    pub masquerade_all: bool,
    /// None: all local addresses.
    pub nodeport_addresses: Option<Vec<IpNet>>,
    /// Families whose NodePorts are to be had on the loopback addresses, too.
    pub localhost_nodeports: Vec<Family>,
    pub counting: Counting,
    /// The table is owned, where the kernel can.
    pub own_table: bool,
}

impl Default for Config {
    /// As a cluster would have it: pods told by the cluster's pod CIDRs, NodePorts on the node's primary
    /// addresses.
    fn default() -> Self {
        let nets = |texts: [&str; 2]| texts.map(|text| text.parse().expect("a prefix")).to_vec();
        Config {
            detect_local: DetectLocal::ClusterCidr(nets(["10.244.0.0/16", "fd00:10:244::/56"])),
            masquerade_all: false,
            nodeport_addresses: Some(nets(["192.0.2.1/32", "2001:db8::1/128"])),
            localhost_nodeports: Vec::new(),
            counting: Counting::Off,
            own_table: true,
        }
    }
}

/// The proxy of the lab's node.
pub struct Proxy<'l> {
    lab: &'l Lab,
    manifests: Manifests,
    engine: Engine<Nft>,
    known: Vec<Change>,
    transactions: u32,
    /// It is to own the table where the kernel can, takes the place of another one, and has not committed yet.
    is_heir: bool,
}

/// What a writer writes that takes the place of another one where tables have no owners: its chain comes, and that of the
/// other one goes.
const HEIR: usize = 3;

impl<'l> Proxy<'l> {
    /// Without any Service yet; nothing is written.
    pub fn new(lab: &'l Lab, config: Config) -> Proxy<'l> {
        Proxy::with_manifests(lab, config, Manifests::new())
    }

    /// As after a restart: with the objects that another one had.
    pub fn restart(self, config: Config) -> Proxy<'l> {
        let is_heir = config.own_table;
        Proxy { is_heir, ..Proxy::with_manifests(self.lab, config, self.manifests) }
    }

    fn with_manifests(lab: &'l Lab, config: Config, manifests: Manifests) -> Proxy<'l> {
        let engine = engine(lab, config);
        Proxy { lab, manifests, engine, known: Vec::new(), transactions: 0, is_heir: false }
    }

    /// What a proxy writes that starts in the place of this one: operations.
    #[track_caller]
    pub fn written_by_a_new_one(&mut self, config: Config) -> usize {
        // The one before is gone, and its socket with it.
        self.is_heir = config.own_table;
        self.engine = engine(self.lab, config);
        self.engine.set_addresses(self.addresses());
        self.read().into_iter().for_each(|change| self.engine.apply(change));
        let committed = self.sync();
        committed.unwrap_or_else(|error| panic!("not committed: {error}")).operations
    }

    /// All objects there are.
    fn read(&self) -> Vec<Change> {
        let opened = Source::open(self.manifests.path(), "node", Options::default());
        opened.expect("read the manifests").1
    }

    /// The addresses that the node has.
    fn addresses(&self) -> LocalAddresses {
        self.lab.node().namespace.run(|| {
            let (_watch, addresses) = AddressWatch::start(|_| {}).expect("read the addresses");
            addresses
        })
    }

    /// Applies objects and commits.
    #[track_caller]
    pub fn apply(&mut self, objects: impl IntoIterator<Item = Value>) -> Committed {
        self.manifests.apply(objects);
        self.commit()
    }

    /// Deletes objects and commits.
    #[track_caller]
    pub fn delete(&mut self, objects: impl IntoIterator<Item = Value>) -> Committed {
        self.manifests.delete(objects);
        self.commit()
    }

    /// Reads manifests and addresses as they are now and commits the difference.
    #[track_caller]
    pub fn commit(&mut self) -> Committed {
        self.try_commit().unwrap_or_else(|error| panic!("not committed: {error}"))
    }

    /// [`Proxy::commit`] where a refusal is expected.
    pub fn try_commit(&mut self) -> Result<Committed, Error> {
        let changes = self.read();
        let gone = self.known.iter().filter(|old| !changes.iter().any(|new| is_same(old, new)));
        let gone: Vec<Change> = gone.map(without).collect();
        self.known = changes.clone();
        self.engine.set_addresses(self.addresses());
        gone.into_iter().chain(changes).for_each(|change| self.engine.apply(change));
        let generation = |engine: &mut Engine<Nft>| engine.kernel_mut().generation();
        let before = generation(&mut self.engine)?;
        let committed = self.sync()?;
        self.transactions = generation(&mut self.engine)?.wrapping_sub(before);
        while self.engine.forget_time().is_some() {
            self.engine.forget_clients(Instant::now());
        }
        Ok(committed)
    }

    /// How many transactions were committed for the last change, by whomever; what is forgotten later is not counted.
    pub fn transactions(&self) -> u32 {
        self.transactions
    }

    /// Another thread that starts a program has the socket of the one before for a moment, and with it the table.
    fn sync(&mut self) -> Result<Committed, Error> {
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            match self.engine.sync() {
                Err(Error::Owned { .. }) if Instant::now() < end => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Ok(mut committed) => {
                    if std::mem::take(&mut self.is_heir) && !self.engine.owns_table() {
                        committed.operations = committed.operations.saturating_sub(HEIR);
                    }
                    return Ok(committed);
                }
                error => return error,
            }
        }
    }

    /// The table as planned.
    pub fn table(&self) -> &Table {
        self.engine.planner().table()
    }

    /// What explanations are made of.
    pub fn view(&self) -> View<'_> {
        self.engine.view()
    }

    /// Deletes what nothing leads to any more, as the sync thread does when it is idle, until nothing is left of
    /// it.
    pub fn tidy(&mut self) {
        while self.engine.has_unused() {
            self.engine.delete_unused().unwrap_or_else(|error| panic!("{error}"));
        }
    }

    /// The table as nft lists it.
    pub fn listing(&self) -> String {
        self.lab.nft(&["list", "table", "inet", "kube-proxy"])
    }
}

/// An engine that has read nothing yet.
fn engine(lab: &Lab, config: Config) -> Engine<Nft> {
    let settings = Settings {
        node_name: "node".into(),
        detect_local: config.detect_local,
        masquerade_all: config.masquerade_all,
        localhost_nodeports: config.localhost_nodeports,
        counting: config.counting,
        algorithm: Algorithm::Random,
        reset_gone: false,
    };
    let selection = || match &config.nodeport_addresses {
        Some(cidrs) => FamilySelection::Cidrs(cidrs.clone()),
        None => FamilySelection::All,
    };
    let selection = NodePortSelection { v4: selection(), v6: selection() };
    let select = Box::new(move |_: Option<&Node>| selection.clone());
    let nft = lab.node().namespace.run(|| Nft::open().expect("open an nftables socket"));
    Engine::new(nft, settings, select, config.own_table)
}

/// Are two changes about the same object?
fn is_same(one: &Change, other: &Change) -> bool {
    without(one) == without(other)
}

/// The change that takes the object of a change away.
fn without(change: &Change) -> Change {
    match change {
        Change::Service(name, _) => Change::Service(name.clone(), None),
        Change::EndpointSlice(name, _) => Change::EndpointSlice(name.clone(), None),
        Change::Node(_) => Change::Node(None),
        Change::ServiceCidr(name, _) => Change::ServiceCidr(name.clone(), None),
    }
}
