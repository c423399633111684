//! HTTP/1.1 as a server, for what is only read: one request a connection, on a byte stream that somebody else has
//! accepted. Beside the client (`http`) the only module that names the HTTP library.
//!
//! Invariants
//! - A head has a bounded size and must come in time; a body is not read.
//! - Only GET and HEAD are answered, of targets that are a path.
//! - Every answer forbids what a browser could do with it beyond showing it.

use std::convert::Infallible;
use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};

use super::Stream;

/// Largest head of a request, in bytes; what is longer is answered with 431.
pub const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Most headers of a request.
const HEADERS_MAX: usize = 64;
/// How long a client may take to say what it wants.
const HEAD_PATIENCE: Duration = Duration::from_secs(5);

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The path, as it came: nothing is decoded, and nothing climbs.
    pub path: String,
    /// Whom the client thinks to ask, as it came. `None`: it does not say, or not in a form that can be read.
    pub host: Option<String>,
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// 200 to 599.
    pub status: u16,
    /// The media type.
    pub kind: &'static str,
    /// What a browser may do with it; nothing more than the default where it is `None`.
    pub policy: Option<String>,
    /// The body.
    pub body: Bytes,
}

/// Nothing is loaded, run or framed.
const POLICY: &str = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

impl Told {
    /// A line of text.
    pub fn line(status: u16, text: &str) -> Told {
        let body = Bytes::from(format!("{text}\n"));
        Told { status, kind: "text/plain; charset=utf-8", policy: None, body }
    }
}

/// Answers the one request of a connection. Whatever is wrong with it ends it; nobody else is concerned.
pub async fn serve<A: Future<Output = Told>>(stream: Box<dyn Stream>, answer: impl Fn(Asked) -> A) {
    let mut how = http1::Builder::new();
    how.timer(TokioTimer::new()).header_read_timeout(HEAD_PATIENCE).keep_alive(false).half_close(true);
    how.max_buf_size(HEAD_BYTES_MAX).max_headers(HEADERS_MAX);
    let answer = &answer;
    let service = service_fn(move |request: hyper::Request<Incoming>| async move {
        let told = match asked(&request) {
            Ok(asked) => answer(asked).await,
            Err(refused) => refused,
        };
        Ok::<_, Infallible>(response(told))
    });
    // The client has gone, or has said what is no HTTP: it is told that where it can be.
    let _ = how.serve_connection(TokioIo::new(stream), service).await;
}

fn asked(request: &hyper::Request<Incoming>) -> Result<Asked, Told> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Err(Told::line(405, "this can only be read: GET and HEAD"));
    }
    // The form for proxies names a host of its own (RFC 9112, 3.2.2).
    if request.uri().authority().is_some() || !request.uri().path().starts_with('/') {
        return Err(Told::line(400, "ask for a path, such as /"));
    }
    Ok(Asked { path: request.uri().path().to_owned(), host: host(request.headers()) })
}

/// What the one Host header says (RFC 9112, 3.2).
fn host(headers: &HeaderMap) -> Option<String> {
    let mut all = headers.get_all(header::HOST).iter();
    let one = all.next().filter(|_| all.next().is_none())?;
    one.to_str().ok().map(str::to_owned)
}

fn response(told: Told) -> Response<Full<Bytes>> {
    let Told { status, kind, policy, body } = told;
    let length = body.len();
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    let fixed: [(HeaderName, &'static str); 6] = [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ];
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
    let policy = policy.and_then(|policy| HeaderValue::from_str(&policy).ok());
    headers.insert(header::CONTENT_SECURITY_POLICY, policy.unwrap_or(HeaderValue::from_static(POLICY)));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    if status == 405 {
        headers.insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    response
}

#[cfg(test)]
mod tests {
    use tokio::io::{duplex, AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// What comes back for these bytes.
    async fn answer_to(bytes: &[u8]) -> String {
        let (mut near, far) = duplex(1024 * 1024);
        let server = serve(Box::new(far), |asked: Asked| async move {
            Told::line(200, &format!("{} of {}", asked.path, asked.host.unwrap_or_default()))
        });
        let client = async {
            near.write_all(bytes).await.unwrap();
            near.shutdown().await.unwrap();
            let mut answer = Vec::new();
            near.read_to_end(&mut answer).await.unwrap();
            String::from_utf8_lossy(&answer).into_owned()
        };
        tokio::join!(server, client).1
    }

    #[tokio::test]
    async fn a_path_is_answered_with_what_keeps_a_browser_from_doing_more() {
        let answer = answer_to(b"GET /a?b=c HTTP/1.1\r\nHost: h:1\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\n/a of h:1\n"), "{answer}");
        for header in ["cache-control: no-store", "x-content-type-options: nosniff", "frame-ancestors 'none'"] {
            assert!(answer.contains(header), "{answer}");
        }
        assert!(answer.contains("connection: close"), "{answer}");
        let head = answer_to(b"HEAD / HTTP/1.1\r\nHost: h:1\r\n\r\n").await;
        assert!(head.contains("content-length: 9\r\n") && head.ends_with("\r\n\r\n"), "{head}");
    }

    #[tokio::test]
    async fn what_is_no_reading_of_a_path_is_refused_with_its_status() {
        let long = format!("GET / HTTP/1.1\r\nHost: h\r\nX: {}\r\n\r\n", "x".repeat(HEAD_BYTES_MAX));
        for (request, status) in [
            ("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx", "405"),
            ("DELETE / HTTP/1.1\r\nHost: h\r\n\r\n", "405"),
            ("GET http://evil.example/ HTTP/1.1\r\nHost: h\r\n\r\n", "400"),
            ("CONNECT evil.example:443 HTTP/1.1\r\nHost: h\r\n\r\n", "405"),
            ("OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n", "405"),
            (long.as_str(), "431"),
            ("GET / HTTP/1.1\r\nno header\r\n\r\n", "400"),
            ("SSH-2.0-OpenSSH\r\n\r\n", "400"),
        ] {
            let answer = answer_to(request.as_bytes()).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request:.80}: {answer}");
        }
        let two = answer_to(b"GET /a HTTP/1.1\r\nHost: h\r\nHost: evil.example\r\n\r\n").await;
        assert!(two.ends_with("/a of \n"), "two hosts are none: {two}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_says_nothing_is_not_waited_for() {
        let (near, far) = duplex(1024);
        let served = serve(Box::new(far), |_| async { Told::line(200, "") });
        tokio::time::timeout(2 * HEAD_PATIENCE, served).await.expect("it ends by itself");
        drop(near);
    }
}
