//! The case files of `tests/cases/`: which packets go where. The README there explains the format.
//!
//! They are run twice, with the same topology and objects: against an evaluator of the planned table, and with real
//! packets in a real kernel.

mod expected;
mod file;
mod objects;
mod topology;

pub use expected::{Expectation, Fate, Probe, Protocol, Served, Source};
pub use file::{Case, Step, all, read};
pub use objects::Manifests;
pub use topology::{OUTSIDE, PODS, REMOTE_PODS, SECOND_PORT, Topology};

/// Makes a test of every case file, which calls `run` with its name.
#[macro_export]
macro_rules! case_files {
    ($run:path) => {
        $crate::case_files! { $run;
            cluster_ip: "cluster-ip",
            conflicts: "conflicts",
            external_ip: "external-ip",
            external_policy: "external-policy",
            families: "families",
            hairpin: "hairpin",
            internal_policy: "internal-policy",
            load_balancer: "load-balancer",
            masquerade: "masquerade",
            no_endpoints: "no-endpoints",
            node_port: "node-port",
            node_port_addresses: "node-port-addresses",
            session_affinity: "session-affinity",
            skipped: "skipped",
            slices: "slices",
            source_ranges: "source-ranges",
            terminating: "terminating",
            topology: "topology",
            updates: "updates",
        }
    };
    ($run:path; $($test:ident: $file:literal,)*) => {
        $(#[test] fn $test() { $run($file); })*

        #[test]
        fn every_file_is_run() {
            assert_eq!($crate::cases::all(), [$($file),*]);
        }
    };
}
