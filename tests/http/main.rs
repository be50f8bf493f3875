//! The HTTP servers over real connections.

mod crowd;
mod servers;
mod service_checks;
