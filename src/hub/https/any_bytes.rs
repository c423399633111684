//! What must hold for any bytes in an answer of the hub's.

use tokio::io::{duplex, split, AsyncReadExt as _, AsyncWriteExt as _};

use super::answers::{knocked, polled, published, settled};
use super::message::{is_of_the_hub, lock_of, message_of};
use crate::hub::trouble::Trouble;
use crate::net::http::{Answer, Connection, Fault, HeaderMap, HeaderValue, Method, Request};
use crate::proof::bytes::{run, Source};

/// A token as a proxy may say it back, and what stands only in there.
const TOKEN: &str = "SharedAccessSignature sr=h&sig=qZ7Jw2Kx9VtB5nYd8RmH3pLc6GfS4aEu&se=1";
const CANARY: &str = "qZ7Jw2";
/// Large enough that nothing is cut into pieces.
const WHOLE: usize = 64 * 1024;
/// As much of a body as is kept here.
const BODY_MAX: usize = 300;

const NAMES: [&str; 9] = [
    "iothub-messageid",
    "iothub-correlationid",
    "iothub-app-command",
    "iothub-expiry",
    "iothub-sequencenumber",
    "iothub-enqueuedtime",
    "iothub-deliverycount",
    "ContentEncoding",
    "iothub-app-note",
];

/// Any headers give a message with the body as it came; what was read of them is read again from headers written anew;
/// names count in any case, and only the first of each; a lock is never more than its tag. Whatever is answered means
/// the same however it is cut into pieces, takes bounded memory, and is the hub's or a trouble that can be shown.
pub fn https(bytes: &[u8]) {
    any_message(bytes);
    any_answer(bytes);
    any_stream(bytes);
}

fn any_message(bytes: &[u8]) {
    let mut source = Source::new(bytes);
    let mut headers: Vec<(Vec<u8>, &[u8])> = Vec::new();
    for _ in 0..source.within(0..=12) {
        let name = match source.flag() {
            true => source.pick(&NAMES).as_bytes(),
            false => source.piece(40),
        };
        let name = name.iter().map(|byte| if source.flag() { byte.to_ascii_uppercase() } else { *byte });
        let name = name.collect();
        headers.push((name, source.piece(80)));
    }
    let body = source.rest();
    let listed = |headers: &[(Vec<u8>, &[u8])]| {
        let pairs: Vec<_> = headers.iter().map(|(name, value)| (name.clone(), value.to_vec())).collect();
        message_of(pairs.iter().map(|(name, value)| (&name[..], &value[..])), body.to_vec())
    };
    let message = listed(&headers);
    assert_eq!((&message.body[..], &message.malformed), (body, &None));
    assert!(message.unread_expiry.as_ref().is_none_or(|text| text.len() <= 60));
    assert!(message.expires_at.is_none() || message.unread_expiry.is_none());
    for text in [&message.id, &message.command, &message.correlation_id].into_iter().flatten() {
        assert!(!text.is_empty() && text.len() <= 240);
    }

    let lower: Vec<_> = headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), *value)).collect();
    let twice: Vec<_> = lower.iter().chain(&lower).cloned().collect();
    assert_eq!((listed(&lower), listed(&twice)), (message.clone(), message.clone()));

    let number = |number: Option<u64>| number.map(|number| number.to_string());
    let again = [
        ("iothub-messageid", message.id.clone()),
        ("iothub-app-command", message.command.clone()),
        ("iothub-correlationid", message.correlation_id.clone()),
        ("iothub-contentencoding", message.content_encoding.clone()),
        ("iothub-sequencenumber", number(message.sequence_number)),
        ("iothub-deliverycount", number(message.delivery_count.map(u64::from))),
    ];
    let again: Vec<_> =
        again.iter().filter_map(|(name, value)| Some((name.as_bytes(), value.as_ref()?.as_bytes()))).collect();
    let mut again = message_of(again, message.body.clone());
    // A time has several forms, and one that can't be read is cut.
    (again.expires_at, again.enqueued_at) = (message.expires_at, message.enqueued_at);
    again.unread_expiry = message.unread_expiry.clone();
    assert_eq!(again, message);

    for (name, value) in &headers {
        assert_eq!(is_of_the_hub(name), name.to_ascii_lowercase().starts_with(b"iothub-"));
        let etag = String::from_utf8_lossy(value);
        assert!(lock_of(&etag).is_none_or(|lock| !lock.is_empty() && etag.contains(lock)));
    }
}

