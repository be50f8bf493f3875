//! The socket itself: how it is set up, and the two calls.

use super::Error;
use netlink_sys::{Socket, SocketAddr};
use nix::sys::socket::{getsockopt, setsockopt, sockopt};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

/// The kernel keeps some of the send buffer for itself (`netlink_sendmsg` in `net/netlink/af_netlink.c`).
const OVERHEAD: usize = 4096;

/// The two calls: the seam for tests.
pub trait Transport {
    /// Sends in one piece.
    fn send(&mut self, messages: &[u8]) -> Result<(), Error>;

    /// Fills the buffer with one datagram; EAGAIN if there is none.
    fn receive(&mut self, buffer: &mut Vec<u8>) -> io::Result<()>;
}

/// How a socket is set up.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options<'a> {
    /// Bytes of the receive buffer; None: as many as the system gives (`net.core.rmem_default`).
    pub receive_buffer: Option<usize>,
    /// Asks the kernel to honour what the header of a dump request says, which older ones ignore.
    pub strict: bool,
    /// Multicast groups whose events are received.
    pub groups: &'a [u32],
}

/// A socket to the kernel.
#[derive(Debug)]
pub struct KernelSocket {
    socket: Socket,
    send_buffer: usize,
    port: u32,
}

impl KernelSocket {
    pub(super) fn open(protocol: isize, options: &Options<'_>) -> io::Result<KernelSocket> {
        let mut socket = Socket::new(protocol)?;
        // Errors then carry a text and the place of the error, and not the whole failed message.
        socket.set_ext_ack(true)?;
        socket.set_cap_ack(true)?;
        if options.strict {
            let _ = socket.set_netlink_get_strict_chk(true);
        }
        if let Some(bytes) = options.receive_buffer
            && setsockopt(&socket, sockopt::RcvBufForce, &bytes).is_err()
        {
            // Forcing takes CAP_NET_ADMIN in the initial user namespace; this ends at net.core.rmem_max.
            let _ = setsockopt(&socket, sockopt::RcvBuf, &bytes);
        }
        socket.bind_auto()?;
        // Nobody but the kernel can send to it from here on (netlink_getsockbyportid).
        socket.connect(&SocketAddr::new(0, 0))?;
        for group in options.groups {
            socket.add_membership(*group)?;
        }
        let mut address = SocketAddr::new(0, 0);
        socket.get_address(&mut address)?;
        let send_buffer = getsockopt(&socket, sockopt::SndBuf).unwrap_or(0);
        Ok(KernelSocket { socket, send_buffer, port: address.port_number() })
    }

    /// The number that the kernel knows the socket by.
    pub(super) fn port(&self) -> u32 {
        self.port
    }

    /// Joins a multicast group, or leaves it.
    pub(super) fn set_member(&mut self, group: u32, is_member: bool) -> io::Result<()> {
        match is_member {
            true => self.socket.add_membership(group),
            false => self.socket.drop_membership(group),
        }
    }

    /// Makes the send buffer large enough, as far as the kernel allows.
    fn make_room(&mut self, bytes: usize) {
        let wanted = bytes + OVERHEAD;
        if self.send_buffer >= wanted {
            return;
        }
        if setsockopt(&self.socket, sockopt::SndBufForce, &wanted).is_err() {
            let _ = setsockopt(&self.socket, sockopt::SndBuf, &wanted);
        }
        self.send_buffer = getsockopt(&self.socket, sockopt::SndBuf).unwrap_or(wanted);
    }
}

impl Transport for KernelSocket {
    fn send(&mut self, messages: &[u8]) -> Result<(), Error> {
        self.make_room(messages.len());
        match self.socket.send(messages, 0) {
            Ok(_) => Ok(()),
            Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) => {
                Err(Error::TooLarge { bytes: messages.len(), limit: self.send_buffer })
            }
            Err(source) => Err(Error::Socket { what: "sending over netlink", source }),
        }
    }

    fn receive(&mut self, buffer: &mut Vec<u8>) -> io::Result<()> {
        self.socket.recv(buffer, libc::MSG_DONTWAIT).map(|_| ())
    }
}

impl AsFd for KernelSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
