//! The four kinds that are watched: where they are, which of them, and how they are read.

use super::protobuf;
use super::wire::WireError;
use crate::intake::{Intake, ObjectKey, Reading};
use crate::model::Change;
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::de::DeserializeOwned;

/// A watched kind. The value holds the selectors that only the running process knows.
pub trait Kind: Send + 'static {
    type Object: DeserializeOwned + Send;

    /// The word for logs, in the plural.
    const NAME: &'static str;
    /// URL path of the collection.
    const PATH: &'static str;
    /// Whether a server may lack it or refuse it, as older ones do.
    const OPTIONAL: bool = false;
    /// Whether events that change nothing of the model are common and worth comparing away.
    const NOISY: bool = false;

    /// Label selector, "" for none.
    fn labels(&self) -> &str {
        ""
    }

    /// Field selector, "" for none.
    fn fields(&self) -> String {
        String::new()
    }

    fn decode(object: &[u8]) -> Result<Self::Object, WireError>;
    fn metadata(object: &mut Self::Object) -> &mut ObjectMeta;
    fn read(intake: &mut Intake, object: &Self::Object) -> Reading;
}

/// All Services but headless and foreign ones.
pub struct Services;

impl Kind for Services {
    type Object = Service;
    const NAME: &'static str = "Services";
    const PATH: &'static str = "/api/v1/services";

    fn labels(&self) -> &str {
        "!service.kubernetes.io/service-proxy-name"
    }

    fn fields(&self) -> String {
        "spec.clusterIP!=None".to_owned()
    }

    fn decode(object: &[u8]) -> Result<Service, WireError> {
        protobuf::service(object)
    }

    fn metadata(object: &mut Service) -> &mut ObjectMeta {
        &mut object.metadata
    }

    fn read(intake: &mut Intake, object: &Service) -> Reading {
        intake.service(object)
    }
}

/// All EndpointSlices but those of headless Services.
pub struct EndpointSlices;

impl Kind for EndpointSlices {
    type Object = EndpointSlice;
    const NAME: &'static str = "EndpointSlices";
    const PATH: &'static str = "/apis/discovery.k8s.io/v1/endpointslices";

    fn labels(&self) -> &str {
        "!service.kubernetes.io/headless"
    }

    fn decode(object: &[u8]) -> Result<EndpointSlice, WireError> {
        protobuf::endpoint_slice(object)
    }

    fn metadata(object: &mut EndpointSlice) -> &mut ObjectMeta {
        &mut object.metadata
    }

    fn read(intake: &mut Intake, object: &EndpointSlice) -> Reading {
        intake.endpoint_slice(object)
    }
}

/// The one Node of this name.
pub struct Nodes {
    pub name: String,
}

impl Kind for Nodes {
    type Object = Node;
    const NAME: &'static str = "Nodes";
    const PATH: &'static str = "/api/v1/nodes";
    // Every heartbeat with a new condition is an event.
    const NOISY: bool = true;

    fn fields(&self) -> String {
        format!("metadata.name={}", self.name)
    }

    fn decode(object: &[u8]) -> Result<Node, WireError> {
        protobuf::node(object)
    }

    fn metadata(object: &mut Node) -> &mut ObjectMeta {
        &mut object.metadata
    }

    fn read(intake: &mut Intake, object: &Node) -> Reading {
        intake.node(object)
    }
}

/// All ServiceCIDRs; servers have them since Kubernetes 1.33.
pub struct ServiceCidrs;

impl Kind for ServiceCidrs {
    type Object = ServiceCIDR;
    const NAME: &'static str = "ServiceCIDRs";
    const PATH: &'static str = "/apis/networking.k8s.io/v1/servicecidrs";
    const OPTIONAL: bool = true;
    const NOISY: bool = true;

    fn decode(object: &[u8]) -> Result<ServiceCIDR, WireError> {
        protobuf::service_cidr(object)
    }

    fn metadata(object: &mut ServiceCIDR) -> &mut ObjectMeta {
        &mut object.metadata
    }

    fn read(intake: &mut Intake, object: &ServiceCIDR) -> Reading {
        intake.service_cidr(object)
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
