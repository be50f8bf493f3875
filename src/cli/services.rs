//! A list of Services for people.

use crate::explain::{ServiceFrontend, Services};
use anstyle::{AnsiColor, Style};
use comfy_table::{ContentArrangement, Table, presets};
use std::io::{self, Write};

const BAD: Style = AnsiColor::Red.on_default();

/// Columns of a terminal, below which nothing is broken into lines.
const NARROW: u16 = 80;

/// Writes the list as a table, and below it what is wrong.
pub fn write(out: &mut impl Write, list: &Services) -> io::Result<()> {
    if list.services.is_empty() {
        return writeln!(out, "None of {} Services.", list.total);
    }
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    // A serial console has no width, and on a narrow terminal long lines are better than columns of letters.
    if table.width().is_some_and(|width| width >= NARROW) {
        table.set_content_arrangement(ContentArrangement::Dynamic);
    }
    let are_counted = list.services.iter().any(|service| service.connections.is_some());
    let mut header = vec!["NAMESPACE", "NAME", "TYPE", "FRONTENDS", "ENDPOINTS", "POLICY"];
    header.extend(are_counted.then_some(["CONNECTIONS", "REFUSED"]).into_iter().flatten());
    table.set_header(header);
    for service in &list.services {
        let frontends: Vec<String> = service.frontends.iter().map(frontend).collect();
        let mut policy = match (&service.external_traffic_policy, &*service.internal_traffic_policy)
        {
            (Some(external), internal) if external != internal => {
                format!("{internal} inside, {external} outside")
            }
            (_, internal) => internal.to_owned(),
        };
        if service.affinity_seconds.is_some() {
            policy.push_str(", ClientIP");
        }
        let mut row = vec![
            service.namespace.clone(),
            service.name.clone(),
            service.service_type.clone(),
            frontends.join("\n"),
            format!("{}/{}", service.endpoints_in_use, service.endpoints),
            policy,
        ];
        if are_counted {
            let counted = [service.connections, service.refused];
            row.extend(counted.map(|count| count.unwrap_or_default().to_string()));
        }
        table.add_row(row);
    }
    for line in table.lines() {
        writeln!(out, "{}", line.trim_end())?;
    }
    for service in list.services.iter().filter(|service| !service.problems.is_empty()) {
        writeln!(
            out,
            "{BAD}{}/{}{BAD:#}: {}",
            service.namespace,
            service.name,
            service.problems.join("; ")
        )?;
    }
    Ok(())
}

fn frontend(frontend: &ServiceFrontend) -> String {
    let ServiceFrontend { kind, address, port, protocol } = frontend;
    match address {
        Some(address) => {
            format!("{kind} {}/{protocol}", std::net::SocketAddr::new(*address, *port))
        }
        None => format!("{kind} {port}/{protocol}"),
    }
}
