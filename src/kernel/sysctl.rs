//! Kernel settings that kube-proxy makes at its start: the size and the timeouts of the conntrack
//! table, and the process's own OOM score.
//!
//! A value is written only when it differs from what is there, so a process without the right to
//! write runs as long as the settings are right already. Nothing is ever set back.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tracing::{info, warn};

/// More entries are never asked for on account of the number of CPUs.
const MAX_SCALED: u64 = 1024 * 1024;

/// What `conntrack` in the configuration comes to. None, and zero durations, mean: leave as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConntrackSettings {
    /// `nf_conntrack_max`, see [`conntrack_max`]; the hash table is raised to a quarter of it.
    pub max: Option<u64>,
    pub tcp_established_timeout: Option<Duration>,
    pub tcp_close_wait_timeout: Option<Duration>,
    pub udp_timeout: Option<Duration>,
    pub udp_stream_timeout: Option<Duration>,
    /// Accept TCP packets outside the window. Only ever switched on.
    pub tcp_be_liberal: bool,
}

/// The size of the conntrack table: `max_per_core` for each CPU, at most 1,048,576, but never less
/// than `min`. None (leave as it is) when `max_per_core` is 0.
pub fn conntrack_max(max_per_core: u32, min: u32, cpus: usize) -> Option<u64> {
    let scaled = u64::from(max_per_core).saturating_mul(cpus as u64).min(MAX_SCALED);
    (max_per_core > 0).then_some(scaled.max(u64::from(min)))
}

/// Why a setting could not be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {value} to {}: {source}{}", path.display(), hint(path, source))]
pub struct SysctlError {
    pub path: PathBuf,
    pub value: String,
    pub source: io::Error,
}

impl SysctlError {
    /// This process has no right to write it.
    pub fn is_forbidden(&self) -> bool {
        use io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem};
        matches!(self.source.kind(), PermissionDenied | ReadOnlyFilesystem)
    }
}

/// The likely cause, in words.
fn hint(path: &Path, error: &io::Error) -> &'static str {
    let conntrack = path.to_string_lossy().contains("conntrack");
    match error.kind() {
        io::ErrorKind::NotFound if conntrack => " (is the kernel module nf_conntrack loaded?)",
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem if conntrack => {
            " (a privileged process in the host's network namespace may write it; set conntrack \
             values in the configuration to 0 to leave the kernel's as they are)"
        }
        _ => "",
    }
}

/// Where `/proc` and `/sys` are.
#[derive(Clone, Debug)]
pub struct Sysctl {
    proc: PathBuf,
    sys: PathBuf,
}

impl Sysctl {
    /// This machine's.
    pub fn system() -> Sysctl {
        Sysctl::at("/proc", "/sys")
    }

    /// Other directories, for tests.
    pub fn at(proc: impl Into<PathBuf>, sys: impl Into<PathBuf>) -> Sysctl {
        Sysctl { proc: proc.into(), sys: sys.into() }
    }

    /// Makes the conntrack settings. Returns why those could not be made that could not; the others are.
    pub fn set_conntrack(&self, settings: &ConntrackSettings) -> Vec<SysctlError> {
        let mut made = Vec::new();
        if let Some(max) = settings.max {
            let table = self.set_netfilter("nf_conntrack_max", max);
            // Without the table there is no use for a hash of that size.
            made.push(table.and_then(|()| self.raise_hash_size(max / 4)));
        }
        for (name, timeout) in [
            ("nf_conntrack_tcp_timeout_established", settings.tcp_established_timeout),
            ("nf_conntrack_tcp_timeout_close_wait", settings.tcp_close_wait_timeout),
            ("nf_conntrack_udp_timeout", settings.udp_timeout),
            ("nf_conntrack_udp_timeout_stream", settings.udp_stream_timeout),
        ] {
            if let Some(timeout) = timeout.filter(|timeout| !timeout.is_zero()) {
                made.push(self.set_netfilter(name, timeout.as_secs()));
            }
        }
        if settings.tcp_be_liberal {
            made.push(self.set_netfilter("nf_conntrack_tcp_be_liberal", 1));
        }
        made.into_iter().filter_map(Result::err).collect()
    }

