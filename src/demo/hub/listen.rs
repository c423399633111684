//! Where the hub listens: a port for each of MQTT, AMQP, and the web (WebSockets and HTTPS), TLS on each of them.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::stream::{Stream, OPEN_TIMEOUT};
use super::tls::thumbprints;
use super::{amqp, connection, web, Options, Shared};

/// What is spoken behind a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Door {
    Mqtt,
    Web,
    Amqp,
}

impl Door {
    pub const ALL: [Door; 3] = [Door::Mqtt, Door::Web, Door::Amqp];

    /// Where it is to be.
    pub fn address(self, options: &Options) -> SocketAddr {
        let port = match self {
            Door::Mqtt => options.bind.port(),
            Door::Web => options.web_port,
            Door::Amqp => options.amqp_port,
        };
        SocketAddr::new(options.bind.ip(), port)
    }
}

/// Takes connections until it is aborted; their tasks end with it.
pub(super) async fn accept(shared: Arc<Shared>, listener: TcpListener, door: Door) {
    let mut connections = JoinSet::new();
    loop {
        if let Ok((tcp, _)) = listener.accept().await {
            connections.spawn(serve(shared.clone(), tcp, door));
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn serve(shared: Arc<Shared>, tcp: TcpStream, door: Door) {
    let secured = timeout(OPEN_TIMEOUT, secure(&shared, tcp)).await;
    let Ok(Ok((stream, shown))) = secured else { return };
    match door {
        Door::Mqtt => connection::serve(shared, stream, &shown).await,
        Door::Web => web::serve(shared, stream, shown).await,
        Door::Amqp => amqp::serve(shared, stream, shown).await,
    }
}

/// The stream, and the thumbprints of the client's certificate if it showed one.
async fn secure(shared: &Shared, tcp: TcpStream) -> io::Result<(Stream, Vec<String>)> {
    tcp.set_nodelay(true)?;
    if shared.with(|state| state.stall_handshakes) {
        std::future::pending::<()>().await;
    }
    let Some(config) = &shared.tls else { return Ok((Box::new(tcp), vec![])) };
    let tls = TlsAcceptor::from(config.clone()).accept(tcp).await?;
    let certs = tls.get_ref().1.peer_certificates().unwrap_or_default();
    let shown = certs.iter().take(1).flat_map(|cert| thumbprints(cert)).collect();
    Ok((Box::new(tls), shown))
}
