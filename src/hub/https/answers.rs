//! What an answer means: to a poll, to a settlement, to an event. Pure.
//!
//! Invariants
//! - What does not come from the hub is never taken for its answer: a page that says 200 completes nothing, and no
//!   event
//!   leaves the ledger for it (G7).
//! - Nothing that could be a secret is shown: some proxies answer with the request.

use super::message::{is_of_the_hub, lock_of, message_of};
use crate::command::excerpt::truncated;
use crate::command::Message;
use crate::hub::trouble::Trouble;
use crate::net::http::Answer;

/// How much of what an answer says is shown.
const SAID_BYTES_MAX: usize = 160;

/// A message, and the lock by which it is settled, if it came with one.
pub type Polled = (Message, Option<String>);

/// What a poll has brought. `None`: the queue is empty.
///
/// # Errors
/// The hub says no, or it is not the hub.
pub fn polled(answer: Answer) -> Result<Option<Polled>, Trouble> {
    match answer.status {
        204 => Ok(None),
        // Whatever kind of content its sender says that it has.
        200 if answer.headers.keys().any(|name| is_of_the_hub(name.as_str().as_bytes())) => {
            let lock = answer.header("etag").and_then(lock_of).map(str::to_owned);
            let headers = answer.headers.iter().map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()));
            Ok(Some((message_of(headers, answer.body.to_vec()), lock)))
        }
        _ => Err(trouble(&answer)),
    }
}

/// Whether the hub was told. If not, the lock is lost, and the message comes again.
///
/// # Errors
/// The hub says no, or it is not the hub.
pub fn settled(answer: &Answer) -> Result<bool, Trouble> {
    match answer.status {
        200..=299 if !answer.is_page() => Ok(true),
        404 | 412 if !answer.is_page() => Ok(false),
        _ => Err(trouble(answer)),
    }
}

/// Whether the hub lets a device in, by what it says of a lock that no message has. `false`: that can't be told.
///
/// # Errors
/// The hub says no, or it is not the hub.
pub fn knocked(answer: &Answer) -> Result<bool, Trouble> {
    match answer.status {
        // What is wrong with a lock is said to whoever may settle.
        204 | 412 if !answer.is_page() => Ok(true),
        404 if !answer.is_page() && said(&answer.body).contains("MessageNotFound") => Ok(true),
        404 if said(&answer.body).contains("DeviceNotFound") => Err(trouble(answer)),
        // Nobody has written down what the hub says of a lock that it never gave out.
        400 | 404 | 405 if !answer.is_page() => Ok(false),
        _ => Err(trouble(answer)),
    }
}

/// Whether the hub has the event.
///
/// # Errors
/// The hub says no, to this event or to the device, or it is not the hub.
pub fn published(answer: &Answer) -> Result<(), Trouble> {
    match answer.status {
        200..=299 if !answer.is_page() => Ok(()),
        400 | 413 if !answer.is_page() => {
            Err(Trouble::EventRefused(format!("HTTP {}{}", answer.status, said(&answer.body))))
        }
        _ => Err(trouble(answer)),
    }
}

/// What an answer means that is none to what was asked.
fn trouble(answer: &Answer) -> Trouble {
    let status = answer.status;
    match status {
        300..=399 => Trouble::NotTheHub(format!("HTTP {status}, a redirect")),
        407 | 511 => Trouble::NotTheHub(format!("HTTP {status}, which asks for a log-in to the network")),
        // The hub's own words about a device are JSON. Of a fault its front end may make a page.
        200..=299 | 401..=404 if answer.is_page() => {
            Trouble::NotTheHub(format!("HTTP {status} with a page for browsers"))
        }
        200..=299 => Trouble::NotTheHub(format!("HTTP {status}, which is not an answer of a hub's")),
        _ => {
            let said = if answer.is_page() { String::new() } else { said(&answer.body) };
            let retry_after = answer.header("retry-after").and_then(|text| text.trim().parse().ok());
            Trouble::Http { status, said, retry_after }
        }
    }
}

/// What the hub says beside a status, to follow it in a sentence: its code, without what is new in each answer, so that
/// a lasting trouble reads the same each time.
fn said(body: &[u8]) -> String {
    let text = match serde_json::from_slice::<serde_json::Value>(body) {
        Ok(json) => json.get("Message").and_then(|message| message.as_str()).unwrap_or_default().to_owned(),
        Err(_) => String::from_utf8_lossy(body).into_owned(),
    };
    let lower = text.to_ascii_lowercase();
    if ["sharedaccess", "sig=", "bearer", "authorization"].iter().any(|secret| lower.contains(secret)) {
        return String::new();
    }
    let line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let line: String = line.chars().filter(|char| !char.is_control()).collect();
    if line.is_empty() {
        return String::new();
    }
    format!(", {}", truncated(&line, SAID_BYTES_MAX))
}

