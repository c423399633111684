//! A WebSocket (RFC 6455) as a byte stream, for the protocols that go through one at the hub's port 443.
//!
//! Invariants
//! - Messages carry bytes: where one ends and the next begins means nothing.
//! - Whatever is not binary is an error; pings are answered by the library, while something is read.

use std::io;
use std::pin::Pin;
use std::task::{ready, Context, Poll};

use bytes::{Buf as _, Bytes};
use futures_util::{Sink as _, Stream as _};
use http::header::SEC_WEBSOCKET_PROTOCOL;
use http::HeaderValue;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_websockets::{upgrade, ClientBuilder, Error, Limits, Message, WebSocketStream};

use crate::hub::trouble::Trouble;
use crate::net::Stream;

/// Largest message that is read, in bytes: larger than anything that a hub sends.
const MESSAGE_BYTES_MAX: usize = 1024 * 1024;
/// Most bytes that are put into one message.
const WRITTEN_BYTES_MAX: usize = 64 * 1024;

/// Opens a WebSocket at a hub. `protocol`: what is to go through it.
///
/// # Errors
/// What answers is no hub's WebSocket.
pub(super) async fn open(
    stream: Box<dyn Stream>,
    host: &str,
    has_certificate: bool,
    protocol: &'static str,
) -> Result<Box<dyn Stream>, Trouble> {
    let query = if has_certificate { "" } else { "?iothub-no-client-cert=true" };
    let no_name = |_| Trouble::WebSocket(format!("{host:?} is no host name; check `hub.host`"));
    let builder = ClientBuilder::new().uri(&format!("wss://{host}/$iothub/websocket{query}")).map_err(no_name)?;
    let asked = HeaderValue::from_static(protocol);
    let builder = builder.add_header(SEC_WEBSOCKET_PROTOCOL, asked).expect("it is none of the handshake's own headers");
    let builder = builder.limits(Limits::default().max_payload_len(Some(MESSAGE_BYTES_MAX)));
    let (inner, answer) = builder.connect_on(stream).await.map_err(|error| refused(&error))?;
    let agreed = answer.headers().get(SEC_WEBSOCKET_PROTOCOL);
    if agreed.is_none_or(|agreed| !agreed.as_bytes().eq_ignore_ascii_case(protocol.as_bytes())) {
        return Err(Trouble::WebSocket(format!(
            "it opened, but not for {protocol}; is it a hub's? check `hub.host` and `hub.address`"
        )));
    }
    Ok(Box::new(WebSocket { inner, unread: Bytes::new() }))
}

/// Why it did not open.
fn refused(error: &Error) -> Trouble {
    let why = match error {
        Error::Io(error) => return Trouble::Broken(error.to_string()),
        Error::Upgrade(upgrade::Error::DidNotSwitchProtocols(status)) => match status {
            401 | 403 => {
                format!("the server refuses it ({status}); check `hub.host`, and that the hub lets this network in")
            }
            300..=399 | 511 => {
                format!("a page answers ({status}); something between stands in the hub's place: a log-in, or a filter")
            }
            404 => "nothing is there (404); check `hub.host` and `hub.address`: is it a hub?".to_owned(),
            429 | 500..=599 => {
                format!("the server can't take it now ({status}); it may be throttling, the daemon tries again")
            }
            _ => format!("the server does not open it ({status}); check `hub.host` and `hub.address`: is it a hub?"),
        },
        other => format!("the answer is none to a WebSocket ({other}); does something between intercept it?"),
    };
    Trouble::WebSocket(why)
}

/// The stream.
struct WebSocket {
    inner: WebSocketStream<Box<dyn Stream>>,
    /// Of a message, what has not been read yet.
    unread: Bytes,
}

fn broken(error: Error) -> io::Error {
    match error {
        Error::Io(error) => error,
        other => io::Error::new(io::ErrorKind::InvalidData, format!("WebSocket: {other}")),
    }
}

impl AsyncRead for WebSocket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.unread.is_empty() {
            match ready!(Pin::new(&mut self.inner).poll_next(cx)) {
                None => return Poll::Ready(Ok(())),
                Some(Err(error)) => return Poll::Ready(Err(broken(error))),
                Some(Ok(message)) if message.is_binary() => self.unread = message.into_payload().into(),
                Some(Ok(message)) if message.is_text() => {
                    let why = "WebSocket: the hub sent text, where only binary messages have a meaning";
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, why)));
                }
                // A ping, a pong, or the goodbye, which the end of the stream follows.
                Some(Ok(_)) => {}
            }
        }
        let length = self.unread.len().min(buffer.remaining());
        buffer.put_slice(&self.unread[..length]);
        self.unread.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for WebSocket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(Pin::new(&mut self.inner).poll_ready(cx)).map_err(broken)?;
        let length = bytes.len().min(WRITTEN_BYTES_MAX);
        let message = Message::binary(Bytes::copy_from_slice(&bytes[..length]));
        Pin::new(&mut self.inner).start_send(message).map_err(broken)?;
        Poll::Ready(Ok(length))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx).map_err(broken)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match ready!(Pin::new(&mut self.inner).poll_close(cx)) {
            // It is closed already.
            Ok(()) | Err(Error::AlreadyClosed) => Poll::Ready(Ok(())),
            Err(error) => Poll::Ready(Err(broken(error))),
        }
    }
}
