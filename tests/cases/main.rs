//! Case files, run against an evaluator of the planned table.
//!
//! `FEATURE.yaml` beside this file says which packets go where; `README.md` explains the format. Here the objects
//! go through the manifests source, the intake and the plan, and [`evaluate`] follows each packet through the
//! table with every possible random choice. No privileges are needed. `netns-tests/cases.rs` runs the same files
//! with real packets in a real kernel.
//!
//! [`evaluate`]: nft_table::evaluate

mod evaluator;

test_support::case_files!(evaluator::run);
