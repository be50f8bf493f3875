//! What this binary is and which features are on.

use super::register::Register;
use prometheus::IntGaugeVec;

/// The labels of `kubernetes_build_info`; what is not known is "".
#[derive(Clone, Debug, Default)]
pub struct BuildInfo {
    /// As `v1.2.3`.
    pub git_version: String,
    pub git_commit: String,
    /// `clean` or `dirty`.
    pub git_tree_state: String,
    /// RFC 3339.
    pub build_date: String,
    pub major: String,
    pub minor: String,
    /// As `linux/amd64`.
    pub platform: String,
}

/// How mature a feature gate is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeatureStage {
    Alpha,
    Beta,
    Stable,
    Deprecated,
}

pub struct Build {
    info: IntGaugeVec,
    features: IntGaugeVec,
}

impl Build {
    pub fn new(register: &Register) -> Self {
        Build {
            info: register.gauges(
                "kubernetes_build_info",
                "Always 1; the labels say what this binary was built from",
                &[
                    "build_date",
                    "compiler",
                    "git_commit",
                    "git_tree_state",
                    "git_version",
                    "go_version",
                    "major",
                    "minor",
                    "platform",
                ],
            ),
            features: register.gauges(
                "kubernetes_feature_enabled",
                "Whether a feature gate is on (1) or off (0)",
                &["name", "stage"],
            ),
        }
    }

    pub fn set_info(&self, info: &BuildInfo) {
        let labels = [
            &*info.build_date,
            "rustc",
            &info.git_commit,
            &info.git_tree_state,
            &info.git_version,
            "",
            &info.major,
            &info.minor,
            &info.platform,
        ];
        self.info.reset();
        self.info.with_label_values(&labels).set(1);
    }

    pub fn set_feature(&self, name: &str, stage: FeatureStage, enabled: bool) {
        let stage = match stage {
            FeatureStage::Alpha => "ALPHA",
            FeatureStage::Beta => "BETA",
            FeatureStage::Stable => "",
            FeatureStage::Deprecated => "DEPRECATED",
        };
        self.features.with_label_values(&[name, stage]).set(enabled.into());
    }
}
