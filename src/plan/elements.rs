//! A frontend and its slots as elements of sets and maps.

use super::affinity;
use super::layout::{Balancing, Kind, SetKind, SetName};
use super::own::{self, Stage};
use super::ports::Masquerade;
use super::writer::ChainNames;
use super::{Backend, Frontend, PlannedFrontend, PortPlan, Route};
use crate::model::{ObjectName, Protocol};
use ipnet::IpNet;
use nft_table::{Family, Key, KeyBuilder, Value, Verdict};
use std::net::IpAddr;

/// The most bytes that nft shows of a comment (`NFTNL_UDATA_COMMENT_MAXLEN` in libnftnl).
const COMMENT_MAX: usize = 128;

/// An element and where it belongs.
pub type NamedElement = (SetName, Key, Value);

/// The key of a frontend in the maps of its kind.
pub fn frontend_key(frontend: &Frontend) -> KeyBuilder {
    match *frontend {
        Frontend::Ip { address, protocol, port } => {
            Key::builder().address(address).protocol(protocol.number()).port(port)
        }
        Frontend::NodePort { protocol, port, .. } => {
            Key::builder().protocol(protocol.number()).port(port)
        }
    }
}

/// The sets and chains that frontends by address, or NodePorts, use.
struct Targets {
    frontends: SetKind,
    remember: SetKind,
    external: SetKind,
    cluster_slots: SetKind,
    local_slots: SetKind,
    cluster: Kind,
    local: Kind,
    external_local: Kind,
}

const BY_ADDRESS: Targets = Targets {
    frontends: SetKind::ServiceIps,
    remember: SetKind::RememberServices,
    external: SetKind::ExternalServices,
    cluster_slots: SetKind::ClusterEndpoints,
    local_slots: SetKind::LocalEndpoints,
    cluster: Kind::Cluster,
    local: Kind::Local,
    external_local: Kind::ExternalLocal,
};

const BY_NODEPORT: Targets = Targets {
    frontends: SetKind::ServiceNodeports,
    remember: SetKind::RememberNodeports,
    external: SetKind::ExternalNodeports,
    cluster_slots: SetKind::NodeportClusterEndpoints,
    local_slots: SetKind::NodeportLocalEndpoints,
    cluster: Kind::NodePortCluster,
    local: Kind::NodePortLocal,
    external_local: Kind::ExternalNodePortLocal,
};

impl Targets {
    const fn of(frontend: &Frontend) -> &'static Targets {
        match frontend {
            Frontend::Ip { .. } => &BY_ADDRESS,
            Frontend::NodePort { .. } => &BY_NODEPORT,
        }
    }
}

/// The kinds of balancing chains that a frontend may lead to: those of the cluster list, of the local list, and of
/// external policy Local.
pub fn kinds(frontend: &Frontend) -> [Kind; 3] {
    let targets = Targets::of(frontend);
    [targets.cluster, targets.local, targets.external_local]
}

/// The elements of a frontend apart from its slots and from the sources that may connect: where it leads, what is
/// masqueraded, whether only some sources may connect. They change only with the Service or the number of its endpoints.
pub fn head(
    service: &ObjectName,
    plan: &PortPlan,
    planned: &PlannedFrontend,
    names: &mut ChainNames,
) -> Vec<NamedElement> {
    let targets = Targets::of(&planned.frontend);
    let set = |kind| SetName::new(kind, plan.family);
    let key = || frontend_key(&planned.frontend).build();
    let mut to = |kind| {
        let own = own::own_chain(service, plan, kind, Stage::Limits);
        Verdict::Goto(own.unwrap_or_else(|| names.get(own::shared_chain(plan, kind))))
    };
    let mut elements = Vec::new();
    let verdict = match planned.route {
        Route::Cluster => to(targets.cluster),
        Route::Local => to(targets.local),
        Route::ExternalLocal => to(targets.external_local),
        Route::Reject => match (planned.frontend, planned.masquerade) {
            // An address from outside the cluster may be one of NodePorts.
            (Frontend::Ip { .. }, Masquerade::Always | Masquerade::FromNode) => {
                Verdict::Goto(names.get(Balancing::single(Kind::ExternalReject, plan.family)))
            }
            _ => Verdict::Goto(names.reject.clone()),
        },
        Route::Drop => Verdict::Drop,
    };
    let comment = comment(service, plan, &planned.frontend);
    elements.push((set(targets.frontends), key(), Value::verdict(verdict, Some(comment))));
    if is_remembered(plan, planned) {
        let remember = Verdict::Jump(affinity::remember_chain(service, plan));
        elements.push((set(targets.remember), key(), Value::verdict(remember, None)));
    }
    if has_backends(plan, planned) {
        let masquerade = match planned.masquerade {
            Masquerade::BySource => None,
            Masquerade::Always => Some(names.masquerade_always.clone()),
            Masquerade::FromNode => Some(names.masquerade_from_node.clone()),
        };
        elements.extend(masquerade.map(|chain| {
            (set(targets.external), key(), Value::verdict(Verdict::Goto(chain), None))
        }));
    }
    if planned.allowed_sources.is_some() {
        elements.push((set(SetKind::RestrictedServices), key(), Value::Member));
    }
    elements
}

