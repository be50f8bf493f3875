//! Logging settings: klog's verbosity as a filter for `tracing`.

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

/// What to log and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logging {
    pub format: LogFormat,
    /// klog's verbosity, as `-v` gives it.
    pub verbosity: u32,
    /// Directives for `tracing_subscriber::EnvFilter` that come to that verbosity.
    pub filter: String,
}

/// The level of this program's own modules at a verbosity. Kubernetes' convention: up to 3 what an
/// operator wants in normal times, 4 debugging, 6 and more traces.
fn level(verbosity: u32) -> &'static str {
    match verbosity {
        0..=3 => "info",
        4..=5 => "debug",
        _ => "trace",
    }
}

/// The level of libraries: a step behind, so that `-v 4` is about this program.
fn library_level(verbosity: u32) -> &'static str {
    match verbosity {
        0..=3 => "warn",
        4..=7 => "info",
        8..=9 => "debug",
        _ => "trace",
    }
}

impl Logging {
    /// `modules` are pairs of a module's name, such as `sync`, and its verbosity. Patterns that
    /// cannot name a module of this program (`proxier*`) are left out.
    pub(super) fn new(format: LogFormat, verbosity: u32, modules: &[(String, u32)]) -> Logging {
        let mut filter = format!("{},kube_proxy={}", library_level(verbosity), level(verbosity));
        for (name, verbosity) in modules {
            let is_name = |b: u8| b.is_ascii_lowercase() || b == b'_' || b == b':';
            if !name.is_empty() && name.bytes().all(is_name) {
                filter.push_str(&format!(",kube_proxy::{name}={}", level(*verbosity)));
            }
        }
        Logging { format, verbosity, filter }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verbosity_becomes_levels() {
        for (verbosity, expected) in [
            (0, "warn,kube_proxy=info"),
            (2, "warn,kube_proxy=info"),
            (4, "info,kube_proxy=debug"),
            (6, "info,kube_proxy=trace"),
            (9, "debug,kube_proxy=trace"),
            (10, "trace,kube_proxy=trace"),
        ] {
            assert_eq!(Logging::new(LogFormat::Text, verbosity, &[]).filter, expected);
        }
    }

    #[test]
    fn every_filter_is_valid() {
        let modules = [("sync".to_owned(), 9), ("proxier*".to_owned(), 5), ("a::b".to_owned(), 4)];
        for verbosity in 0..12 {
            let logging = Logging::new(LogFormat::Json, verbosity, &modules);
            let filter = logging.filter.as_str();
            tracing_subscriber::EnvFilter::try_new(filter)
                .unwrap_or_else(|e| panic!("{filter}: {e}"));
            assert!(filter.ends_with("kube_proxy::sync=trace,kube_proxy::a::b=debug"), "{filter}");
        }
    }
}
