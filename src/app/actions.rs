//! What is done before serving, and the actions that end at once.

use crate::config::{Config, Source};
use crate::kernel::nft::{Kernel, Nft, describe_owner};
use crate::kernel::sysctl::{ConntrackSettings, Sysctl, SysctlError, conntrack_max};
use crate::kernel::{conntrack, leftovers};
use crate::model::parse_cidr;
use crate::plan::layout::{INTERIM, SetKind, SetName, TABLE};
use crate::plan::{Frontend, frontend_of, is_this_layout};
use crate::sync::delete_table;
use anyhow::{Context, bail};
use ipnet::IpNet;
use nft_table::Family;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// What needs more privileges than serving (`--init-only` stops after it): loads kernel modules and
/// makes kernel settings.
pub fn init(config: &Config) -> anyhow::Result<()> {
    check_kernel()?;
    set_conntrack(config, |_| false)
}

/// Loads kernel modules, and finds out whether the kernel has what is needed.
fn check_kernel() -> anyhow::Result<()> {
    let missing = Nft::open()
        .and_then(|mut kernel| kernel.missing_features())
        .context("cannot find out what the kernel's nftables can do")?;
    if !missing.is_empty() {
        bail!("the kernel lacks what this proxy needs of nftables: {}", missing.join(", "));
    }
    // The files of the settings exist once the module is loaded, which this request does.
    if let Err(error) = conntrack::probe() {
        tracing::warn!("{error}");
    }
    Ok(())
}

/// Makes the settings of conntrack; what cannot be made is an error, or a warning where it may stay as it is.
fn set_conntrack(config: &Config, may_stay: impl Fn(&SysctlError) -> bool) -> anyhow::Result<()> {
    let sysctl = Sysctl::system();
    // A single host is often a container or a namespace that may not change them.
    let is_single = matches!(config.source, Source::Manifests(_));
    let mut failed = Vec::new();
    for error in sysctl.set_conntrack(&conntrack_settings(config, sysctl.cpus())) {
        if is_single || may_stay(&error) {
            tracing::warn!("{error}");
        } else {
            failed.push(error.to_string());
        }
    }
    if failed.is_empty() { Ok(()) } else { bail!("{}", failed.join("; ")) }
}

/// All that is done before serving.
pub fn prepare(config: &Config) -> anyhow::Result<()> {
    check_kernel()?;
    // Whoever may not change them has had them set by `--init-only`. That they are others by now is no reason not to
    // serve.
    set_conntrack(config, SysctlError::is_forbidden)?;
    let score = config.document.oom_score_adj.unwrap_or_default();
    if let Err(error) = Sysctl::system().set_oom_score_adj(score) {
        tracing::warn!("{error}");
    }
    raise_open_files();
    Ok(())
}

fn conntrack_settings(config: &Config, cpus: usize) -> ConntrackSettings {
    let wanted = &config.conntrack;
    ConntrackSettings {
        max: wanted.max_per_core.and_then(|per_core| conntrack_max(per_core, wanted.min, cpus)),
        tcp_established_timeout: wanted.tcp_established_timeout,
        tcp_close_wait_timeout: wanted.tcp_close_wait_timeout,
        udp_timeout: wanted.udp_timeout,
        udp_stream_timeout: wanted.udp_stream_timeout,
        tcp_be_liberal: wanted.tcp_be_liberal,
    }
}

/// Health check node ports take a socket per Service and address, so the soft limit goes up to the
/// hard one.
fn raise_open_files() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::debug!("cannot raise the limit of open files: {error}");
    }
}

