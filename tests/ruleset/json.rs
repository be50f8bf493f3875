//! Tools that read nft's JSON find the sets with their elements and the chains at their hooks. The crate
//! `nftables` knows the schema; its maps and some of its statements are older than what nft prints, so those
//! are left to the other tests of listings.

use crate::scenario;
use kube_proxy::kernel::{Kernel, Nft};
use nft_table::SetData;
use nftables::helper::{DEFAULT_NFT, get_current_ruleset_raw};
use nftables::schema::{Chain, Set};
use serde_json::Value;
use std::collections::BTreeMap;
use test_support::netns::{in_namespace, skip_without};

fn named<'a>(listing: &'a Value, kind: &'a str) -> impl Iterator<Item = Value> + 'a {
    let objects = listing["nftables"].as_array().expect("a list of objects");
    objects.iter().filter_map(move |object| object.get(kind).cloned())
}

#[test]
fn sets_have_their_elements_and_chains_their_hooks() {
    if skip_without("nft") {
        return;
    }
    in_namespace(|| {
        let mut table = scenario::table();
        scenario::fill(&mut table);
        Nft::open().unwrap().commit(&table.changes()).unwrap();
        let arguments = ["-n", "list", "table", "inet", "kube-proxy"];
        let listing = get_current_ruleset_raw(DEFAULT_NFT, &arguments).unwrap();
        let listing: Value = serde_json::from_str(&listing).unwrap();

        let sets: BTreeMap<String, usize> = named(&listing, "set")
            .map(|set| serde_json::from_value(set).unwrap())
            .map(|set: Set<'_>| (set.name.to_string(), set.elem.map_or(0, |list| list.len())))
            .collect();
        let planned = table.sets().filter(|(_, set)| set.data == SetData::None);
        let planned: BTreeMap<String, usize> =
            planned.map(|(id, set)| (set.name.to_string(), table.len(id))).collect();
        assert_eq!(sets, planned);

        let chains: BTreeMap<String, Option<i32>> = named(&listing, "chain")
            .map(|chain| serde_json::from_value(chain).unwrap())
            .map(|chain: Chain<'_>| (chain.name.to_string(), chain.prio))
            .collect();
        let chain = |chain: &&nft_table::Chain| {
            (chain.name.to_string(), chain.base.as_ref().map(|base| base.priority))
        };
        assert_eq!(chains, table.chains().iter().map(chain).collect());
    });
}
