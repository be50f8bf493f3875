//! Which IP families this kernel offers.

use nft_table::Family;
use std::fs;
use std::path::Path;

/// The families for which Services can be programmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FamilyAvailability {
    pub v4: bool,
    pub v6: bool,
}

impl FamilyAvailability {
    pub fn has(self, family: Family) -> bool {
        match family {
            Family::V4 => self.v4,
            Family::V6 => self.v6,
        }
    }
}

/// Looks below `proc` (`/proc`, another directory in tests). IPv4 always counts as available; IPv6
/// does unless the kernel lacks it (no `net/if_inet6`) or `net.ipv6.conf.all.disable_ipv6` is 1.
/// Both files are those of the calling thread's network namespace.
pub fn available_families(proc: &Path) -> FamilyAvailability {
    let compiled_in = proc.join("thread-self/net/if_inet6").exists();
    let disabled = fs::read_to_string(proc.join("sys/net/ipv6/conf/all/disable_ipv6"))
        .is_ok_and(|value| value.trim() == "1");
    FamilyAvailability { v4: true, v6: compiled_in && !disabled }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proc(if_inet6: bool, disable_ipv6: Option<&str>) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let net = root.path().join("thread-self/net");
        let conf = root.path().join("sys/net/ipv6/conf/all");
        fs::create_dir_all(&net).unwrap();
        if if_inet6 {
            fs::write(net.join("if_inet6"), "").unwrap();
        }
        if let Some(value) = disable_ipv6 {
            fs::create_dir_all(&conf).unwrap();
            fs::write(conf.join("disable_ipv6"), value).unwrap();
        }
        root
    }

    #[test]
    fn ipv6_needs_the_kernel_and_must_not_be_disabled() {
        for (if_inet6, disable_ipv6, v6) in [
            (true, Some("0\n"), true),
            (true, None, true),
            (true, Some("1\n"), false),
            (false, None, false),
        ] {
            let root = proc(if_inet6, disable_ipv6);
            let found = available_families(root.path());
            assert_eq!(found, FamilyAvailability { v4: true, v6 }, "{if_inet6} {disable_ipv6:?}");
            assert_eq!(found.has(Family::V6), v6);
        }
    }
}
