//! The kinds that are watched, and how each is read.

use super::needed::Needed;
use crate::intake::{Intake, ObjectKey, Reading};
use crate::model::Change;
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use kube::Resource;
use serde::de::DeserializeOwned;
use std::fmt::Debug;

/// A watched kind.
pub trait Kind:
    Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static
{
    /// Whether the program can do without it: older servers lack it or refuse it.
    const OPTIONAL: bool = false;

    /// Whether a field selector only spares what is skipped here as well: older servers do not know each field.
    const MAY_FILTER: bool = false;

    fn read(&self, intake: &mut Intake) -> Reading;
}

impl Kind for Needed<Service> {
    const MAY_FILTER: bool = true;

    fn read(&self, intake: &mut Intake) -> Reading {
        intake.service(&self.0)
    }
}

impl Kind for Needed<EndpointSlice> {
    fn read(&self, intake: &mut Intake) -> Reading {
        intake.endpoint_slice(&self.0)
    }
}

impl Kind for Node {
    fn read(&self, intake: &mut Intake) -> Reading {
        intake.node(self)
    }
}

/// Servers have had them since Kubernetes 1.33.
impl Kind for ServiceCIDR {
    const OPTIONAL: bool = true;

    fn read(&self, intake: &mut Intake) -> Reading {
        intake.service_cidr(self)
    }
}

/// The change that says that an object is gone.
pub fn gone(key: &ObjectKey) -> Change {
    match key {
        ObjectKey::Service(name) => Change::Service(name.clone(), None),
        ObjectKey::EndpointSlice(name) => Change::EndpointSlice(name.clone(), None),
        ObjectKey::Node(_) => Change::Node(None),
        ObjectKey::ServiceCidr(name) => Change::ServiceCidr(name.clone(), None),
    }
}
