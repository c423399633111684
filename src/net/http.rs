//! HTTP/1.1 as a client, on a byte stream that somebody else has made. The only module, beside the simulator, that
//! names the HTTP library.
//!
//! Invariants
//! - A connection is a value, and no task stands behind it: it moves only while somebody waits on it, and ends when it
//!   is dropped.
//! - One request at a time. Of an answer no more is kept than was asked for; what it holds beyond ends the connection.
//! - Nothing is followed, sent again, or unpacked here.

use std::error::Error as _;
use std::fmt;
use std::future::{poll_fn, Future};
use std::pin::{pin, Pin};

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;

use super::Stream;

pub use hyper::header::{HeaderMap, HeaderValue};
pub use hyper::Method;

/// Most headers of an answer: each property of a message is one.
const HEADERS_MAX: usize = 4096;
/// Largest head of an answer, in bytes: a message of the hub has at most 64 KiB of properties, each with a prefix.
const HEAD_BYTES_MAX: usize = 256 * 1024;

/// Why a request has no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The connection ended before anything of an answer came. Perhaps the request was never read.
    Unanswered(String),
    /// The connection ended in the middle of an answer.
    Cut(String),
    /// What came is not HTTP, or its head is too large.
    Garbled(String),
}

/// What is asked. `Debug` shows neither headers nor body: tokens and secrets stand in them.
#[derive(Clone)]
pub struct Request(hyper::Request<Full<Bytes>>);

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.0.method(), self.0.uri().path())
    }
}

impl Request {
    /// Asks `host` for a target, which is a path with its query.
    ///
    /// # Errors
    /// One of them can't stand in a request.
    pub fn new(method: Method, target: &str, host: &str, body: impl Into<Bytes>) -> Result<Request, String> {
        let request = hyper::Request::builder().method(method).uri(target).header("host", host);
        let agent = concat!("fieldbridge/", env!("CARGO_PKG_VERSION"));
        let request = request.header("user-agent", agent).body(Full::new(body.into()));
        request.map(Request).map_err(|error| format!("{target:?} at {host:?} can't be asked for ({error})"))
    }

    /// With a header. A value that no header holds (control characters, or beyond ASCII) is left out.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: &str) -> Request {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.0.headers_mut().insert(name, value);
        }
        self
    }

    /// What is asked, for a log.
    pub fn target(&self) -> &str {
        self.0.uri().path()
    }
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// 100 to 999.
    pub status: u16,
    /// Names are in lower case.
    pub headers: HeaderMap,
    /// At most as much as was asked for.
    pub body: Bytes,
    /// Whether the body is all of it.
    pub is_whole: bool,
}

impl Answer {
    /// Whether the status says that it was done.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The first header of this name, if it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// Whether it is a page for a browser.
    pub fn is_page(&self) -> bool {
        let kind = self.header("content-type").unwrap_or_default().to_ascii_lowercase();
        kind.starts_with("text/html") || kind.starts_with("application/xhtml")
    }
}

type Driver = http1::Connection<TokioIo<Box<dyn Stream>>, Full<Bytes>>;

/// A connection to a server.
pub struct Connection {
    sender: http1::SendRequest<Full<Bytes>>,
    /// `None` when the connection is over.
    driver: Option<Pin<Box<Driver>>>,
}

impl Connection {
    /// Takes over a fresh byte stream. Nothing is written.
    ///
    /// # Errors
    /// The library can't begin.
    pub async fn over(stream: Box<dyn Stream>) -> Result<Connection, Fault> {
        let mut how = http1::Builder::new();
        // A line that is no header must not keep a message from being read: it would come again for ever (G8).
        how.ignore_invalid_headers_in_responses(true).max_headers(HEADERS_MAX).max_header_size(HEAD_BYTES_MAX);
        let (sender, driver) = how.handshake(TokioIo::new(stream)).await.map_err(|error| before_the_answer(&error))?;
        Ok(Connection { sender, driver: Some(Box::pin(driver)) })
    }

    /// Asks, and waits for the whole answer, of whose body at most `body_max` bytes are kept. The connection is over if
    /// this is dropped halfway.
    ///
    /// # Errors
    /// There is no answer, or not all of it. The connection is over.
    pub async fn ask(&mut self, request: &Request, body_max: usize) -> Result<Answer, Fault> {
        let Connection { sender, driver } = self;
        drive(driver, sender.ready()).await.map_err(|error| before_the_answer(&error))?;
        let response = drive(driver, sender.send_request(request.0.clone())).await;
        let (head, mut incoming) = response.map_err(|error| before_the_answer(&error))?.into_parts();
        let (mut body, mut is_whole) = (BytesMut::new(), true);
        while let Some(frame) = drive(driver, incoming.frame()).await {
            let frame = frame.map_err(|error| Fault::Cut(why(&error)))?;
            let Ok(data) = frame.into_data() else { continue };
            let room = body_max - body.len();
            body.extend_from_slice(&data[..data.len().min(room)]);
            if data.len() > room {
                is_whole = false;
                *driver = None;
                break;
            }
        }
        Ok(Answer { status: head.status.as_u16(), headers: head.headers, body: body.freeze(), is_whole })
    }

    /// Whether it may be asked again, as far as is known: the server may be about to close it.
    pub async fn is_open(&mut self) -> bool {
        drive(&mut self.driver, std::future::ready(())).await;
        self.driver.is_some() && !self.sender.is_closed()
    }

