//! What must hold for any bytes from what stands on the way to the hub: a proxy's answer, and a WebSocket's.

use base64::prelude::{Engine as _, BASE64_STANDARD};
use tokio::io::{duplex, split, AsyncReadExt as _, AsyncWriteExt as _};

use super::proxy;
use crate::config::Proxy;
use crate::hub::trouble::ProxyTrouble;
use crate::proof::bytes::{run, Source};

/// Stands in the credentials, and nowhere else.
const CANARY: &str = "qZ7Jw2Kx9VtB5nYd8RmH3pLc6GfS4aEu";
const HUB: &str = "hub.example:8883";
/// Large enough that nothing is cut into pieces.
const WHOLE: usize = 64 * 1024;

/// A proxy's answer means the same however it is cut into pieces. A tunnel is one to whatever a good answer is followed
/// by, byte for byte, unless that is a page; what else comes is a trouble with what to do about it, which repeats
/// nothing of the credentials although the proxy repeats them. A WebSocket is only what was asked for; what is written
/// into it is what is read, and any frames end in bytes that were sent or in an error.
pub fn way(bytes: &[u8]) {
    let mut source = Source::new(bytes);
    let (step, at, how) = (source.within(1..=17), source.u16(), source.u8());
    let answer = source.rest();
    a_proxys_answer(answer, step, None);
    let credentials = format!("operator:{CANARY}");
    let basic = BASE64_STANDARD.encode(&credentials);
    let repeated = [&credentials, &basic, CANARY][usize::from(how % 3)];
    let (before, after) = answer.split_at(usize::from(at).min(answer.len()));
    a_proxys_answer(&[before, repeated.as_bytes(), after].concat(), step, Some(&credentials));
    #[cfg(feature = "websocket")]
    websocket::any(answer, step);
}

/// What comes through a tunnel, if there is one; whether its end is that a page came in its place.
type Through = Result<(Vec<u8>, bool), ProxyTrouble>;

fn a_proxys_answer(answer: &[u8], step: usize, credentials: Option<&str>) {
    let proxy = Proxy { address: "proxy:3128".into(), credentials: credentials.map(str::to_owned) };
    let (whole, asked) = run(tunnelled(&proxy, answer, WHOLE));
    let (in_pieces, asked_in_pieces) = run(tunnelled(&proxy, answer, step));
    assert_eq!(asked, asked_in_pieces);
    assert!(asked.starts_with(&format!("CONNECT {HUB} HTTP/1.1\r\nHost: {HUB}\r\n")) && asked.ends_with("\r\n\r\n"));
    let shown = credentials.map(|credentials| BASE64_STANDARD.encode(credentials));
    assert_eq!(asked.contains("Proxy-Authorization: Basic "), shown.is_some());
    assert!(shown.is_none_or(|shown| asked.contains(&shown)));
    match (whole, in_pieces) {
        (Ok((through, is_page)), Ok((pieces, is_page_in_pieces))) => {
            assert_eq!(is_page, is_page_in_pieces, "{}", answer.escape_ascii());
            assert!(answer.starts_with(b"HTTP/1."));
            // Of a page no more than blanks before it.
            assert!(is_page || through == pieces);
            assert!(is_page || (answer.ends_with(&through) && is_end_of_a_head(answer, through.len())));
        }
        (Err(trouble), in_pieces) => {
            let said = trouble.to_string();
            assert_eq!(in_pieces, Err(trouble));
            is_a_sentence(&said);
            assert!(said.contains("proxy"), "{said}");
        }
        (whole, in_pieces) => panic!("{whole:?} and {in_pieces:?}: {}", answer.escape_ascii()),
    }
}

fn is_end_of_a_head(answer: &[u8], left: usize) -> bool {
    let head = &answer[..answer.len() - left];
    head.ends_with(b"\r\n\r\n") || head.ends_with(b"\n\n")
}

/// Something to read on one line, with what to do, and nothing of the credentials.
fn is_a_sentence(said: &str) {
    assert!(!said.is_empty() && said.len() < 700 && !said.contains(char::is_control), "{said:?}");
    let encoded = BASE64_STANDARD.encode(CANARY);
    for secret in [&CANARY[..6], &encoded[4..12]] {
        assert!(!said.contains(secret), "{said}");
    }
}

