//! What other programs do to one table, as the kernel tells it.
//!
//! Each commit ends with an event that names the process; those before it say what was changed. A standing listener
//! makes large commits about ten times slower, everybody's, so the watch can leave the group for a while.

use super::Error;
use crate::kernel::netlink::{Message, Netlink, Options, Received};
use netlink_sys::protocols::NETLINK_NETFILTER;
use nft_table::netlink::numbers::{INET, element, message};
use nft_table::netlink::walk;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

/// `NFNLGRP_NFTABLES` of `linux/netfilter/nfnetlink.h`
const GROUP: u32 = 7;

/// Room for the events of some thousand changes, in bytes. Where it does not suffice, everything may have changed.
const RECEIVE_BUFFER: usize = 8 * 1024 * 1024;

/// Bytes of the netfilter header at the beginning of a payload.
const NETFILTER_HEADER: usize = 4;

/// Attribute 1 of all objects is the name of their table.
const TABLE_NAME: u16 = 1;

/// `NFTA_GEN_PROC_PID`, `NFTA_GEN_PROC_NAME`
const PROCESS_ID: u16 = 2;
const PROCESS_NAME: u16 = 3;

/// What is written to the thread; it answers with the same.
const JOIN: u8 = b'j';
const LEAVE: u8 = b'l';

/// What another program did to the table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// The table as a whole was added or deleted.
    pub table: bool,
    /// Chains, rules or sets were added or deleted.
    pub rules: bool,
    /// Sets and maps with elements that were added or deleted.
    pub sets: BTreeSet<Arc<str>>,
    /// Events were lost: anything may have happened.
    pub everything: bool,
    /// Who did it, where the kernel says so; the last one, if there were several.
    pub by: Option<Process>,
}

/// A process, as the kernel names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    pub pid: u32,
    pub name: String,
}

impl Touched {
    /// Whether nothing was done.
    pub fn is_nothing(&self) -> bool {
        !self.table && !self.rules && self.sets.is_empty() && !self.everything
    }

    /// Adds what was done later.
    pub fn merge(&mut self, later: Touched) {
        self.table |= later.table;
        self.rules |= later.rules;
        self.everything |= later.everything;
        self.sets.extend(later.sets);
        self.by = later.by.or(self.by.take());
    }
}

/// A running watch, which begins outside the group. Dropping it ends the thread.
#[derive(Debug)]
pub struct TableWatch {
    commands: UnixStream,
    thread: Option<JoinHandle<()>>,
}

impl TableWatch {
    /// Watches a table of family inet in the network namespace of the calling thread. `on_touch` is told what
    /// others than the socket `own_port` did with each of their commits, on the watch's own thread.
    ///
    /// # Errors
    /// There is no socket or no thread to be had.
    pub fn start(
        table: &str,
        own_port: u32,
        on_touch: impl FnMut(Touched) + Send + 'static,
    ) -> Result<TableWatch, Error> {
        let options = Options { receive_buffer: Some(RECEIVE_BUFFER), ..Options::default() };
        let what = "listening for changes of nftables";
        let error = |source| Error::Socket { what, source };
        let socket = Netlink::open(NETLINK_NETFILTER, &options).map_err(error)?;
        let (commands, received) = UnixStream::pair().map_err(error)?;
        let follower =
            Follower { socket, commands: received, events: Events::new(table, own_port), on_touch };
        let thread = thread::Builder::new()
            .name("nft-events".into())
            .spawn(move || follower.run())
            .map_err(error)?;
        Ok(TableWatch { commands, thread: Some(thread) })
    }

    /// Begins to listen. Nothing is known about what happened before.
    ///
    /// # Errors
    /// The kernel does not allow it, or the thread has ended.
    pub fn join(&mut self) -> Result<(), Error> {
        self.command(JOIN)
    }

    /// Stops listening.
    ///
    /// # Errors
    /// The thread has ended.
    pub fn leave(&mut self) -> Result<(), Error> {
        self.command(LEAVE)
    }

