//! The specification of flags and file together: defaults, precedence, checks, printing.

mod clusters;
mod mistakes;
mod printing;

use super::*;
use crate::model::Algorithm;
use nft_table::Family;
use std::time::Duration;

/// config.conf of kubeadm 1.36: every field is there, empty, zero or null where it is not set.
const KUBEADM: &str = include_str!("testdata/kubeadm-config.conf");
const HEAD: &str = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n";

fn flags(line: &str) -> Flags {
    Flags::read(std::iter::once("kube-proxy").chain(line.split_whitespace()))
        .unwrap_or_else(|error| panic!("{line}: {error}"))
}

fn file(content: &str) -> Option<LoadedFile> {
    Some(LoadedFile { path: "config.conf".into(), content: content.into() })
}

fn resolve(line: &str, content: Option<&str>) -> Result<Config, ConfigError> {
    let file = content.and_then(file);
    Config::resolve(&flags(line), file, || Ok("Host-1".to_owned()))
}

fn good(line: &str, content: Option<&str>) -> Config {
    resolve(line, content).unwrap_or_else(|error| panic!("{line}\n{content:?}\n{error}"))
}

/// A file with the head and these fields.
fn with(fields: &str) -> Config {
    good("", Some(&format!("{HEAD}{fields}")))
}

#[test]
fn kubeadms_file_is_taken_over_unchanged() {
    let c = good("--config=/var/lib/kube-proxy/config.conf --hostname-override=N1", Some(KUBEADM));
    assert_eq!(c.action, Action::Run);
    let path = PathBuf::from("/var/lib/kube-proxy/kubeconfig.conf");
    assert_eq!(c.source, Source::Kubeconfig { path, master: None });
    assert_eq!(c.node_name, "n1");
    assert_eq!(c.mode, ProxyMode::Iptables);
    assert_eq!(c.node_ip_override, None);
    assert_eq!(c.healthz_bind_address, Some("0.0.0.0:10256".parse().unwrap()));
    assert_eq!(c.metrics_bind_address, Some("127.0.0.1:10249".parse().unwrap()));
    let v4 = Some("10.244.0.0/16".parse().unwrap());
    assert_eq!(c.detect_local, DetectLocal::ClusterCidr { v4, v6: None });
    assert_eq!(c.node_port_addresses.entries(), [NodePortAddress::Primary]);
    assert_eq!(c.sync_period, Duration::from_secs(30));
    assert_eq!(c.min_sync_period, Duration::ZERO);
    assert_eq!(c.document.config_sync_period, GoDuration::from_secs(900));
    assert_eq!(c.document.oom_score_adj, Some(-999));
    assert_eq!(
        c.conntrack,
        Conntrack {
            max_per_core: Some(32768),
            min: 131_072,
            tcp_established_timeout: Some(Duration::from_secs(86_400)),
            tcp_close_wait_timeout: Some(Duration::from_secs(3600)),
            tcp_be_liberal: false,
            udp_timeout: None,
            udp_stream_timeout: None,
        }
    );
    let client = &c.document.client_connection;
    assert_eq!((client.qps, client.burst), (5.0, 10));
    assert_eq!(client.content_type, "application/vnd.kubernetes.protobuf");
    assert!(!c.masquerade_all);
    assert!(!c.document.enable_profiling && !c.document.bind_address_hard_fail);
    let [warning] = &c.warnings[..] else { panic!("{:?}", c.warnings) };
    assert!(warning.starts_with("no mode is set") && warning.contains("NodePorts"), "{warning}");
}

#[test]
fn a_file_without_fields_and_no_file_at_all_mean_the_same() {
    let file = good("", Some(HEAD));
    let none = good("", None);
    assert_eq!(file.document, none.document);
    assert_eq!(none.source, Source::InCluster);
    assert_eq!(none.node_name, "host-1");
    assert_eq!(none.detect_local, DetectLocal::ClusterCidr { v4: None, v6: None });
}

