//! Files in, changes out: everything but inotify.

mod any;
mod files;
mod logs;
mod texts;

use super::decode::{Object, decode};
use super::split::{Format, split};
use super::store::Store;
use crate::intake::Options;
use crate::model::{Change, ObjectName};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::sync::Once;
use tracing::subscriber::set_global_default;

fn service(name: &str, ip: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\n\
         spec:\n  clusterIP: {ip}\n  ports:\n  - port: 80\n"
    )
}

fn slice(name: &str, service: &str, addresses: &[&str]) -> String {
    let endpoints: String =
        addresses.iter().map(|address| format!("- addresses: [{address}]\n")).collect();
    format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
         metadata:\n  name: {name}\n  labels: {{kubernetes.io/service-name: {service}}}\n\
         addressType: IPv4\nports: [{{port: 8080}}]\nendpoints:\n{endpoints}"
    )
}

/// A store without files.
///
/// Somebody must listen to the log from the beginning: `tracing` forgets for good a line that one thread comes
/// to when nobody listens, and may do so just when a test on another thread begins to listen.
fn new_store() -> Store {
    static LISTEN: Once = Once::new();
    LISTEN.call_once(|| drop(set_global_default(tracing_subscriber::registry())));
    Store::new("node-1", Options::default())
}

/// Files without a directory.
struct Files {
    store: Store,
    content: RefCell<BTreeMap<String, String>>,
    /// Which files were read again.
    again: RefCell<Vec<String>>,
}

impl Files {
    fn new() -> Self {
        Files { store: new_store(), content: RefCell::default(), again: RefCell::default() }
    }

    /// Writes files (`None` deletes), looks, and tells the changes shortly.
    fn write(&mut self, files: &[(&str, Option<&str>)]) -> Vec<String> {
        for (name, content) in files {
            match content {
                Some(content) => {
                    self.content.borrow_mut().insert((*name).to_owned(), (*content).to_owned());
                    self.store.put(&[((*name).to_owned(), content.as_bytes().to_vec())]);
                }
                None => {
                    self.content.borrow_mut().remove(*name);
                    self.store.remove(name);
                }
            }
        }
        let changes = self.store.difference(|name| {
            self.again.borrow_mut().push(name.to_owned());
            let content = self.content.borrow().get(name).cloned();
            content.map(String::into_bytes).ok_or_else(|| io::ErrorKind::NotFound.into())
        });
        changes.iter().map(short).collect()
    }

    fn put(&mut self, name: &str, content: &str) -> Vec<String> {
        self.write(&[(name, Some(content))])
    }
}

/// A change in a few words.
fn short(change: &Change) -> String {
    match change {
        Change::Service(name, Some(service)) => {
            let ips: Vec<_> = service.cluster_ips.iter().map(ToString::to_string).collect();
            format!("Service {name} {}", ips.join(" "))
        }
        Change::EndpointSlice(name, Some(slice)) => {
            let ips: Vec<_> = slice.endpoints.iter().map(|e| e.address.to_string()).collect();
            format!("EndpointSlice {name} {}", ips.join(" "))
        }
        Change::Node(Some(node)) => {
            let ips: Vec<_> = node.addresses.iter().map(ToString::to_string).collect();
            format!("Node {} {}", node.name, ips.join(" "))
        }
        Change::ServiceCidr(name, Some(cidrs)) => {
            let cidrs: Vec<_> = cidrs.iter().map(ToString::to_string).collect();
            format!("ServiceCIDR {name} {}", cidrs.join(" "))
        }
        Change::Service(name, None) => format!("no Service {name}"),
        Change::EndpointSlice(name, None) => format!("no EndpointSlice {name}"),
        Change::Node(None) => "no Node".to_owned(),
        Change::ServiceCidr(name, None) => format!("no ServiceCIDR {name}"),
    }
}

const NONE: [&str; 0] = [];