    /// Sets how likely the kernel kills this process when memory runs out: -1000 (never) to 1000.
    pub fn set_oom_score_adj(&self, score: i32) -> Result<(), SysctlError> {
        set(&self.proc.join("self/oom_score_adj"), &score.to_string())
    }

    /// How many CPUs are online; at least 1.
    pub fn cpus(&self) -> usize {
        fs::read_to_string(self.sys.join("devices/system/cpu/online"))
            .ok()
            .and_then(|list| count_cpus(list.trim()))
            .or_else(|| std::thread::available_parallelism().ok().map(usize::from))
            .unwrap_or(1)
    }

    fn set_netfilter(&self, name: &str, value: u64) -> Result<(), SysctlError> {
        set(&self.proc.join("sys/net/netfilter").join(name), &value.to_string())
    }

    /// Raises the number of hash buckets, never lowers it. The module parameter is tried first, then
    /// the sysctl, which also works where /sys is mounted read-only. Where both are read-only the
    /// table is slower than it could be, but works: that is only a warning.
    fn raise_hash_size(&self, buckets: u64) -> Result<(), SysctlError> {
        let parameter = self.sys.join("module/nf_conntrack/parameters/hashsize");
        let sysctl = self.proc.join("sys/net/netfilter/nf_conntrack_buckets");
        let enough = |path: &Path| {
            let value = fs::read_to_string(path).ok()?;
            Some(value.trim().parse::<u64>().ok()? >= buckets)
        };
        if enough(&parameter).or_else(|| enough(&sysctl)) == Some(true) {
            return Ok(());
        }
        let value = buckets.to_string();
        let Err(error) = set(&parameter, &value) else { return Ok(()) };
        if set(&sysctl, &value).is_ok() {
            return Ok(());
        }
        if error.source.kind() == io::ErrorKind::ReadOnlyFilesystem {
            warn!(%error, "the conntrack hash table stays as small as it is");
            return Ok(());
        }
        Err(error)
    }
}

/// Writes a value unless it is there already.
fn set(path: &Path, value: &str) -> Result<(), SysctlError> {
    if fs::read_to_string(path).is_ok_and(|present| present.trim() == value) {
        return Ok(());
    }
    // Not fs::write(): these files are never created.
    let written = fs::OpenOptions::new()
        .write(true)
        .truncate(true)
        .open(path)
        .and_then(|mut file| io::Write::write_all(&mut file, value.as_bytes()));
    match written {
        Ok(()) => {
            info!(path = %path.display(), value, "kernel setting changed");
            Ok(())
        }
        Err(source) => Err(SysctlError { path: path.to_owned(), value: value.to_owned(), source }),
    }
}

