//! Whether the configuration fits this node, once its Node object is known.

use crate::config::{Config, Contradictions, DetectLocal, NodeFamilies};
use crate::kernel::addresses::available_families;
use crate::model::{Change, Node};
use anyhow::bail;
use nft_table::Family;
use std::path::Path;
use std::sync::Once;

/// Looks at the first Node object that a source delivers; where podCIDRs count, at the first that has some.
pub struct NodeCheck {
    config: Config,
    once: Once,
}

impl NodeCheck {
    pub fn new(config: &Config) -> NodeCheck {
        NodeCheck { config: config.clone(), once: Once::new() }
    }

    /// Logs what does not fit the node, if its Node object is among these changes.
    ///
    /// # Errors
    /// If the configuration makes no sense on this node.
    pub fn look(&self, changes: &[Change]) -> anyhow::Result<()> {
        let node = changes.iter().find_map(|change| match change {
            Change::Node(Some(node)) => Some(node),
            _ => None,
        });
        let needs_pod_cidrs = self.config.detect_local == DetectLocal::NodeCidr;
        let mut found = Contradictions::default();
        if let Some(node) = node.filter(|node| !needs_pod_cidrs || !node.pod_cidrs.is_empty()) {
            self.once.call_once(|| found = self.contradictions(node));
        }
        found.advice.iter().for_each(|advice| tracing::warn!("{advice}"));
        if !found.fatal.is_empty() {
            bail!("the configuration does not fit this node: {}", found.fatal.join("; "));
        }
        Ok(())
    }

    fn contradictions(&self, node: &Node) -> Contradictions {
        let available = available_families(Path::new("/proc"));
        self.config.contradictions(NodeFamilies {
            primary: node.primary_family(),
            dual_stack: Family::BOTH.into_iter().all(|family| available.has(family)),
            pod_cidrs: &node.pod_cidrs,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Flags;

    fn changes(pod_cidrs: &[&str]) -> [Change; 1] {
        [Change::Node(Some(Box::new(Node {
            name: "n".into(),
            addresses: vec!["10.0.0.1".parse().unwrap()],
            zone: None,
            pod_cidrs: pod_cidrs.iter().map(|cidr| cidr.parse().unwrap()).collect(),
            taints: Vec::new(),
            deleting: false,
        })))]
    }

    #[test]
    fn only_the_first_node_object_with_pod_cidrs_is_compared() {
        let flags = Flags::read(["kube-proxy", "--detect-local-mode", "NodeCIDR"]).unwrap();
        let config = Config::resolve(&flags, None, || Ok("n".to_owned())).unwrap();
        let check = NodeCheck::new(&config);
        check.look(&[]).unwrap();
        check.look(&changes(&[])).unwrap();
        let error = check.look(&changes(&["fd00:10:244::/64"])).unwrap_err().to_string();
        assert!(error.contains("podCIDRs are only IPv6"), "{error}");
        check.look(&changes(&["fd00:10:244::/64"])).unwrap();
        NodeCheck::new(&config).look(&changes(&["10.244.0.0/24"])).unwrap();
    }
}
