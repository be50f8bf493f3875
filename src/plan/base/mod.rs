//! The fixed part of table `inet kube-proxy`: base chains, rules, sets and maps that are the same for
//! one Service and for fifty thousand. `rulesets/base.nft` is this room in nft syntax.
//!
//! If you change anything here, running nodes replace their table at the next start: the kernel's
//! sets and chains are compared with these.

mod chains;
mod sets;

pub use chains::{REJECTED_AT_LOCALHOST, external_rules, nodeport_key, vip_key};
pub use sets::{FamilySets, Sets, address_type, set_name};

use nft_table::Family;
use nft_table::{DataType, SetData, Table};

/// Name of the table, in family inet.
pub const TABLE: &str = "kube-proxy";

/// The chain that no-endpoint maps lead to: `reject` itself is not a verdict.
pub const REJECT_CHAIN: &str = "reject-connection";

/// The chain for external policy Local without an endpoint on this node.
pub const EXTERNAL_NONE_CHAIN: &str = "external-none";

/// The chain that rejects what comes to localhost NodePorts and is not TCP.
pub const LOCALHOST_CHAIN: &str = "localhost-check";

/// The table without any Service.
pub fn table() -> (Table, Sets) {
    let mut table = Table::new(TABLE);
    let v4 = sets::add_family_sets(&mut table, Family::V4);
    let v6 = sets::add_family_sets(&mut table, Family::V6);
    let mut interfaces = |name: &str| {
        table.add_set(sets::set(name, &[DataType::InterfaceName], SetData::None, true))
    };
    let pod_interfaces = interfaces("pod-interfaces");
    let unmasqueraded_interfaces = interfaces("unmasqueraded-interfaces");
    for chain in chains::chains() {
        table.set_chain(chain);
    }
    (table, Sets::new(v4, v6, pod_interfaces, unmasqueraded_interfaces))
}