/// What comes of an answer, and what was asked for it.
async fn tunnelled(proxy: &Proxy, answer: &[u8], step: usize) -> (Through, String) {
    let (near, far) = duplex(step);
    let (mut hearing, mut saying) = split(far);
    let mut asked = String::new();
    let going = async move {
        let mut stream = proxy::tunnel(Box::new(near), proxy, HUB).await?;
        let mut through = Vec::new();
        let is_page = match stream.read_to_end(&mut through).await {
            Ok(_) => false,
            Err(error) => {
                is_a_sentence(&error.to_string());
                let page = error.get_ref().and_then(|inner| inner.downcast_ref::<ProxyTrouble>());
                assert!(matches!(page, Some(ProxyTrouble::Page { .. })), "{error}");
                true
            }
        };
        Ok((through, is_page))
    };
    let answering = async {
        // It may be gone before it has heard all of it.
        let _ = saying.write_all(answer).await;
        let _ = saying.shutdown().await;
    };
    let listening = hearing.read_to_string(&mut asked);
    let (through, (), heard) = tokio::join!(going, answering, listening);
    heard.expect("what is asked is text");
    (through, asked)
}

#[cfg(feature = "websocket")]
mod websocket {
    use super::super::websocket::open;
    use super::*;
    use crate::hub::trouble::Trouble;

    /// Largest message that is written here.
    const MESSAGE: usize = 700;

    pub(super) fn any(bytes: &[u8], step: usize) {
        // No answer that does not know what was asked opens one.
        let (opened, _) = run(opened(|_| bytes.to_vec(), step));
        let trouble = opened.expect_err("nobody has answered the question");
        is_a_sentence(&trouble.to_string());

        let (whole, ended) = run(through(bytes, WHOLE));
        assert!(whole.len() <= bytes.len());
        assert_eq!(run(through(bytes, step)), (whole, ended), "{}", bytes.escape_ascii());

        let messages = bytes.chunks(step * MESSAGE / 17).flat_map(|piece| framed(0x82, piece)).collect::<Vec<u8>>();
        let goodbye = framed(0x88, &1000_u16.to_be_bytes());
        assert_eq!(run(through(&[messages, goodbye].concat(), step)), (bytes.to_vec(), true));
    }

    /// A frame of a server's (RFC 6455, 5.2).
    fn framed(first: u8, payload: &[u8]) -> Vec<u8> {
        let length = match u8::try_from(payload.len()) {
            Ok(short) if short < 126 => vec![short],
            _ => [&[126], &(payload.len() as u16).to_be_bytes()[..]].concat(),
        };
        [&[first], &length[..], payload].concat()
    }

    /// What is read of these frames, and whether it ends in order.
    async fn through(frames: &[u8], step: usize) -> (Vec<u8>, bool) {
        let answer = |key: &str| {
            let accept = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
            let accept = ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, accept.as_bytes());
            let head = format!(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Accept: {}\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n",
                BASE64_STANDARD.encode(accept)
            );
            [head.as_bytes(), frames].concat()
        };
        let (opened, read) = opened(answer, step).await;
        opened.expect("it was answered");
        read
    }

    /// Whether one was opened by an answer to its key; what is read of it then, and whether that ends in order.
    async fn opened(answer: impl Fn(&str) -> Vec<u8>, step: usize) -> (Result<(), Trouble>, (Vec<u8>, bool)) {
        let (near, far) = duplex(step);
        let (mut hearing, mut saying) = split(far);
        let going = async move {
            let mut read = Vec::new();
            match open(Box::new(near), "hub.example", false, "mqtt").await {
                Err(trouble) => (Err(trouble), (read, false)),
                Ok(mut stream) => {
                    let ended = stream.read_to_end(&mut read).await;
                    if let Err(error) = &ended {
                        is_a_sentence(&error.to_string());
                    }
                    (Ok(()), (read, ended.is_ok()))
                }
            }
        };
        let answering = async {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(hearing.read_u8().await.expect("it asks"));
            }
            let head = String::from_utf8(head).expect("what is asked is text");
            let key = head.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).expect("it has a key");
            let saying = async {
                // It may be gone before it has heard all of it.
                let _ = saying.write_all(&answer(key)).await;
                let _ = saying.shutdown().await;
            };
            // Its pongs and its goodbye.
            let mut sink = tokio::io::sink();
            let ((), heard) = tokio::join!(saying, tokio::io::copy(&mut hearing, &mut sink));
            heard.expect("what is in memory is heard");
        };
        tokio::join!(going, answering).0
    }
}
