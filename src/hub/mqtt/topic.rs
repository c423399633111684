//! Topics and property bags, both ways. Pure.
//!
//! Sources: "Communicate with your IoT hub using the MQTT protocol" (Microsoft) for the names, the vendor's SDKs and
//! their tests for the encoding on the wire.
//!
//! Invariants
//! - Any bytes give a [`Message`]; what can't be understood is kept as it came, or named in `malformed`.
//! - `+` is a plus, never a space: the bag is percent-encoded, not form-encoded.

use std::borrow::Cow;

use crate::command::excerpt::truncated;
use crate::command::Message;
use crate::hub::properties::{as_it_came, parse_expiry, percent_encoded};
use crate::ledger::row::EventKind;

/// Most properties of a bag that are looked at; the hub's size limit allows no useful message more.
const PROPERTIES_MAX: usize = 1024;

/// The topic filter of a device's C2D messages.
pub fn c2d_filter(device: &str) -> String {
    format!("devices/{device}/messages/devicebound/#")
}

/// The topic filter of calls of direct methods.
pub const CALLS: &str = "$iothub/methods/POST/#";

/// The topic filter of answers about the twin.
pub const TWIN: &str = "$iothub/twin/res/#";

/// The topic filter of changes of what is desired.
pub const DESIRED: &str = "$iothub/twin/PATCH/properties/desired/#";

/// What the hub says of a twin, by its topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AboutTwin {
    /// The answer to a request.
    Answer {
        /// The request's number.
        number: u64,
        /// In the words of HTTP.
        status: u16,
    },
    /// What is desired has changed.
    Changed,
}

/// The topic of a request for the twin: for all of it, or to report.
pub fn twin_request(number: u64, is_report: bool) -> String {
    let what = if is_report { "PATCH/properties/reported" } else { "GET" };
    format!("$iothub/twin/{what}/?$rid={number}")
}

/// What a topic says of the twin: `$iothub/twin/res/{status}/?$rid={number}`, or
/// `$iothub/twin/PATCH/properties/desired/?…`. `None`: it is of something else; `Some(None)`: it is an answer to
/// nothing that was asked here.
pub fn about_twin(topic: &[u8]) -> Option<Option<AboutTwin>> {
    let rest = topic.strip_prefix(b"$iothub/twin/")?;
    if rest.starts_with(b"PATCH/properties/desired/") {
        return Some(Some(AboutTwin::Changed));
    }
    let answer = || {
        let (status, bag) = std::str::from_utf8(rest).ok()?.strip_prefix("res/")?.split_once("/?")?;
        let id = bag.split('&').find_map(|pair| pair.strip_prefix("$rid=").or_else(|| pair.strip_prefix("%24rid=")))?;
        Some(AboutTwin::Answer { number: id.parse().ok()?, status: status.parse().ok()? })
    };
    Some(answer())
}

/// Longest request id that is answered to. The hub's are numbers.
const REQUEST_ID_BYTES_MAX: usize = 128;

/// Why a call can't be answered: its topic names no request, or no method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unanswerable;

/// The request id and the name of the method of a topic `$iothub/methods/POST/{name}/?$rid={request id}`. `None`: it is
/// no such topic.
pub fn called(topic: &[u8]) -> Option<Result<(Vec<u8>, String), Unanswerable>> {
    let rest = topic.strip_prefix(b"$iothub/methods/POST/")?;
    let parts = rest.iter().rposition(|byte| *byte == b'/').map(|at| (&rest[..at], &rest[at + 1..]));
    let request = parts.and_then(|(name, bag)| {
        let mut pairs = bag.strip_prefix(b"?")?.split(|byte| *byte == b'&');
        let id = pairs.find_map(|pair| pair.strip_prefix(b"$rid=").or_else(|| pair.strip_prefix(b"%24rid=")))?;
        let is_one = !id.is_empty() && id.len() <= REQUEST_ID_BYTES_MAX && id.iter().all(u8::is_ascii_graphic);
        (is_one && !name.is_empty()).then(|| (id.to_vec(), percent_decoded(name).into_owned()))
    });
    Some(request.ok_or(Unanswerable))
}

/// The topic of an answer. The request id is said as it came.
pub fn answer(status: u16, request_id: &[u8]) -> String {
    format!("$iothub/methods/res/{status}/?$rid={}", String::from_utf8_lossy(request_id))
}