/// `--cleanup`: removes everything that this proxy or another mode of kube-proxy has put into
/// nftables and IPVS.
pub fn cleanup(config: &Config) -> anyhow::Result<()> {
    let mut kernel = Nft::open().context("cannot reach nftables")?;
    let node_ports = node_ports(&mut kernel)?;
    for table in [TABLE, INTERIM] {
        if let Some(owner) = kernel.table(table)?.and_then(|there| there.owner) {
            bail!("table inet {table} is owned by {}: end that first", describe_owner(owner));
        }
        if delete_table(&mut kernel, table)? {
            tracing::info!("deleted table inet {table}");
        }
    }
    remove_ipvs(&excluded(config), &node_ports)?;
    remove_rules()
}

/// The networks of `ipvs.excludeCIDRs`.
pub fn excluded(config: &Config) -> Vec<IpNet> {
    let cidrs = config.document.ipvs.exclude_cidrs.iter().flatten();
    cidrs.filter_map(|cidr| parse_cidr(cidr)).collect()
}

/// Removes what other modes left, once the table is in the kernel.
pub fn remove_leftovers(excluded: &[IpNet]) -> anyhow::Result<()> {
    let mut kernel = Nft::open().context("cannot reach nftables")?;
    let node_ports = node_ports(&mut kernel)?;
    // Each is tried, whatever becomes of the other.
    let rules = remove_rules();
    remove_ipvs(excluded, &node_ports)?;
    rules
}

/// The NodePorts that the table has.
fn node_ports(kernel: &mut Nft) -> anyhow::Result<leftovers::NodePorts> {
    let Some(there) = kernel.declarations(TABLE)?.filter(is_this_layout) else {
        return Ok(leftovers::NodePorts::new());
    };
    let mut node_ports = leftovers::NodePorts::new();
    for family in Family::BOTH {
        let name = SetName::new(SetKind::ServiceNodeports, family);
        let set = there.sets.get(&name.nft()).and_then(|there| there.set.as_ref());
        let elements = set.map(|set| kernel.elements(TABLE, set)).transpose()?;
        node_ports.extend(elements.into_iter().flatten().filter_map(|(key, _)| match frontend_of(
            name, &key,
        )? {
            Frontend::NodePort { protocol, port, .. } => Some((protocol.number(), port)),
            Frontend::Ip { .. } => None,
        }));
    }
    Ok(node_ports)
}

fn remove_ipvs(excluded: &[IpNet], node_ports: &leftovers::NodePorts) -> anyhow::Result<()> {
    if let Some(count) = leftovers::remove_ipvs(excluded, node_ports)? {
        tracing::info!("removed the device kube-ipvs0 and {count} virtual servers of Services");
    }
    Ok(())
}

/// Removes the tables and chains that other modes left.
fn remove_rules() -> anyhow::Result<()> {
    let removed = leftovers::remove()?;
    if !removed.is_nothing() {
        tracing::info!(
            "removed what other modes of kube-proxy left: {} tables, {} chains, {} rules",
            removed.tables.len(),
            removed.chains,
            removed.rules
        );
    }
    for kept in &removed.kept {
        tracing::warn!("left in place: {kept}");
    }
    for (command, tables) in leftovers::legacy_tables() {
        tracing::warn!(
            "{command} has rules, in {}: those of an older kube-proxy would go on to act, and are removed by: \
             {command}-save | grep -v KUBE- | {command}-restore",
            tables.join(", ")
        );
    }
    for chain in &removed.dropping {
        let accept = match chain.as_str() {
            // Rules of nft would hide the table from iptables.
            "ip filter FORWARD" => {
                "iptables -I FORWARD -m conntrack --ctstate DNAT -j ACCEPT".to_owned()
            }
            "ip6 filter FORWARD" => {
                "ip6tables -I FORWARD -m conntrack --ctstate DNAT -j ACCEPT".to_owned()
            }
            chain => format!("nft insert rule {chain} ct status dnat accept"),
        };
        tracing::warn!(
            "chain {chain} drops what nobody accepts, which may be what is sent to Services by way of this node; where \
             kube-proxy's KUBE-FORWARD accepted it, this does: {accept}"
        );
    }
    Ok(())
}
