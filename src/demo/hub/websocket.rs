//! A WebSocket as the stream of bytes that goes through it: the messages' borders mean nothing.

use std::io;
use std::pin::Pin;
use std::task::{ready, Context, Poll};

use base64::prelude::{Engine, BASE64_STANDARD};
use bytes::Bytes;
use futures_util::{Sink, Stream as _};
use hyper::header::{HeaderValue, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION};
use hyper::{Method, Request, StatusCode};
use ring::digest;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_websockets::{Error, Message, ServerBuilder, WebSocketStream};

use super::stream::{Ahead, Io};

/// The hub's path, and the service bus's, which the stack in C of the vendor's Python SDK asks for at any hub.
const PATHS: [&str; 2] = ["/$iothub/websocket", "/$servicebus/websocket/"];

/// What is spoken in a WebSocket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Mqtt,
    Amqp,
}

impl Protocol {
    pub fn as_str(self) -> &'static str {
        match self {
            Protocol::Mqtt => "mqtt",
            Protocol::Amqp => "AMQPWSB10",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Protocol::Mqtt, Protocol::Amqp].into_iter().find(|protocol| protocol.as_str() == text)
    }
}

/// What a client wants to speak, and the answer to its key; or the status that refuses it.
pub(super) fn handshake<B>(request: &Request<B>) -> Result<(Protocol, HeaderValue), StatusCode> {
    let header = |name| request.headers().get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    if !PATHS.contains(&request.uri().path()) {
        return Err(StatusCode::NOT_FOUND);
    }
    let wanted = header(SEC_WEBSOCKET_PROTOCOL).unwrap_or_default();
    let protocol = wanted.split(',').find_map(|name| Protocol::parse(name.trim()));
    let is_sound = request.method() == Method::GET && header(SEC_WEBSOCKET_VERSION) == Some("13");
    match (protocol, header(SEC_WEBSOCKET_KEY)) {
        (Some(protocol), Some(key)) if is_sound => Ok((protocol, accept(key))),
        _ => Err(StatusCode::BAD_REQUEST),
    }
}

/// RFC 6455, 4.2.2.
fn accept(key: &str) -> HeaderValue {
    let salted = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    let hash = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, salted.as_bytes());
    HeaderValue::from_str(&BASE64_STANDARD.encode(hash)).expect("base64 is good for a header")
}

/// The bytes in a WebSocket.
pub(super) struct Socket {
    socket: WebSocketStream<Ahead>,
    read: Bytes,
    bytes_max: usize,
}

impl Socket {
    /// Over a stream on which the handshake is through. A message that is sent has at most so many bytes.
    pub fn new(stream: Ahead, bytes_max: Option<usize>) -> Self {
        let bytes_max = bytes_max.unwrap_or(usize::MAX).max(1);
        Socket { socket: ServerBuilder::new().serve(stream), read: Bytes::new(), bytes_max }
    }
}

impl Io for Socket {
    fn tcp(&self) -> &TcpStream {
        self.socket.get_ref().tcp()
    }
}

fn io_error(error: Error) -> io::Error {
    match error {
        Error::Io(error) => error,
        other => io::Error::new(io::ErrorKind::InvalidData, other),
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.read.is_empty() {
            match ready!(Pin::new(&mut self.socket).poll_next(cx)) {
                None => return Poll::Ready(Ok(())),
                Some(Err(error)) => return Poll::Ready(Err(io_error(error))),
                Some(Ok(message)) if message.is_binary() => self.read = message.into_payload().into(),
                Some(Ok(message)) if message.is_text() => return Poll::Ready(Err(io::ErrorKind::InvalidData.into())),
                Some(Ok(_)) => {}
            }
        }
        let some = self.read.len().min(to.remaining());
        to.put_slice(&self.read.split_to(some));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(Pin::new(&mut self.socket).poll_ready(cx)).map_err(io_error)?;
        let some = &bytes[..bytes.len().min(self.bytes_max)];
        Pin::new(&mut self.socket).start_send(Message::binary(some.to_vec())).map_err(io_error)?;
        Poll::Ready(Ok(some.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx).map_err(io_error)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_close(cx).map_err(io_error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(path: &str, protocol: &str) -> Request<()> {
        Request::get(path)
            .header(SEC_WEBSOCKET_VERSION, "13")
            .header(SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZQ==")
            .header(SEC_WEBSOCKET_PROTOCOL, protocol)
            .body(())
            .unwrap()
    }

    #[test]
    fn the_key_is_answered_as_in_the_rfc() {
        let answered = handshake(&request("/$iothub/websocket?iothub-no-client-cert=true", "mqttv3.1, mqtt"));
        let (protocol, accept) = answered.unwrap();
        assert_eq!(protocol, Protocol::Mqtt);
        assert_eq!(accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn another_path_or_protocol_is_refused() {
        assert_eq!(handshake(&request("/mqtt", "mqtt")).unwrap_err(), StatusCode::NOT_FOUND);
        assert_eq!(handshake(&request(PATHS[0], "amqp")).unwrap_err(), StatusCode::BAD_REQUEST);
        let mut keyless = request(PATHS[1], "AMQPWSB10");
        keyless.headers_mut().remove(SEC_WEBSOCKET_KEY);
        assert_eq!(handshake(&keyless).unwrap_err(), StatusCode::BAD_REQUEST);
    }
}
