//! `logging`: klog's verbosity as a filter for `tracing`.

use super::GoDuration;
use super::document::LoggingConfiguration;
use super::problems::Problems;

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
    /// Verbosity of single modules: `("sync", 4)`. Names that cannot be a module of this program
    /// (`proxier*`) are left out of the filter.
    pub modules: Vec<(String, u32)>,
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

/// From this verbosity on the API client's own lines are shown. Whoever calls it reports its errors, with all causes
/// and ever more rarely; its own lines say "client error (Connect)" for every attempt.
const OWN_WORDS: u32 = 6;

impl Logging {
    /// Directives for `tracing_subscriber::EnvFilter` that come to the verbosity.
    pub fn filter(&self) -> String {
        self.filter_at(self.verbosity)
    }

    /// As [`Logging::filter`], for another verbosity (`/debug/flags/v`).
    pub fn filter_at(&self, verbosity: u32) -> String {
        let library = library_level(verbosity);
        let mut filter = format!("{library},kube_proxy={}", level(verbosity));
        if verbosity < OWN_WORDS {
            filter.push_str(",kube_client=off,kube_runtime=off");
        }
        for (name, verbosity) in &self.modules {
            let is_name = |b: u8| b.is_ascii_lowercase() || b == b'_' || b == b':';
            if !name.is_empty() && name.bytes().all(is_name) {
                filter.push_str(&format!(",kube_proxy::{name}={}", level(*verbosity)));
            }
        }
        filter
    }
}

pub(super) fn check(logging: &LoggingConfiguration, problems: &mut Problems) -> Logging {
    if logging.flush_frequency <= GoDuration::ZERO {
        let value = logging.flush_frequency;
        problems.invalid("logging.flushFrequency", value, "must be greater than 0");
    }
    let format = match logging.format.as_str() {
        "json" => LogFormat::Json,
        "text" => LogFormat::Text,
        other => {
            problems.unsupported("logging.format", other, &["json", "text"]);
            LogFormat::Text
        }
    };
    if format == LogFormat::Json && !logging.vmodule.is_empty() {
        problems.forbidden("logging.vmodule", "only supported for text log format");
    }
    for (index, item) in logging.vmodule.iter().enumerate() {
        if item.file_pattern.is_empty() || item.file_pattern.contains(['=', ',']) {
            let field = format!("logging.vmodule[{index}].filePattern");
            let detail = "must be a name without equal sign or comma";
            problems.invalid(&field, &item.file_pattern, detail);
        }
    }
    let items = logging.vmodule.iter();
    let modules = items.map(|item| (item.file_pattern.clone(), item.verbosity)).collect();
    Logging { format, verbosity: logging.verbosity, modules }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logging(modules: &[(&str, u32)]) -> Logging {
        let modules = modules.iter().map(|&(name, level)| (name.to_owned(), level)).collect();
        Logging { format: LogFormat::Text, verbosity: 4, modules }
    }

    #[test]
    fn verbosity_becomes_levels() {
        let logging = logging(&[]);
        let quiet = ",kube_client=off,kube_runtime=off";
        assert_eq!(logging.filter(), format!("info,kube_proxy=debug{quiet}"));
        for (verbosity, expected) in [
            (0, "warn,kube_proxy=info"),
            (2, "warn,kube_proxy=info"),
            (4, "info,kube_proxy=debug"),
            (6, "info,kube_proxy=trace"),
            (9, "debug,kube_proxy=trace"),
            (10, "trace,kube_proxy=trace"),
        ] {
            let quiet = if verbosity < 6 { quiet } else { "" };
            assert_eq!(logging.filter_at(verbosity), format!("{expected}{quiet}"));
        }
    }

    #[test]
    fn every_filter_is_valid() {
        let logging = logging(&[("sync", 9), ("proxier*", 5), ("a::b", 4)]);
        for verbosity in 0..12 {
            let filter = logging.filter_at(verbosity);
            tracing_subscriber::EnvFilter::try_new(&filter)
                .unwrap_or_else(|error| panic!("{filter}: {error}"));
            assert!(filter.ends_with("kube_proxy::sync=trace,kube_proxy::a::b=debug"), "{filter}");
        }
    }
}
