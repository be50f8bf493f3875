//! Ways to have the proxy in a lab: [`Proxy`] in this process, synchronous and quick, and the real [`Program`].

mod builders;
mod in_process;
mod manifests;
mod program;

pub use builders::{Endpoints, Service, endpoints, node, service, service_cidr};
pub use in_process::{Config, Proxy};
pub use manifests::Manifests;
pub use program::{Program, program};
/// An API object.
pub use serde_json::Value as Object;

/// Objects of several builders in one list.
#[macro_export]
macro_rules! objects {
    ($($object:expr),* $(,)?) => {{
        let mut all: Vec<$crate::proxy::Object> = Vec::new();
        $(all.extend($object);)*
        all
    }};
}
pub use objects;
