//! The command line as Go reads it.

use super::*;

fn read(line: &str) -> Result<Flags, clap::Error> {
    Flags::read(std::iter::once("kube-proxy").chain(line.split_whitespace()))
}

fn good(line: &str) -> Flags {
    read(line).unwrap_or_else(|error| panic!("{line}: {error}"))
}

#[test]
fn the_command_is_well_formed() {
    Flags::cli().debug_assert();
}

#[test]
fn values_stand_behind_a_blank_or_an_equals_sign() {
    for line in ["--hostname-override=n1", "--hostname-override n1", "--hostname_override=n1"] {
        assert_eq!(good(line).document.hostname_override, "n1", "{line}");
    }
    assert_eq!(good("--hostname-override=a_b").document.hostname_override, "a_b");
    assert_eq!(good("--oom-score-adj -5").document.oom_score_adj, Some(-5));
    assert_eq!(good("--oom-score-adj=-5").document.oom_score_adj, Some(-5));
}

#[test]
fn a_flag_that_is_gone_is_said_to_be_gone() {
    for (line, expected) in [
        ("--logtostderr", "--logtostderr is gone from kube-proxy: logs go to"),
        ("--log_dir=/x", "--log-dir is gone from kube-proxy: logs go to"),
        ("--cleanup-ipvs=false", "gone from kube-proxy: use --cleanup, and leave it out"),
        ("-v2 --udp-timeout 3s", "--udp-timeout is gone"),
        ("--bind-adress=::", "'--bind-address'"),
    ] {
        let error = read(line).expect_err("refused").to_string();
        assert!(error.contains(expected), "{line}: {error}");
    }
}

#[test]
fn booleans_take_no_separate_value() {
    for (line, expected) in [
        ("", None),
        ("--cleanup", Some(true)),
        ("--cleanup=true", Some(true)),
        ("--cleanup=1", Some(true)),
        ("--cleanup=F", Some(false)),
    ] {
        assert_eq!(good(line).cleanup, expected, "{line}");
    }
    assert!(read("--cleanup true").is_err());
    assert!(read("--cleanup=maybe").is_err());
    assert_eq!(good("--cleanup --master u").master.as_deref(), Some("u"));
}

#[test]
fn verbosity_has_four_spellings() {
    for line in ["-v=4", "-v 4", "-v4", "--v=4", "--v 4"] {
        assert_eq!(good(line).document.logging.verbosity, 4, "{line}");
    }
}

#[test]
fn the_last_of_repeated_flags_counts_but_lists_grow() {
    assert_eq!(good("--master a --master b").master.as_deref(), Some("b"));
    assert_eq!(good("--cleanup --cleanup=false").cleanup, Some(false));
    let flags = good("--nodeport-addresses=10.0.0.0/8,localhost --nodeport-addresses ::/0");
    assert_eq!(flags.document.node_port_addresses.unwrap(), ["10.0.0.0/8", "localhost", "::/0"]);
    let gates = good("--feature-gates=A=true,B=false --feature-gates C=t").feature_gates;
    assert_eq!(gates.iter().map(|gates| gates.len()).sum::<usize>(), 3);
}

#[test]
fn usage_errors_name_the_flag() {
    for (line, expected) in [
        ("positional", "positional"),
        ("--no-such-flag", "--no-such-flag"),
        ("--bind-address=x", "--bind-address"),
        ("--healthz-bind-address=1.2.3.4:x", "--healthz-bind-address"),
        ("--conntrack-udp-timeout=5", "missing unit"),
        ("--feature-gates=A", "NAME=true"),
        ("--feature-gates=A=x", "true or false"),
        ("--vmodule=a", "NAME=N"),
        ("--healthz-port=70000", "--healthz-port"),
    ] {
        let error = read(line).expect_err(line).to_string();
        assert!(error.contains(expected), "{line}: {error}");
    }
}

#[test]
fn help_is_grouped_and_names_every_flag() {
    let error = read("--help").unwrap_err();
    assert_eq!(error.exit_code(), 0);
    let help = error.to_string();
    for text in ["Source:", "Actions:", "Traffic:", "--manifests", "--vmodule", "--ipvs-strict-arp"]
    {
        assert!(help.contains(text), "{text} is not in:\n{help}");
    }
}