#[test]
fn only_a_specific_bind_address_stands_for_the_nodes_own() {
    for (bind, expected) in
        [("0.0.0.0", None), ("::", None), ("fd00::1", Some("fd00::1")), ("", None)]
    {
        let expected = expected.map(|ip| ip.parse().unwrap());
        assert_eq!(good(&format!("--bind-address={bind}"), None).node_ip_override, expected);
    }
}

#[test]
fn files_on_disk_need_no_mode() {
    let c = good("--manifests /etc/services", None);
    assert_eq!(c.source, Source::Manifests("/etc/services".into()));
    assert_eq!(c.mode, ProxyMode::Nftables);
    assert_eq!(c.warnings, Vec::<String>::new());
    let c = good("--manifests d --proxy-mode iptables", None);
    assert_eq!(c.warnings.len(), 1);
    let c = good("--manifests d", Some(HEAD));
    assert_eq!(c.source, Source::Manifests("d".into()));
    assert_eq!(c.warnings.len(), 1);
}

#[test]
fn flags_and_file_say_the_same_things() {
    let line = "--proxy-mode=nftables --masquerade-all --iptables-sync-period=1m \
        --iptables-min-sync-period 2s --cluster-cidr=10.0.0.0/8,fd00::/48 \
        --nodeport-addresses=10.0.0.0/8,localhost --bind-address=10.1.1.1 \
        --healthz-bind-address=10.1.1.1 --metrics-bind-address=[::1]:99 --bind-address-hard-fail \
        --profiling --oom-score-adj=-5 --conntrack-max-per-core=0 --conntrack-min=7 \
        --conntrack-tcp-timeout-established=0s --conntrack-tcp-timeout-close-wait=5s \
        --conntrack-tcp-be-liberal --conntrack-udp-timeout=6s --conntrack-udp-timeout-stream=7s \
        --config-sync-period=1h --kubeconfig=/k --kube-api-qps=1.5 --kube-api-burst=3 \
        --kube-api-content-type=application/json --feature-gates=AllowServiceExternalIPs=false \
        --show-hidden-metrics-for-version=1.36 -v=4 --logging-format=json";
    let fields = "mode: nftables
nftables: {masqueradeAll: true, syncPeriod: 1m, minSyncPeriod: 2s}
clusterCIDR: 10.0.0.0/8,fd00::/48
nodePortAddresses: [10.0.0.0/8, localhost]
bindAddress: 10.1.1.1
healthzBindAddress: 10.1.1.1
metricsBindAddress: '[::1]:99'
bindAddressHardFail: true
enableProfiling: true
oomScoreAdj: -5
conntrack:
  maxPerCore: 0
  min: 7
  tcpEstablishedTimeout: 0s
  tcpCloseWaitTimeout: 5s
  tcpBeLiberal: true
  udpTimeout: 6s
  udpStreamTimeout: 7s
configSyncPeriod: 1h
clientConnection: {kubeconfig: /k, qps: 1.5, burst: 3, contentType: application/json}
featureGates: {AllowServiceExternalIPs: false}
showHiddenMetricsForVersion: '1.36'
logging: {verbosity: 4, format: json}
";
    let (flags, file) = (good(line, None), with(fields));
    assert_eq!(flags.document, file.document);
    assert_eq!(Config { file: None, ..file }, flags);
    assert_eq!(flags.warnings, Vec::<String>::new());
    assert_eq!(flags.conntrack.max_per_core, None);
    assert_eq!(flags.conntrack.tcp_established_timeout, None);
    assert_eq!(flags.node_ip_override, Some("10.1.1.1".parse().unwrap()));
    assert_eq!(flags.healthz_bind_address, Some("10.1.1.1:10256".parse().unwrap()));
    assert!(flags.node_port_addresses.localhost(Family::V6));
    assert!(!flags.feature_gates.enabled(ALLOW_SERVICE_EXTERNAL_IPS));
    assert_eq!(flags.logging.format, LogFormat::Json);
}

