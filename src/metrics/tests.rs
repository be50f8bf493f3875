use super::*;
use crate::metrics::kernel::Rebuild;
use crate::metrics::objects::Kind;
use crate::metrics::sync::{SyncKind, TrafficPolicy};
use crate::model::Protocol;
use std::time::{Duration, SystemTime};

/// Whether a line of the text is exactly this one.
fn has(text: &str, line: &str) -> bool {
    text.lines().any(|l| l == line)
}

/// The bucket bounds of a histogram's series, in their order.
fn bounds(text: &str, series: &str) -> Vec<String> {
    text.lines()
        .filter_map(|line| line.strip_prefix(series)?.split_once("le=\""))
        .map(|(_, rest)| rest[..rest.find('"').unwrap()].to_string())
        .collect()
}

#[test]
fn every_series_of_upstream_is_there() {
    let metrics = Metrics::new(&Family::BOTH);
    metrics.localhost.rejected(Family::V4, Protocol::Udp).unwrap();
    let text = metrics.render();
    for name in [
        "sync_proxy_rules_duration_seconds_count",
        "sync_full_proxy_rules_duration_seconds_count",
        "sync_partial_proxy_rules_duration_seconds_count",
        "network_programming_duration_seconds_count",
        "sync_proxy_rules_last_timestamp_seconds",
        "sync_proxy_rules_last_queued_timestamp_seconds",
        "sync_proxy_rules_nftables_sync_failures_total",
        "sync_proxy_rules_nftables_cleanup_failures_total",
        "conntrack_reconciler_sync_duration_seconds_count",
        "conntrack_reconciler_deleted_entries_total",
        "nftables_localhost_nodeport_listeners",
        "nftables_localhost_nodeport_listener_creation_failures_total",
    ] {
        for family in Family::BOTH {
            let line = format!("kubeproxy_{name}{{ip_family=\"{family}\"}} 0");
            assert!(has(&text, &line), "{line}");
        }
    }
    for line in [
        "kubeproxy_sync_proxy_rules_endpoint_changes_pending 0",
        "kubeproxy_sync_proxy_rules_endpoint_changes_total 0",
        "kubeproxy_sync_proxy_rules_service_changes_pending 0",
        "kubeproxy_sync_proxy_rules_service_changes_total 0",
        "kubeproxy_proxy_healthz_total{code=\"200\"} 0",
        "kubeproxy_proxy_livez_total{code=\"503\"} 0",
        "kubeproxy_nftables_localhost_nodeport_rejected_packets_total{ip_family=\"IPv4\",protocol=\"udp\"} 0",
        "kubeproxy_sync_proxy_rules_no_local_endpoints_total{ip_family=\"IPv6\",traffic_policy=\"internal\"} 0",
    ] {
        assert!(has(&text, line), "{line}");
    }
}

#[test]
fn buckets_are_upstreams() {
    let text = Metrics::new(&[Family::V4]).render();
    let sync = bounds(&text, "kubeproxy_sync_proxy_rules_duration_seconds_bucket");
    assert_eq!(sync.len(), 16);
    assert_eq!((&*sync[0], &*sync[14], &*sync[15]), ("0.001", "16.384", "+Inf"));
    let programming = bounds(&text, "kubeproxy_network_programming_duration_seconds_bucket");
    assert_eq!(programming.len(), 2 + 59 + 12 + 7 + 1);
    assert_eq!(programming[..4], ["0.25", "0.5", "1", "2"]);
    assert_eq!(programming[60..63], ["59", "60", "65"]);
    assert_eq!(programming[72..], ["115", "120", "150", "180", "210", "240", "270", "300", "+Inf"]);
}

#[test]
fn family_that_is_not_programmed_has_no_series() {
    let metrics = Metrics::new(&[Family::V4]);
    metrics.sync.programmed(Family::V6, Duration::from_secs(1));
    metrics.conntrack.reconciled(Family::V6, Duration::from_secs(1), 1);
    assert!(metrics.localhost.rejected(Family::V6, Protocol::Tcp).is_none());
    let text = metrics.render();
    assert!(text.contains("ip_family=\"IPv4\""));
    assert!(!text.contains("ip_family=\"IPv6\""));
}

#[test]
fn commit_is_counted_for_both_families_and_ends_what_was_pending() {
    let metrics = Metrics::new(&Family::BOTH);
    metrics.sync.endpoint_changes.seen(3);
    metrics.sync.service_changes.seen(1);
    let text = metrics.render();
    assert!(has(&text, "kubeproxy_sync_proxy_rules_endpoint_changes_pending 3"));
    let now = SystemTime::UNIX_EPOCH + Duration::from_millis(1500);
    metrics.sync.queued(now);
    metrics.sync.committed(SyncKind::Full, Duration::from_millis(3), now);
    metrics.sync.committed(SyncKind::Partial, Duration::from_millis(3), now);
    metrics.sync.failed();
    let text = metrics.render();
    for family in Family::BOTH {
        for line in [
            "sync_proxy_rules_duration_seconds_count{F} 2",
            "sync_full_proxy_rules_duration_seconds_count{F} 1",
            "sync_partial_proxy_rules_duration_seconds_count{F} 1",
            "sync_proxy_rules_last_timestamp_seconds{F} 1.5",
            "sync_proxy_rules_last_queued_timestamp_seconds{F} 1.5",
            "sync_proxy_rules_nftables_sync_failures_total{F} 1",
        ] {
            let line = line.replace("F", &format!("ip_family=\"{family}\""));
            assert!(has(&text, &format!("kubeproxy_{line}")), "{line}");
        }
    }
    assert!(has(&text, "kubeproxy_sync_proxy_rules_endpoint_changes_pending 0"));
    assert!(has(&text, "kubeproxy_sync_proxy_rules_endpoint_changes_total 3"));
    assert!(has(&text, "kubeproxy_sync_proxy_rules_service_changes_pending 0"));
}

