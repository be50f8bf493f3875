//! The configuration printed in the file's own terms: `--write-config-to` and /configz.
//!
//! As kube-proxy prints it: every field, with the defaults, and masqueradeAll, syncPeriod and
//! minSyncPeriod only in the section of the selected mode (the other sections show `false` and
//! `0s`). A file written so means the same when it is read again, except for what no file can say:
//! [`Config::lost_in_a_file`].

use super::document::KubeProxyConfiguration;
use super::duration::GoDuration;
use super::{Config, ConfigError};
use serde_json::{Map, Value, json};
use std::path::Path;

/// Blanks what the sections of the other modes say.
fn only_selected_mode(document: &mut KubeProxyConfiguration) {
    let mode = document.mode.clone();
    if mode != "nftables" {
        document.nftables.masquerade_all = false;
        document.nftables.sync_period = GoDuration::ZERO;
        document.nftables.min_sync_period = GoDuration::ZERO;
    }
    if mode != "iptables" {
        // ipvs mode takes masqueradeAll from this section.
        document.iptables.masquerade_all &= mode == "ipvs";
        document.iptables.sync_period = GoDuration::ZERO;
        document.iptables.min_sync_period = GoDuration::ZERO;
    }
    if mode != "ipvs" {
        document.ipvs.sync_period = GoDuration::ZERO;
        document.ipvs.min_sync_period = GoDuration::ZERO;
    }
}

/// The object that a document comes to.
fn object(mut document: KubeProxyConfiguration) -> Value {
    only_selected_mode(&mut document);
    // Through a Value, whose maps are in order: fields are printed by name, as Go prints them.
    serde_json::to_value(&document).expect("plain fields always become JSON")
}

/// The paths of the fields that differ, in a section whose path and a dot come first.
fn differing(one: &Map<String, Value>, other: &Map<String, Value>, section: &str) -> Vec<String> {
    let fields = one.iter().zip(other.values()).filter(|((_, one), other)| one != other);
    let names = fields.map(|((name, one), other)| match (one, other) {
        (Value::Object(one), Value::Object(other)) => {
            differing(one, other, &format!("{section}{name}."))
        }
        _ => vec![format!("{section}{name}")],
    });
    names.flatten().collect()
}

impl Config {
    /// The object that the configuration comes to.
    fn value(&self) -> Value {
        object(self.document.clone())
    }

    /// The fields with a value from a flag that a file cannot give them, because it stands for the default
    /// there: those of `--healthz-port=0` and `--kube-api-content-type=`.
    pub fn lost_in_a_file(&self) -> Vec<String> {
        let mut read = self.document.clone();
        read.apply_defaults();
        match (self.value(), object(read)) {
            (Value::Object(here), Value::Object(there)) => differing(&here, &there, ""),
            _ => Vec::new(),
        }
    }

    /// The body of /configz.
    pub fn configz(&self) -> Value {
        json!({ "kubeproxy.config.k8s.io": self.value() })
    }

    /// The content of a configuration file.
    pub fn to_yaml(&self) -> String {
        let text = serde_norway::to_string(&self.value());
        let text = text.expect("a JSON object always becomes YAML");
        format!("{}\n", text.trim_end())
    }

    /// Writes the configuration file of `--write-config-to`.
    pub fn write_to(&self, path: &Path) -> Result<(), ConfigError> {
        std::fs::write(path, self.to_yaml())
            .map_err(|error| ConfigError::Write { path: path.to_owned(), error })
    }
}
