//! Feature gates: which names are known, and what the few that matter here are set to.
//!
//! kube-proxy knows every gate of Kubernetes and ends on one that it does not know. This program
//! acts on a handful, accepts silently those that concern a service proxy, and only warns of
//! others, so that a cluster's configuration can be taken over as it is.

use std::collections::BTreeMap;

/// Service externalIPs are honoured.
pub const ALLOW_SERVICE_EXTERNAL_IPS: &str = "AllowServiceExternalIPs";
/// A loopback CIDR in nodePortAddresses turns localhost NodePorts on.
pub const LOCALHOST_NODE_PORTS: &str = "KubeProxyNFTablesLocalhostNodePorts";
/// /flagz is served.
pub const COMPONENT_FLAGZ: &str = "ComponentFlagz";
/// /statusz is served.
pub const COMPONENT_STATUSZ: &str = "ComponentStatusz";

/// When a gate without a setting of its own follows `AllAlpha` or `AllBeta`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Only its own setting counts.
    Fixed,
    Alpha,
    Beta,
}

/// Known gates: name, stage, default. Those not named by a constant above are without effect.
const KNOWN: [(&str, Stage, bool); 19] = [
    ("AllAlpha", Stage::Alpha, false),
    ("AllBeta", Stage::Beta, false),
    (ALLOW_SERVICE_EXTERNAL_IPS, Stage::Fixed, true),
    (COMPONENT_FLAGZ, Stage::Beta, true),
    (COMPONENT_STATUSZ, Stage::Beta, true),
    ("ContextualLogging", Stage::Beta, true),
    ("DisableNodeKubeProxyVersion", Stage::Fixed, true),
    ("KubeProxyIPVS", Stage::Fixed, true),
    (LOCALHOST_NODE_PORTS, Stage::Fixed, false),
    ("LoggingAlphaOptions", Stage::Alpha, false),
    ("LoggingBetaOptions", Stage::Beta, true),
    ("MultiCIDRServiceAllocator", Stage::Fixed, true),
    ("NFTablesNetlink", Stage::Beta, true),
    ("NFTablesProxyMode", Stage::Fixed, true),
    ("NativeHistograms", Stage::Alpha, false),
    ("PreferSameTrafficDistribution", Stage::Fixed, true),
    ("ServiceTrafficDistribution", Stage::Fixed, true),
    ("StrictIPCIDRValidation", Stage::Alpha, false),
    ("TopologyAwareHints", Stage::Fixed, true),
];

/// The gates as configured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FeatureGates {
    settings: BTreeMap<String, bool>,
}

impl FeatureGates {
    pub(super) fn new(settings: BTreeMap<String, bool>) -> Self {
        FeatureGates { settings }
    }

    /// Whether a gate is on: its own setting, else that of its stage, else its default. A gate that
    /// is not known is on where it is set to be.
    pub fn enabled(&self, name: &str) -> bool {
        if let Some(&setting) = self.settings.get(name) {
            return setting;
        }
        let Some((_, stage, default)) = KNOWN.iter().find(|(known, ..)| *known == name) else {
            return false;
        };
        let all = match stage {
            Stage::Fixed => None,
            Stage::Alpha => self.settings.get("AllAlpha"),
            Stage::Beta => self.settings.get("AllBeta"),
        };
        all.copied().unwrap_or(*default)
    }

    /// Every gate that is known or set, with its stage and what it comes to, by name.
    pub fn all(&self) -> BTreeMap<&str, (Stage, bool)> {
        let set = self.settings.keys().map(|name| (name.as_str(), Stage::Fixed));
        let known = KNOWN.iter().map(|(name, stage, _)| (*name, *stage));
        set.chain(known).map(|(name, stage)| (name, (stage, self.enabled(name)))).collect()
    }

    /// One warning about all gates that are not known, if any are set.
    pub(super) fn warning(&self) -> Option<String> {
        let is_known = |name: &str| KNOWN.iter().any(|(known, ..)| *known == name);
        let unknown: Vec<&str> =
            self.settings.keys().map(String::as_str).filter(|name| !is_known(name)).collect();
        (!unknown.is_empty()).then(|| {
            format!("featureGates: not known here and without effect: {}", unknown.join(", "))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gates(settings: &[(&str, bool)]) -> FeatureGates {
        FeatureGates::new(settings.iter().map(|&(name, on)| (name.to_owned(), on)).collect())
    }

    #[test]
    fn a_setting_beats_the_stage_and_the_stage_the_default() {
        let none = gates(&[]);
        assert!(none.enabled(ALLOW_SERVICE_EXTERNAL_IPS));
        assert!(none.enabled(COMPONENT_FLAGZ));
        assert!(!none.enabled(LOCALHOST_NODE_PORTS));
        let beta = gates(&[("AllBeta", false), (COMPONENT_STATUSZ, true)]);
        assert!(!beta.enabled(COMPONENT_FLAGZ));
        assert!(beta.enabled(COMPONENT_STATUSZ));
        assert!(beta.enabled(ALLOW_SERVICE_EXTERNAL_IPS));
        assert!(gates(&[("AllAlpha", true)]).enabled("NativeHistograms"));
        assert!(!gates(&[(ALLOW_SERVICE_EXTERNAL_IPS, false)]).enabled(ALLOW_SERVICE_EXTERNAL_IPS));
    }

    #[test]
    fn localhost_node_ports_want_to_be_named() {
        let all = gates(&[("AllAlpha", true), ("AllBeta", true)]);
        assert!(!all.enabled(LOCALHOST_NODE_PORTS));
        assert!(gates(&[(LOCALHOST_NODE_PORTS, true)]).enabled(LOCALHOST_NODE_PORTS));
    }

    #[test]
    fn all_gates_have_their_stages() {
        let gates = gates(&[("NFTablesNetlink", false), ("Zeta", true)]);
        let all = gates.all();
        assert_eq!(all["AllAlpha"], (Stage::Alpha, false));
        assert_eq!(all["NFTablesNetlink"], (Stage::Beta, false));
        assert_eq!(all["Zeta"], (Stage::Fixed, true));
    }

    #[test]
    fn unknown_gates_make_one_warning() {
        assert_eq!(gates(&[("NFTablesProxyMode", true), ("KubeProxyIPVS", false)]).warning(), None);
        let warning =
            gates(&[("Zeta", true), ("Alpha", false), ("NFTablesNetlink", true)]).warning();
        assert!(warning.unwrap().ends_with("without effect: Alpha, Zeta"));
    }

    #[test]
    fn names_are_in_order_and_unique() {
        assert!(KNOWN.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }
}
