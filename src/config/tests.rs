//! The specification of flags and file together: defaults, precedence, checks, printing.

mod printing;

use super::*;
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

fn errors(fields: &str) -> Vec<String> {
    match resolve("", Some(&format!("{HEAD}{fields}"))) {
        Err(ConfigError::Invalid(errors)) => errors.iter().map(ToString::to_string).collect(),
        other => panic!("{fields}: {other:?}"),
    }
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
    assert_eq!(c.config_sync_period, Duration::from_secs(900));
    assert_eq!(c.oom_score_adj, -999);
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
    assert_eq!((c.client.qps, c.client.burst), (5.0, 10));
    assert_eq!(c.client.content_type, "application/vnd.kubernetes.protobuf");
    assert!(!c.masquerade_all && !c.profiling && !c.bind_address_hard_fail);
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
    let mut blank = flags("");
    blank.hostname_override = Some("  ".to_owned());
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
fn every_wrong_field_is_named_at_once() {
    let fields = "mode: userspace
bindAddress: nowhere
healthzBindAddress: host:0
metricsBindAddress: 1.2.3.4:99999
oomScoreAdj: 1001
configSyncPeriod: -1s
showHiddenMetricsForVersion: v1
iptables: {masqueradeBit: 32}
clientConnection: {burst: -1}
conntrack: {maxPerCore: -1, min: -2, tcpEstablishedTimeout: -1s, udpTimeout: -2s}
detectLocalMode: Guess
nodePortAddresses: [all, 10.0.0.0, all]
nftables: {syncPeriod: -1s, minSyncPeriod: -2s}
logging: {format: xml, flushFrequency: -1s, vmodule: [{filePattern: 'a=b', verbosity: 1}]}
";
    assert_eq!(
        errors(fields),
        [
            "mode: Unsupported value: \"userspace\": supported values: \
             \"iptables\", \"ipvs\", \"nftables\"",
            "nftables.syncPeriod: Invalid value: \"-1s\": must be greater than 0",
            "nftables.minSyncPeriod: Invalid value: \"-2s\": \
             must be greater than or equal to 0",
            "iptables.masqueradeBit: Invalid value: 32: must be within the range [0, 31]",
            "oomScoreAdj: Invalid value: 1001: must be within the range [-1000, 1000]",
            "configSyncPeriod: Invalid value: \"-1s\": must be greater than 0",
            "bindAddress: Invalid value: \"nowhere\": \
             not a valid textual representation of an IP address",
            "showHiddenMetricsForVersion: Invalid value: \"v1\": \
             must be a minor version such as 1.36",
            "healthzBindAddress: Invalid value: \"host\": must be a valid IP",
            "healthzBindAddress: Invalid value: \"0\": must be a valid port",
            "metricsBindAddress: Invalid value: \"99999\": must be a valid port",
            "detectLocalMode: Unsupported value: \"Guess\": supported values: \
             \"BridgeInterface\", \"ClusterCIDR\", \"InterfaceNamePrefix\", \"NodeCIDR\"",
            "nodePortAddresses[1]: Invalid value: \"10.0.0.0\": \
             must be a valid CIDR or one of the keywords 'primary', 'localhost', 'all'",
            "nodePortAddresses[2]: Duplicate value: \"all\"",
            "conntrack.maxPerCore: Invalid value: -1: must be greater than or equal to 0",
            "conntrack.min: Invalid value: -2: must be greater than or equal to 0",
            "conntrack.tcpEstablishedTimeout: Invalid value: \"-1s\": \
             must be greater than or equal to 0",
            "conntrack.udpTimeout: Invalid value: \"-2s\": must be greater than or equal to 0",
            "clientConnection.burst: Invalid value: -1: must be greater than or equal to 0",
            "logging.flushFrequency: Invalid value: \"-1s\": must be greater than 0",
            "logging.format: Unsupported value: \"xml\": supported values: \"json\", \"text\"",
            "logging.vmodule[0].filePattern: Invalid value: \"a=b\": \
             must be a name without equal sign or comma",
        ]
        .map(|line| format!("KubeProxyConfiguration.{line}"))
    );
}

#[test]
fn single_mistakes() {
    for (fields, expected) in [
        ("clusterCIDR: 10.0.0.0", "clusterCIDR: Invalid value: \"10.0.0.0\": must be a valid CIDR"),
        ("clusterCIDR: '10.0.0.0/8,11.0.0.0/8'", "clusterCIDR: Invalid value: \"10.0.0.0/8,11"),
        ("clusterCIDR: '10.0.0.0/8,fd00::/8,fd01::/16'", "clusterCIDR: Invalid value: \"10.0"),
        ("detectLocalMode: BridgeInterface", "detectLocal.bridgeInterface: Invalid value: \"\""),
        (
            "detectLocalMode: InterfaceNamePrefix",
            "detectLocal.interfaceNamePrefix: Invalid value: \"\": must not be empty",
        ),
        (
            "detectLocalMode: BridgeInterface\ndetectLocal: {bridgeInterface: bridge0123456789}",
            "detectLocal.bridgeInterface: Invalid value: \"bridge0123456789\": interface names",
        ),
        (
            "mode: nftables\nnftables: {syncPeriod: 1s, minSyncPeriod: 2s}",
            "nftables.syncPeriod: Invalid value: \"1s\": must be greater than or equal to \
             KubeProxyConfiguration.nftables.minSyncPeriod",
        ),
        (
            "mode: nftables\nnftables: {masqueradeBit: -1}",
            "nftables.masqueradeBit: Invalid value: -1",
        ),
        ("mode: ipvs\nipvs: {tcpTimeout: -1s}", "ipvs.tcpTimeout: Invalid value: \"-1s\""),
        ("mode: ipvs\nipvs: {excludeCIDRs: [x]}", "ipvs.excludeCIDRs[0]: Invalid value: \"x\""),
        ("healthzBindAddress: localhost", "healthzBindAddress: Invalid value: \"localhost\": must"),
        (
            "logging: {format: json, vmodule: [{filePattern: a, verbosity: 1}]}",
            "logging.vmodule: Forbidden: only supported for text log format",
        ),
    ] {
        let errors = errors(&format!("{fields}\n"));
        let [error] = &errors[..] else { panic!("{fields}: {errors:?}") };
        let expected = format!("KubeProxyConfiguration.{expected}");
        assert!(error.starts_with(&expected), "{fields}: {error}");
    }
}

#[test]
fn one_error_is_one_line_and_several_are_a_list() {
    let error = resolve("--oom-score-adj=2000", None).unwrap_err().to_string();
    assert_eq!(
        error,
        "invalid configuration: KubeProxyConfiguration.oomScoreAdj: Invalid value: 2000: \
         must be within the range [-1000, 1000]"
    );
    let error = resolve("--oom-score-adj=2000 --kube-api-burst=-1", None).unwrap_err().to_string();
    assert_eq!(error.lines().count(), 3, "{error}");
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