fn has_backends(plan: &PortPlan, planned: &PlannedFrontend) -> bool {
    match planned.route {
        Route::Cluster => !plan.cluster.is_empty(),
        Route::Local => !plan.local.is_empty(),
        Route::ExternalLocal => !plan.cluster.is_empty() || !plan.local.is_empty(),
        Route::Reject | Route::Drop => false,
    }
}

/// Whether it is written down which endpoint a client got.
fn is_remembered(plan: &PortPlan, planned: &PlannedFrontend) -> bool {
    plan.affinity.is_some() && has_backends(plan, planned)
}

/// The sets of addresses that a frontend's address may be in.
pub const ADDRESS_SETS: [SetKind; 3] =
    [SetKind::ClusterIps, SetKind::AffinityIps, SetKind::ExternalIps];

/// Those of [`ADDRESS_SETS`] that a frontend's address is in, as that of others may be. They change only with what [`head`]
/// says, too.
pub fn address_sets(
    plan: &PortPlan,
    planned: &PlannedFrontend,
) -> impl Iterator<Item = (SetName, Key)> + use<> {
    let is_external = planned.masquerade != Masquerade::BySource;
    let is_in =
        [!is_external, is_remembered(plan, planned), is_external && has_backends(plan, planned)];
    let family = plan.family;
    planned.frontend.address().into_iter().flat_map(move |address| {
        let wanted = ADDRESS_SETS.into_iter().zip(is_in).filter(|(_, is_in)| *is_in);
        let key = Key::builder().address(address).build();
        wanted.map(move |(kind, _)| (SetName::new(kind, family), key.clone()))
    })
}

/// The sets in which [`head`] puts elements of a frontend.
pub fn head_sets(frontend: &Frontend) -> Vec<SetKind> {
    let targets = Targets::of(frontend);
    let mut kinds = vec![targets.frontends, targets.remember, targets.external];
    kinds.extend(frontend.address().map(|_| SetKind::RestrictedServices));
    kinds
}

/// What a NodePort adds where loopback addresses are asked for: TCP is served there, by a proxy in user space.
pub fn localhost(plan: &PortPlan, planned: &PlannedFrontend) -> Option<(SetName, Key)> {
    let is_rejected =
        matches!(planned.frontend, Frontend::NodePort { .. }) && plan.protocol != Protocol::Tcp;
    let set = SetName::new(SetKind::LocalhostNodeports, plan.family);
    is_rejected.then(|| (set, frontend_key(&planned.frontend).build()))
}

/// The slots of a frontend in a map.
#[derive(Clone, Copy, Debug)]
pub struct Slots<'a> {
    pub map: SetName,
    /// Slots 0 to N - 1.
    pub backends: &'a [Backend],
    /// N and more is where these are.
    pub draining: &'a [(u32, Backend)],
}

impl<'a> Slots<'a> {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.backends.len() + self.draining.len()
    }

    /// The number of each behind the first ones, with what is there.
    pub fn behind(&self) -> impl Iterator<Item = (usize, Backend)> + use<'a> {
        let first = self.backends.len();
        self.draining.iter().map(move |(entry, backend)| (first + *entry as usize, *backend))
    }

    /// The number of each.
    pub fn numbers(&self) -> impl Iterator<Item = usize> + use<'a> {
        (0..self.backends.len()).chain(self.behind().map(|(number, _)| number))
    }
}

