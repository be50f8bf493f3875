//! Flags that kube-proxy had once. Old command lines still name them; that one is gone says more than which other flag
//! is spelled alike.

use clap::error::{ContextKind, ContextValue, ErrorKind};

/// The flags of kube-proxy's logger that Kubernetes dropped in 1.26 (KEP-2845).
const OF_LOGGER: [&str; 10] = [
    "add-dir-header",
    "alsologtostderr",
    "log-backtrace-at",
    "log-dir",
    "log-file",
    "log-file-max-size",
    "logtostderr",
    "one-output",
    "skip-headers",
    "skip-log-headers",
];

/// Others, and what does their work.
const OTHERS: [(&str, &str); 6] = [
    ("cleanup-iptables", "use --cleanup"),
    ("cleanup-ipvs", "use --cleanup"),
    ("healthz-address", "use --healthz-bind-address"),
    ("resource-container", "the container runtime does that"),
    ("stderrthreshold", "logs go to standard error"),
    ("udp-timeout", "use --conntrack-udp-timeout for how long the kernel keeps flows"),
];

/// The error for a flag that is gone, or the one that was given.
pub fn explain(error: clap::Error, command: &mut clap::Command) -> clap::Error {
    let Some(ContextValue::String(flag)) = error.get(ContextKind::InvalidArg) else { return error };
    let name = flag.trim_start_matches('-').split('=').next().unwrap_or_default();
    let advice = match OTHERS.iter().find(|(gone, _)| *gone == name) {
        _ if error.kind() != ErrorKind::UnknownArgument => return error,
        Some((_, advice)) => advice,
        None if OF_LOGGER.contains(&name) => "logs go to standard error",
        None => return error,
    };
    let text = format!("--{name} is gone from kube-proxy: {advice}, and leave it out");
    command.error(ErrorKind::UnknownArgument, text)
}
