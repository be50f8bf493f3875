//! What the tests, benches and the demo of kube-proxy share. It is published nowhere.
//!
//! * [`lab`]: a node with pods and hosts around it, in network namespaces, and the packets between them
//! * [`proxy`]: ways to have the proxy in a lab, and the objects that it is given
//! * [`cases`]: the case files of `tests/cases/`
//! * [`cluster`]: a real etcd and kube-apiserver
//! * [`netns`], [`listing`], [`http`]: one namespace for one test, listings compared, a plain HTTP client
//! * [`nft_versions`]: other versions of nft
//! * [`skip`]: what a test says when it cannot run

pub mod cases;
pub mod cluster;
pub mod http;
pub mod lab;
pub mod listing;
pub mod netns;
pub mod nft_versions;
pub mod proxy;
pub mod skip;
