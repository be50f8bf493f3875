//! iptables-legacy, whose rules are not in nftables: only which tables it has is told.

use std::fs;

/// The commands of iptables-legacy and the tables that each has in the network namespace of the calling thread. A kernel
/// without it has none.
pub fn tables() -> Vec<(&'static str, Vec<String>)> {
    let read = |(file, command)| {
        let text = fs::read_to_string(format!("/proc/thread-self/net/{file}")).unwrap_or_default();
        (command, text.lines().map(str::to_owned).collect::<Vec<_>>())
    };
    let all = [("ip_tables_names", "iptables-legacy"), ("ip6_tables_names", "ip6tables-legacy")];
    all.map(read).into_iter().filter(|(_, tables)| !tables.is_empty()).collect()
}
