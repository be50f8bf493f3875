//! A table with something of every kind, as the program writes it.

use ipnet::IpNet;
use kube_proxy::intake::Options;
use kube_proxy::kernel::Nft;
use kube_proxy::kernel::addresses::{LocalAddresses, NodePortSelection};
use kube_proxy::manifests::Source;
use kube_proxy::model::{Algorithm, Change, Service};
use kube_proxy::plan::{Counting, DetectLocal, Settings};
use kube_proxy::sync::Engine;
use nft_table::Family;
use std::net::IpAddr;
use std::path::Path;
use test_support::netns::sh;

pub struct FullTable {
    engine: Engine<Nft>,
    objects: Vec<Change>,
}

fn local_addresses() -> LocalAddresses {
    let addresses: [IpAddr; 2] = ["192.0.2.10", "2001:db8::10"].map(|ip| ip.parse().unwrap());
    LocalAddresses::new(addresses.map(IpNet::from), addresses)
}

impl FullTable {
    /// Programs everything into the calling thread's namespace.
    pub fn program(detect_local: DetectLocal, counting: Counting) -> FullTable {
        let settings = Settings {
            node_name: "node-1".into(),
            detect_local,
            masquerade_all: false,
            localhost_nodeports: vec![Family::V4],
            counting,
            algorithm: Algorithm::Random,
            reset_gone: false,
        };
        let select = Box::new(|_: Option<&_>| NodePortSelection::ALL);
        let mut engine = Engine::new(Nft::open().unwrap(), settings, select, false);
        engine.set_addresses(local_addresses());
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/nft_versions/manifests");
        let (_, objects) = Source::open(&folder, "node-1", Options::default()).unwrap();
        let mut table = FullTable { engine, objects };
        table.apply(Some);
        assert_eq!(table.empty_sets(), [""; 0]);
        table
    }

    /// Sets without elements, but for those that packets fill and those of a detector or a family that is not
    /// asked for.
    fn empty_sets(&self) -> Vec<&str> {
        let table = self.engine.planner().table();
        let empty = table.sets().filter(|(id, set)| table.len(*id) == 0 && !set.flags.dynamic);
        let options = ["pod-", "unmasqueraded-", "localhost-"];
        empty
            .map(|(_, set)| &*set.name)
            .filter(|name| !options.iter().any(|option| name.starts_with(option)))
            .collect()
    }

    /// Applies what becomes of the objects.
    fn apply(&mut self, change: impl Fn(Change) -> Option<Change>) {
        for object in self.objects.clone() {
            if let Some(object) = change(object) {
                self.engine.apply(object);
            }
        }
        let committed = self.engine.sync().unwrap();
        assert!(committed.operations > 0 && committed.quarantined == 0, "{committed:?}");
    }

    pub fn services(&self) -> Vec<String> {
        let name = |object: &Change| match object {
            Change::Service(name, _) => Some(name.to_string()),
            _ => None,
        };
        self.objects.iter().filter_map(name).collect()
    }

    /// Every Service loses an endpoint; all Services and networks go and come again; the whole table does.
    pub fn change_everything(&mut self) {
        self.apply(|object| match object {
            Change::EndpointSlice(name, Some(mut slice)) => {
                slice.endpoints.pop();
                Some(Change::EndpointSlice(name, Some(slice)))
            }
            _ => None,
        });
        self.engine.set_addresses(LocalAddresses::default());
        self.apply(|object| match object {
            Change::Service(name, _) => Some(Change::Service(name, None)),
            Change::ServiceCidr(name, _) => Some(Change::ServiceCidr(name, None)),
            _ => None,
        });
        self.engine.set_addresses(local_addresses());
        self.apply(Some);
        sh("nft delete table inet kube-proxy");
        assert!(self.engine.has_lost_table());
        self.apply(Some);
    }

    /// Puts clients into the maps that packets write to.
    pub fn remember_clients(&self) {
        let listing = sh("nft list maps inet");
        let (mut map, mut clients) = ("", 0);
        for line in listing.lines().map(str::trim) {
            if let Some(name) = line.strip_prefix("map ") {
                map = name.trim_end_matches(" {");
            }
            let [client, endpoint] = if map.starts_with("affinity4") {
                ["192.0.2.7", "10.244.0.11"]
            } else {
                ["2001:db8::7", "fd00:10:244::11"]
            };
            if line.starts_with("flags ") && map.starts_with("affinity") {
                let element = format!("{client} timeout 1h : {endpoint} . 8080");
                sh(&format!("nft add element inet kube-proxy {map} '{{ {element} }}'"));
                clients += 1;
            }
        }
        assert!(clients > 1, "{listing}");
    }

    /// Services with source ranges lose them, for good.
    pub fn end_source_ranges(&mut self) {
        self.alter(|service| service.source_ranges.clear());
    }

    /// Services with session affinity keep IPv4 only, for good.
    pub fn end_ipv6_affinity(&mut self) {
        self.alter(|service| {
            if service.affinity.is_some() {
                service.cluster_ips.retain(IpAddr::is_ipv4);
                service.external_ips.retain(IpAddr::is_ipv4);
                service.load_balancer_ips.retain(IpAddr::is_ipv4);
            }
        });
        self.engine.delete_unused().unwrap();
    }

    fn alter(&mut self, alter: impl Fn(&mut Service)) {
        for object in &mut self.objects {
            if let Change::Service(_, Some(service)) = object {
                alter(service);
            }
        }
        self.apply(Some);
    }
}
