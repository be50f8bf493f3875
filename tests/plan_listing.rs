//! Golden listings: the base ruleset as a readable file.

use kube_proxy::plan::base;
use std::path::Path;

/// Compares a text with a file of `rulesets/`; with `UPDATE_RULESETS=1` writes it.
fn check(path: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("rulesets").join(path);
    if std::env::var_os("UPDATE_RULESETS").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text, golden, "{} is not what is planned", path.display());
}

#[test]
fn the_base_ruleset_is_the_documented_one() {
    let (table, _) = base::table();
    check("base.nft", &table.to_string());
}
