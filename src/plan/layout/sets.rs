//! The sets and maps: one of each kind per family, there while it has elements.

use super::{digit, nodeport_key, vip_key};
use nft_table::{DataType, Expression, Family, Set, SetData, SetFlags, SetId};
use std::collections::BTreeMap;
use std::fmt;

/// What a set or map is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SetKind {
    /// Frontends by address: what becomes of a new flow.
    ServiceIps,
    /// NodePorts: what becomes of a new flow.
    ServiceNodeports,
    /// Session affinity: which chain remembers the chosen endpoint, by address.
    RememberServices,
    /// Session affinity: which chain remembers the chosen endpoint, by NodePort.
    RememberNodeports,
    /// Frontends from outside the cluster: whose source becomes the node's address, by address.
    ExternalServices,
    /// NodePorts: whose source becomes the node's address.
    ExternalNodeports,
    /// The slots of the cluster list, by address.
    ClusterEndpoints,
    /// The slots of the cluster list, by NodePort.
    NodeportClusterEndpoints,
    /// The slots of the list of endpoints on this node, by address.
    LocalEndpoints,
    /// The slots of the list of endpoints on this node, by NodePort.
    NodeportLocalEndpoints,
    /// All ClusterIPs.
    ClusterIps,
    /// The addresses in [`SetKind::RememberServices`]: what goes to others is not looked up there.
    AffinityIps,
    /// The addresses in [`SetKind::ExternalServices`]: what goes to others is not looked up there.
    ExternalIps,
    /// The addresses that NodePorts answer on, one by one.
    NodeportIps,
    /// The networks that NodePorts answer on, where a whole network is local to this machine.
    NodeportNetworks,
    /// The ranges of ServiceCIDR objects.
    ServiceCidrs,
    /// Endpoints on this node, each with itself.
    Hairpin,
    /// Frontends with loadBalancerSourceRanges.
    RestrictedServices,
    /// Frontends with loadBalancerSourceRanges, each with each of its ranges.
    AllowedSources,
    /// NodePorts of other protocols than TCP, which loopback addresses reject.
    LocalhostNodeports,
}

impl SetKind {
    /// All of them, in the order in which they are listed.
    pub const ALL: [SetKind; 20] = [
        SetKind::ServiceIps,
        SetKind::ServiceNodeports,
        SetKind::RememberServices,
        SetKind::RememberNodeports,
        SetKind::ExternalServices,
        SetKind::ExternalNodeports,
        SetKind::ClusterEndpoints,
        SetKind::NodeportClusterEndpoints,
        SetKind::LocalEndpoints,
        SetKind::NodeportLocalEndpoints,
        SetKind::ClusterIps,
        SetKind::AffinityIps,
        SetKind::ExternalIps,
        SetKind::NodeportIps,
        SetKind::NodeportNetworks,
        SetKind::ServiceCidrs,
        SetKind::Hairpin,
        SetKind::RestrictedServices,
        SetKind::AllowedSources,
        SetKind::LocalhostNodeports,
    ];

    /// The data maps with slots.
    pub const SLOTS: [SetKind; 4] = [
        SetKind::ClusterEndpoints,
        SetKind::LocalEndpoints,
        SetKind::NodeportClusterEndpoints,
        SetKind::NodeportLocalEndpoints,
    ];

    /// Whether several frontends may want one of its elements, which stays as long as any of them does.
    pub const fn is_shared(self) -> bool {
        use SetKind::{AffinityIps, ClusterIps, ExternalIps, Hairpin};
        matches!(self, ClusterIps | AffinityIps | ExternalIps | Hairpin)
    }

    /// The set of addresses that is asked before a map by address.
    pub const fn addresses(self) -> Option<SetKind> {
        match self {
            SetKind::RememberServices => Some(SetKind::AffinityIps),
            SetKind::ExternalServices => Some(SetKind::ExternalIps),
            _ => None,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            SetKind::ServiceIps => "service-ips",
            SetKind::ServiceNodeports => "service-nodeports",
            SetKind::RememberServices => "remember-services",
            SetKind::RememberNodeports => "remember-nodeports",
            SetKind::ExternalServices => "external-services",
            SetKind::ExternalNodeports => "external-nodeports",
            SetKind::ClusterEndpoints => "cluster-endpoints",
            SetKind::NodeportClusterEndpoints => "nodeport-cluster-endpoints",
            SetKind::LocalEndpoints => "local-endpoints",
            SetKind::NodeportLocalEndpoints => "nodeport-local-endpoints",
            SetKind::ClusterIps => "cluster-ips",
            SetKind::AffinityIps => "affinity-ips",
            SetKind::ExternalIps => "external-ips",
            SetKind::NodeportIps => "nodeport-ips",
            SetKind::NodeportNetworks => "nodeport-networks",
            SetKind::ServiceCidrs => "service-cidrs",
            SetKind::Hairpin => "hairpin",
            SetKind::RestrictedServices => "restricted-services",
            SetKind::AllowedSources => "allowed-sources",
            SetKind::LocalhostNodeports => "localhost-nodeports",
        }
    }