/// The slots that a frontend needs: which maps, filled from which list.
pub fn slots<'a>(
    plan: &'a PortPlan,
    planned: &PlannedFrontend,
) -> impl Iterator<Item = Slots<'a>> + use<'a> {
    let [cluster, local] = slot_maps(&planned.frontend).map(|map| map.in_bank(plan.bank));
    let cluster = Slots { map: cluster, backends: &plan.cluster, draining: &plan.draining[0] };
    let local = Slots { map: local, backends: &plan.local, draining: &plan.draining[1] };
    let (cluster, local) = match planned.route {
        Route::Cluster => (Some(cluster), None),
        Route::Local => (None, Some(local)),
        Route::ExternalLocal => (Some(cluster), Some(local)),
        Route::Reject | Route::Drop => (None, None),
    };
    [cluster, local].into_iter().flatten()
}

/// The key of an endpoint on this node that may lead to itself.
pub fn hairpin_key(ip: IpAddr) -> Key {
    Key::builder().address(ip).address(ip).build()
}

/// The key of a source that may connect to a frontend.
pub fn source_key(frontend: &Frontend, source: IpNet) -> Key {
    frontend_key(frontend).network(source)
}

/// The keys of some slots of a frontend.
pub fn slot_keys(
    frontend: &Frontend,
    slots: impl Iterator<Item = usize>,
) -> impl Iterator<Item = Key> {
    let key = frontend_key(frontend);
    slots.map(move |slot| key.clone().slot(slot as u32).build())
}

/// The data maps that may hold slots of a frontend, cluster list first, in the first bank.
pub fn slot_maps(frontend: &Frontend) -> [SetName; 2] {
    let targets = Targets::of(frontend);
    [targets.cluster_slots, targets.local_slots].map(|kind| SetName::new(kind, frontend.family()))
}

/// Whether a network is so small that its addresses are better listed one by one: a set of addresses is
/// looked up faster than one of networks, and neighbours among a machine's addresses look like a network.
pub fn is_few_addresses(network: &IpNet) -> bool {
    network.max_prefix_len() - network.prefix_len() <= 6
}

/// The addresses of a family in such networks as elements of a set.
pub fn addresses<'a>(
    networks: impl Iterator<Item = &'a IpNet>,
    family: Family,
) -> Vec<(Key, Value)> {
    let all = |network: &IpNet| -> Vec<IpAddr> {
        let subnets = network.subnets(network.max_prefix_len()).into_iter().flatten();
        subnets.map(|host| host.addr()).collect()
    };
    let of_family = networks.filter(|network| Family::of(&network.addr()) == family);
    let addresses = of_family.flat_map(all);
    addresses.map(|address| (Key::builder().address(address).build(), Value::Member)).collect()
}

/// The networks of a family as elements of an interval set. Overlaps are merged, for the kernel refuses them.
pub fn networks<'a>(
    networks: impl Iterator<Item = &'a IpNet>,
    family: Family,
) -> Vec<(Key, Value)> {
    let of_family = networks.filter(|network| Family::of(&network.addr()) == family);
    let networks: Vec<IpNet> = of_family.map(IpNet::trunc).collect();
    let networks = IpNet::aggregate(&networks).into_iter();
    networks.map(|network| (Key::builder().network(network), Value::Member)).collect()
}

/// `namespace/name:port`, the port by its name where it has one.
fn comment(service: &ObjectName, plan: &PortPlan, frontend: &Frontend) -> Box<str> {
    let mut text = if plan.name.is_empty() {
        format!("{service}:{}", frontend.port())
    } else {
        format!("{service}:{}", plan.name)
    };
    // Names from manifests were not checked by an API server: nothing may end the quoted string.
    text.retain(|c| c.is_ascii_graphic() && c != '"' && c != '\\');
    if text.len() > COMMENT_MAX {
        text.truncate(COMMENT_MAX - 3);
        text.push_str("...");
    }
    text.into()
}