/// Answers of each status, and with a token somewhere in them.
fn any_answer(bytes: &[u8]) {
    let mut source = Source::new(bytes);
    let status = match source.flag() {
        true => *source.pick(&[200, 204, 400, 401, 404, 405, 407, 412, 413, 429, 503, 511]),
        false => source.within(100..=999) as u16,
    };
    let mut headers = HeaderMap::new();
    for (name, choice) in [("content-type", source.u8()), ("retry-after", source.u8()), ("etag", source.u8())] {
        if choice % 4 == 3 {
            let value = if name == "content-type" { b"text/html; charset=utf-8" } else { source.piece(20) };
            if let Ok(value) = HeaderValue::from_bytes(value) {
                headers.insert(name, value);
            }
        }
    }
    if source.flag() {
        headers.insert("iothub-messageid", HeaderValue::from_static("m"));
    }
    let at = source.u8();
    let body = source.rest();
    let (before, after) = body.split_at(usize::from(at).min(body.len()));
    for body in [body.to_vec(), [before, TOKEN.as_bytes(), after].concat()] {
        judged(&Answer { status, headers: headers.clone(), body: body.into(), is_whole: true });
    }
}

fn judged(answer: &Answer) {
    let (polled, settled, knocked, published) =
        (polled(answer.clone()), settled(answer), knocked(answer), published(answer));
    let is_good = (200..300).contains(&answer.status);
    match &polled {
        Ok(None) => assert_eq!(answer.status, 204),
        Ok(Some((message, lock))) => {
            assert!(answer.status == 200 && answer.headers.keys().any(|name| is_of_the_hub(name.as_str().as_bytes())));
            assert_eq!(message.body, answer.body);
            assert!(lock.as_ref().is_none_or(|lock| answer.header("etag").is_some_and(|tag| tag.contains(lock))));
        }
        Err(trouble) => can_be_shown(trouble),
    }
    match &settled {
        Ok(is_told) => assert!(!answer.is_page() && (is_good == *is_told) && (is_good || answer.status < 500)),
        Err(trouble) => can_be_shown(trouble),
    }
    match &knocked {
        Ok(_) => assert!(!answer.is_page() && (answer.status == 204 || (400..=412).contains(&answer.status))),
        Err(trouble) => can_be_shown(trouble),
    }
    match &published {
        Ok(()) => assert!(is_good && !answer.is_page()),
        Err(trouble) => {
            can_be_shown(trouble);
            // Such an event is set aside.
            assert!(!matches!(trouble, Trouble::EventRefused(_)) || [400, 413].contains(&answer.status));
        }
    }
}

/// On a line, with what to do, and without a token.
fn can_be_shown(trouble: &Trouble) {
    let said = trouble.to_string();
    assert!(!said.is_empty() && said.len() < 700 && !said.contains(char::is_control), "{said:?}");
    assert!(!said.contains(CANARY), "{said}");
    assert!(trouble.retry_after().is_none_or(|wait| wait.as_secs() <= 600));
}

/// Any bytes in place of an answer.
fn any_stream(bytes: &[u8]) {
    let step = 1 + bytes.len() % 17;
    let (whole, in_pieces) = (run(answered(bytes, WHOLE)), run(answered(bytes, step)));
    match (&whole, &in_pieces) {
        (Ok(whole), Ok(in_pieces)) => {
            let parts = |answer: &Answer| (answer.status, answer.headers.clone(), answer.body.clone(), answer.is_whole);
            assert_eq!(parts(whole), parts(in_pieces), "{}", bytes.escape_ascii());
            assert!(whole.body.len() <= BODY_MAX && (whole.is_whole || whole.body.len() == BODY_MAX));
            judged(whole);
        }
        (Err(fault), Err(other)) => {
            // What has no end to its head the library reads only as far as it came at once.
            let is_late = matches!((fault, other), (Fault::Garbled(_), Fault::Unanswered(_)));
            let is_same = std::mem::discriminant(fault) == std::mem::discriminant(other);
            assert!(is_same || is_late, "{fault:?} and {other:?}: {}", bytes.escape_ascii());
            let (Fault::Unanswered(why) | Fault::Cut(why) | Fault::Garbled(why)) = fault;
            assert!(!why.is_empty() && why.len() < 300 && !why.contains(char::is_control), "{why:?}");
        }
        _ => panic!("{whole:?} and {in_pieces:?}: {}", bytes.escape_ascii()),
    }
}

/// What comes of a request that is answered by these bytes.
async fn answered(bytes: &[u8], step: usize) -> Result<Answer, Fault> {
    let (near, far) = duplex(step);
    let (mut hearing, mut saying) = split(far);
    let asking = async move {
        let request = Request::new(Method::GET, "/messages", "hub.example", "").expect("it can be asked for");
        Connection::over(Box::new(near)).await?.ask(&request, BODY_MAX).await
    };
    let answering = async {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(hearing.read_u8().await.expect("it asks"));
        }
        // It may be gone before it has heard all of it.
        let _ = saying.write_all(bytes).await;
        let _ = saying.shutdown().await;
    };
    tokio::join!(asking, answering).0
}