    /// How its keys begin.
    pub const fn key(self) -> KeyStart {
        match self {
            SetKind::ServiceIps
            | SetKind::RememberServices
            | SetKind::ExternalServices
            | SetKind::ClusterEndpoints
            | SetKind::LocalEndpoints
            | SetKind::RestrictedServices
            | SetKind::AllowedSources => KeyStart::Address,
            SetKind::ServiceNodeports
            | SetKind::RememberNodeports
            | SetKind::ExternalNodeports
            | SetKind::NodeportClusterEndpoints
            | SetKind::NodeportLocalEndpoints
            | SetKind::LocalhostNodeports => KeyStart::NodePort,
            SetKind::ClusterIps
            | SetKind::AffinityIps
            | SetKind::ExternalIps
            | SetKind::NodeportIps
            | SetKind::NodeportNetworks
            | SetKind::ServiceCidrs
            | SetKind::Hairpin => KeyStart::Other,
        }
    }
}

/// Which connections are counted: new ones, by the elements that they are looked up in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Counting {
    #[default]
    Off,
    /// By frontend, and so by Service port.
    Service,
    /// Also by endpoint.
    Endpoint,
}

impl Counting {
    /// Whether elements of such sets count.
    const fn counts(self, kind: SetKind) -> bool {
        match kind {
            SetKind::ServiceIps | SetKind::ServiceNodeports => !matches!(self, Counting::Off),
            SetKind::ClusterEndpoints
            | SetKind::LocalEndpoints
            | SetKind::NodeportClusterEndpoints
            | SetKind::NodeportLocalEndpoints => matches!(self, Counting::Endpoint),
            _ => false,
        }
    }
}

/// How the keys of a set begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyStart {
    /// With the address, protocol and port of a frontend.
    Address,
    /// With the protocol and port of a NodePort.
    NodePort,
    /// With something that is no frontend.
    Other,
}

/// Which of the maps of slots the endpoints of a Service port are in. The kernel looks at all elements of a
/// map when a chain begins to look into it, when it is deleted and for every piece of a dump, so maps of slots
/// are kept small: when one is full the next one comes into use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Bank(pub u16);

impl Bank {
    /// Slots of a bank, over all maps of a family, from which on no Service port is added to it.
    pub const FULL: usize = 8_192;
}

impl fmt::Display for Bank {
    /// Nothing for the first one, `.2` for the second.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 { Ok(()) } else { write!(f, ".{}", u32::from(self.0) + 1) }
    }
}

/// A set or map of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SetName {
    pub kind: SetKind,
    pub family: Family,
    /// The first one for all but maps of slots.
    pub bank: Bank,
}

impl fmt::Display for SetName {
    /// `service-ips4`, `cluster-endpoints4.2`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}{}", self.kind.name(), digit(self.family), self.bank)
    }
}

impl SetName {
    pub const fn new(kind: SetKind, family: Family) -> SetName {
        SetName { kind, family, bank: Bank(0) }
    }

    /// The map of another bank.
    pub const fn in_bank(self, bank: Bank) -> SetName {
        SetName { bank, ..self }
    }

    /// Reads a name back.
    pub fn parse(name: &str) -> Option<SetName> {
        let (first, bank) = parse_bank(name)?;
        let set = SetName::all().find(|set| set.to_string() == first)?;
        (bank == Bank(0) || SetKind::SLOTS.contains(&set.kind)).then_some(set.in_bank(bank))
    }

    /// All sets and maps that there can be, of the first bank.
    pub fn all() -> impl Iterator<Item = SetName> {
        Family::BOTH
            .into_iter()
            .flat_map(|family| SetKind::ALL.map(|kind| SetName::new(kind, family)))
    }

    /// The name in the table.
    pub fn nft(self) -> std::sync::Arc<str> {
        self.to_string().into()
    }

