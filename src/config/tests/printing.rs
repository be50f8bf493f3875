//! What is printed for `--write-config-to` and /configz, and that it reads back.

use super::*;

/// What is written is read back as the same configuration, and written again as the same text.
#[test]
fn a_written_file_means_the_same_when_it_is_read() {
    for (line, content) in [
        ("", None),
        ("--manifests d", None),
        ("--proxy-mode=nftables --masquerade-all --iptables-sync-period=1m", None),
        ("--proxy-mode=nftables --iptables-min-sync-period=2s --nodeport-addresses=all", None),
        (
            "--proxy-mode=ipvs --masquerade-all --ipvs-sync-period=5s --ipvs-exclude-cidrs=::/0",
            None,
        ),
        ("--proxy-mode=iptables --masquerade-all --iptables-masquerade-bit=3", None),
        ("--feature-gates=A=true,ContextualLogging=false --vmodule=sync=4 -v2", None),
        ("--hostname-override=N --bind-address=fd00::1 --kube-api-qps=2.5", None),
        ("", Some(KUBEADM.to_owned())),
        ("", Some(format!("{HEAD}windowsRunAsService: true\nwinkernel: {{enableDSR: true}}\n"))),
        ("", Some(format!("{HEAD}logging: {{options: {{json: {{splitStream: true}}}}}}\n"))),
    ] {
        let first = good(line, content.as_deref());
        let yaml = first.to_yaml();
        let second = good("", Some(&yaml));
        assert_eq!(second.to_yaml(), yaml, "{line}");
        let source = match first.source {
            Source::Manifests(_) => Source::InCluster,
            ref other => other.clone(),
        };
        let (file, warnings) = (second.file.clone(), second.warnings.clone());
        let document = second.document.clone();
        assert_eq!(second, Config { source, file, warnings, document, ..first }, "{line}\n{yaml}");
        assert!(yaml.ends_with('\n') && !yaml.ends_with("\n\n"));
    }
}

/// Zero in a file means that a field is not set. Where a flag says it and means it, that is told.
#[test]
fn a_zero_from_the_command_line_is_read_again_or_told_to_be_lost() {
    let mut lost = Vec::new();
    for name in flags("").in_effect().keys() {
        for line in ["", "0", "0s"].map(|zero| format!("--{name}={zero}")) {
            let Ok(flags) = Flags::read(["kube-proxy", &line]) else { continue };
            let config = Config::resolve(&flags, None, || Ok("host".to_owned()));
            let Ok(config) = config else { continue };
            let yaml = config.to_yaml();
            match config.lost_in_a_file().as_slice() {
                [] => assert_eq!(good("", Some(&yaml)).to_yaml(), yaml, "{line}"),
                fields => lost.push(format!("{line} {}", fields.join(" "))),
            }
        }
    }
    let expected = [
        "--healthz-port=0 healthzBindAddress",
        "--kube-api-burst=0 clientConnection.burst",
        "--kube-api-content-type= clientConnection.contentType",
        "--kube-api-qps=0 clientConnection.qps",
        "--log-json-info-buffer-size= logging.options.json.infoBufferSize",
        "--log-text-info-buffer-size= logging.options.text.infoBufferSize",
        "--metrics-port=0 metricsBindAddress",
    ];
    assert_eq!(lost, expected);
}

#[test]
fn periods_are_printed_in_the_section_of_the_mode_only() {
    let sections = "nftables: {masqueradeAll: true, syncPeriod: 1s, minSyncPeriod: 100ms}\n\
        iptables: {masqueradeAll: true, syncPeriod: 2s, minSyncPeriod: 200ms}\n\
        ipvs: {syncPeriod: 3s, minSyncPeriod: 300ms}\n";
    for (mode, nftables, iptables, ipvs) in [
        ("nftables", "true 1s 100ms", "false 0s 0s", "0s 0s"),
        ("iptables", "false 0s 0s", "true 2s 200ms", "0s 0s"),
        ("ipvs", "false 0s 0s", "true 0s 0s", "3s 300ms"),
    ] {
        let configz = with(&format!("mode: {mode}\n{sections}")).configz();
        let object = &configz["kubeproxy.config.k8s.io"];
        let print = |section: &str, fields: &[&str]| {
            let values = fields.iter().map(|field| match &object[section][field] {
                serde_json::Value::String(text) => text.clone(),
                other => other.to_string(),
            });
            values.collect::<Vec<_>>().join(" ")
        };
        let all = ["masqueradeAll", "syncPeriod", "minSyncPeriod"];
        assert_eq!(print("nftables", &all), nftables, "{mode}");
        assert_eq!(print("iptables", &all), iptables, "{mode}");
        assert_eq!(print("ipvs", &all[1..]), ipvs, "{mode}");
    }
}

/// Field by field what kube-proxy 1.36 writes for `--proxy-mode=nftables`, minSyncPeriod apart.
#[test]
fn defaults_are_printed_as_kube_proxy_prints_them() {
    let written = good("--proxy-mode=nftables", None).to_yaml();
    let expected = include_str!("../testdata/defaults.yaml");
    assert_eq!(written, expected);
    let configz = good("--proxy-mode=nftables", None).configz();
    let object = &configz["kubeproxy.config.k8s.io"];
    assert_eq!(object["kind"], "KubeProxyConfiguration");
    assert_eq!(object["apiVersion"], "kubeproxy.config.k8s.io/v1alpha1");
    assert_eq!(object["nftables"]["minSyncPeriod"], "0s");
    assert_eq!(object["clientConnection"]["qps"], 5);
}

#[test]
fn files_are_read_and_written_where_they_are() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("config.conf");
    let path_text = path.to_str().unwrap();
    let missing = Config::load(&flags(&format!("--config {path_text}"))).unwrap_err();
    assert!(missing.to_string().starts_with("cannot read the configuration file"), "{missing}");

    let config = good(&format!("--write-config-to {path_text} --cluster-cidr=10.0.0.0/8"), None);
    let Action::WriteConfig(target) = &config.action else { panic!("{:?}", config.action) };
    config.write_to(target).unwrap();
    let loaded =
        Config::load(&flags(&format!("--config {path_text} --hostname-override=n"))).unwrap();
    assert_eq!(loaded.detect_local, config.detect_local);
    assert!(!loaded.file.as_ref().unwrap().has_changed());

    std::fs::write(&path, format!("{HEAD}nftables: {{syncPeriod: soon}}\n")).unwrap();
    assert!(loaded.file.unwrap().has_changed());
    let error = Config::load(&flags(&format!("--config {path_text}"))).unwrap_err().to_string();
    assert!(error.contains("config.conf: nftables.syncPeriod: invalid duration"), "{error}");
    let nowhere = config.write_to(&directory.path().join("no/such")).unwrap_err().to_string();
    assert!(nowhere.starts_with("cannot write the configuration to"), "{nowhere}");
}
