//! An explanation for people.

use crate::explain::{Client, Endpoint, Exception, Explanation, Fate, OverLimits, Source};
use anstyle::{AnsiColor, Style};
use std::io::{self, Write};

const BOLD: Style = Style::new().bold();
const GOOD: Style = AnsiColor::Green.on_default();
const BAD: Style = AnsiColor::Red.on_default().bold();
const DIM: Style = Style::new().dimmed();

/// So many endpoints are listed; the others are counted.
const ENDPOINTS: usize = 40;

/// Writes explanations, one below the other.
pub fn write(out: &mut impl Write, explanations: &[Explanation]) -> io::Result<()> {
    if explanations.is_empty() {
        return writeln!(out, "Clients can connect to nothing of it.");
    }
    for (number, explanation) in explanations.iter().enumerate() {
        if number > 0 {
            writeln!(out)?;
        }
        one(out, explanation)?;
    }
    Ok(())
}

fn one(out: &mut impl Write, explanation: &Explanation) -> io::Result<()> {
    let Explanation { destination, protocol, node, .. } = explanation;
    let node = if node.is_empty() { String::new() } else { format!(" on node {node}") };
    writeln!(out, "{BOLD}{destination}/{protocol}{BOLD:#}{node}")?;
    if let Some(frontend) = &explanation.frontend {
        writeln!(
            out,
            "  {} of Service {BOLD}{}{BOLD:#}, port {}",
            frontend.kind, frontend.service, frontend.port
        )?;
        if !frontend.policy.is_empty() {
            writeln!(out, "  {}: {}", frontend.policy, frontend.policy_value)?;
        }
        if !matches!(&*frontend.balancing, "" | "random") {
            writeln!(out, "  balancing: {}", frontend.balancing)?;
        }
        if let Some(seconds) = frontend.affinity_seconds {
            let timeout = std::time::Duration::from_secs(seconds);
            writeln!(
                out,
                "  sessionAffinity: ClientIP, for {}",
                humantime::format_duration(timeout)
            )?;
        }
        if let Some(limits) = &frontend.limits {
            let open = limits.open.map_or(String::new(), |open| format!(", {open} open"));
            writeln!(
                out,
                "  a client may have {} new connections a second, {} at once{open}",
                limits.new_per_second, limits.burst
            )?;
            if let Some(refused) = limits.refused {
                let OverLimits { new_per_second, open } = refused;
                writeln!(out, "  refused so far: {new_per_second} new, {open} beside open ones")?;
            }
        }
        if let Some(sources) = &frontend.allowed_sources {
            let sources = if sources.is_empty() { "nobody".to_owned() } else { sources.join(", ") };
            writeln!(out, "  loadBalancerSourceRanges: {sources}")?;
        }
        for other in &frontend.others {
            let since =
                other.created.as_ref().map_or(String::new(), |at| format!(", created {at}"));
            writeln!(
                out,
                "  {BAD}wanted by Service {} as well{BAD:#} ({}{since}), which does not get it",
                other.service, other.kind
            )?;
        }
        endpoints(out, &explanation.endpoints)?;
    }
    for note in &explanation.notes {
        writeln!(out, "  {BAD}!{BAD:#} {note}")?;
    }
    for client in &explanation.clients {
        connection(out, client)?;
    }
    kernel(out, explanation)
}

fn endpoints(out: &mut impl Write, endpoints: &[Endpoint]) -> io::Result<()> {
    let in_use = endpoints.iter().filter(|endpoint| endpoint.in_use).count();
    writeln!(out, "\n  Endpoints: {in_use} of {} in use", endpoints.len())?;
    let width = endpoints.iter().map(|e| e.address.to_string().len()).max().unwrap_or_default();
    for endpoint in endpoints.iter().take(ENDPOINTS) {
        let (style, mark) = if endpoint.in_use { (GOOD, "+") } else { (BAD, "-") };
        let node = endpoint.node.as_ref().map_or(String::new(), |node| format!(" on {node}"));
        let address = endpoint.address.to_string();
        let reasons = endpoint.reasons.join("; ");
        writeln!(out, "  {style}{mark}{style:#} {address:width$}{node}: {reasons}")?;
    }
    match endpoints.len().saturating_sub(ENDPOINTS) {
        0 => Ok(()),
        more => writeln!(out, "    and {more} more (-o json has all)"),
    }
}

fn connection(out: &mut impl Write, client: &Client) -> io::Result<()> {
    let (style, fate) = match client.fate {
        Fate::Endpoint => (GOOD, "goes to an endpoint"),
        Fate::Refused => (BAD, "is refused"),
        Fate::Dropped => (BAD, "is dropped"),
        Fate::Untouched => (DIM, "goes where it was sent to"),
    };
    let address = client.address.map_or(String::new(), |address| format!(" ({address}"));
    let by = match (&client.interface, address.is_empty()) {
        (Some(interface), false) => format!(", by {interface})"),
        (None, false) => ")".to_owned(),
        _ => String::new(),
    };
    writeln!(out, "\n  From {BOLD}{}{BOLD:#}{address}{by}: {style}{fate}{style:#}", client.who)?;
    match &client.endpoints[..] {
        [] => {}
        [only] => writeln!(out, "    to {only}")?,
        all => writeln!(out, "    to one of {}, each as likely", all.len())?,
    }
    if client.fate == Fate::Endpoint {
        let source = match client.source {
            Source::Kept => "is kept",
            Source::Node => "becomes an address of this node",
        };
        writeln!(out, "    its source {source}: {}", client.reasons.join("; "))?;
        for exception in &client.exceptions {
            let Exception { endpoint, source, reason } = exception;
            let source = match source {
                Source::Kept => "the client's address",
                Source::Node => "an address of this node",
            };
            writeln!(out, "    but {endpoint} sees {source}: {reason}")?;
        }
    } else if !client.reasons.is_empty() {
        writeln!(out, "    because {}", client.reasons.join("; "))?;
    }
    for rule in &client.rules {
        writeln!(out, "    {DIM}{rule}{DIM:#}")?;
    }
    Ok(())
}

fn kernel(out: &mut impl Write, explanation: &Explanation) -> io::Result<()> {
    let Some(kernel) = &explanation.kernel else { return Ok(()) };
    writeln!(out)?;
    for error in &kernel.errors {
        writeln!(out, "  {BAD}Not all could be read from the kernel:{BAD:#} {error}")?;
    }
    if !kernel.differences.is_empty() {
        writeln!(
            out,
            "  {BAD}The kernel has something else{BAD:#} (-) than kube-proxy has planned (+):"
        )?;
        for difference in &kernel.differences {
            writeln!(out, "    {difference}")?;
        }
    } else if kernel.errors.is_empty() && kernel.compared {
        writeln!(out, "  The kernel has it as it is planned.")?;
    }
    writeln!(out, "  Connections in conntrack: {}", kernel.connections)?;
    for (to, count) in &kernel.elsewhere {
        let what = if to.to_string() == explanation.destination {
            "not translated".to_owned()
        } else {
            format!("to {to}, which is no endpoint in use")
        };
        writeln!(out, "    {count} {what}")?;
    }
    Ok(())
}
