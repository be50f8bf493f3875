//! Packet tests: real connections through a real kernel, in network namespaces of their own.
mod harness;
mod lab;
