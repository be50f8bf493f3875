//! What the kernel has of a frontend, compared with the plan.

use crate::explain::{Answer, Explanation, Fate, Kernel as Report, OverLimits};
use crate::kernel::conntrack;
use crate::kernel::nft::{Kernel, Nft};
use crate::model::Protocol;
use crate::plan::layout::TABLE;
use crate::plan::{Backend, Expected};
use hashbrown::HashSet;
use nft_table::{Key, Set, Value, text};
use std::net::SocketAddr;
use std::time::Duration;

/// So many differences are told.
const MOST: usize = 50;

/// Asks the kernel for everything that an answer is about, and puts into it what differs.
pub fn compare(answer: Answer) -> Explanation {
    let mut report = Report { compared: true, ..Report::default() };
    let Answer { mut explanation, expected, chains, remembered, over_chain, in_use } = answer;
    match Nft::open() {
        Ok(mut nft) => match nft.table(TABLE) {
            Ok(Some(there)) if !there.is_dormant => {
                compare_elements(&mut nft, &expected, &mut report);
                compare_chains(&mut nft, &chains, &mut report);
                if let (Some(chain), Some(frontend)) = (over_chain, &mut explanation.frontend)
                    && let Some(limits) = &mut frontend.limits
                {
                    let counters = nft.counters(TABLE, &chain).ok();
                    limits.refused = counters.map(|counters| OverLimits::of(&counters));
                }
                find_clients(&mut nft, &remembered, &mut explanation, &mut report);
            }
            Ok(Some(_)) => report.differences.push(format!("table inet {TABLE} is dormant")),
            Ok(None) => report.differences.push(format!("+ table inet {TABLE}")),
            Err(error) => report.errors.push(error.to_string()),
        },
        Err(error) => report.errors.push(error.to_string()),
    }
    let more = report.differences.len().saturating_sub(MOST);
    if more > 0 {
        report.differences.truncate(MOST);
        report.differences.push(format!("... and {more} more"));
    }
    let in_use = in_use.iter().map(Backend::socket_address).collect();
    count_connections(&explanation, &in_use, &mut report);
    explanation.kernel = Some(report);
    explanation
}

fn compare_elements(nft: &mut Nft, expected: &[Expected], report: &mut Report) {
    for Expected { set, elements } in expected {
        let keys: Vec<&Key> = elements.iter().map(|(key, _)| key).collect();
        // The set is not there, or is another one.
        let there = nft.lookup(TABLE, set, &keys).unwrap_or_else(|_| vec![None; keys.len()]);
        for ((key, expected), there) in elements.iter().zip(there) {
            if there == *expected {
                continue;
            }
            let mut tell = |sign, value: &Option<Value>| {
                let shown = value.as_ref().map(|value| text::element(set, key, value));
                let line = shown.map(|shown| format!("{sign} element @{} {{ {shown} }}", set.name));
                report.differences.extend(line);
            };
            tell('-', &there);
            tell('+', expected);
        }
    }
}

fn compare_chains(nft: &mut Nft, chains: &[nft_table::Chain], report: &mut Report) {
    let declared = match nft.declarations(TABLE) {
        Ok(declared) => declared.unwrap_or_default(),
        Err(error) => return report.errors.push(error.to_string()),
    };
    for chain in chains {
        match declared.chains.get(&chain.name) {
            Some(there) if there.has_rules_of(chain) && there.base == chain.base => {}
            Some(_) => report.differences.push(format!(
                "chain {}: its rules are others than planned: nft list chain inet {TABLE} {}",
                chain.name, chain.name
            )),
            None => report.differences.push(format!("+ chain {}", chain.name)),
        }
    }
}

/// Who is remembered on an endpoint goes there, and nowhere else.
fn find_clients(
    nft: &mut Nft,
    remembered: &[(usize, Set, Key)],
    explanation: &mut Explanation,
    report: &mut Report,
) {
    for (number, set, key) in remembered {
        let Some(client) = explanation.clients.get_mut(*number) else { continue };
        if client.fate != Fate::Endpoint {
            continue;
        }
        match nft.remembered(TABLE, set, key) {
            Ok(Some((value, lifetime))) => {
                let Some(endpoint) = Backend::of_value(&value) else { continue };
                let endpoint = endpoint.socket_address();
                let left = Duration::from_secs(lifetime.expires.as_secs());
                client.endpoints = vec![endpoint];
                client.reasons.push(format!(
                    "session affinity: it was sent to {endpoint} before, which is remembered for another {}",
                    humantime::format_duration(left)
                ));
            }
            Ok(None) => client.reasons.push(
                "session affinity: it is not remembered, so any endpoint may get it, and keeps it then".to_owned(),
            ),
            Err(error) => report.errors.push(error.to_string()),
        }
    }
}

/// Connections follow their conntrack entries, whatever the plan says by now.
pub fn count_connections(
    explanation: &Explanation,
    in_use: &HashSet<SocketAddr>,
    report: &mut Report,
) {
    let Ok(destination) = explanation.destination.parse::<SocketAddr>() else { return };
    let Some(protocol) = Protocol::parse(&explanation.protocol) else { return };
    match conntrack::count(destination.ip(), destination.port(), protocol.number()) {
        Ok(counts) => {
            report.connections = counts.values().sum();
            report.elsewhere = counts.into_iter().filter(|(to, _)| !in_use.contains(to)).collect();
        }
        Err(error) => report.errors.push(error.to_string()),
    }
}
