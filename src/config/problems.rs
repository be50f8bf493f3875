//! What is wrong with a configuration: one line per field, all of them at once.

use serde::Serialize;
use std::fmt;

/// What is said of a number that may be zero.
pub(super) const NOT_NEGATIVE: &str = "must be greater than or equal to 0";

/// What kind of mistake it is; the words are those of Kubernetes' API validation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mistake {
    Invalid,
    Unsupported,
    Duplicate,
    Forbidden,
}

/// One wrong field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// Path in the file, from `KubeProxyConfiguration` on; list entries as `[1]`.
    pub field: String,
    pub mistake: Mistake,
    /// The value as JSON; empty for a field that may not be there at all.
    pub value: String,
    /// What would be right.
    pub detail: String,
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let FieldError { field, mistake, value, detail } = self;
        let mistake = match mistake {
            Mistake::Invalid => "Invalid value",
            Mistake::Unsupported => "Unsupported value",
            Mistake::Duplicate => "Duplicate value",
            Mistake::Forbidden => "Forbidden",
        };
        write!(f, "{field}: {mistake}")?;
        for part in [value, detail] {
            if !part.is_empty() {
                write!(f, ": {part}")?;
            }
        }
        Ok(())
    }
}

/// Collects mistakes while a configuration is read.
#[derive(Debug, Default)]
pub(super) struct Problems(pub(super) Vec<FieldError>);

impl Problems {
    fn push(&mut self, field: &str, mistake: Mistake, value: String, detail: String) {
        let field = format!("{}.{field}", super::document::KIND);
        self.0.push(FieldError { field, mistake, value, detail });
    }

    pub(super) fn invalid(&mut self, field: &str, value: impl Serialize, detail: &str) {
        self.push(field, Mistake::Invalid, json(value), detail.to_owned());
    }

    pub(super) fn duplicate(&mut self, field: &str, value: impl Serialize) {
        self.push(field, Mistake::Duplicate, json(value), String::new());
    }

    pub(super) fn forbidden(&mut self, field: &str, detail: &str) {
        self.push(field, Mistake::Forbidden, String::new(), detail.to_owned());
    }

    pub(super) fn unsupported(&mut self, field: &str, value: &str, supported: &[&str]) {
        let supported: Vec<String> = supported.iter().map(|name| format!("{name:?}")).collect();
        let detail = format!("supported values: {}", supported.join(", "));
        self.push(field, Mistake::Unsupported, json(value), detail);
    }
}

fn json(value: impl Serialize) -> String {
    serde_json::to_string(&value).unwrap_or_else(|error| format!("(unprintable: {error})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_read_like_the_apis() {
        let mut problems = Problems::default();
        problems.invalid("bindAddress", "x", "must be an IP address");
        problems.invalid("oomScoreAdj", 2000, "must be within the range [-1000, 1000]");
        problems.duplicate("nodePortAddresses[1]", "all");
        problems.forbidden("logging.vmodule", "Only supported for text log format");
        problems.unsupported("mode", "userspace", &["iptables", "nftables"]);
        let lines: Vec<String> = problems.0.iter().map(ToString::to_string).collect();
        assert_eq!(
            lines,
            [
                "KubeProxyConfiguration.bindAddress: Invalid value: \"x\": must be an IP address",
                "KubeProxyConfiguration.oomScoreAdj: Invalid value: 2000: \
                 must be within the range [-1000, 1000]",
                "KubeProxyConfiguration.nodePortAddresses[1]: Duplicate value: \"all\"",
                "KubeProxyConfiguration.logging.vmodule: Forbidden: \
                 Only supported for text log format",
                "KubeProxyConfiguration.mode: Unsupported value: \"userspace\": \
                 supported values: \"iptables\", \"nftables\"",
            ]
        );
    }
}
