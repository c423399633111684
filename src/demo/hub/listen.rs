//! Where the hub listens: a port for each of MQTT, AMQP, and the web (WebSockets and HTTPS), TLS on each of them.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;
use tokio_rustls::TlsAcceptor;

use super::tls::thumbprints;
use super::{amqp, connection, web, Options, Shared};

/// TLS must be through by then, and then what a client says first.
pub(super) const OPEN_TIMEOUT: Duration = Duration::from_secs(30);
/// How long an ending connection waits for the client's side to end, lest a reset overtake what was written.
const LINGER: Duration = Duration::from_millis(200);

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

/// A client's bytes, through whatever they come.
pub(super) trait Io: AsyncRead + AsyncWrite + Unpin + Send {
    /// What they come through at last.
    fn tcp(&self) -> &TcpStream;
}

pub(super) type Stream = Box<dyn Io>;

impl Io for TcpStream {
    fn tcp(&self) -> &TcpStream {
        self
    }
}

impl Io for TlsStream<TcpStream> {
    fn tcp(&self) -> &TcpStream {
        self.get_ref().0
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

/// Ends a connection, in order or by a reset.
pub(super) async fn close(mut stream: Stream, reset: bool) {
    if reset {
        let _ = stream.tcp().set_zero_linger();
        return;
    }
    let _ = timeout(LINGER, async {
        stream.shutdown().await?;
        let mut rest = [0; 4096];
        while stream.read(&mut rest).await? > 0 {}
        io::Result::Ok(())
    })
    .await;
}

/// A stream of which something has been read already.
pub(super) struct Ahead {
    ahead: Bytes,
    stream: Stream,
}

impl Ahead {
    pub fn new(ahead: Bytes, stream: Stream) -> Self {
        Ahead { ahead, stream }
    }
}

impl Io for Ahead {
    fn tcp(&self) -> &TcpStream {
        self.stream.tcp()
    }
}

impl AsyncRead for Ahead {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.ahead.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, to);
        }
        let some = self.ahead.len().min(to.remaining());
        to.put_slice(&self.ahead.split_to(some));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Ahead {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