    fn command(&mut self, command: u8) -> Result<(), Error> {
        let mut answer = [0];
        let done = self
            .commands
            .write_all(&[command])
            .and_then(|()| self.commands.read_exact(&mut answer));
        let refused = || io::Error::other("the kernel refuses it");
        done.and_then(|()| if answer[0] == command { Ok(()) } else { Err(refused()) })
            .map_err(|source| Error::Socket { what: "listening for changes of nftables", source })
    }
}

impl Drop for TableWatch {
    fn drop(&mut self) {
        let _ = self.commands.shutdown(std::net::Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Follower<F> {
    socket: Netlink,
    commands: UnixStream,
    events: Events,
    on_touch: F,
}

impl<F: FnMut(Touched)> Follower<F> {
    fn run(mut self) {
        loop {
            let mut ready = [
                PollFd::new(self.socket.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.commands.as_fd(), PollFlags::POLLIN),
            ];
            if poll(&mut ready, PollTimeout::NONE).is_err() {
                continue;
            }
            let is_commanded = ready[1].any().unwrap_or(true);
            self.receive();
            if is_commanded && self.obey().is_err() {
                return;
            }
        }
    }

    fn obey(&mut self) -> io::Result<()> {
        let mut command = [0];
        self.commands.read_exact(&mut command)?;
        if self.socket.set_member(GROUP, command[0] == JOIN).is_err() {
            command[0] = b'?';
        }
        if command[0] == LEAVE {
            self.receive();
        }
        self.commands.write_all(&command)
    }

    /// Reads all events that are there.
    fn receive(&mut self) {
        loop {
            match self.socket.receive() {
                Ok(Received::Messages(messages)) => {
                    for message in messages {
                        if let Some(touched) = self.events.take(&message) {
                            (self.on_touch)(touched);
                        }
                    }
                }
                Ok(Received::Overflow) => {
                    (self.on_touch)(Touched { everything: true, ..Touched::default() });
                }
                Ok(Received::Nothing) => return,
                Err(error) => {
                    tracing::warn!("cannot read events of nftables: {error}");
                    return;
                }
            }
        }
    }
}

/// Gathers the events of a commit.
pub(super) struct Events {
    table: String,
    own_port: u32,
    touched: Touched,
}

impl Events {
    pub(super) fn new(table: &str, own_port: u32) -> Events {
        Events { table: table.to_owned(), own_port, touched: Touched::default() }
    }

    /// Takes in an event; returns what was done when it is the last one of a commit.
    pub(super) fn take(&mut self, event: &Message<'_>) -> Option<Touched> {
        if event.port == self.own_port {
            return None;
        }
        let (header, attributes) = event.payload.split_at_checked(NETFILTER_HEADER)?;
        let attribute = |wanted| {
            walk::attributes(attributes).find(|(kind, _)| *kind == wanted).map(|(_, value)| value)
        };
        if event.message_type == message::NEW_GENERATION {
            let mut touched = std::mem::take(&mut self.touched);
            let pid = attribute(PROCESS_ID).and_then(|value| walk::number(value).ok());
            let name = attribute(PROCESS_NAME).map(walk::string).unwrap_or_default();
            touched.by = pid.map(|pid| Process { pid, name: name.to_owned() });
            return (!touched.is_nothing()).then_some(touched);
        }
        if header[0] != INET || attribute(TABLE_NAME).map(walk::string) != Some(&self.table) {
            return None;
        }
        match event.message_type {
            message::NEW_TABLE | message::DELETE_TABLE => self.touched.table = true,
            message::NEW_ELEMENTS | message::DELETE_ELEMENTS => {
                let set = attribute(element::SET).map(walk::string).unwrap_or_default();
                if !self.touched.sets.contains(set) {
                    self.touched.sets.insert(set.into());
                }
            }
            _ => self.touched.rules = true,
        }
        None
    }
}
