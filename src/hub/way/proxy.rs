//! A connection through an HTTP proxy, by CONNECT (RFC 9110, 9.3.6).
//!
//! Invariants
//! - Nothing is read behind the proxy's answer: what follows belongs to the hub.
//! - A page that comes in a tunnel's place, whatever its status says, is called a page, and not the hub's bad TLS: in
//!   TLS the server never speaks first, and in no protocol that goes through here by a `<`.
//! - The answer is bounded in size, whatever stands at the proxy's address; who calls bounds the time.
//! - No message repeats the credentials.

use std::io;
use std::pin::Pin;
use std::task::{ready, Context, Poll};

use base64::prelude::{Engine as _, BASE64_STANDARD};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};

use crate::command::excerpt::truncated;
use crate::config::Proxy;
use crate::hub::dial::Dial;
use crate::hub::trouble::{ProxyTrouble, Trouble};
use crate::net::Stream;

/// Longest head of an answer that is read, in bytes.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// A connection to the proxy.
///
/// # Errors
/// It can't be reached. That the process has no handle left is no fault of the proxy's.
pub(super) async fn dial(dial: &dyn Dial, proxy: &Proxy) -> Result<Box<dyn Stream>, Trouble> {
    dial.dial(&proxy.address).await.map_err(|trouble| match trouble {
        Trouble::Lookup { address, error } | Trouble::Unreachable { address, error } => {
            Trouble::Proxy(ProxyTrouble::Unreachable { proxy: address, error })
        }
        other => other,
    })
}

/// Has the proxy connect to `HOST:PORT`. The stream is one to there.
///
/// # Errors
/// It does not. That a page comes in its place is an error of the first read, with the [`ProxyTrouble`] in it.
pub(super) async fn tunnel(
    mut stream: Box<dyn Stream>,
    proxy: &Proxy,
    to: &str,
) -> Result<Box<dyn Stream>, ProxyTrouble> {
    let announces_page = ask(&mut *stream, proxy, to).await?;
    Ok(Box::new(Tunnel { stream, announces_page, begun: Vec::new(), untold: Some(proxy.address.clone()) }))
}

/// Asks for it, and says whether the answer speaks of a page that comes with it.
async fn ask(stream: &mut dyn Stream, proxy: &Proxy, to: &str) -> Result<bool, ProxyTrouble> {
    let closed = |_| ProxyTrouble::Closed(proxy.address.clone());
    let mut request = format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n");
    if let Some(credentials) = &proxy.credentials {
        request += &format!("Proxy-Authorization: Basic {}\r\n", BASE64_STANDARD.encode(credentials));
    }
    request += "\r\n";
    stream.write_all(request.as_bytes()).await.map_err(closed)?;
    stream.flush().await.map_err(closed)?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") && !head.ends_with(b"\n\n") {
        let byte = stream.read_u8().await.map_err(|error| closed_after(&head, proxy, &error))?;
        head.push(byte);
        if head.len() > HEAD_BYTES_MAX || !may_be_http(&head) {
            return Err(ProxyTrouble::NotHttp(proxy.address.clone()));
        }
    }
    let head = String::from_utf8_lossy(&head);
    judge(&head, proxy, to).map(|()| announces_page(&head))
}

/// Whether a head is a page's. A tunnel has no content (RFC 9110, 9.3.6), but some that are none's say so too.
fn announces_page(head: &str) -> bool {
    let mut fields = head.lines().filter_map(|line| line.split_once(':'));
    fields.any(|(name, value)| {
        name.trim().eq_ignore_ascii_case("content-type") && value.to_ascii_lowercase().contains("html")
    })
}

/// Some programs begin a text with it.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Whether what comes first through a tunnel, blanks aside, is a page, and not what the hub says. `None`: more of it is
/// to be seen.
fn is_page(begun: &[u8], announces_page: bool) -> Option<bool> {
    if announces_page {
        // The types of TLS records (RFC 8446, 5.1).
        return Some(begun.first().is_none_or(|kind| !(20..=24).contains(kind)));
    }
    match begun.strip_prefix(BYTE_ORDER_MARK).unwrap_or(begun) {
        [first, ..] => match BYTE_ORDER_MARK.starts_with(begun) {
            true => None,
            false => Some(*first == b'<'),
        },
        [] => None,
    }
}

/// A stream through a proxy, of which what comes first is looked at.
struct Tunnel {
    stream: Box<dyn Stream>,
    announces_page: bool,
    /// What has come behind the blanks, as long as that tells nothing: less than four bytes.
    begun: Vec<u8>,
    /// The proxy, until it is known that no page has come.
    untold: Option<String>,
}

