//! The kinds that are watched, and how each is read.

use super::encoding::protobuf::{NeededService, NeededSlice, NodeMessage, ServiceCidrMessage};
use super::needed::Needed;
use crate::intake::{Intake, ObjectKey, Reading};
use crate::model::Change;
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
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

    /// What it is in protobuf.
    type Message: prost::Message + Default + Into<Self>;

    fn read(&self, intake: &mut Intake) -> Reading;

    /// What is known of an object by this metadata.
    fn key(metadata: &ObjectMeta, intake: &mut Intake) -> ObjectKey;
}

impl Kind for Needed<Service> {
    const MAY_FILTER: bool = true;

    type Message = NeededService;

    fn read(&self, intake: &mut Intake) -> Reading {
        intake.service(&self.0)
    }

    fn key(metadata: &ObjectMeta, intake: &mut Intake) -> ObjectKey {
        ObjectKey::Service(intake.name(metadata))
    }
}

impl Kind for Needed<EndpointSlice> {
    type Message = NeededSlice;

    fn read(&self, intake: &mut Intake) -> Reading {
        intake.endpoint_slice(&self.0)
    }

    fn key(metadata: &ObjectMeta, intake: &mut Intake) -> ObjectKey {
        ObjectKey::EndpointSlice(intake.name(metadata))
    }
}

impl Kind for Node {
    type Message = NodeMessage;

    fn read(&self, intake: &mut Intake) -> Reading {
        intake.node(self)
    }

    fn key(metadata: &ObjectMeta, intake: &mut Intake) -> ObjectKey {
        ObjectKey::Node(intake.name(metadata).name)
    }
}

/// Servers have had them since Kubernetes 1.33.
impl Kind for ServiceCIDR {
    const OPTIONAL: bool = true;

    type Message = ServiceCidrMessage;

    fn read(&self, intake: &mut Intake) -> Reading {
        intake.service_cidr(self)
    }

    fn key(metadata: &ObjectMeta, intake: &mut Intake) -> ObjectKey {
        ObjectKey::ServiceCidr(intake.name(metadata).name)
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
