//! Why a request came to nothing.

use super::Answer;
use netlink_packet_core::DecodeError;
use std::io;

/// An error of the socket, or of the kernel behind it. Nobody but the caller knows what was asked for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel answered with an error.
    #[error("{0}")]
    Kernel(Answer),
    #[error("{what}: {source}")]
    Socket { what: &'static str, source: io::Error },
    /// What was sent does not fit into the send buffer, which only a process with CAP_NET_ADMIN in the
    /// initial user namespace can enlarge at will.
    #[error(
        "{bytes} bytes do not fit into the send buffer of {limit} bytes: raise net.core.wmem_max or run \
         with CAP_NET_ADMIN"
    )]
    TooLarge { bytes: usize, limit: usize },
    /// The receive buffer was too small for the answer.
    #[error("the kernel's answer was lost: the receive buffer was full")]
    Lost,
    /// The answer stopped before it was complete.
    #[error("the kernel's answer has no end")]
    NoEnd,
    #[error("the kernel's answer cannot be read: {0}")]
    Malformed(#[from] DecodeError),
    /// Others kept changing what was asked for.
    #[error("interrupted by other changes {attempts} times")]
    Interrupted { attempts: usize },
}

impl Error {
    /// An answer of the kernel that is nothing but an errno.
    pub fn of_errno(errno: i32) -> Error {
        Error::Kernel(Answer { sequence: 0, errno, message: String::new(), offset: None })
    }

    /// The errno with which the kernel answered.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Error::Kernel(answer) => Some(answer.errno),
            _ => None,
        }
    }
}
