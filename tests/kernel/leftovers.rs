//! Leftovers of other kube-proxy modes, made with iptables-nft and nft.

use kube_proxy::kernel::leftovers::{self, Removed};
use test_support::netns::{in_namespace, sh, skip_without};

/// The rules of kube-proxy's iptables mode for one Service, with the kubelet's chains beside them.
/// `iptables` is the command, `vip` and `pod` are addresses of its family.
fn iptables_mode(iptables: &str, vip: &str, pod: &str) {
    sh(&format!(
        "n() {{ {iptables} -t nat \"$@\"; }}; f() {{ {iptables} -t filter \"$@\"; }}
         m() {{ {iptables} -t mangle \"$@\"; }}
         for c in SERVICES NODEPORTS POSTROUTING MARK-MASQ PROXY-CANARY SVC-AAAA SEP-BBBB EXT-AAAA
         do n -N KUBE-$c; done
         n -N KUBE-KUBELET-CANARY
         n -A PREROUTING -m comment --comment 'kubernetes service portals' -j KUBE-SERVICES
         n -A OUTPUT -m comment --comment 'kubernetes service portals' -j KUBE-SERVICES
         n -A POSTROUTING -m comment --comment 'kubernetes postrouting rules' -j KUBE-POSTROUTING
         n -A KUBE-SERVICES -d {vip} -p tcp -m tcp --dport 80 -j KUBE-SVC-AAAA
         n -A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS
         n -A KUBE-NODEPORTS -p tcp -m tcp --dport 30080 -j KUBE-EXT-AAAA
         n -A KUBE-EXT-AAAA -j KUBE-MARK-MASQ
         n -A KUBE-EXT-AAAA -j KUBE-SVC-AAAA
         n -A KUBE-SVC-AAAA -m statistic --mode random --probability 0.5 -j KUBE-SEP-BBBB
         n -A KUBE-SVC-AAAA -j KUBE-SEP-BBBB
         n -A KUBE-SEP-BBBB -s {pod} -j KUBE-MARK-MASQ
         n -A KUBE-SEP-BBBB -p tcp -m tcp -j DNAT --to-destination {pod}
         n -A KUBE-MARK-MASQ -j MARK --or-mark 0x4000
         n -A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
         n -A KUBE-POSTROUTING -j MASQUERADE
         for c in SERVICES EXTERNAL-SERVICES FORWARD NODEPORTS PROXY-FIREWALL PROXY-CANARY FIREWALL
         do f -N KUBE-$c; done
         f -A INPUT -m conntrack --ctstate NEW -j KUBE-EXTERNAL-SERVICES
         f -A FORWARD -j KUBE-FORWARD
         f -A FORWARD -m conntrack --ctstate NEW -j KUBE-SERVICES
         f -A INPUT -j KUBE-FIREWALL
         f -A INPUT -p tcp --dport 22 -j ACCEPT
         f -A KUBE-FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT
         f -A KUBE-FIREWALL -m mark --mark 0x8000/0x8000 -j DROP
         m -N KUBE-PROXY-CANARY; m -N KUBE-IPTABLES-HINT; m -N KUBE-KUBELET-CANARY"
    ));
}

fn ruleset() -> String {
    sh("nft list ruleset 2>/dev/null")
}

#[test]
fn chains_of_the_iptables_mode_go_and_nothing_else() {
    if skip_without("iptables-nft") {
        return;
    }
    in_namespace(|| {
        iptables_mode("iptables-nft", "10.96.0.10", "10.244.0.2");
        iptables_mode("ip6tables-nft", "2001:db8:96::a", "2001:db8:244::2");
        sh("iptables-nft -t nat -N CNI-HOSTPORT; iptables-nft -t nat -A PREROUTING -j CNI-HOSTPORT
            iptables-nft -t nat -A CNI-HOSTPORT -p tcp --dport 8080 -j DNAT --to 10.244.0.9:80
            nft add table inet kube-proxy; nft add chain inet kube-proxy KUBE-SERVICES
            nft add table inet nat; nft add chain inet nat KUBE-SERVICES");
        // As Docker and ufw leave it.
        sh("iptables-nft -P FORWARD DROP");
        let removed = leftovers::remove().unwrap();
        let dropping = vec!["ip filter FORWARD".to_owned()];
        let expected =
            Removed { tables: vec![], chains: 2 * 15, rules: 2 * 6, kept: vec![], dropping };
        assert_eq!(removed, expected);
        let after = ruleset();
        let left: Vec<&str> = after
            .lines()
            .filter_map(|line| line.trim().strip_prefix("chain ")?.strip_suffix(" {"))
            .filter(|chain| chain.starts_with("KUBE-"))
            .collect();
        let kubelets =
            ["KUBE-FIREWALL", "KUBE-IPTABLES-HINT", "KUBE-KUBELET-CANARY", "KUBE-KUBELET-CANARY"];
        for chain in kubelets {
            assert!(left.contains(&chain), "{chain}\n{after}");
        }
        let ours = left.iter().filter(|chain| **chain == "KUBE-SERVICES").count();
        assert_eq!((left.len(), ours), (2 * kubelets.len() + 2, 2), "{after}");
        let rules = sh("iptables-nft -S INPUT; iptables-nft -t nat -S; iptables-nft -S FORWARD");
        for kept in [
            "-A INPUT -j KUBE-FIREWALL",
            "-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT",
            "-A PREROUTING -j CNI-HOSTPORT",
            "-A CNI-HOSTPORT -p tcp -m tcp --dport 8080 -j DNAT --to-destination 10.244.0.9:80",
        ] {
            assert!(rules.contains(kept), "{kept}\n{rules}");
        }
        assert!(!rules.contains("KUBE-SERVICES") && !rules.contains("KUBE-FORWARD"), "{rules}");

        assert!(leftovers::remove().unwrap().is_nothing(), "the second time");
        assert_eq!(ruleset(), after);
    });
}

#[test]
fn tables_of_the_nftables_mode_go_and_ours_stays() {
    in_namespace(|| {
        for (family, address) in [("ip", "ipv4_addr"), ("ip6", "ipv6_addr")] {
            sh(&format!(
                "nft -f - <<'END'
table {family} kube-proxy {{
    comment \"rules for kube-proxy\"
    map service-ips {{
        type {address} . inet_proto . inet_service : verdict
    }}
    chain services {{
        {family} daddr . meta l4proto . th dport vmap @service-ips
    }}
    chain nat-prerouting {{
        type nat hook prerouting priority -100; policy accept;
        jump services
    }}
}}
END"
            ));
        }
        sh("nft add table inet kube-proxy; nft add table ip kube-proxy-mine");
        let removed = leftovers::remove().unwrap();
        assert_eq!(removed.tables, ["table ip kube-proxy", "table ip6 kube-proxy"]);
        assert_eq!(sh("nft list tables"), "table inet kube-proxy\ntable ip kube-proxy-mine\n");
    });
}

#[test]
fn a_chain_that_others_lead_to_stays() {
    if skip_without("iptables-nft") {
        return;
    }
    in_namespace(|| {
        sh("n='iptables-nft -t nat'
            for c in KUBE-SERVICES KUBE-MARK-MASQ KUBE-SVC-A CNI-DN-1; do $n -N $c; done
            $n -A PREROUTING -j KUBE-SERVICES; $n -A KUBE-SERVICES -j KUBE-SVC-A
            $n -A KUBE-SVC-A -j KUBE-MARK-MASQ; $n -A KUBE-MARK-MASQ -j MARK --or-mark 0x4000
            $n -A CNI-DN-1 -s 10.244.0.2 -j KUBE-MARK-MASQ");
        let removed = leftovers::remove().unwrap();
        assert_eq!((removed.chains, removed.rules), (2, 1));
        assert_eq!(removed.kept, ["chain ip nat KUBE-MARK-MASQ (chain CNI-DN-1 leads there)"]);
        let rules = sh("iptables-nft -t nat -S");
        for kept in ["-A KUBE-MARK-MASQ -j MARK", "-A CNI-DN-1 -s 10.244.0.2/32 -j KUBE-MARK-MASQ"]
        {
            assert!(rules.contains(kept), "{rules}");
        }
    });
}

#[test]
fn a_reference_that_cannot_be_seen_only_keeps_its_chain() {
    in_namespace(|| {
        // A verdict map leads to the chain, which no listing of rules shows.
        sh("nft -f - <<'END'
table ip nat {
    chain KUBE-SVC-A { counter; jump KUBE-SEP-A; }
    chain KUBE-SEP-A { counter; }
    chain KUBE-SVC-B { counter; }
    map m { type ipv4_addr : verdict; elements = { 10.0.0.1 : jump KUBE-SVC-A }; }
    chain PREROUTING { type nat hook prerouting priority -100; jump KUBE-SVC-B; ip daddr vmap @m; }
}
END");
        let removed = leftovers::remove().unwrap();
        assert_eq!((removed.chains, removed.rules), (1, 1));
        assert_eq!(removed.kept.len(), 2, "{:?}", removed.kept);
        assert!(removed.kept[0].starts_with("chain ip nat KUBE-SEP-A ("), "{:?}", removed.kept);
        let rest = ruleset();
        assert!(rest.contains("jump KUBE-SEP-A") && !rest.contains("KUBE-SVC-B"), "{rest}");
    });
}

#[test]
fn many_chains_go_in_one_transaction() {
    in_namespace(|| {
        let mut batch = String::from("add table ip nat\n");
        batch += "add chain ip nat PREROUTING { type nat hook prerouting priority -100; }\n";
        batch += "add chain ip nat KUBE-SERVICES\n";
        batch += "add rule ip nat PREROUTING jump KUBE-SERVICES\n";
        for i in 0..3000 {
            batch += &format!("add chain ip nat KUBE-SVC-{i}\nadd chain ip nat KUBE-SEP-{i}\n");
            batch += &format!("add rule ip nat KUBE-SVC-{i} counter jump KUBE-SEP-{i}\n");
            batch += &format!("add rule ip nat KUBE-SERVICES tcp dport {} jump KUBE-SVC-{i}\n", i);
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), batch).unwrap();
        sh(&format!("nft -f {}", file.path().display()));
        let removed = leftovers::remove().unwrap();
        assert_eq!((removed.chains, removed.rules, removed.kept), (6001, 1, vec![]));
        assert!(!ruleset().contains("KUBE-"));
    });
}

#[test]
fn without_leftovers_nothing_is_written() {
    in_namespace(|| {
        assert!(leftovers::remove().unwrap().is_nothing());
        assert_eq!(ruleset(), "");
    });
}
