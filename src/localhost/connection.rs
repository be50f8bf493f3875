//! One relayed connection.

use super::relays::{Activity, IDLE};
use super::service_port::ServicePort;
use socket2::SockRef;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::copy_bidirectional;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tracing::{debug, trace};

/// How long an endpoint may take to accept.
const DIAL_TIMEOUT: Duration = Duration::from_secs(5);

/// Relays between a client and an endpoint until both directions are done. One direction that ends
/// is closed towards the other side, while the other direction goes on. Whatever fails resets both
/// connections, so that neither side takes what it got for all there was.
pub(super) async fn relay(
    service: &ServicePort,
    client: TcpStream,
    from: SocketAddr,
    activity: Activity,
) {
    let Some(endpoint) = service.choose(from.ip()) else {
        reset(&client); // the last endpoint went since the client connected
        return;
    };
    let server = match dial(endpoint).await {
        Ok(server) => server,
        Err(error) => {
            debug!(service = %service.name, %endpoint, %error, "cannot connect to the endpoint");
            reset(&client);
            return;
        }
    };
    let _ = client.set_nodelay(true);
    let (mut client, mut server) = (activity.of(client), activity.of(server));
    let result = tokio::select! {
        result = copy_bidirectional(&mut client, &mut server) => result.map(|_| ()),
        () = activity.silence(IDLE) => Err(io::ErrorKind::TimedOut.into()),
    };
    if let Err(error) = result {
        trace!(service = %service.name, %endpoint, %error, "connection broken");
        reset(&client.stream);
        reset(&server.stream);
    }
}

async fn dial(endpoint: SocketAddr) -> io::Result<TcpStream> {
    let server = timeout(DIAL_TIMEOUT, TcpStream::connect(endpoint)).await??;
    let _ = server.set_nodelay(true);
    // An endpoint that vanished without a word is noticed in the end.
    let _ = SockRef::from(&server).set_keepalive(true);
    Ok(server)
}

/// Has the kernel send RST instead of FIN when the socket is dropped.
fn reset(stream: &TcpStream) {
    let _ = stream.set_zero_linger();
}
