//! A client's bytes as a stream, through whatever they come.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;

/// TLS must be through by then, and then what a client says first.
pub(super) const OPEN_TIMEOUT: Duration = Duration::from_secs(30);
/// How long an ending connection waits for the client's side to end, lest a reset overtake what was written.
const LINGER: Duration = Duration::from_millis(200);

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
