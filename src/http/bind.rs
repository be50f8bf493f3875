//! Opening listening sockets the way Go's `net.Listen` does, which users of kube-proxy rely on.

use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use tokio::net::TcpListener;

/// Connections that wait to be accepted; the kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// Listens on `address`. An unspecified address, of either family, takes connections of both, as
/// Go's network "tcp" does; where IPv6 is not available it is the address as given.
pub fn any_family(address: SocketAddr) -> io::Result<TcpListener> {
    if address.ip().is_unspecified() {
        let both = SocketAddr::from((Ipv6Addr::UNSPECIFIED, address.port()));
        match listen(both, false) {
            Err(error) if error.kind() != io::ErrorKind::AddrInUse && address.is_ipv4() => {}
            result => return result,
        }
    }
    own_family(address)
}

/// Listens on `address` for its own family only, as Go's networks "tcp4" and "tcp6" do.
pub fn own_family(address: SocketAddr) -> io::Result<TcpListener> {
    listen(address, true)
}

fn listen(address: SocketAddr, only_own_family: bool) -> io::Result<TcpListener> {
    let kind = Type::STREAM.nonblocking().cloexec();
    let socket = Socket::new(Domain::for_address(address), kind, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(only_own_family)?;
    }
    // A restart must not wait for the connections of the process before to be forgotten.
    socket.set_reuse_address(true)?;
    socket.bind(&SockAddr::from(address))?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}