/// Reads a C2D message from the topic that it was delivered on.
pub fn parse_c2d(device: &str, topic: &[u8], body: &[u8]) -> Message {
    let mut message = Message { body: body.to_vec(), ..Message::default() };
    let Some(bag) = bag_of(device, topic) else {
        let shown = String::from_utf8_lossy(topic);
        message.malformed =
            Some(format!("it came on the topic {:?}, which is not one of this device's", truncated(&shown, 120)));
        return message;
    };
    for (key, value) in properties(bag) {
        // A key that comes twice is not specified; the first one counts.
        match (&*key, value) {
            ("$.mid", Some(id)) if message.id.is_none() && !id.is_empty() => message.id = Some(id.into_owned()),
            ("$.cid", Some(id)) if message.correlation_id.is_none() && !id.is_empty() => {
                message.correlation_id = Some(id.into_owned());
            }
            ("$.ce", Some(encoding)) if message.content_encoding.is_none() && !encoding.is_empty() => {
                message.content_encoding = Some(encoding.into_owned());
            }
            // An empty name is none: the body may have one.
            ("command", Some(name)) if message.command.is_none() && !name.is_empty() => {
                message.command = Some(name.into_owned());
            }
            ("$.exp", Some(at)) if message.expires_at.is_none() => match parse_expiry(&at) {
                Ok(at) => message.expires_at = at,
                Err(unread) => message.unread_expiry = Some(unread),
            },
            _ => {}
        }
    }
    message
}

/// The bag of a topic `devices/{id}/messages/devicebound/{bag}`. The case of `devicebound` follows the sender's, so
/// it is ignored.
fn bag_of<'a>(device: &str, topic: &'a [u8]) -> Option<&'a [u8]> {
    let rest = topic.strip_prefix(b"devices/")?.strip_prefix(device.as_bytes())?.strip_prefix(b"/messages/")?;
    let (word, bag) = rest.split_at_checked("devicebound".len())?;
    if !word.eq_ignore_ascii_case(b"devicebound") {
        return None;
    }
    match bag {
        [] => Some(bag),
        [b'/', bag @ ..] => {
            // The documentation shows a leading `?`, which no capture has; a trailing `/` has been seen.
            let bag = bag.strip_prefix(b"?").unwrap_or(bag);
            Some(bag.strip_suffix(b"/").unwrap_or(bag))
        }
        _ => None,
    }
}

/// The pairs of a bag: `key` is null, `key=` is empty, else `key=value`.
fn properties(bag: &[u8]) -> impl Iterator<Item = (Cow<'_, str>, Option<Cow<'_, str>>)> {
    bag.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()).take(PROPERTIES_MAX).map(|pair| {
        match pair.iter().position(|byte| *byte == b'=') {
            Some(at) => (percent_decoded(&pair[..at]), Some(percent_decoded(&pair[at + 1..]))),
            None => (percent_decoded(pair), None),
        }
    })
}

/// Decodes `%XX` once. Text with an invalid sequence, or that is not UTF-8 when decoded, is kept as it came.
fn percent_decoded(text: &[u8]) -> Cow<'_, str> {
    if !text.contains(&b'%') {
        return as_it_came(text);
    }
    decode_strictly(text).and_then(|bytes| String::from_utf8(bytes).ok()).map_or_else(|| as_it_came(text), Cow::Owned)
}

fn decode_strictly(text: &[u8]) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, tail @ ..] = rest {
        rest = match first {
            b'%' => {
                let (digits, tail) = tail.split_at_checked(2)?;
                let digit = |byte: u8| char::from(byte).to_digit(16);
                decoded.push((digit(digits[0])? << 4 | digit(digits[1])?) as u8);
                tail
            }
            byte => {
                decoded.push(*byte);
                tail
            }
        };
    }
    Some(decoded)
}

