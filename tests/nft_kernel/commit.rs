use crate::netns::{in_namespace, sh};
use kube_proxy::kernel::{Kernel, Nft};
use kube_proxy::plan::base;

#[test]
fn base_table_is_listed_as_planned() {
    in_namespace(|| {
        let (table, _) = base::table();
        let mut nft = Nft::open().unwrap();
        nft.commit(&table.changes()).unwrap_or_else(|error| panic!("{error}"));
        let listing = sh("nft list table inet kube-proxy");
        assert_eq!(listing, table.to_string());
    });
}