#[test]
fn the_file_wins_except_over_a_few_flags() {
    let content = format!(
        "{HEAD}mode: nftables\nhostnameOverride: from-file\nlogging: {{verbosity: 1, vmodule: \
         [{{filePattern: sync, verbosity: 2}}]}}\nclientConnection: {{kubeconfig: /file}}\n"
    );
    let line = "--config f --cluster-cidr=10.0.0.0/8 --masquerade-all --kubeconfig=/flag \
        --feature-gates=X=true --hostname-override=From-Flag --master=https://m -v 5 \
        --vmodule=kernel=6";
    let c = good(line, Some(&content));
    assert_eq!(c.detect_local, DetectLocal::ClusterCidr { v4: None, v6: None });
    assert!(!c.masquerade_all);
    assert!(!c.feature_gates.enabled("X"));
    assert_eq!(c.node_name, "from-flag");
    let master = Some("https://m".to_owned());
    assert_eq!(c.source, Source::Kubeconfig { path: "/file".into(), master });
    assert_eq!(c.logging.verbosity, 5);
    assert!(c.logging.filter().ends_with("kube_proxy::kernel=trace,kube_proxy::sync=info"));
    assert_eq!(
        c.warnings,
        ["without effect because --config is given (set them there): \
          --cluster-cidr, --feature-gates, --kubeconfig, --masquerade-all"]
    );
    assert_eq!(good("", Some(&content)).node_name, "from-file");
}

#[test]
fn sources_and_actions() {
    for (line, expected) in [
        ("", Source::InCluster),
        ("--master=u", Source::Master("u".to_owned())),
        ("--kubeconfig=k", Source::Kubeconfig { path: "k".into(), master: None }),
        ("--kubeconfig=k --manifests=d", Source::Manifests("d".into())),
    ] {
        assert_eq!(good(line, None).source, expected, "{line}");
    }
    for (line, expected) in [
        ("", Action::Run),
        ("--cleanup --init-only", Action::Cleanup),
        ("--cleanup=false --init-only", Action::InitOnly),
        ("--cleanup --write-config-to=f", Action::WriteConfig("f".into())),
    ] {
        assert_eq!(good(line, None).action, expected, "{line}");
    }
}

#[test]
fn node_names_are_checked() {
    assert!(matches!(
        Config::resolve(&flags(""), None, || Ok(" ".to_owned())),
        Err(ConfigError::EmptyHostName)
    ));
    let blank = Flags::read(["kube-proxy", "--hostname-override", "  "]).unwrap();
    let error = Config::resolve(&blank, None, || Ok("n".to_owned())).unwrap_err();
    assert!(matches!(error, ConfigError::EmptyHostName));
}

#[test]
fn ports_of_old_flags_only_fill_in() {
    for (line, healthz, metrics) in [
        ("--healthz-port=1 --metrics-port=2", Some("0.0.0.0:10256"), Some("127.0.0.1:10249")),
        (
            "--healthz-port=1 --healthz-bind-address=1.1.1.1 --metrics-port=2 \
             --metrics-bind-address=1.1.1.1:9",
            Some("1.1.1.1:1"),
            Some("1.1.1.1:9"),
        ),
        ("--healthz-port=0 --metrics-port=0", None, None),
        ("--healthz-bind-address= --bind-address=fd00::1", Some("[::]:10256"), Some("[::1]:10249")),
    ] {
        let c = good(line, None);
        assert_eq!(c.healthz_bind_address, healthz.map(|a| a.parse().unwrap()), "{line}");
        assert_eq!(c.metrics_bind_address, metrics.map(|a| a.parse().unwrap()), "{line}");
        assert_eq!(c.warnings.len(), 1 + usize::from(line.contains("-port")), "{line}");
    }
}

