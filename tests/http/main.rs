//! The HTTP servers over real connections.

mod servers;
mod service_checks;
