use super::*;

#[test]
fn an_empty_file_gets_every_default() {
    let mut c = KubeProxyConfiguration::default();
    c.apply_defaults();
    assert_eq!(c.bind_address, "0.0.0.0");
    assert_eq!(c.healthz_bind_address, "0.0.0.0:10256");
    assert_eq!(c.metrics_bind_address, "127.0.0.1:10249");
    assert_eq!(c.oom_score_adj, Some(-999));
    assert_eq!(c.nftables.masquerade_bit, Some(14));
    assert_eq!(c.nftables.sync_period.to_string(), "30s");
    assert_eq!(c.nftables.min_sync_period.to_string(), "0s");
    assert_eq!(c.config_sync_period.to_string(), "15m0s");
    assert_eq!(c.conntrack.max_per_core, Some(32768));
    assert_eq!(c.conntrack.min, Some(131_072));
    assert_eq!(c.conntrack.tcp_established_timeout.unwrap().to_string(), "24h0m0s");
    assert_eq!(c.conntrack.tcp_close_wait_timeout.unwrap().to_string(), "1h0m0s");
    assert_eq!((c.client_connection.qps, c.client_connection.burst), (5.0, 10));
    assert_eq!(c.logging.format, "text");
    assert_eq!(c.logging.flush_frequency.to_string(), "5s");
}

#[test]
fn server_addresses_follow_the_bind_address() {
    for (bind, healthz, metrics) in [
        ("10.0.0.1", "0.0.0.0:10256", "127.0.0.1:10249"),
        ("::", "[::]:10256", "[::1]:10249"),
        ("fd00::1", "[::]:10256", "[::1]:10249"),
    ] {
        let mut c = KubeProxyConfiguration { bind_address: bind.to_owned(), ..Default::default() };
        c.apply_defaults();
        assert_eq!((&*c.healthz_bind_address, &*c.metrics_bind_address), (healthz, metrics));
    }
}

#[test]
fn a_port_is_appended_where_it_is_missing() {
    let mut c = KubeProxyConfiguration {
        healthz_bind_address: "fd00::1".to_owned(),
        metrics_bind_address: "10.0.0.1:9999".to_owned(),
        ..Default::default()
    };
    c.apply_defaults();
    assert_eq!(c.healthz_bind_address, "[fd00::1]:10256");
    assert_eq!(c.metrics_bind_address, "10.0.0.1:9999");
}

#[test]
fn explicit_zeros_of_pointer_fields_stay() {
    let mut c = KubeProxyConfiguration::default();
    c.conntrack.max_per_core = Some(0);
    c.conntrack.tcp_established_timeout = Some(GoDuration::ZERO);
    c.oom_score_adj = Some(0);
    c.apply_defaults();
    assert_eq!(c.conntrack.max_per_core, Some(0));
    assert_eq!(c.conntrack.tcp_established_timeout, Some(GoDuration::ZERO));
    assert_eq!(c.oom_score_adj, Some(0));
}