    /// Waits until the server closes it. Cancel-safe; not while a request is under way.
    pub async fn closed(&mut self) {
        if let Some(driver) = &mut self.driver {
            // Whether it ends by an error says nothing: nobody waits for an answer.
            let _ = driver.as_mut().await;
            self.driver = None;
        }
    }
}

/// Waits for something that a connection brings about, while it moves.
async fn drive<T>(driver: &mut Option<Pin<Box<Driver>>>, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    poll_fn(|context| {
        // An error of the connection's reaches whoever waits for the answer.
        if driver.as_mut().is_some_and(|driver| driver.as_mut().poll(context).is_ready()) {
            *driver = None;
        }
        work.as_mut().poll(context)
    })
    .await
}

fn before_the_answer(error: &hyper::Error) -> Fault {
    match error.is_parse() {
        true => Fault::Garbled(why(error)),
        false => Fault::Unanswered(why(error)),
    }
}

/// An error with what is behind it.
fn why(error: &hyper::Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{duplex, AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

    use super::*;

    /// A connection whose far end says this after the first request, and closes.
    async fn answered_with(answer: &'static [u8]) -> (Connection, tokio::task::JoinHandle<String>) {
        let (near, far) = duplex(1024 * 1024);
        let server = tokio::spawn(serve(far, answer));
        (Connection::over(Box::new(near)).await.unwrap(), server)
    }

    async fn serve(mut far: DuplexStream, answer: &[u8]) -> String {
        let mut heard = Vec::new();
        while !heard.ends_with(b"\r\n\r\n") {
            heard.push(far.read_u8().await.unwrap());
        }
        far.write_all(answer).await.unwrap();
        String::from_utf8(heard).unwrap()
    }

    fn request() -> Request {
        Request::new(Method::GET, "/a?b=c", "h.example", "").unwrap()
    }

    async fn answer_to(answer: &'static [u8], body_max: usize) -> Result<Answer, Fault> {
        let (mut connection, server) = answered_with(answer).await;
        let answer = connection.ask(&request(), body_max).await;
        server.await.unwrap();
        answer
    }

    #[tokio::test]
    async fn a_request_is_written_with_its_host_and_without_what_no_header_holds() {
        let (mut connection, server) = answered_with(b"HTTP/1.1 204 No Content\r\n\r\n").await;
        let request = request().with("if-match", "lock").with("iothub-correlationid", "a\r\nb");
        assert_eq!(connection.ask(&request, 9).await.unwrap().status, 204);
        let heard = server.await.unwrap();
        assert!(heard.starts_with("GET /a?b=c HTTP/1.1\r\nhost: h.example\r\n"), "{heard}");
        assert!(heard.contains("if-match: lock\r\n") && !heard.contains("correlation"), "{heard}");
    }

    #[tokio::test]
    async fn a_body_is_read_whatever_tells_its_end() {
        for answer in [
            &b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"[..],
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
            b"HTTP/1.0 200 OK\r\n\r\nhello",
            b"HTTP/1.1 200 OK\r\nno header\r\n\xff: x\r\nContent-Length: 5\r\n\r\nhello",
        ] {
            let answer = answer_to(answer, 5).await.unwrap();
            assert_eq!((answer.status, &answer.body[..], answer.is_whole), (200, &b"hello"[..], true));
        }
    }

    #[tokio::test]
    async fn a_body_is_kept_as_far_as_it_is_asked_for() {
        let answer = answer_to(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", 4).await.unwrap();
        assert_eq!((&answer.body[..], answer.is_whole), (&b"hell"[..], false));
    }

    #[tokio::test]
    async fn no_answer_half_an_answer_and_no_http_are_told_apart() {
        assert!(matches!(answer_to(b"", 9).await, Err(Fault::Unanswered(_))));
        for cut in [
            &b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell"[..],
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nll",
        ] {
            assert!(matches!(answer_to(cut, 9).await, Err(Fault::Cut(_))), "{}", cut.escape_ascii());
        }
        for garbled in [&b"SSH-2.0-OpenSSH\r\n\r\n"[..], b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n"] {
            let answer = answer_to(garbled, 9).await;
            assert!(matches!(answer, Err(Fault::Garbled(_))), "{}: {answer:?}", garbled.escape_ascii());
        }
    }

    #[tokio::test]
    async fn a_head_of_a_thousand_properties_is_read() {
        let properties: String = (0..3000).map(|number| format!("iothub-app-p{number}: 1\r\n")).collect();
        let answer = format!("HTTP/1.1 200 OK\r\n{properties}Content-Length: 0\r\n\r\n");
        let answer = answer_to(answer.leak().as_bytes(), 9).await.unwrap();
        assert_eq!(answer.header("iothub-app-p2999"), Some("1"));
    }

    #[tokio::test]
    async fn a_connection_that_the_server_has_closed_is_seen_to_be() {
        let (mut connection, server) = answered_with(b"HTTP/1.1 204 No Content\r\n\r\n").await;
        assert!(connection.is_open().await);
        connection.ask(&request(), 9).await.unwrap();
        server.await.unwrap();
        connection.closed().await;
        assert!(!connection.is_open().await);
        assert!(matches!(connection.ask(&request(), 9).await, Err(Fault::Unanswered(_))));
    }
}
