//! Packet tests: real connections through a real kernel, in network namespaces of their own.
//!
//! ```text
//! let Some(lab) = Lab::builder().pod("a").remote_pod("b").outside("client").build() else { return };
//! assert_eq!(lab.from("client").tcp("192.0.2.1:30080"), Outcome::reached("a", lab.v4("node")));
//! ```
//!
//! [`test_support::lab`] builds a node with pods, a gateway with outside hosts and perhaps a second node, and sends the
//! packets; [`harness`] proves it against a table written by hand. Every other file is a feature.
//!
//! * They need root and, for some, `nft`. Where that is not there a test says `skipped: why` and passes; with
//!   `CI` in the environment it fails instead.
//! * Nothing of the host is touched: namespaces are anonymous, addresses and rules exist only inside them, and
//!   all is gone when the process ends, however it ends.
//! * Every test has a lab of its own (some 20 ms), so they run in parallel. What must come is waited for, and
//!   that nothing comes is proved by fences (see `lab/wait.rs`), so nothing depends on how fast a machine is.
//! * [`test_support::proxy`] has two ways to run the proxy: in this process, where every change is committed before
//!   the call returns, and as the real program.
//! * `NFT_VERSIONS` names more nfts to list and load with, as `hack/nft-versions` prints them; `NETNS_SEED` may
//!   name one seed for the random test.

mod scenario;

mod affinity;
mod among;
mod balancing;
mod cases;
mod cluster_ip;
mod conflicts;
mod counted;
mod debugging;
mod dns_cache;
mod explain;
mod explained;
mod external;
mod harness;
mod health_checks;
mod hostile;
mod invalid;
mod limits;
mod listing;
mod localhost;
mod masquerade;
mod no_endpoints;
mod node_port;
mod nodes;
mod policies;
mod program;
mod random;
mod restart;
mod selection;
mod source_ranges;
mod udp_flows;
mod under_way;
mod updates;
mod upgrade;
mod uses;
