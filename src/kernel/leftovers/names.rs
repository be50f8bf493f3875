//! Which tables and chains kube-proxy's other modes own.
//!
//! Source: `pkg/proxy/{nftables,iptables,ipvs}/proxier.go` of Kubernetes 1.8 to 1.38.

/// The table of upstream's nftables mode, in families ip and ip6. Ours has the same name in inet.
pub(super) const NFTABLES_TABLE: &str = "kube-proxy";

/// The tables in which the iptables and ipvs modes have chains.
pub(super) const IPTABLES_TABLES: [&str; 3] = ["filter", "mangle", "nat"];

/// Chains of fixed name.
const CHAINS: [&str; 18] = [
    "KUBE-EXTERNAL-SERVICES",
    "KUBE-FORWARD",
    "KUBE-IPVS-FILTER",
    "KUBE-IPVS-OUT-FILTER",
    "KUBE-LOAD-BALANCER",
    "KUBE-MARK-MASQ",
    "KUBE-NODE-PORT",
    "KUBE-NODE-PORT-LOCAL-TCP",
    "KUBE-NODE-PORT-LOCAL-UDP",
    "KUBE-NODE-PORT-TCP",
    "KUBE-NODE-PORT-UDP",
    "KUBE-NODEPORTS",
    "KUBE-POSTROUTING",
    "KUBE-PROXY-CANARY",
    "KUBE-PROXY-FIREWALL",
    "KUBE-SERVICES",
    "KUBE-SOURCE-RANGE-FIREWALL",
    "KUBE-SOURCE-RANGES-FIREWALL",
];

/// Beginnings of the names of chains that each Service or endpoint has.
const PREFIXES: [&str; 6] =
    ["KUBE-EXT-", "KUBE-FW-", "KUBE-SEP-", "KUBE-SVC-", "KUBE-SVL-", "KUBE-XLB-"];

/// Whether a chain of an iptables table is kube-proxy's. Not the kubelet's KUBE-FIREWALL,
/// KUBE-MARK-DROP, KUBE-KUBELET-CANARY and KUBE-IPTABLES-HINT.
pub(super) fn is_kube_proxys(chain: &str) -> bool {
    CHAINS.contains(&chain) || PREFIXES.iter().any(|prefix| chain.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_of_kube_proxy() {
        for chain in [
            "KUBE-SERVICES",
            "KUBE-EXTERNAL-SERVICES",
            "KUBE-NODEPORTS",
            "KUBE-POSTROUTING",
            "KUBE-MARK-MASQ",
            "KUBE-FORWARD",
            "KUBE-PROXY-FIREWALL",
            "KUBE-PROXY-CANARY",
            "KUBE-SVC-NPX46M4PTMTKRN6Y",
            "KUBE-SVL-NPX46M4PTMTKRN6Y",
            "KUBE-SEP-NPX46M4PTMTKRN6Y",
            "KUBE-FW-NPX46M4PTMTKRN6Y",
            "KUBE-XLB-NPX46M4PTMTKRN6Y",
            "KUBE-EXT-NPX46M4PTMTKRN6Y",
            "KUBE-NODE-PORT",
            "KUBE-LOAD-BALANCER",
            "KUBE-SOURCE-RANGES-FIREWALL",
            "KUBE-IPVS-FILTER",
            "KUBE-IPVS-OUT-FILTER",
        ] {
            assert!(is_kube_proxys(chain), "{chain}");
        }
    }

    #[test]
    fn chains_of_others() {
        for chain in [
            "KUBE-FIREWALL",
            "KUBE-MARK-DROP",
            "KUBE-KUBELET-CANARY",
            "KUBE-IPTABLES-HINT",
            "KUBE-ROUTER-INPUT",
            "KUBE-POD-FW-ABC",
            "KUBE-NWPLCY-ABC",
            "PREROUTING",
            "CNI-HOSTPORT-DNAT",
            "cali-PREROUTING",
            "KUBE-SERVICES-MINE",
            "MY-KUBE-SVC-X",
        ] {
            assert!(!is_kube_proxys(chain), "{chain}");
        }
    }
}
