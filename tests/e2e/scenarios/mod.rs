//! The scenarios, in the order in which they run.

mod api_server;
mod burst;
mod manifests;
mod migration;
mod nodes;
mod services;
mod source;
mod telling;

use crate::{Scenario, World};
use std::fmt::Debug;
use std::time::{Duration, Instant};
use test_support::cluster::PATIENCE;

/// All of them. Every one but the first two works with the proxy on `node`.
pub const ALL: &[Scenario] = &[
    ("the_server_takes_all_manifests", manifests::the_server_takes_all_manifests),
    ("the_chart_is_the_base", manifests::the_chart_is_the_base),
    ("objects_are_read_whole", source::objects_are_read_whole),
    ("the_program_runs_with_what_the_manifests_grant", services::runs_with_what_is_granted),
    ("services_come_scale_and_go", services::come_scale_and_go),
    ("node_ports_answer_outside", services::node_ports_answer_outside),
    ("a_restart_of_the_proxy_loses_nothing", services::a_restart_loses_nothing),
    ("weights_are_by_pod", services::weights_are_by_pod),
    ("metrics_count_what_happens", telling::metrics_count_what_happens),
    ("events_tell_of_a_taken_port", telling::events_tell_of_a_taken_port),
    ("events_tell_of_a_taken_address", telling::events_tell_of_a_taken_address),
    ("the_kernel_is_verified_against_the_server", telling::the_kernel_is_verified),
    ("node_changes_take_effect", nodes::changes_take_effect),
    ("a_new_service_cidr_is_guarded", nodes::a_new_service_cidr_is_guarded),
    ("an_unfit_node_ends_the_program", nodes::an_unfit_node_ends_the_program),
    ("a_wrong_node_name_is_told", nodes::a_wrong_node_name_is_told),
    ("two_nodes", nodes::two_nodes),
    (
        "upstream_in_nftables_mode_and_back_loses_nothing",
        migration::nftables_to_and_fro_loses_nothing,
    ),
    (
        "upstream_in_iptables_mode_and_back_loses_nothing",
        migration::iptables_to_and_fro_loses_nothing,
    ),
    ("the_api_server_may_go_away", api_server::may_go_away),
    ("a_silent_connection_is_noticed", api_server::a_silent_connection_is_noticed),
    ("an_expired_watch_is_listed_again", api_server::an_expired_watch_is_listed_again),
    ("a_thousand_services_at_once", burst::a_thousand_services_at_once),
];

/// Asks again until the answer is the one expected; panics with the last one when it never is.
#[track_caller]
pub fn eventually<T: PartialEq + Debug>(expected: &T, mut ask: impl FnMut() -> T) {
    let start = Instant::now();
    loop {
        let answer = ask();
        if answer == *expected {
            return;
        }
        assert!(start.elapsed() < PATIENCE, "still {answer:?}, not {expected:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

impl World {
    /// Starts the proxy on `node`, unless it runs.
    pub fn need_proxy(&mut self) {
        if self.proxy.is_some() {
            return;
        }
        self.starting = true;
        self.need_manifests();
        let node = self.lab.node();
        let mut proxy = crate::proxy::Proxy::start(&self.cluster, node, "node");
        proxy.wait_ready(node);
        self.proxy = Some(proxy);
        self.starting = false;
    }

    /// Applies `deploy/base` and makes the Node objects, once.
    pub fn need_manifests(&mut self) {
        if self.cluster.directory().join("overlay").exists() {
            return;
        }
        manifests::apply_base(&self.cluster);
        for (name, pod_cidrs) in [
            ("node", ["10.244.0.0/24", "fd00:10:244::/64"]),
            ("remote", ["10.244.1.0/24", "fd00:10:244:1::/64"]),
        ] {
            let addresses = [self.lab.v4(name), self.lab.v6(name)];
            self.cluster.apply(&test_support::cluster::objects::node(name, &addresses, &pod_cidrs));
        }
    }
}