/// Counts the CPUs of a list such as `0-3,8,10-11`.
fn count_cpus(list: &str) -> Option<usize> {
    let mut count = 0;
    for range in list.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        count += last.checked_sub(first)? + 1;
    }
    (count > 0).then_some(count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// A `/proc` and a `/sys` with the files of a small machine.
    struct Machine {
        root: tempfile::TempDir,
    }

    const FILES: [(&str, &str); 9] = [
        ("proc/sys/net/netfilter/nf_conntrack_max", "65536\n"),
        ("proc/sys/net/netfilter/nf_conntrack_buckets", "16384\n"),
        ("proc/sys/net/netfilter/nf_conntrack_tcp_timeout_established", "432000\n"),
        ("proc/sys/net/netfilter/nf_conntrack_tcp_timeout_close_wait", "60\n"),
        ("proc/sys/net/netfilter/nf_conntrack_udp_timeout", "30\n"),
        ("proc/sys/net/netfilter/nf_conntrack_udp_timeout_stream", "120\n"),
        ("proc/sys/net/netfilter/nf_conntrack_tcp_be_liberal", "0\n"),
        ("proc/self/oom_score_adj", "0\n"),
        ("sys/module/nf_conntrack/parameters/hashsize", "16384\n"),
    ];

    impl Machine {
        fn new() -> Machine {
            let root = tempfile::tempdir().unwrap();
            for (path, value) in FILES {
                let path = root.path().join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, value).unwrap();
            }
            Machine { root }
        }

        fn sysctl(&self) -> Sysctl {
            Sysctl::at(self.root.path().join("proc"), self.root.path().join("sys"))
        }

        #[track_caller]
        fn made(&self, settings: &ConntrackSettings) {
            let failed = self.sysctl().set_conntrack(settings);
            assert!(failed.is_empty(), "{failed:?}");
        }

        fn remove(&self, path: &str) {
            fs::remove_file(self.root.path().join(path)).unwrap();
        }

        /// The files whose values are not the ones that they began with, without their directory.
        fn changed(&self) -> Vec<(&'static str, String)> {
            FILES
                .iter()
                .filter_map(|(path, before)| {
                    let now = fs::read_to_string(self.root.path().join(path)).ok()?;
                    let name = path.rsplit('/').next().unwrap();
                    (now != *before).then(|| (name, now.trim().to_owned()))
                })
                .collect()
        }
    }

    fn seconds(seconds: u64) -> Option<Duration> {
        Some(Duration::from_secs(seconds))
    }

    #[test]
    fn the_table_grows_with_the_cpus_within_bounds() {
        assert_eq!(conntrack_max(32768, 131072, 2), Some(131072));
        assert_eq!(conntrack_max(32768, 131072, 8), Some(262144));
        assert_eq!(conntrack_max(32768, 131072, 256), Some(1048576));
        assert_eq!(conntrack_max(32768, 2_000_000, 256), Some(2_000_000));
        assert_eq!(conntrack_max(0, 131072, 8), None);
        assert_eq!(conntrack_max(32768, 0, 1), Some(32768));
    }

    #[test]
    fn what_differs_is_written() {
        let machine = Machine::new();
        let settings = ConntrackSettings {
            max: Some(131072),
            tcp_established_timeout: seconds(86400),
            tcp_close_wait_timeout: seconds(3600),
            udp_timeout: seconds(10),
            udp_stream_timeout: seconds(20),
            tcp_be_liberal: true,
        };
        machine.made(&settings);
        let changed = machine.changed();
        let changed: Vec<_> = changed.iter().map(|(name, value)| (*name, value.as_str())).collect();
        assert_eq!(
            changed,
            [
                ("nf_conntrack_max", "131072"),
                ("nf_conntrack_tcp_timeout_established", "86400"),
                ("nf_conntrack_tcp_timeout_close_wait", "3600"),
                ("nf_conntrack_udp_timeout", "10"),
                ("nf_conntrack_udp_timeout_stream", "20"),
                ("nf_conntrack_tcp_be_liberal", "1"),
                ("hashsize", "32768"),
            ]
        );
    }

    #[test]
    fn zero_and_none_leave_everything_alone() {
        let machine = Machine::new();
        machine.made(&ConntrackSettings::default());
        let zero = ConntrackSettings {
            tcp_established_timeout: Some(Duration::ZERO),
            udp_timeout: Some(Duration::ZERO),
            ..ConntrackSettings::default()
        };
        machine.made(&zero);
        assert_eq!(machine.changed(), []);
    }

    #[test]
    fn right_values_are_not_written_again() {
        let machine = Machine::new();
        let read_only = machine.root.path().join("proc/sys/net/netfilter/nf_conntrack_max");
        fs::set_permissions(&read_only, fs::Permissions::from_mode(0o444)).unwrap();
        let before = fs::metadata(&read_only).unwrap().modified().unwrap();
        let settings = ConntrackSettings {
            max: Some(65536),
            udp_timeout: seconds(30),
            ..ConntrackSettings::default()
        };
        machine.made(&settings);
        assert_eq!(machine.changed(), []);
        assert_eq!(fs::metadata(&read_only).unwrap().modified().unwrap(), before);
    }

    #[test]
    fn a_failure_names_the_file_the_value_and_the_cause() {
        let machine = Machine::new();
        machine.remove("proc/sys/net/netfilter/nf_conntrack_udp_timeout");
        let settings =
            ConntrackSettings { udp_timeout: seconds(10), ..ConntrackSettings::default() };
        let message = machine.sysctl().set_conntrack(&settings)[0].to_string();
        assert!(message.starts_with("cannot write 10 to "), "{message}");
        assert!(message.contains("sys/net/netfilter/nf_conntrack_udp_timeout: "), "{message}");
        assert!(message.ends_with("(is the kernel module nf_conntrack loaded?)"), "{message}");
    }

    /// In a network namespace of its own some can be made and others cannot.
    #[test]
    fn a_failure_keeps_no_other_setting_from_being_made() {
        let machine = Machine::new();
        machine.remove("proc/sys/net/netfilter/nf_conntrack_max");
        machine.remove("proc/sys/net/netfilter/nf_conntrack_udp_timeout");
        let settings = ConntrackSettings {
            max: Some(131072),
            tcp_established_timeout: seconds(86400),
            udp_timeout: seconds(10),
            tcp_be_liberal: true,
            ..ConntrackSettings::default()
        };
        let failed = machine.sysctl().set_conntrack(&settings);
        let failed: Vec<_> = failed.iter().filter_map(|error| error.path.file_name()).collect();
        assert_eq!(failed, ["nf_conntrack_max", "nf_conntrack_udp_timeout"]);
        let changed: Vec<_> = machine.changed().into_iter().map(|(name, _)| name).collect();
        assert_eq!(
            changed,
            ["nf_conntrack_tcp_timeout_established", "nf_conntrack_tcp_be_liberal"]
        );
    }

    #[test]
    fn the_hash_table_is_raised_by_either_file_and_never_lowered() {
        let settings = ConntrackSettings { max: Some(4 * 16384), ..ConntrackSettings::default() };
        let machine = Machine::new();
        machine.made(&settings);
        assert_eq!(machine.changed(), [], "16384 buckets suffice");

        let settings = ConntrackSettings { max: Some(131072), ..ConntrackSettings::default() };
        machine.remove("sys/module/nf_conntrack/parameters/hashsize");
        machine.made(&settings);
        assert!(machine.changed().iter().any(|(name, _)| *name == "nf_conntrack_buckets"));

        let machine = Machine::new();
        machine.remove("sys/module/nf_conntrack/parameters/hashsize");
        machine.remove("proc/sys/net/netfilter/nf_conntrack_buckets");
        let message = machine.sysctl().set_conntrack(&settings)[0].to_string();
        assert!(message.contains("32768") && message.contains("hashsize"), "{message}");
    }

    #[test]
    fn the_oom_score_is_set() {
        let machine = Machine::new();
        machine.sysctl().set_oom_score_adj(-999).unwrap();
        assert_eq!(machine.changed(), [("oom_score_adj", "-999".to_owned())]);
        machine.remove("proc/self/oom_score_adj");
        let message = machine.sysctl().set_oom_score_adj(-999).unwrap_err().to_string();
        assert!(message.contains("-999") && message.contains("oom_score_adj"), "{message}");
    }

    #[test]
    fn cpus_are_counted_from_the_online_list() {
        assert_eq!(count_cpus("0"), Some(1));
        assert_eq!(count_cpus("0-3,8,10-11"), Some(7));
        assert_eq!(count_cpus(""), None);
        assert_eq!(count_cpus("3-0"), None);
        assert!(Sysctl::system().cpus() >= 1);
    }
}
