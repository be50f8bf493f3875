//! What is explained of a connection is what becomes of it.

use kube_proxy::answers::{Query, explain_now};
use kube_proxy::explain::{Explanation, Fate, Source};
use kube_proxy::sync::View;
use std::net::{IpAddr, SocketAddr};
use test_support::lab::{Lab, Outcome};

/// The explanation for a client, with the kernel of the node.
pub fn explain(
    lab: &Lab,
    view: View<'_>,
    source: IpAddr,
    protocol: &str,
    target: SocketAddr,
) -> Explanation {
    let query = Query {
        address: Some(target.ip()),
        port: Some(target.port()),
        protocol: Some(protocol.to_owned()),
        service: None,
        from: Some(source),
    };
    let explained = lab.node().namespace.run(|| explain_now(&view, &query));
    let mut explained = explained.unwrap_or_else(|error| panic!("{target}: {error}"));
    assert_eq!(explained.len(), 1, "{target}: {explained:?}");
    explained.remove(0)
}

/// The explanation for a host has to agree with what became of its packet.
#[track_caller]
pub fn check(
    lab: &Lab,
    view: View<'_>,
    host: &str,
    protocol: &str,
    target: SocketAddr,
    outcome: &Outcome,
) {
    let source = lab.ip(host, nft_table::Family::of(&target.ip()));
    agrees(lab, source, &explain(lab, view, source, protocol, target), outcome);
}

/// An explanation has to agree with what became of a packet.
#[track_caller]
pub fn agrees(lab: &Lab, own: IpAddr, explained: &Explanation, outcome: &Outcome) {
    let wrong = |what: &str| -> ! { panic!("{what}: {outcome:?}, explained as {explained:#?}") };
    let kernel = explained.kernel.as_ref().expect("the kernel was asked");
    if !kernel.differences.is_empty() || !kernel.errors.is_empty() {
        wrong("the kernel has what is planned");
    }
    let [client] = &explained.clients[..] else { wrong("one client") };
    if client.rules.is_empty() && client.fate != Fate::Untouched && !is_relayed(explained) {
        wrong("some rule decides");
    }
    let expected = match outcome {
        Outcome::Reached { .. } | Outcome::Unanswered { .. } => [Fate::Endpoint, Fate::Untouched],
        // A host on which nobody listens says the same.
        Outcome::Refused | Outcome::Reset => [Fate::Refused, Fate::Untouched],
        Outcome::TimedOut => [Fate::Dropped; 2],
        Outcome::Untouched { .. } | Outcome::Unreachable { .. } => [Fate::Untouched; 2],
    };
    if !expected.contains(&client.fate) {
        wrong("fate");
    }
    if let (Outcome::Reached { endpoint, .. }, Fate::Untouched) = (outcome, client.fate) {
        // Whoever answers has the address itself.
        let destination: SocketAddr = explained.destination.parse().expect("an address");
        let name = endpoint.split(':').next().unwrap_or_default();
        let is_own = lab.ip(name, nft_table::Family::of(&destination.ip())) == destination.ip();
        if !is_own && !["node", "lb"].contains(&name) {
            wrong("untouched");
        }
    }
    let (Outcome::Reached { endpoint, source }, Fate::Endpoint) = (outcome, client.fate) else {
        return;
    };
    let of_endpoint = |to: &&SocketAddr| {
        let (name, port) = endpoint.split_once(':').unwrap_or((endpoint, "8080"));
        lab.ip(name, nft_table::Family::of(&to.ip())) == to.ip() && to.port().to_string() == port
    };
    let Some(reached) = client.endpoints.iter().find(of_endpoint) else { wrong("endpoint") };
    let exception = client.exceptions.iter().find(|exception| exception.endpoint == *reached);
    let is_kept = exception.map_or(client.source, |exception| exception.source) == Source::Kept;
    // What the node itself sends comes from the node in any case.
    if client.interface.is_some() && (*source == own) != is_kept {
        wrong("source");
    }
    // What is in use is listed as such, and nothing else.
    let in_use = explained.endpoints.iter().find(|endpoint| endpoint.address == *reached);
    if !in_use.is_some_and(|endpoint| endpoint.in_use) {
        wrong("listed as in use");
    }
}

/// Whether the proxy itself listens, as it does for NodePorts on loopback addresses.
fn is_relayed(explained: &Explanation) -> bool {
    let destination: Option<SocketAddr> = explained.destination.parse().ok();
    destination.is_some_and(|destination| destination.ip().is_loopback())
}
