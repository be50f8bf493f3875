//! Files as distributions and people have them.

use super::*;

/// What becomes of a file of `testdata/clusters`.
enum Outcome {
    /// It is taken, with these words in the warnings besides those about the mode.
    Taken(&'static [&'static str]),
    /// It is refused with these words in the error.
    Refused(&'static [&'static str]),
}
use Outcome::{Refused, Taken};

macro_rules! file {
    ($name:literal) => {
        ($name, include_bytes!(concat!("../testdata/clusters/", $name, ".yaml")) as &[u8])
    };
}

const FILES: [((&str, &[u8]), Outcome); 20] = [
    (file!("case-wrong"), Taken(&["\"MetricsBindAddress\"", "\"clusterCidr\""])),
    (file!("cidr-two-v4"), Refused(&["clusterCIDR", "dual-stack pair"])),
    (file!("crlf"), Taken(&[])),
    (file!("crlf-bom"), Taken(&[])),
    (file!("duration-number"), Refused(&["nftables.syncPeriod", "`30`"])),
    (file!("eks-addon"), Taken(&[])),
    (file!("gates-removed"), Taken(&["IPv6DualStack", "SupportIPVSProxyMode"])),
    (file!("ipv6-only"), Taken(&[])),
    (file!("k0s"), Taken(&["\"udpIdleTimeout\"", "EndpointSliceProxying"])),
    (file!("kind"), Taken(&[])),
    (file!("kubeadm-1.14"), Taken(&["\"resourceContainer\"", "\"udpIdleTimeout\""])),
    (file!("kubeadm-1.28"), Taken(&[])),
    (file!("kubeadm-multi-doc"), Refused(&["\"ClusterConfiguration\"", "KubeProxyConfiguration"])),
    (file!("merge-keys"), Taken(&[])),
    (file!("minsync-bigger-than-sync"), Refused(&["nftables.syncPeriod", "minSyncPeriod"])),
    (file!("nodeport-bare-ip"), Refused(&["nodePortAddresses[0]", "\"10.0.0.5\""])),
    (file!("nodeport-null"), Taken(&[])),
    (file!("old-componentconfig"), Refused(&["\"componentconfig/v1alpha1\"", "kubeproxy.config"])),
    (file!("tabs"), Refused(&["line 5 column 1"])),
    (file!("userspace"), Refused(&["mode", "\"userspace\"", "\"nftables\""])),
];

#[test]
fn files_of_clusters_are_taken_or_refused_with_the_field() {
    for ((name, content), outcome) in FILES {
        let content = str::from_utf8(content).expect("UTF-8");
        match (resolve("", Some(content)), outcome) {
            (Ok(config), Taken(words)) => {
                let warnings = config.warnings.join("\n");
                words
                    .iter()
                    .for_each(|word| assert!(warnings.contains(word), "{name}: {warnings}"));
                let about = |line: &&String| !line.contains("mode is");
                let others = config.warnings.iter().filter(about).count();
                assert_eq!(others > 0, !words.is_empty(), "{name}: {warnings}");
            }
            (Err(error), Refused(words)) => {
                let error = error.to_string();
                words.iter().for_each(|word| assert!(error.contains(word), "{name}: {error}"));
            }
            (outcome, _) => panic!("{name}: {outcome:?}"),
        }
    }
}

/// A line end of Windows and a byte order mark change nothing.
#[test]
fn line_ends_and_a_byte_order_mark_change_nothing() {
    let [plain, marked] =
        ["\n", "\r\n"].map(|end| format!("{HEAD}mode: nftables\n").replace('\n', end));
    let marked = good("", Some(&format!("\u{feff}{marked}")));
    assert_eq!(good("", Some(&plain)).document, marked.document);
}

#[test]
fn merge_keys_bring_fields_that_are_not_there() {
    let base = "iptables: &d {syncPeriod: 10s, minSyncPeriod: 2s}\nipvs: &e {minSyncPeriod: 3s, scheduler: rr}\n";
    for (section, expected) in [
        ("nftables: {<<: *d, masqueradeAll: true}", ["10s", "2s"]),
        ("nftables: {syncPeriod: 7s, <<: *d}", ["7s", "2s"]),
        ("nftables: {<<: *d, syncPeriod: 7s}", ["7s", "2s"]),
        ("nftables: {<<: [*e, *d]}", ["10s", "3s"]),
        ("nftables: {<<: *d, minSyncPeriod: null}", ["10s", "0s"]),
    ] {
        let config = with(&format!("mode: nftables\n{base}{section}\n"));
        let nftables = config.document.nftables;
        let periods = [nftables.sync_period, nftables.min_sync_period].map(|p| p.to_string());
        assert_eq!(periods, expected, "{section}");
    }
    let error = resolve("", Some(&format!("{HEAD}nftables: {{<<: 3}}\n"))).expect_err("no section");
    assert!(error.to_string().contains("<< wants a section"), "{error}");
}
