//! What the kernel alone says of an address, while no proxy runs that could say why.

use super::kernel::count_connections;
use crate::explain::{Endpoint, Explanation, Frontend as Report, Kernel as KernelReport};
use crate::kernel::addresses::{Way, way_to};
use crate::kernel::nft::{Error, Kernel, Nft};
use crate::model::Protocol;
use crate::plan::layout::{Bank, SetKind, SetName, TABLE};
use crate::plan::{Backend, Frontend, SLOTS, frontend_key, slot_keys, slot_maps};
use nft_table::{Family, Set, Snapshot, Value, Verdict};
use std::net::{IpAddr, SocketAddr};

/// Reads what the table has for an address, in the network namespace of the calling thread.
///
/// # Errors
/// The kernel does not answer.
pub fn read_kernel(address: IpAddr, port: u16, protocol: Protocol) -> Result<Explanation, Error> {
    let mut nft = Nft::open()?;
    let mut explanation = Explanation {
        destination: SocketAddr::new(address, port).to_string(),
        protocol: protocol.to_string(),
        ..Explanation::default()
    };
    let mut kernel = KernelReport::default();
    match nft.declarations(TABLE)? {
        None => explanation.notes.push(format!("There is no table inet {TABLE}.")),
        Some(declared) => {
            let family = Family::of(&address);
            let by_address = Frontend::Ip { address, protocol, port };
            let by_port = Frontend::NodePort { family, protocol, port };
            let mut found = look_up(&mut nft, &declared, by_address)?;
            if found.is_none() && way_to(address).is_ok_and(|way| way == Way::Own) {
                found = look_up(&mut nft, &declared, by_port)?;
            }
            match found {
                Some((report, verdict, endpoints)) => {
                    explanation.notes.push(format!("New connections: {verdict}"));
                    explanation.frontend = Some(report);
                    explanation.endpoints = endpoints;
                }
                None => {
                    explanation.notes.push("The table has nothing for this address.".to_owned())
                }
            }
        }
    }
    let in_use = explanation.endpoints.iter().map(|endpoint| endpoint.address).collect();
    count_connections(&explanation, &in_use, &mut kernel);
    explanation.kernel = Some(kernel);
    Ok(explanation)
}

type Found = (Report, Verdict, Vec<Endpoint>);

/// What the table has for a frontend.
fn look_up(nft: &mut Nft, declared: &Snapshot, frontend: Frontend) -> Result<Option<Found>, Error> {
    let family = frontend.family();
    let (kind, name) = match frontend {
        Frontend::Ip { .. } => (SetKind::ServiceIps, "address"),
        Frontend::NodePort { .. } => (SetKind::ServiceNodeports, "NodePort"),
    };
    let Some(set) = declared_set(declared, SetName::new(kind, family)) else { return Ok(None) };
    let key = frontend_key(&frontend).build();
    let Some(Value::Verdict(element)) = nft.lookup(TABLE, set, &[&key])?.pop().flatten() else {
        return Ok(None);
    };
    let comment = element.comment.as_deref().unwrap_or_default();
    let (service, port) = comment.rsplit_once(':').unwrap_or((comment, ""));
    let report = Report {
        kind: name.to_owned(),
        service: service.to_owned(),
        port: port.to_owned(),
        ..Report::default()
    };
    let maps = slot_maps(&frontend);
    let mut endpoints = Vec::new();
    for (name, there) in &declared.sets {
        // Whatever bank they are in.
        let is_slots =
            SetName::parse(name).is_some_and(|name| maps.contains(&name.in_bank(Bank(0))));
        let Some(set) = there.set.as_ref().filter(|_| is_slots) else { continue };
        for endpoint in slots(nft, set, &frontend)? {
            if !endpoints.iter().any(|one: &Endpoint| one.address == endpoint) {
                endpoints.push(Endpoint {
                    address: endpoint,
                    node: None,
                    in_use: true,
                    reasons: vec![format!("in map {name}")],
                });
            }
        }
    }
    endpoints.sort_unstable_by_key(|endpoint| endpoint.address);
    Ok(Some((report, element.verdict, endpoints)))
}

fn declared_set(declared: &Snapshot, name: SetName) -> Option<&Set> {
    declared.sets.get(&name.nft())?.set.as_ref()
}

/// What stands in the slots of a frontend, up to the first that is empty.
fn slots(nft: &mut Nft, set: &Set, frontend: &Frontend) -> Result<Vec<SocketAddr>, Error> {
    let mut found = Vec::new();
    for key in slot_keys(frontend, 0..SLOTS) {
        match nft.lookup(TABLE, set, &[&key])?.pop().flatten().as_ref().and_then(Backend::of_value)
        {
            Some(backend) => found.push(backend.socket_address()),
            None => break,
        }
    }
    Ok(found)
}
