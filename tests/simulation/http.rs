//! HTTP/1.1 as a server speaks it, as far as a hub needs it. Written from RFC 9112, with none of the gateway's code.

use std::collections::VecDeque;
use std::fmt::Write as _;

use super::wire::Wire;

/// A request.
#[derive(Debug)]
pub struct Request {
    pub method: String,
    /// The path, in its parts.
    pub path: Vec<String>,
    pub query: String,
    headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Request {
    /// The first header of this name, which is in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str())
    }
}

/// An answer, as it goes out: with its length, or in two chunks.
pub fn answer(status: u16, headers: &[(&str, String)], body: &[u8], chunked: bool) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {status} As It Is\r\n");
    for (name, value) in headers {
        let _ = write!(head, "{name}: {value}\r\n");
    }
    match (status, chunked) {
        (204, _) => head += "\r\n",
        (_, false) => {
            let _ = write!(head, "content-length: {}\r\n\r\n", body.len());
        }
        (_, true) => head += "transfer-encoding: chunked\r\n\r\n",
    }
    let mut bytes = head.into_bytes();
    match (status, chunked) {
        (204, _) => {}
        (_, false) => bytes.extend(body),
        (_, true) => {
            let (one, other) = body.split_at(body.len() / 2);
            for chunk in [one, other].into_iter().filter(|chunk| !chunk.is_empty()) {
                bytes.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
                bytes.extend(chunk);
                bytes.extend(b"\r\n");
            }
            bytes.extend(b"0\r\n\r\n");
        }
    }
    bytes
}

/// Cuts a byte stream into requests.
#[derive(Default)]
pub struct Splitter(Vec<u8>);

impl Splitter {
    /// The requests that are whole now.
    pub fn take(&mut self, bytes: &[u8]) -> Vec<Request> {
        self.0.extend_from_slice(bytes);
        std::iter::from_fn(|| self.next()).collect()
    }

    fn next(&mut self) -> Option<Request> {
        let end = self.0.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
        let head = String::from_utf8(self.0[..end].to_vec()).expect("a head is text");
        let mut lines = head.trim_end().split("\r\n");
        let first: Vec<&str> = lines.next().unwrap_or_default().split(' ').collect();
        let [method, target, "HTTP/1.1"] = first[..] else { panic!("a request begins with {first:?}") };
        let headers: Vec<(String, String)> = lines
            .map(|line| line.split_once(": ").expect("a header has a name"))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let path = path.trim_start_matches('/').split('/').map(str::to_owned).collect();
        let mut request =
            Request { method: method.to_owned(), path, query: query.to_owned(), headers, body: Vec::new() };
        let length = request.header("content-length").map_or(0, |text| text.parse().expect("a length is a number"));
        if self.0.len() < end + length {
            return None;
        }
        request.body = self.0[end..end + length].to_vec();
        self.0.drain(..end + length);
        Some(request)
    }
}

/// The requests that come on a wire.
pub struct Reader {
    wire: Wire,
    splitter: Splitter,
    ready: VecDeque<Request>,
}

impl Reader {
    /// Of a wire.
    pub fn new(wire: Wire) -> Reader {
        Reader { wire, splitter: Splitter::default(), ready: VecDeque::new() }
    }

    /// The next one. `None`: the client is gone. Cancel-safe.
    pub async fn next(&mut self) -> Option<Request> {
        loop {
            if let Some(request) = self.ready.pop_front() {
                return Some(request);
            }
            let (_, bytes) = self.wire.receive().await?;
            self.ready.extend(self.splitter.take(&bytes));
        }
    }
}