impl AsyncRead for Tunnel {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        let this = &mut *self;
        let Some(proxy) = this.untold.take() else { return Poll::Ready(Ok(())) };
        // However it is cut into pieces.
        let came = &buffer.filled()[before..];
        this.begun.extend_from_slice(if this.begun.is_empty() { came.trim_ascii_start() } else { came });
        match is_page(&this.begun, this.announces_page) {
            None => this.untold = Some(proxy),
            Some(false) => this.begun = Vec::new(),
            Some(true) => {
                buffer.set_filled(before);
                let page = ProxyTrouble::Page { proxy, status: 200 };
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, page)));
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tunnel {
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

fn closed_after(head: &[u8], proxy: &Proxy, _: &std::io::Error) -> ProxyTrouble {
    match head {
        [] => ProxyTrouble::Closed(proxy.address.clone()),
        // Some send a page without an end to its head, and close.
        _ => judge(&String::from_utf8_lossy(head), proxy, "the hub")
            .err()
            .unwrap_or_else(|| ProxyTrouble::Closed(proxy.address.clone())),
    }
}

/// Whether an answer can begin with these bytes.
fn may_be_http(head: &[u8]) -> bool {
    let begin = b"HTTP/1.";
    let length = head.len().min(begin.len());
    head[..length] == begin[..length]
}

/// What an answer says. Pure.
fn judge(head: &str, proxy: &Proxy, to: &str) -> Result<(), ProxyTrouble> {
    let status = head.split_ascii_whitespace().nth(1).and_then(|status| status.parse::<u16>().ok());
    let (proxy_address, to) = (proxy.address.clone(), to.to_owned());
    let Some(status) = status else { return Err(ProxyTrouble::NotHttp(proxy_address)) };
    Err(match status {
        200..=299 => return Ok(()),
        401 | 407 => asks(head, proxy, status),
        403 | 405 => ProxyTrouble::Forbidden { proxy: proxy_address, to, status },
        300..=399 | 511 => ProxyTrouble::Page { proxy: proxy_address, status },
        500..=510 => ProxyTrouble::NoWay { proxy: proxy_address, to, status },
        _ => ProxyTrouble::Refused { proxy: proxy_address, to, status },
    })
}

fn asks(head: &str, proxy: &Proxy, status: u16) -> ProxyTrouble {
    let schemes: Vec<&str> = head
        .lines()
        .filter_map(|line| line.split_once(':'))
        .filter(|(name, _)| name.trim().eq_ignore_ascii_case("proxy-authenticate"))
        // One field may name several, with parameters between them (RFC 9110, 11.6.1).
        .flat_map(|(_, value)| value.split(',').filter_map(|part| part.split_ascii_whitespace().next()))
        .filter_map(scheme)
        .collect();
    let takes_basic = schemes.is_empty() || schemes.iter().any(|scheme| scheme.eq_ignore_ascii_case("basic"));
    match (takes_basic, &proxy.credentials) {
        (false, _) => {
            let schemes = schemes.join(", ");
            ProxyTrouble::OtherCredentials { proxy: proxy.address.clone(), schemes: truncated(&schemes, 60).to_owned() }
        }
        (true, None) => ProxyTrouble::AsksForCredentials { proxy: proxy.address.clone(), status },
        (true, Some(_)) => ProxyTrouble::RefusesCredentials { proxy: proxy.address.clone(), status },
    }
}

/// Kinds of credentials (RFC 9110, 11.1) that proxies ask for. Any other word may be anything, such as the credentials
/// that the proxy was shown.
const SCHEMES: [&str; 8] = ["Basic", "Bearer", "Digest", "Kerberos", "Mutual", "Negotiate", "NTLM", "OAuth"];

/// The kind that a word names.
fn scheme(word: &str) -> Option<&'static str> {
    SCHEMES.into_iter().find(|known| known.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    fn proxy(credentials: Option<&str>) -> Proxy {
        Proxy { address: "proxy:3128".into(), credentials: credentials.map(str::to_owned) }
    }

    /// What comes of an answer, and what was asked.
    async fn tunnelled(credentials: Option<&str>, answer: &[u8]) -> (Result<bool, ProxyTrouble>, String, Vec<u8>) {
        let (mut near, mut far) = duplex(64 * 1024);
        far.write_all(answer).await.unwrap();
        let proxy = proxy(credentials);
        let result = ask(&mut near, &proxy, "hub.example:8883").await;
        far.shutdown().await.unwrap();
        let mut rest = Vec::new();
        near.read_to_end(&mut rest).await.unwrap();
        drop(near);
        let mut asked = String::new();
        far.read_to_string(&mut asked).await.unwrap();
        (result, asked, rest)
    }

    #[tokio::test]
    async fn a_tunnel_begins_right_behind_the_answer() {
        let (result, asked, rest) = tunnelled(None, b"HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\nTLS").await;
        assert_eq!(result, Ok(false));
        assert_eq!(asked, "CONNECT hub.example:8883 HTTP/1.1\r\nHost: hub.example:8883\r\n\r\n");
        assert_eq!(rest, b"TLS");
        let (result, asked, _) = tunnelled(Some("user:pass:word"), b"HTTP/1.0 200 ok\n\n").await;
        assert_eq!(result, Ok(false));
        assert!(asked.contains("\r\nProxy-Authorization: Basic dXNlcjpwYXNzOndvcmQ=\r\n"), "{asked}");
    }

    #[tokio::test]
    async fn each_refusal_says_what_to_do_and_tells_no_password() {
        for (credentials, answer, told) in [
            (None, "HTTP/1.1 407 no\r\nProxy-Authenticate: Basic realm=\"x\"\r\n\r\n", "proxy_credentials_file"),
            (None, "HTTP/1.1 407 no\r\n\r\n", "asks for credentials"),
            (Some("u:hush"), "HTTP/1.1 407 no\r\nproxy-authenticate:basic\r\n\r\n", "does not take the credentials"),
            (
                None,
                "HTTP/1.1 407 no\r\nProxy-Authenticate: Negotiate\r\nProxy-Authenticate: NTLM\r\n\r\n",
                "Negotiate, NTLM",
            ),
            (
                None,
                "HTTP/1.1 407 no\r\nProxy-Authenticate: NTLM, Digest realm=\"a\", qop=auth\r\n\r\n",
                "(NTLM, Digest)",
            ),
            (None, "HTTP/1.1 407 no\r\nProxy-Authenticate: Negotiate, Basic realm=\"a\"\r\n\r\n", "credentials_file"),
            // One that says back what it was shown.
            (Some("u:hush"), "HTTP/1.1 407 no\r\nProxy-Authenticate: u:hush\r\n\r\n", "does not take the credentials"),
            (None, "HTTP/1.1 403 Forbidden\r\n\r\n", "hub.example:8883"),
            (None, "HTTP/1.1 302 Found\r\nLocation: http://login/\r\n\r\n", "page"),
            (None, "HTTP/1.1 511 Network Authentication Required\r\n\r\n", "page"),
            (None, "HTTP/1.1 503 x\r\n\r\n", "uplink"),
            (None, "HTTP/1.1 404 x\r\n\r\n", "CONNECT"),
            (None, "SSH-2.0-OpenSSH_9.2\r\n", "no HTTP proxy"),
            (None, "HTTP/1.1 what\r\n\r\n", "no HTTP proxy"),
        ] {
            let (result, _, _) = tunnelled(credentials, answer.as_bytes()).await;
            let why = result.unwrap_err().to_string();
            assert!(why.contains("proxy") && why.contains(told) && !why.contains("hush"), "{answer}: {why}");
        }
    }

    #[tokio::test]
    async fn a_proxy_that_goes_or_never_ends_its_answer_is_given_up() {
        let (mut near, far) = duplex(64);
        drop(far);
        let gone = ask(&mut near, &proxy(None), "h:1").await;
        assert_eq!(gone, Err(ProxyTrouble::Closed("proxy:3128".into())));
        let endless = [b"HTTP/1.1 200 ok\r\nX: ".to_vec(), vec![b'x'; HEAD_BYTES_MAX]].concat();
        let (result, _, _) = tunnelled(None, &endless).await;
        assert_eq!(result, Err(ProxyTrouble::NotHttp("proxy:3128".into())));
    }

    #[tokio::test]
    async fn a_page_in_a_tunnels_place_is_told_from_what_the_hub_says() {
        let (plain, html) =
            ("HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-type: Text/HTML; charset=x\r\n\r\n");
        for (head, first, is_page) in [
            (plain, &b"<html>log in"[..], true),
            (plain, b"\r\n  <!DOCTYPE html>", true),
            (plain, b"\xef\xbb\xbf<html>", true),
            (plain, b"\xef\xbb", false),
            (plain, b"\xef\xbb\xbf{}", false),
            (html, b"6\r\n<html>", true),
            (html, b"Log in", true),
            (html, b"", true),
            (html, b"\x16\x03\x03", false),
            (plain, b"\x15\x03\x03", false),
            (plain, b"", false),
            // Without TLS: MQTT, AMQP, HTTP.
            (plain, b"\x20\x02\0\0", false),
            (plain, b"AMQP\x03\x01\0\0", false),
            (plain, b"HTTP/1.1 204 No Content\r\n\r\n", false),
        ] {
            let (near, mut far) = duplex(64 * 1024);
            far.write_all(&[head.as_bytes(), first].concat()).await.unwrap();
            let mut stream = tunnel(Box::new(near), &proxy(None), "hub.example:8883").await.unwrap();
            far.shutdown().await.unwrap();
            let mut came = Vec::new();
            match stream.read_to_end(&mut came).await {
                Ok(_) => assert!(!is_page && came == first, "{first:?}"),
                Err(error) => {
                    assert!(is_page && error.to_string().contains("a log-in stands before"), "{first:?}: {error}")
                }
            }
        }
    }
}
