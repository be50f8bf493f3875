//! Case files, run against an evaluator of the planned table.
//!
//! `FEATURE.yaml` beside this file says which packets go where; `README.md` explains the format. Here the objects
//! go through the manifests source, the intake and the plan, and [`evaluate`] follows each packet through the
//! table with every possible random choice. No privileges are needed. `netns-tests/cases.rs` runs the same files
//! with real packets in a real kernel.
//!
//! [`evaluate`]: kube_proxy::ruleset::evaluate

mod evaluator;
mod expected;
mod file;
mod objects;
// The packet tests need more of it.
#[allow(dead_code)]
mod topology;

/// One test per file.
macro_rules! files {
    ($($test:ident: $file:literal,)*) => {
        $(#[test] fn $test() { evaluator::run($file); })*

        #[test]
        fn every_file_is_run() {
            assert_eq!(file::all(), [$($file),*]);
        }
    };
}

include!("files.rs");