#[test]
fn own_metrics_count() {
    let metrics = Metrics::new(&[Family::V6]);
    metrics.kernel.committed(5, Duration::from_micros(30));
    metrics.kernel.refused("transient", "EBUSY");
    metrics.kernel.rebuilt(Rebuild::Lost);
    metrics.kernel.elements("service-ips4").set(7);
    metrics.objects.problem(Kind::ServiceCidr);
    metrics.objects.set_health_check_ports(2, 1);
    metrics.sync.set_no_local_endpoints(TrafficPolicy::External, Family::V6, 4);
    let text = metrics.render();
    for line in [
        "kubeproxy_nftables_transaction_operations_bucket{le=\"4\"} 0",
        "kubeproxy_nftables_transaction_operations_bucket{le=\"16\"} 1",
        "kubeproxy_nftables_commit_duration_seconds_count 1",
        "kubeproxy_nftables_refused_transactions_total{class=\"transient\",errno=\"EBUSY\"} 1",
        "kubeproxy_nftables_table_rebuilds_total{reason=\"lost\"} 1",
        "kubeproxy_nftables_table_rebuilds_total{reason=\"drift\"} 0",
        "kubeproxy_nftables_elements{map=\"service-ips4\"} 7",
        "kubeproxy_object_problems_total{kind=\"ServiceCIDR\"} 1",
        "kubeproxy_health_check_node_ports{state=\"failed\"} 1",
        "kubeproxy_sync_proxy_rules_no_local_endpoints_total{ip_family=\"IPv6\",traffic_policy=\"external\"} 4",
    ] {
        assert!(has(&text, line), "{line}");
    }
}

#[test]
fn requests_are_counted_as_the_go_client_counts_them() {
    let metrics = Metrics::new(&[]);
    let (latency, throttled) = (Duration::from_millis(200), Duration::ZERO);
    metrics.client.answered("GET", "10.96.0.1:443", Some(200), latency, throttled);
    metrics.client.answered("GET", "10.96.0.1:443", None, latency, throttled);
    let text = metrics.render();
    let labels = "host=\"10.96.0.1:443\"";
    for line in [
        &format!("rest_client_requests_total{{code=\"200\",{labels},method=\"GET\"}} 1"),
        &format!("rest_client_requests_total{{code=\"<error>\",{labels},method=\"GET\"}} 1"),
        &format!("rest_client_request_duration_seconds_sum{{{labels},verb=\"GET\"}} 0.4"),
        &format!("rest_client_rate_limiter_duration_seconds_sum{{{labels},verb=\"GET\"}} 0"),
    ] {
        assert!(has(&text, line), "{line}");
    }
}

#[test]
fn build_and_features() {
    let metrics = Metrics::new(&[]);
    let info = BuildInfo { git_version: "v1.2.3".into(), major: "1".into(), ..Default::default() };
    metrics.set_build_info(&BuildInfo::default());
    metrics.set_build_info(&info);
    metrics.set_feature("NFTablesNetlink", FeatureStage::Beta, true);
    metrics.set_feature("Old", FeatureStage::Stable, false);
    let text = metrics.render();
    let infos: Vec<_> = text.lines().filter(|l| l.starts_with("kubernetes_build_info{")).collect();
    assert_eq!(infos.len(), 1);
    assert!(infos[0].contains("git_version=\"v1.2.3\"") && infos[0].ends_with(" 1"));
    assert!(has(&text, "kubernetes_feature_enabled{name=\"NFTablesNetlink\",stage=\"BETA\"} 1"));
    assert!(has(&text, "kubernetes_feature_enabled{name=\"Old\",stage=\"\"} 0"));
}

#[test]
fn process_metrics_are_read() {
    let text = Metrics::new(&[]).render();
    for name in [
        "process_cpu_seconds_total",
        "process_open_fds",
        "process_max_fds",
        "process_virtual_memory_bytes",
        "process_resident_memory_bytes",
        "process_start_time_seconds",
    ] {
        let value = text.lines().find_map(|l| l.strip_prefix(name)?.trim().parse::<f64>().ok());
        let value = value.unwrap_or_else(|| panic!("{name} is missing"));
        assert!(value >= 0.0, "{name} {value}");
    }
    let value = |name: &str| {
        text.lines().find_map(|l| l.strip_prefix(name)?.trim().parse::<f64>().ok()).unwrap()
    };
    assert!(value("process_resident_memory_bytes") > 100_000.0);
    assert!(value("process_start_time_seconds") > 1_000_000_000.0);
}

#[test]
fn scrape_hook_runs_before_the_text_is_made() {
    let metrics = Metrics::new(&[]);
    let services = metrics.objects.services.clone();
    metrics.on_scrape(move || services.set(42));
    assert!(has(&metrics.render(), "kubeproxy_services 42"));
}

#[test]
fn slis_are_apart() {
    let metrics = Metrics::new(&[]);
    metrics.probes.pinged();
    let text = metrics.render_slis();
    assert!(has(&text, "kubernetes_healthcheck{name=\"ping\",type=\"healthz\"} 1"));
    let line = "kubernetes_healthchecks_total{name=\"ping\",status=\"success\",type=\"healthz\"} 1";
    assert!(has(&text, line));
    assert!(!metrics.render().contains("kubernetes_healthcheck"));
}
