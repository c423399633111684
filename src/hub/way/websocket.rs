//! A WebSocket (RFC 6455) as a byte stream, for the protocols that go through one at the hub's port 443.
//!
//! Invariants
//! - Messages carry bytes: where one ends and the next begins means nothing.
//! - Whatever is not binary is an error; pings are answered by the library, while something is read.

use std::io;
use std::pin::Pin;
use std::task::{ready, Context, Poll};

use base64::prelude::{Engine as _, BASE64_STANDARD};
use bytes::{Buf as _, Bytes};
use futures_util::{Sink as _, Stream as _};
use http::Uri;
use ring::digest::{digest, SHA1_FOR_LEGACY_USE_ONLY};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio_websockets::{ClientBuilder, Error, Limits, Message, WebSocketStream};

use crate::complaint::Complaint;
use crate::hub::trouble::Trouble;
use crate::net::Stream;

/// Largest message that is read, in bytes: larger than anything that a hub sends.
const MESSAGE_BYTES_MAX: usize = 1024 * 1024;
/// Longest head of an answer that is read, in bytes.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Most bytes that are put into one message.
const WRITTEN_BYTES_MAX: usize = 64 * 1024;

/// Opens a WebSocket at a hub. `protocol`: what is to go through it.
///
/// # Errors
/// What answers is no hub's WebSocket.
pub(super) async fn open(
    mut stream: Box<dyn Stream>,
    host: &str,
    has_certificate: bool,
    protocol: &'static str,
) -> Result<Box<dyn Stream>, Trouble> {
    let query = if has_certificate { "" } else { "?iothub-no-client-cert=true" };
    if format!("wss://{host}/").parse::<Uri>().is_err() {
        return Err(Trouble::WebSocket(Complaint::new(format!("{host:?} is not a host name"), "check `hub.host`")));
    }
    let key = BASE64_STANDARD.encode(fastrand::u128(..).to_be_bytes());
    let request = format!(
        "GET /$iothub/websocket{query} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: {protocol}\r\n\r\n"
    );
    let broken = |error: io::Error| Trouble::Broken(error.to_string());
    stream.write_all(request.as_bytes()).await.map_err(broken)?;
    stream.flush().await.map_err(broken)?;
    let head = head(&mut *stream).await?;
    judge(&head, &key, protocol).map_err(Trouble::WebSocket)?;
    let limits = Limits::default().max_payload_len(Some(MESSAGE_BYTES_MAX));
    let inner = ClientBuilder::new().limits(limits).take_over(stream);
    Ok(Box::new(WebSocket { inner, unread: Bytes::new() }))
}

/// The head of the answer. Nothing is read behind it.
async fn head(stream: &mut dyn Stream) -> Result<String, Trouble> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") && !head.ends_with(b"\n\n") {
        head.push(stream.read_u8().await.map_err(|error| Trouble::Broken(error.to_string()))?);
        let begins = b"HTTP/1.";
        let length = head.len().min(begins.len());
        if head.len() > HEAD_BYTES_MAX || head[..length] != begins[..length] {
            return Err(Trouble::WebSocket(none("it is not HTTP")));
        }
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

