//! Services and EndpointSlices without the fields that nobody reads: managed fields, owners,
//! and more. Those are most of an object, and most of the time of decoding it would go into them.

use k8s_openapi::api::core::v1::{ObjectReference, Service, ServiceSpec, ServiceStatus};
use k8s_openapi::api::discovery::v1::{
    Endpoint, EndpointConditions, EndpointHints, EndpointPort, EndpointSlice,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::{Metadata, Resource};
use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;

/// An object with the fields that are needed; all others are empty.
#[derive(Clone, Debug)]
pub struct Needed<T>(pub T);

impl<T: Resource> Resource for Needed<T> {
    const API_VERSION: &'static str = T::API_VERSION;
    const GROUP: &'static str = T::GROUP;
    const KIND: &'static str = T::KIND;
    const VERSION: &'static str = T::VERSION;
    const URL_PATH_SEGMENT: &'static str = T::URL_PATH_SEGMENT;
    type Scope = T::Scope;
}

impl<T: Metadata> Metadata for Needed<T> {
    type Ty = T::Ty;

    fn metadata(&self) -> &T::Ty {
        self.0.metadata()
    }

    fn metadata_mut(&mut self) -> &mut T::Ty {
        self.0.metadata_mut()
    }
}

// Fields may be absent or null, required ones too: intake says what is wrong with an object, and one that
// cannot be decoded would end the watch.

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct MetadataFields {
    name: Option<String>,
    namespace: Option<String>,
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<BTreeMap<String, String>>,
    resource_version: Option<String>,
    creation_timestamp: Option<Time>,
    deletion_timestamp: Option<Time>,
}

impl From<MetadataFields> for ObjectMeta {
    fn from(fields: MetadataFields) -> ObjectMeta {
        ObjectMeta {
            name: fields.name,
            namespace: fields.namespace,
            labels: fields.labels,
            annotations: fields.annotations,
            resource_version: fields.resource_version,
            creation_timestamp: fields.creation_timestamp,
            deletion_timestamp: fields.deletion_timestamp,
            ..ObjectMeta::default()
        }
    }
}

impl<'de> Deserialize<'de> for Needed<Service> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Fields {
            #[serde(default)]
            metadata: MetadataFields,
            spec: Option<ServiceSpec>,
            status: Option<ServiceStatus>,
        }
        let Fields { metadata, spec, status } = Fields::deserialize(deserializer)?;
        Ok(Needed(Service { metadata: metadata.into(), spec, status }))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct EndpointFields {
    addresses: Option<Vec<String>>,
    conditions: Option<EndpointConditions>,
    hints: Option<EndpointHints>,
    node_name: Option<String>,
    target_ref: Option<ObjectReference>,
    zone: Option<String>,
}

impl From<EndpointFields> for Endpoint {
    fn from(fields: EndpointFields) -> Endpoint {
        Endpoint {
            addresses: fields.addresses.unwrap_or_default(),
            conditions: fields.conditions,
            hints: fields.hints,
            node_name: fields.node_name,
            target_ref: fields.target_ref,
            zone: fields.zone,
            ..Endpoint::default()
        }
    }
}

impl<'de> Deserialize<'de> for Needed<EndpointSlice> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Fields {
            #[serde(default)]
            metadata: MetadataFields,
            address_type: Option<String>,
            endpoints: Option<Vec<EndpointFields>>,
            ports: Option<Vec<EndpointPort>>,
        }
        let Fields { metadata, address_type, endpoints, ports } =
            Fields::deserialize(deserializer)?;
        let address_type = address_type.unwrap_or_default();
        let endpoints = endpoints.map(|list| list.into_iter().map(Endpoint::from).collect());
        Ok(Needed(EndpointSlice { metadata: metadata.into(), address_type, endpoints, ports }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::intake::{Intake, Options};
    use serde_json::{Value, json};

    /// Reads an object with all its fields, and with those that are needed, and returns the latter.
    fn both_ways<T>(object: &Value, read: impl Fn(&T) -> String) -> T
    where
        T: serde::de::DeserializeOwned,
        Needed<T>: serde::de::DeserializeOwned,
    {
        let whole: T = serde_json::from_value(object.clone()).unwrap();
        let Needed(needed) = serde_json::from_value(object.clone()).unwrap();
        assert_eq!(read(&needed), read(&whole));
        needed
    }

    fn metadata() -> Value {
        json!({
            "name": "web-abcde", "namespace": "shop", "uid": "1", "resourceVersion": "7",
            "creationTimestamp": "2026-01-02T03:04:05Z",
            "labels": {"kubernetes.io/service-name": "web"},
            "annotations": {
                "endpoints.kubernetes.io/last-change-trigger-time": "2026-01-02T03:04:06Z",
            },
            "managedFields": [{
                "manager": "m", "operation": "Update", "fieldsType": "FieldsV1",
                "fieldsV1": {"f:spec": {"f:ports": {}}},
            }],
        })
    }

    #[test]
    fn nothing_is_missing_in_a_slice() {
        let slice = json!({
            "metadata": metadata(), "addressType": "IPv4",
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
            "endpoints": [{
                "addresses": ["10.244.0.7"], "nodeName": "worker-1", "zone": "a", "hostname": "h",
                "conditions": {"ready": false, "serving": true, "terminating": true},
                "hints": {"forZones": [{"name": "a"}], "forNodes": [{"name": "worker-1"}]},
                "targetRef": {"kind": "Pod", "name": "web-1"},
            }],
        });
        let read = |slice: &EndpointSlice| {
            format!("{:?}", Intake::new(Options::default()).endpoint_slice(slice).change)
        };
        let slice = both_ways(&slice, read);
        assert_eq!(slice.metadata.resource_version.as_deref(), Some("7"));
        assert_eq!(slice.metadata.managed_fields, None);
        assert_eq!(slice.endpoints.unwrap()[0].hostname, None);
    }

    #[test]
    fn what_is_absent_or_null_is_left_to_the_intake() {
        for slice in [
            json!({}),
            json!({"metadata": {}, "addressType": null, "endpoints": null, "ports": null}),
            json!({"addressType": "IPv4", "endpoints": [{}, {"addresses": null}]}),
        ] {
            both_ways(&slice, |slice: &EndpointSlice| format!("{slice:?}"));
        }
        both_ways(&json!({"spec": null}), |service: &Service| format!("{service:?}"));
    }

    #[test]
    fn nothing_is_missing_in_a_service() {
        let service = json!({
            "metadata": metadata(),
            "spec": {
                "type": "LoadBalancer", "clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7"],
                "ports": [{"name": "http", "port": 80, "nodePort": 30080, "protocol": "TCP"}],
                "externalIPs": ["192.0.2.1"], "externalTrafficPolicy": "Local",
                "healthCheckNodePort": 30081, "sessionAffinity": "ClientIP",
                "loadBalancerSourceRanges": ["198.51.100.0/24"],
            },
            "status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.1"}]}},
        });
        let read = |service: &Service| {
            format!("{:?}", Intake::new(Options::default()).service(service).change)
        };
        let service = both_ways(&service, read);
        assert_eq!(service.metadata.managed_fields, None);
    }
}
