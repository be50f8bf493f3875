//! The kernel room against a real kernel, each test in network namespaces of its own.

mod addresses;
mod conntrack;
mod leftovers;
mod localhost;