/// Whether an answer opens it (RFC 6455, 4.1). The library reads frames only: it panics at some answers. Pure.
fn judge(head: &str, key: &str, protocol: &str) -> Result<(), Complaint> {
    let status = head.split_ascii_whitespace().nth(1).and_then(|status| status.parse::<u16>().ok());
    match status {
        None => return Err(none("it has no status")),
        Some(101) => {}
        Some(status) => return Err(refused(status)),
    }
    let field = |name: &str| {
        let mut fields = head.lines().filter_map(|line| line.split_once(':'));
        fields.find(|(known, _)| known.trim().eq_ignore_ascii_case(name)).map_or("", |(_, value)| value.trim())
    };
    // `Connection` is not looked at: what stands between may leave it out, or say it in several lines (RFC 9110,
    // 7.6.1). Nothing but a WebSocket knows the answer to the key.
    let upgrade = field("upgrade");
    if !upgrade.is_empty() && !upgrade.eq_ignore_ascii_case("websocket") {
        return Err(none("it goes on with something else"));
    }
    let accept = digest(&SHA1_FOR_LEGACY_USE_ONLY, format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11").as_bytes());
    if field("sec-websocket-accept") != BASE64_STANDARD.encode(accept) {
        return Err(none("it answers another question"));
    }
    match field("sec-websocket-protocol").eq_ignore_ascii_case(protocol) {
        true => Ok(()),
        false => Err(Complaint::new(
            format!("it opened, but not for {protocol}"),
            "is it a hub's? check `hub.host` and `hub.address`",
        )),
    }
}

fn none(why: &str) -> Complaint {
    let what = format!("the answer is none to a WebSocket ({why})");
    Complaint::new(what, "does something between intercept it?")
}

/// Why it did not open.
fn refused(status: u16) -> Complaint {
    let (what, remedy) = match status {
        401 | 403 => ("the server refuses it", "check `hub.host`, and that the hub lets this network in"),
        300..=399 | 511 => ("a page answers", "something between stands in the hub's place: a log-in, or a filter"),
        404 => ("nothing is there", "check `hub.host` and `hub.address`: is it a hub?"),
        429 | 500..=599 => ("the server can't take it now", "it may be throttling, the daemon tries again"),
        _ => ("the server does not open it", "check `hub.host` and `hub.address`: is it a hub?"),
    };
    Complaint::new(format!("{what} ({status})"), remedy)
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

#[cfg(test)]
mod tests {
    use tokio::io::{duplex, DuplexStream};

    use super::*;

    /// What a server reads of the handshake.
    async fn asked(far: &mut DuplexStream) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(far.read_u8().await.unwrap());
        }
        String::from_utf8(head).unwrap()
    }

    /// The server's side of the handshake (RFC 6455, 4.2.2), agreeing to a protocol or to none.
    async fn accept(far: &mut DuplexStream, protocol: Option<&str>) -> String {
        let head = asked(far).await;
        let key = head.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).unwrap();
        let accept = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
        let accept = ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, accept.as_bytes());
        let protocol = protocol.map_or_else(String::new, |name| format!("Sec-WebSocket-Protocol: {name}\r\n"));
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: keep-alive\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {}\r\n{protocol}\r\n",
            BASE64_STANDARD.encode(accept)
        );
        far.write_all(answer.as_bytes()).await.unwrap();
        head
    }

    async fn opened() -> (Box<dyn Stream>, DuplexStream) {
        let (near, mut far) = duplex(256 * 1024);
        let (stream, _) =
            tokio::join!(open(Box::new(near), "hub.example", false, "mqtt"), accept(&mut far, Some("mqtt")));
        (stream.unwrap(), far)
    }

    /// One frame of the client's, unmasked (RFC 6455, 5.2): its first byte and what it carries.
    async fn heard(far: &mut DuplexStream) -> (u8, Vec<u8>) {
        let first = far.read_u8().await.unwrap();
        let length = match far.read_u8().await.unwrap() & 0x7f {
            126 => usize::from(far.read_u16().await.unwrap()),
            127 => far.read_u64().await.unwrap() as usize,
            short => usize::from(short),
        };
        let mask: [u8; 4] = far.read_u32().await.unwrap().to_be_bytes();
        let mut payload = vec![0; length];
        far.read_exact(&mut payload).await.unwrap();
        payload.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
        (first, payload)
    }

    #[tokio::test]
    async fn bytes_go_both_ways_whatever_the_messages_are() {
        let (mut stream, mut far) = opened().await;
        // One message in two fragments with a ping between them, an empty message, and two bytes in two messages.
        far.write_all(b"\x02\x02ab\x89\x01!\x80\x01c\x82\x00\x82\x01d\x82\x01e").await.unwrap();
        let mut bytes = [0; 5];
        stream.read_exact(&mut bytes).await.unwrap();
        assert_eq!(&bytes, b"abcde");
        stream.flush().await.unwrap();
        assert_eq!(heard(&mut far).await, (0x8a, b"!".to_vec()), "the pong");
        let large: Vec<u8> = (0..100_000).map(|n| n as u8).collect();
        stream.write_all(&large).await.unwrap();
        stream.flush().await.unwrap();
        let (first, mut got) = heard(&mut far).await;
        while got.len() < large.len() {
            got.extend(heard(&mut far).await.1);
        }
        assert_eq!((first, got == large), (0x82, true));
        far.write_all(b"\x88\x02\x03\xe8").await.unwrap();
        assert_eq!(stream.read(&mut bytes).await.unwrap(), 0, "the server has said goodbye");
    }

    #[tokio::test]
    async fn text_a_cut_frame_and_one_too_large_end_in_an_error() {
        for (sent, told) in [
            (&b"\x81\x01x"[..], "text"),
            (b"\x82\x05ab", ""),
            (b"\x82\x7f\x00\x00\x00\x01\x00\x00\x00\x00", ""),
            (b"\xff\xff\xff", ""),
        ] {
            let (mut stream, mut far) = opened().await;
            far.write_all(sent).await.unwrap();
            drop(far);
            let mut all = Vec::new();
            let error = stream.read_to_end(&mut all).await.map(|_| all).unwrap_err();
            assert!(error.to_string().contains(told), "{error}");
        }
    }

    #[tokio::test]
    async fn what_answers_in_the_hubs_place_is_told_from_a_hub() {
        for (answer, told) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "(200)"),
            ("HTTP/1.1 302 Found\r\nLocation: http://login/\r\n\r\n", "a page answers (302)"),
            ("HTTP/1.1 404 x\r\n\r\n", "nothing is there"),
            ("HTTP/1.1 503 x\r\n\r\n", "throttling"),
            ("SSH-2.0-OpenSSH_9.2\r\n\r\n", "intercept"),
            ("HTTP/1.1 101 x\r\nUpgrade: h2c\r\n\r\n", "something else"),
            ("HTTP/1.1 101 x\r\n\r\n", "another question"),
            // One byte more than any answer to a key has.
            (
                "HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAAA\r\n\r\n",
                "another question",
            ),
        ] {
            let (near, mut far) = duplex(4096);
            let answering = async {
                asked(&mut far).await;
                far.write_all(answer.as_bytes()).await.unwrap();
            };
            let (result, ()) = tokio::join!(open(Box::new(near), "hub.example", false, "mqtt"), answering);
            let Err(trouble) = result else { panic!("{answer} is no WebSocket") };
            assert!(trouble.to_string().contains(told), "{answer}: {trouble}");
        }
    }

    #[tokio::test]
    async fn the_request_names_the_protocol_and_another_one_is_not_taken() {
        for (has_certificate, path) in
            [(false, "/$iothub/websocket?iothub-no-client-cert=true"), (true, "/$iothub/websocket")]
        {
            for (agreed, is_right) in [(Some("AMQPWSB10"), true), (Some("mqtt"), false), (None, false)] {
                let (near, mut far) = duplex(4096);
                let opening = open(Box::new(near), "hub.example", has_certificate, "AMQPWSB10");
                let (result, head) = tokio::join!(opening, accept(&mut far, agreed));
                assert_eq!(result.is_ok(), is_right, "{agreed:?}");
                assert!(head.starts_with(&format!("GET {path} HTTP/1.1\r\nHost: hub.example\r\n")), "{head}");
                assert!(head.to_lowercase().contains("sec-websocket-protocol: amqpwsb10\r\n"), "{head}");
            }
        }
    }
}