#[test]
fn settings_come_from_the_section_of_the_mode() {
    let sections = "nftables: {syncPeriod: 1s, minSyncPeriod: 100ms}\n\
        iptables: {masqueradeAll: true, syncPeriod: 2s, minSyncPeriod: 200ms}\n\
        ipvs: {syncPeriod: 3s, minSyncPeriod: 300ms}\n";
    for (mode, number, all) in
        [("nftables", 1, false), ("iptables", 2, true), ("''", 2, true), ("ipvs", 3, true)]
    {
        let c = with(&format!("mode: {mode}\n{sections}"));
        assert_eq!(c.sync_period, Duration::from_secs(number), "{mode}");
        assert_eq!(c.min_sync_period, Duration::from_millis(100 * number), "{mode}");
        assert_eq!(c.masquerade_all, all, "{mode}");
        assert_eq!(c.warnings.len(), usize::from(mode != "nftables"), "{mode}");
    }
}

#[test]
fn schedulers_of_ipvs_have_a_counterpart_or_a_word() {
    for (document, expected, says) in [
        ("mode: ipvs\nipvs: {scheduler: sh}\n", Algorithm::HashClient, false),
        ("mode: ipvs\nipvs: {scheduler: mh}\n", Algorithm::HashClient, false),
        ("mode: ipvs\nipvs: {scheduler: rr}\n", Algorithm::RoundRobin, false),
        ("mode: ipvs\nipvs: {scheduler: wrr}\n", Algorithm::RoundRobin, false),
        ("mode: ipvs\nipvs: {scheduler: wlc}\n", Algorithm::Random, true),
        ("mode: ipvs\n", Algorithm::Random, false),
        ("mode: nftables\nipvs: {scheduler: sh}\n", Algorithm::Random, false),
    ] {
        let c = with(document);
        let said = c.warnings.iter().any(|warning| warning.contains("ipvs.scheduler"));
        assert_eq!((c.balancing, said), (expected, says), "{document}");
    }
}

#[test]
fn the_mode_warning_speaks_of_node_ports_only_where_they_are_unset() {
    for (fields, unset) in
        [("mode: ipvs\n", true), ("mode: iptables\nnodePortAddresses: [all]\n", false)]
    {
        let c = with(fields);
        let [warning] = &c.warnings[..] else { panic!("{:?}", c.warnings) };
        assert_eq!(warning.contains("NodePorts answer on"), unset, "{warning}");
    }
}

#[test]
fn detectors() {
    let prefix = |name: &str| DetectLocal::InterfaceNamePrefix(name.to_owned());
    for (fields, expected) in [
        ("detectLocalMode: NodeCIDR\nclusterCIDR: nonsense\n", DetectLocal::NodeCidr),
        (
            "detectLocalMode: BridgeInterface\ndetectLocal: {bridgeInterface: cni0}\n",
            DetectLocal::BridgeInterface("cni0".to_owned()),
        ),
        (
            "detectLocalMode: InterfaceNamePrefix\ndetectLocal: {interfaceNamePrefix: veth}\n",
            prefix("veth"),
        ),
        (
            "clusterCIDR: fd00::1/48\n",
            DetectLocal::ClusterCidr { v4: None, v6: Some("fd00::/48".parse().unwrap()) },
        ),
    ] {
        assert_eq!(with(&format!("mode: nftables\n{fields}")).detect_local, expected, "{fields}");
    }
}

#[test]
fn odd_fields_make_one_warning_and_unknown_gates_another() {
    let c = with(
        "mode: nftables\nudpIdleTimeout: 1s\nresourceContainer: x\nfeatureGates: {Odd: true}\n",
    );
    assert_eq!(
        c.warnings,
        [
            "configuration file config.conf read leniently: \
             unknown field \"resourceContainer\"; unknown field \"udpIdleTimeout\"",
            "featureGates: not known here and without effect: Odd",
        ]
    );
}
