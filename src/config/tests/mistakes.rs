//! What is wrong with a configuration, and how that is said.

use super::*;

fn errors(fields: &str) -> Vec<String> {
    match resolve("", Some(&format!("{HEAD}{fields}"))) {
        Err(ConfigError::Invalid(errors)) => errors.iter().map(ToString::to_string).collect(),
        other => panic!("{fields}: {other:?}"),
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
