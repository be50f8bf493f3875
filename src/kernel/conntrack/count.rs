//! Where the connections to an address lead.

use super::filter::DumpFilter;
use super::rule::FlowFrontend;
use super::socket::ConntrackSocket;
use super::{ConntrackError, Family};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

/// Counts the entries of connections to an address and port by where their answers come from: the endpoint, or the
/// address itself where nothing was translated. In the network namespace of the calling thread.
///
/// # Errors
/// The kernel does not list them.
pub fn count(
    address: IpAddr,
    port: u16,
    protocol: u8,
) -> Result<BTreeMap<SocketAddr, u64>, ConntrackError> {
    let family = Family::of(&address);
    let frontend = FlowFrontend::Address(address, port);
    let mut socket = ConntrackSocket::open()?;
    let counts = RefCell::new(BTreeMap::new());
    for filter in DumpFilter::covering(family, protocol, false, [&frontend]) {
        let before = counts.take();
        socket.each(
            &filter,
            // A dump that was interrupted begins anew.
            &|| *counts.borrow_mut() = before.clone(),
            &|flow| {
                if flow.protocol == protocol && flow.original_destination == (address, port) {
                    let (address, port) = flow.reply_source;
                    *counts.borrow_mut().entry(SocketAddr::new(address, port)).or_default() += 1;
                }
            },
        )?;
    }
    Ok(counts.into_inner())
}
