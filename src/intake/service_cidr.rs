//! ServiceCIDRs: the ranges from which ClusterIPs are allocated.

use super::problem::{Field, Findings, NotACidr};
use super::{Intake, ObjectKey, Reading, items};
use crate::model::{Change, parse_cidr};
use ipnet::IpNet;
use k8s_openapi::api::networking::v1 as networking;

impl Intake {
    /// Reads a ServiceCIDR. A bad CIDR is left out alone.
    pub fn service_cidr(&mut self, object: &networking::ServiceCIDR) -> Reading {
        let name = self.strings.text(object.metadata.name.as_deref().unwrap_or_default());
        let key = ObjectKey::ServiceCidr(name.clone());
        let mut findings = Findings::of(&key);
        let list = object.spec.as_ref().map(|spec| items(&spec.cidrs)).unwrap_or_default();
        let cidrs: Vec<IpNet> = list
            .iter()
            .enumerate()
            .filter_map(|(index, text)| {
                let field = Field("spec.cidrs", index, "");
                findings.need(parse_cidr(text), field, NotACidr(text))
            })
            .collect();
        let problems = findings.into_problems();
        let value = (!cidrs.is_empty()).then_some(cidrs);
        Reading { key, change: Change::ServiceCidr(name, value), problems }
    }
}
