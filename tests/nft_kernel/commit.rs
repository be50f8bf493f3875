//! What is committed is what nft lists, what nft loads again, and what is read back.

use crate::netns::{in_namespace, sh, skip_without};
use crate::scenario;
use kube_proxy::kernel::{Kernel, Nft};
use kube_proxy::plan::base;
use kube_proxy::ruleset::Table;

fn filled() -> Table {
    let (mut table, _) = base::table();
    scenario::fill(&mut table);
    table
}

fn commit(nft: &mut Nft, table: &mut Table) {
    nft.commit(&table.changes()).unwrap_or_else(|error| panic!("{error}"));
    table.committed();
}

/// The lines of a listing without what depends on the order of elements.
fn sorted_lines(listing: &str) -> Vec<String> {
    let trim = |line: &str| {
        let line = line.trim().trim_start_matches("elements = { ");
        line.trim_end_matches(" }").trim_end_matches(',').to_owned()
    };
    // nft puts several short elements on one line.
    let mut lines: Vec<String> =
        listing.lines().flat_map(|line| line.split(", ").map(trim).collect::<Vec<_>>()).collect();
    lines.sort_unstable();
    lines
}

#[test]
fn nft_lists_the_base_table_as_it_is_planned() {
    if skip_without("nft") {
        return;
    }
    in_namespace(|| {
        let (mut table, _) = base::table();
        commit(&mut Nft::open().unwrap(), &mut table);
        assert_eq!(sh("nft list table inet kube-proxy"), table.to_string());
    });
}

#[test]
fn nft_lists_a_filled_table_as_it_is_planned() {
    if skip_without("nft") {
        return;
    }
    in_namespace(|| {
        let mut table = filled();
        commit(&mut Nft::open().unwrap(), &mut table);
        let listing = sh("nft list table inet kube-proxy");
        assert_eq!(sorted_lines(&listing), sorted_lines(&table.to_string()));
    });
}

#[test]
fn what_was_committed_is_there() {
    in_namespace(|| {
        let mut nft = Nft::open().unwrap();
        commit(&mut nft, &mut filled());
        let mut again = filled();
        again.adopt(nft.snapshot("kube-proxy").unwrap());
        assert!(again.changes().is_empty(), "{:#?}", again.changes());
    });
}
