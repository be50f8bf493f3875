//! Follows rtnetlink events on a thread of its own.
//!
//! An event only says *that* something changed; what holds now is then read anew with a dump that
//! the kernel filters to local routes. So a lost event costs nothing but another dump, and many
//! events in a row cost one. Events about routes of other types (pods, BGP) are recognised by
//! their header and dropped.

use super::dump::Dumper;
use super::{AddressError, LocalAddresses};
use crate::kernel::netlink::{Error, Messages, Netlink, Options, Received};
use netlink_packet_route::route::{RouteHeader, RouteType};
use netlink_sys::protocols::NETLINK_ROUTE;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::thread::{self, JoinHandle};
use std::time::Duration;
use tracing::{debug, warn};

// Multicast groups and message types of linux/rtnetlink.h.
const RTNLGRP_LINK: u32 = 1;
const RTNLGRP_IPV4_IFADDR: u32 = 5;
const RTNLGRP_IPV4_ROUTE: u32 = 7;
const RTNLGRP_IPV6_IFADDR: u32 = 9;
const RTNLGRP_IPV6_ROUTE: u32 = 11;
/// Links matter because routes without an address go silently with their interface.
const GROUPS: [u32; 5] = [
    RTNLGRP_LINK,
    RTNLGRP_IPV4_IFADDR,
    RTNLGRP_IPV4_ROUTE,
    RTNLGRP_IPV6_IFADDR,
    RTNLGRP_IPV6_ROUTE,
];

/// Receive buffer for events, in bytes: about a thousand events before one is lost, which is
/// harmless but costs a dump.
const RECEIVE_BUFFER: usize = 1024 * 1024;
/// When the next attempt is made after a dump failed.
const RETRY: Duration = Duration::from_secs(1);

/// A running watch. Dropping it ends the thread.
#[derive(Debug)]
pub struct AddressWatch {
    stop: UnixStream,
    thread: Option<JoinHandle<()>>,
}

impl AddressWatch {
    /// Reads the present state and follows it from there, in the network namespace of the calling
    /// thread. `on_change` gets every snapshot that differs from the one before (the first one is
    /// returned, not passed), on the watch's own thread.
    pub fn start(
        on_change: impl FnMut(LocalAddresses) + Send + 'static,
    ) -> Result<(AddressWatch, LocalAddresses), AddressError> {
        // Events first: what changes between the two is then seen twice rather than never.
        let options =
            Options { receive_buffer: Some(RECEIVE_BUFFER), groups: &GROUPS, ..Options::default() };
        let events = Netlink::open(NETLINK_ROUTE, &options)
            .map_err(|source| AddressError::Socket { what: "address events", source })?;
        let mut dumper = Dumper::open()?;
        let first = dumper.snapshot()?;
        let (stop, stopped) = UnixStream::pair().map_err(AddressError::Thread)?;
        let follower = Follower { events, dumper, last: first.clone(), stopped, on_change };
        let thread = thread::Builder::new()
            .name("addresses".into())
            .spawn(move || follower.run())
            .map_err(AddressError::Thread)?;
        Ok((AddressWatch { stop, thread: Some(thread) }, first))
    }
}

impl Drop for AddressWatch {
    fn drop(&mut self) {
        let _ = self.stop.write_all(b"x");
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Follower<F> {
    events: Netlink,
    dumper: Dumper,
    last: LocalAddresses,
    stopped: UnixStream,
    on_change: F,
}

impl<F: FnMut(LocalAddresses)> Follower<F> {
    fn run(mut self) {
        let mut dirty = false;
        let mut warned = false;
        loop {
            // Something is left to do only when the last dump failed.
            let timeout = dirty.then_some(RETRY);
            match wait(&self.events, &self.stopped, timeout) {
                Ok(Wake::Stop) => return,
                Ok(Wake::Events) => match self.drain() {
                    Ok(relevant) => dirty |= relevant,
                    Err(error) => {
                        warn!(%error, "cannot read address events; reading the whole state");
                        dirty = true;
                        thread::sleep(RETRY);
                    }
                },
                Ok(Wake::Timeout) => {}
                Err(error) => {
                    warn!(%error, "cannot wait for address events");
                    thread::sleep(RETRY);
                }
            }
            if !dirty {
                continue;
            }
            match self.dumper.snapshot() {
                Ok(snapshot) => {
                    dirty = false;
                    warned = false;
                    self.publish(snapshot);
                }
                Err(error) if warned => debug!(%error, "still cannot read local addresses"),
                Err(error) => {
                    warned = true;
                    warn!(%error, "keeping the local addresses known before; retrying");
                }
            }
        }
    }

    fn publish(&mut self, snapshot: LocalAddresses) {
        if snapshot != self.last {
            debug!(
                routes = snapshot.local_routes.len(),
                addresses = snapshot.interface_addresses.len(),
                "local addresses changed"
            );
            self.last = snapshot.clone();
            (self.on_change)(snapshot);
        }
    }

    /// Reads all events that are there; true when one of them may change the snapshot, or when
    /// some were lost.
    fn drain(&mut self) -> Result<bool, Error> {
        let mut relevant = false;
        loop {
            match self.events.receive()? {
                Received::Messages(messages) => relevant |= concern_local_addresses(messages),
                Received::Overflow => {
                    debug!("address events were lost; reading the whole state");
                    relevant = true;
                }
                Received::Nothing => return Ok(relevant),
            }
        }
    }
}

/// Whether one of the messages is about an address, a route of type local or the end of an interface.
fn concern_local_addresses(mut messages: Messages<'_>) -> bool {
    messages.any(|message| match message.message_type {
        libc::RTM_NEWADDR | libc::RTM_DELADDR | libc::RTM_DELLINK => true,
        libc::RTM_NEWROUTE | libc::RTM_DELROUTE => {
            let header = RouteHeader::parse(message.payload);
            header.is_ok_and(|header| header.kind == RouteType::Local)
        }
        _ => false,
    })
}

enum Wake {
    Events,
    Stop,
    Timeout,
}

/// Blocks until the socket has something to read (or an error to tell), or the watch was dropped.
fn wait(events: &impl AsFd, stopped: &UnixStream, timeout: Option<Duration>) -> io::Result<Wake> {
    let mut fds = [events.as_fd().as_raw_fd(), stopped.as_raw_fd()].map(|fd| libc::pollfd {
        fd,
        events: libc::POLLIN,
        revents: 0,
    });
    let millis = timeout.map_or(-1, |timeout| timeout.as_millis() as libc::c_int);
    // SAFETY: `fds` is a valid array of its length for the time of the call, and both descriptors
    // are borrowed for as long.
    let ready = unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, millis) };
    if ready < 0 {
        let error = io::Error::last_os_error();
        return match error.kind() {
            io::ErrorKind::Interrupted => Ok(Wake::Timeout),
            _ => Err(error),
        };
    }
    if fds[1].revents != 0 {
        return Ok(Wake::Stop);
    }
    Ok(if fds[0].revents != 0 { Wake::Events } else { Wake::Timeout })
}