    /// How it is declared.
    pub fn declaration(self, counting: Counting) -> Set {
        use DataType::{InetProto, InetService, Slot};
        let address = address_type(self.family);
        let start: &[DataType] = match self.kind.key() {
            KeyStart::Address => &[address, InetProto, InetService],
            KeyStart::NodePort => &[InetProto, InetService],
            KeyStart::Other => &[address],
        };
        let (rest, data): (&[DataType], _) = match self.kind {
            SetKind::ServiceIps
            | SetKind::ServiceNodeports
            | SetKind::RememberServices
            | SetKind::RememberNodeports
            | SetKind::ExternalServices
            | SetKind::ExternalNodeports => (&[], SetData::Verdict),
            SetKind::ClusterEndpoints
            | SetKind::NodeportClusterEndpoints
            | SetKind::LocalEndpoints
            | SetKind::NodeportLocalEndpoints => {
                (&[Slot], SetData::Fields(vec![address, InetService]))
            }
            SetKind::Hairpin | SetKind::AllowedSources => (&[address], SetData::None),
            SetKind::ClusterIps
            | SetKind::AffinityIps
            | SetKind::ExternalIps
            | SetKind::NodeportIps
            | SetKind::NodeportNetworks
            | SetKind::ServiceCidrs
            | SetKind::RestrictedServices
            | SetKind::LocalhostNodeports => (&[], SetData::None),
        };
        let interval = matches!(
            self.kind,
            SetKind::NodeportNetworks | SetKind::ServiceCidrs | SetKind::AllowedSources
        );
        let is_slots = matches!(data, SetData::Fields(_));
        Set {
            name: self.nft(),
            key: [start, rest].concat(),
            data,
            flags: SetFlags { interval, dynamic: false, timeout: false },
            type_of: is_slots.then(|| (self.slot_key(Expression::Random(2)), self.endpoint())),
            size: None,
            counter: counting.counts(self.kind),
        }
    }

    /// Whether it is declared like this, whatever is counted.
    pub fn is_declared_as(self, set: &Set) -> bool {
        [Counting::Off, Counting::Endpoint]
            .iter()
            .any(|counting| self.declaration(*counting) == *set)
    }

    /// What a balancing chain looks up: the frontend, and the number of a slot. In the declaration of a map the latter
    /// only tells nft that the field is a number.
    pub fn slot_key(self, slot: Expression) -> Vec<Expression> {
        let mut key = match self.kind.key() {
            KeyStart::Address => vip_key(self.family),
            _ => nodeport_key(),
        };
        key.push(slot);
        key
    }

    /// `ip daddr . th dport`
    fn endpoint(self) -> Vec<Expression> {
        vec![Expression::DestinationAddress(self.family), Expression::DestinationPort]
    }

    /// Its place among those of the first bank.
    const fn index(self) -> usize {
        2 * self.kind as usize + self.family as usize
    }
}

/// The type of addresses of a family.
pub const fn address_type(family: Family) -> DataType {
    match family {
        Family::V4 => DataType::Ipv4Address,
        Family::V6 => DataType::Ipv6Address,
    }
}

/// Reads the bank off the end of a name: what stands before it, and the bank.
pub(super) fn parse_bank(name: &str) -> Option<(&str, Bank)> {
    let Some((first, number)) = name.split_once('.') else { return Some((name, Bank(0))) };
    // As it is written: neither "+2" nor "02", and no 1.
    let number: u16 = number.parse().ok().filter(|n: &u16| *n > 1 && n.to_string() == number)?;
    Some((first, Bank(number - 1)))
}

/// Which sets are there.
#[derive(Clone, Debug)]
pub struct Sets {
    /// Those of the first bank, which nearly every element is asked for.
    first: [Option<SetId>; 2 * SetKind::ALL.len()],
    others: BTreeMap<SetName, SetId>,
}

impl Default for Sets {
    fn default() -> Sets {
        Sets { first: [None; 2 * SetKind::ALL.len()], others: BTreeMap::new() }
    }
}

impl Sets {
    /// The set in the table, where it is there.
    pub fn get(&self, name: SetName) -> Option<SetId> {
        if name.bank == Bank(0) {
            self.first[name.index()]
        } else {
            self.others.get(&name).copied()
        }
    }

    pub fn put(&mut self, name: SetName, id: Option<SetId>) {
        match id {
            _ if name.bank == Bank(0) => self.first[name.index()] = id,
            Some(id) => drop(self.others.insert(name, id)),
            None => drop(self.others.remove(&name)),
        }
    }

    /// All that are there.
    pub fn iter(&self) -> impl Iterator<Item = (SetName, SetId)> {
        let first = SetName::all().filter_map(|name| self.get(name).map(|id| (name, id)));
        first.chain(self.others.iter().map(|(name, id)| (*name, *id)))
    }

    /// The name of a set in the table.
    pub fn name_of(&self, id: SetId) -> Option<SetName> {
        self.iter().find(|(_, there)| *there == id).map(|(name, _)| name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for name in SetName::all() {
            assert_eq!(SetName::parse(&name.to_string()), Some(name));
        }
        let second = SetName::new(SetKind::ClusterEndpoints, Family::V4).in_bank(Bank(1));
        assert_eq!(second.to_string(), "cluster-endpoints4.2");
        assert_eq!(SetName::parse("cluster-endpoints4.2"), Some(second));
        for name in ["cluster-endpoints4.1", "cluster-endpoints4.02", "service-ips4.2", "other4"] {
            assert_eq!(SetName::parse(name), None, "{name}");
        }
    }
}