#[cfg(test)]
mod tests {
    use crate::net::http::{HeaderMap, HeaderValue};

    use super::*;

    fn answer(status: u16, headers: &[(&'static str, &'static str)], body: &'static str) -> Answer {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_static(value));
        }
        Answer { status, headers: map, body: body.into(), is_whole: true }
    }

    const PAGE: (&str, &str) = ("content-type", "text/html; charset=utf-8");

    #[test]
    fn each_no_of_the_hub_says_what_to_check() {
        let unauthorized =
            "{\"Message\":\"ErrorCode:IotHubUnauthorizedAccess;Unauthorized\",\"ExceptionMessage\":\"Tracking \
                            ID:7f3a\"}";
        for (status, body, parts) in [
            (401, unauthorized, &["HTTP 401, ErrorCode:IotHubUnauthorizedAccess;Unauthorized)", "clock"][..]),
            (403, "{\"Message\":\"ErrorCode:IotHubQuotaExceeded;Total\"}", &["HTTP 403", "quota"]),
            (404, "", &["(HTTP 404)", "device id"]),
            (429, "{}", &["(HTTP 429)", "poll_interval"]),
            (500, "oh\r\nno\u{7}", &["HTTP 500, oh no)", "tries again"]),
            (418, "", &["hub.host"]),
        ] {
            let trouble = polled(answer(status, &[], body)).unwrap_err();
            assert!(matches!(trouble, Trouble::Http { status: told, .. } if told == status));
            let text = trouble.to_string();
            assert!(parts.iter().all(|part| text.contains(part)), "{text}");
            assert!(!text.contains("Tracking"), "{text}");
        }
    }

    #[test]
    fn a_hub_that_throttles_says_for_how_long() {
        let text = polled(answer(503, &[("retry-after", "7")], "")).unwrap_err().to_string();
        assert!(text.contains("(HTTP 503, for 7 s)"), "{text}");
        let date = polled(answer(429, &[("retry-after", "Fri, 22 Dec 2017 00:14:12 GMT")], ""));
        assert!(matches!(date, Err(Trouble::Http { retry_after: None, .. })));
    }

    #[test]
    fn what_stands_between_is_never_taken_for_the_hub() {
        for foreign in [
            answer(302, &[("location", "http://login.example/")], ""),
            answer(200, &[PAGE], "<html>Welcome"),
            answer(403, &[PAGE], "<html>Blocked"),
            answer(511, &[], ""),
            answer(407, &[], ""),
        ] {
            let status = foreign.status;
            for trouble in [polled(foreign.clone()).err(), settled(&foreign).err(), published(&foreign).err()] {
                let trouble = trouble.unwrap_or_else(|| panic!("{status} was taken for the hub's"));
                assert!(matches!(&trouble, Trouble::NotTheHub(_)), "{trouble}");
                assert!(trouble.to_string().contains(&format!("HTTP {status}")), "{trouble}");
            }
        }
        assert!(matches!(polled(answer(200, &[("etag", "\"a\"")], "hello")), Err(Trouble::NotTheHub(_))));
        assert!(matches!(polled(answer(202, &[], "")), Err(Trouble::NotTheHub(_))));
    }

    #[test]
    fn a_lost_lock_is_no_trouble_and_an_event_that_is_refused_is_one_of_its_own() {
        assert_eq!(settled(&answer(204, &[], "")), Ok(true));
        assert_eq!((settled(&answer(412, &[], "")), settled(&answer(404, &[], ""))), (Ok(false), Ok(false)));
        assert_eq!(published(&answer(204, &[], "")), Ok(()));
        let refused = published(&answer(413, &[], "too big")).unwrap_err();
        assert_eq!(refused, Trouble::EventRefused("HTTP 413, too big".into()));
        assert!(matches!(published(&answer(412, &[], "")), Err(Trouble::Http { status: 412, .. })));
    }

    #[test]
    fn an_answer_that_repeats_the_request_is_not_shown() {
        let echo = "request was: Authorization: SharedAccessSignature sr=h&sig=abc&se=1";
        let text = polled(answer(400, &[], echo)).unwrap_err().to_string();
        assert!(!text.contains("sig") && !text.contains("abc"), "{text}");
    }

    #[test]
    fn a_message_comes_with_its_lock_or_without() {
        let with = |etag| answer(200, &[("iothub-messageid", "m"), ("etag", etag)], "body");
        for (etag, lock) in [("\"3f\"", Some("3f")), ("3f", Some("3f")), ("\"\"", None)] {
            let (message, found) = polled(with(etag)).unwrap().unwrap();
            assert_eq!((message.id.as_deref(), &message.body[..], found.as_deref()), (Some("m"), &b"body"[..], lock));
        }
        let (_, lock) = polled(answer(200, &[("iothub-to", "")], "")).unwrap().unwrap();
        assert_eq!(lock, None);
        assert_eq!(polled(answer(204, &[], "")), Ok(None));
    }
}