#[test]
fn flags_in_effect_are_those_typed_and_the_defaults() {
    let flags = good("--cluster-cidr 10.0.0.0/8 --cleanup --nodeport-addresses=a,b -v2 --v=3");
    let values = flags.in_effect();
    for (name, expected) in [
        ("cluster-cidr", "10.0.0.0/8"),
        ("cleanup", "true"),
        ("init-only", "false"),
        ("nodeport-addresses", "a,b"),
        ("v", "3"),
        ("oom-score-adj", "-999"),
        ("healthz-bind-address", "0.0.0.0:10256"),
        ("hostname-override", ""),
        ("ipvs-scheduler", ""),
    ] {
        assert_eq!(values.get(name).map(String::as_str), Some(expected), "{name}");
    }
    assert!(!values.contains_key("help"));
}

/// An id that leads nowhere would have no default.
#[test]
fn all_flags_are_places_of_the_document() {
    let mut document = KubeProxyConfiguration::defaults();
    // What is not written where it is empty.
    document.logging.vmodule.push(VModuleItem::default());
    document.logging.options.text.split_stream = true;
    document.logging.options.json.split_stream = true;
    document.feature_gates.insert("A".to_owned(), true);
    let document = serde_json::to_value(document).unwrap();
    let command = Flags::cli();
    let ids = command.get_arguments().map(|arg| arg.get_id().as_str());
    let places = ids.filter(|id| id.starts_with('/') && !id.ends_with("/port"));
    let mut count = 0;
    for place in places {
        assert!(document.pointer(place).is_some(), "{place} is not in {document:#}");
        count += 1;
    }
    assert!(count > 40, "{count}");
}

#[test]
fn flags_in_effect_have_the_documents_defaults() {
    let flags = good("");
    let values = flags.in_effect();
    for (name, expected) in [
        ("bind-address", "0.0.0.0"),
        ("config-sync-period", "15m0s"),
        ("iptables-localhost-nodeports", "true"),
        ("iptables-masquerade-bit", "14"),
        ("log-flush-frequency", "5s"),
        ("log-json-split-stream", "false"),
        ("nodeport-addresses", "primary"),
        ("proxy-mode", ""),
        ("v", "0"),
    ] {
        assert_eq!(values.get(name).map(String::as_str), Some(expected), "{name}");
    }
}

#[test]
fn flags_without_effect_are_named_once_and_only_where_they_are_given() {
    assert_eq!(good("--masquerade-all").without_effect(), None);
    let flags = good("--ipvs-scheduler=rr --config f --boot-id-file=b -v2");
    assert_eq!(
        flags.without_effect().unwrap(),
        "accepted for compatibility, without effect: \
         --boot-id-file, --ipvs-scheduler"
    );
    assert_eq!(flags.overridden_warning(), None);
}

#[test]
fn the_version_is_printed_on_request() {
    for (line, expected) in
        [("", None), ("--version=false", None), ("--version=raw", Some(env!("CARGO_PKG_VERSION")))]
    {
        assert_eq!(good(line).version_text().as_deref(), expected, "{line}");
    }
    let text = good("--version").version_text().unwrap();
    assert!(text.starts_with("kube-proxy ") && text.lines().count() == 1, "{text}");
}

/// Every flag that Kubernetes 1.31 to 1.38 registers on Linux.
#[test]
fn all_of_kube_proxys_flags_are_there() {
    let names = "bind-address bind-address-hard-fail boot-id-file cleanup cluster-cidr config \
        config-sync-period conntrack-max-per-core conntrack-min conntrack-tcp-be-liberal \
        conntrack-tcp-timeout-close-wait conntrack-tcp-timeout-established conntrack-udp-timeout \
        conntrack-udp-timeout-stream detect-local-mode feature-gates healthz-bind-address \
        healthz-port help hostname-override init-only iptables-localhost-nodeports \
        iptables-masquerade-bit iptables-min-sync-period iptables-sync-period ipvs-exclude-cidrs \
        ipvs-min-sync-period ipvs-scheduler ipvs-strict-arp ipvs-sync-period ipvs-tcp-timeout \
        ipvs-tcpfin-timeout ipvs-udp-timeout kube-api-burst kube-api-content-type kube-api-qps \
        kubeconfig log-flush-frequency log-json-info-buffer-size log-json-split-stream \
        log-text-info-buffer-size log-text-split-stream logging-format machine-id-file \
        masquerade-all master metrics-bind-address metrics-port nodeport-addresses oom-score-adj \
        pod-bridge-interface pod-interface-name-prefix profiling proxy-mode \
        show-hidden-metrics-for-version v version vmodule write-config-to";
    let command = Flags::cli();
    let ours: Vec<&str> = command.get_arguments().filter_map(|arg| arg.get_long()).collect();
    for name in names.split_whitespace() {
        assert!(ours.contains(&name), "--{name} is missing");
    }
}