/// The topic of an event.
pub fn event(device: &str, kind: EventKind, event_id: &str, message_id: Option<&str>) -> String {
    let (event_id, kind) = (percent_encoded(event_id), kind.as_str());
    let correlation = message_id.map(|id| format!("&%24.cid={}", percent_encoded(id))).unwrap_or_default();
    format!(
        "devices/{device}/messages/events/%24.mid={event_id}{correlation}&%24.ct=application%2Fjson&%24.ce=utf-8\
         &fieldbridge={kind}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(topic: &str) -> Message {
        parse_c2d("foo", topic.as_bytes(), b"")
    }

    #[test]
    fn a_call_is_read_from_its_topic_and_answered_under_its_request_id() {
        let read = |topic: &str| called(topic.as_bytes());
        let call = |id: &str, name: &str| Some(Ok((id.as_bytes().to_vec(), name.to_owned())));
        assert_eq!(read("$iothub/methods/POST/set-speed/?$rid=1"), call("1", "set-speed"));
        assert_eq!(read("$iothub/methods/POST/a%20b/?$rid=7f&more=1"), call("7f", "a b"));
        assert_eq!(read("$iothub/methods/POST/a/b/?x=1&%24rid=2"), call("2", "a/b"));
        for broken in ["set/", "set/?", "set/?$rid=", "/?$rid=1", "set", "", "set/?$rid=a b", "set?$rid=1"] {
            assert_eq!(read(&format!("$iothub/methods/POST/{broken}")), Some(Err(Unanswerable)), "{broken}");
        }
        assert_eq!(read(&format!("$iothub/methods/POST/set/?$rid={}", "1".repeat(200))), Some(Err(Unanswerable)));
        assert_eq!(read("devices/d/messages/devicebound/$iothub/methods/POST/"), None);
        assert_eq!(answer(200, b"7f"), "$iothub/methods/res/200/?$rid=7f");
    }

    #[test]
    fn an_answer_about_the_twin_is_known_by_its_number_and_a_change_by_its_topic() {
        assert_eq!(twin_request(7, false), "$iothub/twin/GET/?$rid=7");
        assert_eq!(twin_request(8, true), "$iothub/twin/PATCH/properties/reported/?$rid=8");
        let answer = |number, status| Some(Some(AboutTwin::Answer { number, status }));
        let about = |rest: &str| about_twin(format!("$iothub/twin/{rest}").as_bytes());
        assert_eq!(about("res/200/?$rid=7"), answer(7, 200));
        assert_eq!(about("res/204/?$rid=8&$version=3"), answer(8, 204));
        assert_eq!(about("res/429/?x=1&%24rid=9"), answer(9, 429));
        assert_eq!(about("PATCH/properties/desired/?$version=3"), Some(Some(AboutTwin::Changed)));
        for broken in ["res/200/", "res/ok/?$rid=1", "res/200/?$rid=x", "res/200/?$rid=", "res/200?$rid=1", "", "?"] {
            assert_eq!(about(broken), Some(None), "{broken}");
        }
        assert_eq!(about_twin(b"$iothub/twin/res/\xff/?$rid=1"), Some(None));
        assert_eq!(about_twin(b"devices/d/messages/devicebound/"), None);
    }

    #[test]
    fn the_vendors_wire_vectors_are_read() {
        let m = parse(
            "devices/foo/messages/devicebound/%24.mid=0209afa7-1ab2&%24.to=%2Fdevices%2Ffoo%2Fmessages%2Fdevicebound",
        );
        assert_eq!((m.id.as_deref(), m.malformed), (Some("0209afa7-1ab2"), None));

        let m =
            parse("devices/foo/messages/deviceBound/%24.to=%2Fdevices%2Ffoo%2Fmessages%2FdeviceBound&iothub-ack=full");
        assert_eq!((m.id, m.malformed), (None, None));

        let m = parse("devices/foo/messages/devicebound/%24.cid&%24.uid&dataVersion=&%24.mid=m");
        assert_eq!(m.id.as_deref(), Some("m"));

        let m = parse_c2d("fake+device", b"devices/fake+device/messages/devicebound/%24.mid=fake+id", b"");
        assert_eq!(m.id.as_deref(), Some("fake+id"), "a plus is a plus");
    }

    #[test]
    fn the_senders_correlation_id_and_encoding_are_read_and_nothing_that_mqtt_does_not_tell() {
        let m = parse("devices/foo/messages/devicebound/%24.cid=order%209%2Fa&%24.mid=m&%24.ce=utf-16&$.cid=other");
        assert_eq!((m.correlation_id.as_deref(), m.content_encoding.as_deref()), (Some("order 9/a"), Some("utf-16")));
        assert_eq!((m.sequence_number, m.enqueued_at, m.delivery_count), (None, None, None));
        for bag in ["", "%24.cid&%24.ce", "%24.cid=&%24.ce="] {
            let m = parse(&format!("devices/foo/messages/devicebound/{bag}"));
            assert_eq!((m.correlation_id, m.content_encoding), (None, None), "{bag}");
        }
    }

    #[test]
    fn expiry_is_read_leniently() {
        let exp = |text: &str| {
            parse(&format!("devices/foo/messages/devicebound/%24.exp={text}")).expires_at.map(|at| at.to_string())
        };
        assert_eq!(exp("2017-01-06T23%3A37%3A00.669Z").as_deref(), Some("2017-01-06T23:37:00.669Z"));
        assert_eq!(exp("3237-07-19T23%3A06%3A40.0000000Z").as_deref(), Some("3237-07-19T23:06:40.000Z"));
        assert_eq!(exp("2017-01-06T23%3A37%3A00%2B00%3A00").as_deref(), Some("2017-01-06T23:37:00.000Z"));
        assert_eq!(exp("2017-01-06T23%3A37%3A00.0000000-05%3A00").as_deref(), Some("2017-01-07T04:37:00.000Z"));
        assert_eq!(exp("2017-01-06t23%3A37%3A00%2B02%3A00").as_deref(), Some("2017-01-06T21:37:00.000Z"));
        for (text, unread) in
            [("0", false), ("", false), ("soon", true), ("%FF", true), ("2017-13-99T99%3A99%3A99Z", true)]
        {
            let message = parse(&format!("devices/foo/messages/devicebound/%24.exp={text}"));
            assert_eq!((message.expires_at, message.unread_expiry.is_some()), (None, unread), "{text}");
        }
    }

    #[test]
    fn both_spellings_of_the_dollar_and_any_order_are_read() {
        for bag in [
            "$.mid=a%20b&command=c",
            "command=c&%24.mid=a%20b",
            "?%24.mid=a%20b&command=c/",
            "%24%2Emid=a%20b&command=c",
        ] {
            let m = parse(&format!("devices/foo/messages/devicebound/{bag}"));
            assert_eq!((m.id.as_deref(), m.command.as_deref()), (Some("a b"), Some("c")), "{bag}");
        }
    }

    #[test]
    fn the_first_of_two_equal_keys_counts_and_a_value_may_hold_an_equals_sign() {
        let m = parse("devices/foo/messages/devicebound/command=a=b&command=c");
        assert_eq!(m.command.as_deref(), Some("a=b"));
    }

    #[test]
    fn broken_encoding_is_kept_as_it_came() {
        for (raw, id) in [("%zz", "%zz"), ("%", "%"), ("%4", "%4"), ("%FF%FE", "%FF%FE"), ("%C3%A4", "ä")] {
            let m = parse(&format!("devices/foo/messages/devicebound/%24.mid={raw}"));
            assert_eq!(m.id.as_deref(), Some(id));
        }
        let m = parse_c2d("foo", b"devices/foo/messages/devicebound/%24.mid=a\xff&command=c", b"");
        assert_eq!((m.id.as_deref(), m.command.as_deref()), (Some("a%FF"), Some("c")));
        let m = parse_c2d("foo", b"devices/foo/messages/devicebound/%24.mid=a\xfe", b"");
        assert_eq!(m.id.as_deref(), Some("a%FE"), "unreadable ids stay apart");
    }

    #[test]
    fn a_topic_that_is_not_ours_is_named_so() {
        for topic in [
            "",
            "devices/foo",
            "devices/bar/messages/devicebound/",
            "devices/foo/messages/devicebounds",
            "\u{0}",
            "a/b",
        ] {
            assert!(parse(topic).malformed.is_some(), "{topic:?}");
        }
        for topic in ["devices/foo/messages/devicebound", "devices/foo/messages/devicebound/"] {
            assert_eq!(parse(topic).malformed, None);
        }
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..20_000 {
            let mut topic = b"devices/foo/messages/devicebound/".to_vec();
            topic.truncate(random.usize(..=topic.len()));
            topic.extend(std::iter::repeat_with(|| *random.choice(b"%24.mid=&?/\xff+").unwrap()).take(20));
            parse_c2d("foo", &topic, b"");
        }
    }

    #[test]
    fn a_result_event_is_correlated_by_the_encoded_message_id() {
        assert_eq!(
            event("foo", EventKind::Result, "ab-1", Some("My Message/ID&")),
            "devices/foo/messages/events/%24.mid=ab-1&%24.cid=My%20Message%2FID%26&%24.ct=application%2Fjson&%24.ce=utf-8\
             &fieldbridge=command-result"
        );
        let of_itself = event("foo", EventKind::News, "ab-1", None);
        assert!(!of_itself.contains("cid") && of_itself.ends_with("&fieldbridge=event"), "{of_itself}");
    }
}
